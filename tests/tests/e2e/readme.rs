//! The commands of the README, literally: every `sh` block that is marked with `<!-- tested -->`.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use dtmd_tests::{binary, until};
use tokio::process::Command;

use crate::turn;

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
        let _ = writeln!(std::io::stderr(), "skipped: the README has no block marked as tested");
        return;
    }
    // `dtmd dev` takes the ports that the page names.
    for port in [36789, 8081, 8082] {
        if tokio::net::TcpListener::bind(("127.0.0.1", port)).await.is_err() {
            let _ = writeln!(std::io::stderr(), "skipped: port {port} of the README is taken");
            return;
        }
    }
    let folder = tempfile::TempDir::new().unwrap();
    // The page's `dtmd` is the one under test; curl is asked to fail on an HTTP error.
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(binary(), bin.join("dtmd")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let log = folder.path().join("dev.log");
    let output = std::fs::File::create(&log).unwrap();
    let mut server = Command::new(binary())
        .arg("dev")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("the server of the README", async || {
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(!said.contains("dtmd: "), "it does not start: {said}");
        said.contains("Ctrl-C").then_some(())
    })
    .await;
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

#[test]
fn marked_blocks_are_found() {
    let page =
        "<!-- tested -->\n```sh\na\nb\n```\n```sh\nnot this\n```\n<!-- tested -->\n\n```sh\nc\n```";
    assert_eq!(tested_blocks(page), ["a\nb\n", "c\n"]);
}
