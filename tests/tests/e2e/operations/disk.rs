//! A disk that is full, and one that has lost a bit.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dtmd_demo::client::DtmClient;
use dtmd_demo::process::{ServerOptions, ServerProcess};
use dtmd_tests::{
    Says, Server, Service, binary, cli, flip_bit, largest_segment, saga, tell, until, with,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::turn;

#[tokio::test]
async fn a_flipped_bit_stops_the_start_and_says_what_to_do() {
    let _turn = turn::shared().await;
    let mut server = Server::start().await;
    for n in 0..50 {
        server.assert_serves(&format!("g{n}")).await;
    }
    server.process.kill_9().await.unwrap();
    let data = server.data();
    let (segment, used) = largest_segment(&data);
    flip_bit(&segment, used / 2);
    let why = format!("{:#}", server.process.restart().await.unwrap_err());
    assert!(why.contains("ended with"), "it must not run on a damaged store: {why}");
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(why.contains(name), "the file is not named: {why}");
    assert!(why.contains("dtmd store"), "what to do is not said: {why}");
    let checked = cli(&["store", "check", data.to_str().unwrap()]).await;
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    assert!(checked.stdout.contains("DAMAGED"), "{}", checked.stdout);

    flip_bit(&segment, used / 2);
    server.process.restart().await.unwrap();
    assert_eq!(server.status("g49").await, "succeed");
}

/// A small file system of its own; unmounted when dropped.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts one, if this process may.
    fn mount(megabytes: u32) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path())
            .output()
            .map_err(|error| format!("no mount program: {error}"))?;
        if mounted.status.success() {
            return Ok(Self { folder });
        }
        Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned())
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all space that is left, and returns the file that holds it.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        while file.write_all(&[1; 16 * 1024]).is_ok() {}
        while file.write_all(&[1; 256]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is just being killed may still hold it.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_new_work_and_recovers_without_a_restart() {
    let _turn = turn::shared().await;
    let disk = match SmallDisk::mount(256) {
        Ok(disk) => disk,
        Err(why) => {
            tell(&format!("skipped: no small file system: {why}"));
            return;
        }
    };
    let logs = TempDir::new().unwrap();
    let mut options = ServerOptions::new(binary(), disk.path().join("data"));
    options.log = logs.path().join("server.log");
    options.env = vec![("GRPC_PORT".into(), "0".into())];
    let server = ServerProcess::start(options).await.unwrap();
    let client = DtmClient::new(server.url());
    let service = Service::start().await;
    service.script("/late", [Says::error(), Says::error(), Says::success()]);
    let running =
        with(saga("running", &[service.step("late")]), json!({ "retry_interval_ms": 1500 }));
    assert_eq!(client.post("submit", &running).await.unwrap().status, 200);

    let ballast = disk.fill();
    let big = "x".repeat(200 * 1024);
    let mut accepted = Vec::new();
    let mut refused = None;
    // What was allocated in advance is used up first.
    for n in 0..3000 {
        let gid = format!("fill-{n}");
        let body = json!({ "gid": gid, "trans_type": "tcc", "custom_data": big });
        let answer = client.post("prepare", &body).await.unwrap();
        match answer.status {
            200 => accepted.push(gid),
            _ => {
                refused = Some(answer);
                break;
            }
        }
    }
    let refused = refused.expect("the disk was never full");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(!refused.json()["message"].as_str().unwrap_or_default().is_empty());
    for gid in accepted.iter().rev().take(20) {
        assert!(client.query(gid).await.unwrap().is_some(), "{gid} was acknowledged");
    }
    service.wait_calls("/late", 2).await;

    std::fs::remove_file(&ballast).unwrap();
    until("a new transaction after there is space", async || {
        let body = json!({ "gid": "after", "trans_type": "xa" });
        (client.post("prepare", &body).await.ok()?.status == 200).then_some(())
    })
    .await;
    let ended = client.wait_final("running", Duration::from_secs(40)).await.unwrap();
    assert_eq!(ended.status, "succeed", "what was running goes on");
    let ready = client.http().get(&format!("{}/readyz", server.url())).await.unwrap();
    assert_eq!(ready.status, 200, "{}", ready.body);
    let missing: Vec<&String> = {
        let mut missing = Vec::new();
        for gid in &accepted {
            let query =
                client.http().get(&format!("{}/query?gid={gid}", client.base())).await.unwrap();
            if query.json()["transaction"] == Value::Null {
                missing.push(gid);
            }
        }
        missing
    };
    assert!(missing.is_empty(), "{missing:?} were acknowledged");
}
