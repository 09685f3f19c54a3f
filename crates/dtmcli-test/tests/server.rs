//! The server of a test: alone, with a clock that stands still, and gone when it is dropped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use dtmcli_test::TestServer;
use dtmd_demo::client::{DtmClient, Saga, SagaStep, TransOptions};

const MINUTE: Duration = Duration::from_secs(60);

fn unreachable() -> Saga {
    // Port 1 of this machine: nobody is there, so the action is retried.
    let step = SagaStep {
        action: "http://127.0.0.1:1/x".to_owned(),
        compensate: String::new(),
        payload: serde_json::json!(1),
    };
    let options = TransOptions { timeout_to_fail_ms: Some(30_000), ..TransOptions::default() };
    Saga { steps: vec![step], options, ..Saga::default() }
}

#[tokio::test]
async fn time_stands_still_until_it_is_moved() {
    let server = TestServer::start().await;
    let client = DtmClient::new(server.url());
    client.submit_saga("g", &unreachable()).await.unwrap();
    assert_eq!(client.query("g").await.unwrap().unwrap().status, "submitted");
    // The first pass begins a moment after the submit; what it is busy with is not picked.
    let end = loop {
        server.clock().forward(MINUTE).await;
        let found = client.query("g").await.unwrap().unwrap();
        if found.is_final() {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(end.status, "failed");
    assert!(end.rollback_reason.starts_with("Timeout"), "{end:?}");
}

#[tokio::test]
async fn servers_do_not_see_each_other() {
    let (one, other) = (TestServer::start().await, TestServer::start_live().await);
    assert_ne!(one.url(), other.url());
    assert!(one.grpc_url().starts_with("grpc://127.0.0.1:"));
    DtmClient::new(one.url()).submit_saga("g", &unreachable()).await.unwrap();
    assert_eq!(DtmClient::new(other.url()).query("g").await.unwrap(), None);
    // Its time passes by itself.
    assert_eq!(other.clock().forward(MINUTE).await, 0);
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let server = TestServer::start().await;
    let client = DtmClient::new(server.url());
    client.new_gid().await.unwrap();
    drop(server);
    assert!(client.new_gid().await.is_err());
}
