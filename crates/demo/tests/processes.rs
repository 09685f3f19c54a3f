//! Banks and servers as real processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use dtmd_demo::bank::{Admission, Fault, FaultKind};
use dtmd_demo::client::{HttpClient, branch_url};
use dtmd_demo::process::{BankProcess, BankSetup, ServerOptions, ServerProcess};
use serde_json::json;
use tokio::sync::mpsc;

fn bank_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_dtmd-demo-bank"))
}

#[tokio::test]
async fn a_bank_process_reports_its_calls() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, mut reports) = mpsc::channel(16);
    let setup = BankSetup::default().accounts(&["alice"], 100);
    let data = dir.path().join("a.db");
    let bank = BankProcess::start(bank_binary(), "a", data, &setup, sender).await.unwrap();
    bank.inject(&Fault::new(FaultKind::Fail)).await.unwrap();
    let http = HttpClient::default();
    let url = branch_url(&bank.at("/out"), "dtm", "saga", "g", "01", "action");
    let body = json!({ "account": "alice", "amount": 30 });
    assert_eq!(http.post(&url, &body).await.unwrap().status, 409);
    assert_eq!(http.post(&url, &body).await.unwrap().status, 200);
    let failed = reports.recv().await.unwrap();
    assert_eq!((failed.bank.as_str(), failed.outcome.as_str()), ("a", "failure"));
    let done = reports.recv().await.unwrap();
    assert_eq!((done.gid.as_str(), done.admission), ("g", Some(Admission::Run)));
    assert_eq!(bank.balance("/balance", "alice").await.unwrap(), 70);
    assert_eq!(bank.totals().await.unwrap()["total"], 70);
    assert_eq!(bank.stats().await.unwrap().calls, 2);
}

#[tokio::test]
async fn a_bank_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, _reports) = mpsc::channel(16);
    let setup = BankSetup::default().xa_url("redis://localhost");
    let data = dir.path().join("a.db");
    let error = BankProcess::start(bank_binary(), "a", data, &setup, sender).await.unwrap_err();
    assert!(format!("{error:#}").contains("ended before it was ready"), "{error:#}");
    assert!(format!("{error:#}").contains("the XA database must be"), "{error:#}");
}

/// A stand-in for a server: a shell script that turns `serve --data D --http-port P` into a bank,
/// which answers `/healthz` too.
fn fake_server(dir: &Path) -> PathBuf {
    let script = dir.join("server.sh");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = serve ] && [ \"$2\" = --data ] && [ \"$4\" = --http-port ] || exit 9\n\
         exec '{}' bank --data \"$3.db\" --listen 127.0.0.1:$5 --account alice=1\n",
        bank_binary().display()
    );
    std::fs::write(&script, text).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[tokio::test]
async fn a_server_is_killed_and_comes_back_on_its_port_and_data() {
    let dir = tempfile::tempdir().unwrap();
    let options = ServerOptions::new(fake_server(dir.path()), dir.path().join("store"));
    let mut server = ServerProcess::start(options).await.unwrap();
    let (url, id) = (server.url().to_owned(), server.id().unwrap());
    let http = HttpClient::new(Duration::from_secs(2));
    let open = json!({ "account": "bob", "balance": 5 });
    assert_eq!(http.post(&format!("{url}/open"), &open).await.unwrap().status, 200);
    server.kill_9().await.unwrap();
    assert!(http.get(&format!("{url}/healthz")).await.is_err());
    server.restart().await.unwrap();
    assert_eq!(server.url(), url);
    assert_ne!(server.id().unwrap(), id);
    let bob = http.get(&format!("{url}/balance?account=bob")).await.unwrap();
    assert_eq!(bob.json()["balance"], 5);
    let log = server.log_tail();
    assert!(log.contains("--- killed") && log.contains(&url), "{log}");
}

#[tokio::test]
async fn a_server_that_ends_at_once_shows_its_output() {
    let dir = tempfile::tempdir().unwrap();
    let script = fake_server(dir.path());
    std::fs::write(&script, "#!/bin/sh\necho no such setting: colour >&2\nexit 3\n").unwrap();
    let options = ServerOptions::new(script, dir.path().join("store"));
    let error = format!("{:#}", ServerProcess::start(options).await.unwrap_err());
    assert!(error.contains("exit status: 3"), "{error}");
    assert!(error.contains("no such setting: colour"), "{error}");
}
