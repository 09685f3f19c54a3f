//! The real process on a machine whose clock is set while it runs, by way of libfaketime
//! (reliability.md T15).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dtmd_tests::{PATIENCE, Says, Server, Service, tell, until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::turn;

/// Transactions that a jump of the clock must not time out.
const PREPARED: usize = 20;
/// How long after a jump they are looked at.
const SETTLED: Duration = Duration::from_secs(3);

/// The library that stands between a program and the machine's clock.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let mut paths = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    paths.find(|path| path.is_file())
}

/// Sets the server's machine's clock so far from the true one.
fn set(clock: &Path, offset: &str) {
    // Replaced as a whole: the library may read it at any moment.
    let next = clock.with_extension("next");
    std::fs::write(&next, offset).unwrap();
    std::fs::rename(&next, clock).unwrap();
}

fn tcc(gid: &str, timeout: u32) -> Value {
    json!({ "gid": gid, "trans_type": "tcc", "timeout_to_fail": timeout })
}

/// A saga whose service is away at first: a retry must come in time.
async fn retried(server: &Server, service: &Service, gid: &str) {
    let path = format!("/{gid}");
    service.script(&path, [Says::error(), Says::success()]);
    let body = json!({
        "gid": gid, "trans_type": "saga", "retry_interval_ms": 500,
        "steps": [{ "action": service.at(&path), "compensate": "" }], "payloads": ["{}"],
    });
    server.post_ok("submit", &body).await;
    server.wait_status(gid, "succeed").await;
}

#[tokio::test]
async fn a_clock_that_jumps_times_nothing_out_and_holds_nothing_up() {
    let Some(library) = library() else {
        tell("skipped: no clock to set: install faketime");
        return;
    };
    let _turn = turn::shared().await;
    let folder = TempDir::new().unwrap();
    let clock = folder.path().join("clock");
    set(&clock, "+0");
    let env = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let server = Server::start_with(&[], &env).await;
    let service = Service::start().await;
    for nth in 0..PREPARED {
        let gid = format!("prepared-{nth}");
        server.post_ok("prepare", &tcc(&gid, 60)).await;
        let branch = json!({
            "gid": gid, "trans_type": "tcc", "branch_id": "01", "data": "{}",
            "confirm": service.at("/confirm"), "cancel": service.at("/cancel"),
        });
        server.post_ok("registerBranch", &branch).await;
    }
    for (nth, offset) in ["+3600", "-3600", "+90000", "+0"].into_iter().enumerate() {
        server.post_ok("prepare", &tcc(&format!("short-{nth}"), 3)).await;
        let begun = Instant::now();
        set(&clock, offset);
        retried(&server, &service, &format!("retried-{nth}")).await;
        assert!(begun.elapsed() < PATIENCE / 2, "{offset}: the retry took {:?}", begun.elapsed());
        tokio::time::sleep(SETTLED.saturating_sub(begun.elapsed())).await;
        for nth in 0..PREPARED {
            assert_eq!(server.status(&format!("prepared-{nth}")).await, "prepared", "{offset}");
        }
        // Time goes on all the same.
        server.wait_status(&format!("short-{nth}"), "failed").await;
    }
    until("the end of the jumps in the log", async || {
        let log = server.log();
        (log.contains("clock has jumped") && log.contains("has caught up")).then_some(())
    })
    .await;
    for nth in 0..PREPARED {
        let gid = format!("prepared-{nth}");
        server.post_ok("submit", &json!({ "gid": gid, "trans_type": "tcc" })).await;
        server.wait_status(&gid, "succeed").await;
    }
    service.wait_calls("/confirm", PREPARED).await;
    assert!(service.calls("/cancel").is_empty());
}
