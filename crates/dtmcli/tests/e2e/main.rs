//! The SDK against a real dtmd, with services on axum and tonic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod database;
mod grpc;
mod message;
mod outbox;
mod saga;
mod secrets;
mod service;
mod tcc;
mod topics;
mod workflow;
mod xa;

use std::time::{Duration, Instant};

use dtmcli::{Client, GlobalStatus, Transaction};
use dtmcli_test::TestServer;

/// The longest anything may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server whose clock the test moves, a client of it over HTTP, and a service.
async fn stage() -> (TestServer, Client, service::Service) {
    let server = TestServer::start().await;
    let client = Client::new(server.url()).unwrap();
    let service = service::Service::start(client.clone()).await;
    (server, client, service)
}

/// Waits until the transaction has the status.
async fn until(client: &Client, gid: &str, status: GlobalStatus) -> Transaction {
    let begun = Instant::now();
    loop {
        let found = client.query(gid).await.unwrap();
        match found {
            Some(found) if found.status == status => return found,
            last => assert!(begun.elapsed() < PATIENCE, "{gid} is not {status}: {last:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
