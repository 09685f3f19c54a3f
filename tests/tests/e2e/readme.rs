//! The commands of the README, literally: every `sh` block that is marked with `<!-- tested -->`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use dtmd_tests::{binary, tell, until};
use tokio::process::{Child, Command};

use crate::turn;

/// How often the server is started until its ports are free.
const STARTS: u32 = 20;

/// The blocks of a page that are marked as tested, in their order.
fn tested_blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    for part in page.split("<!-- tested -->").skip(1) {
        let block =
            part.trim_start().strip_prefix("```sh\n").and_then(|rest| rest.split_once("```"));
        blocks.extend(block.map(|(block, _)| block.to_owned()));
    }
    blocks
}

#[tokio::test]
async fn readme_saga() {
    let _turn = turn::alone().await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let blocks = tested_blocks(&std::fs::read_to_string(path).unwrap_or_default());
    if blocks.is_empty() {
        tell("skipped: the README has no block marked as tested");
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    // The page's `dtmd` is the one under test; curl is asked to fail on an HTTP error.
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(binary(), bin.join("dtmd")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut started = None;
    for _ in 0..STARTS {
        started = start_dev(folder.path()).await;
        if started.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let Some(mut server) = started else {
        tell("skipped: a port of the README stays taken");
        return;
    };
    for block in blocks {
        // The line that starts the server is what this test has just done.
        let script: Vec<&str> = block.lines().filter(|line| line.trim() != "dtmd dev").collect();
        let done = Command::new("sh")
            .args(["-e", "-c", &script.join("\n")])
            .current_dir(folder.path())
            .env("PATH", &path)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let (out, err) =
            (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{block}\n{out}\n{err}");
        assert!(!out.contains("\"message\""), "{block}\nanswered an error: {out}");
    }
    server.kill().await.unwrap();
}

/// Starts `dtmd dev` on the ports that the page names; nothing if one of them is taken, as any
/// connection of this machine may take one for a while.
async fn start_dev(folder: &Path) -> Option<Child> {
    let log = folder.join("dev.log");
    let output = std::fs::File::create(&log).unwrap();
    let server = Command::new(binary())
        .arg("dev")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let is_up = until("the server of the README", async || {
        let said = std::fs::read_to_string(&log).unwrap();
        if said.contains("is taken") {
            return Some(false);
        }
        assert!(!said.contains("dtmd: "), "it does not start: {said}");
        // A bank whose port is taken is somewhere else.
        said.contains("Ctrl-C").then(|| said.contains(":8081") && said.contains(":8082"))
    })
    .await;
    is_up.then_some(server)
}

#[test]
fn marked_blocks_are_found() {
    let page =
        "<!-- tested -->\n```sh\na\nb\n```\n```sh\nnot this\n```\n<!-- tested -->\n\n```sh\nc\n```";
    assert_eq!(tested_blocks(page), ["a\nb\n", "c\n"]);
}
