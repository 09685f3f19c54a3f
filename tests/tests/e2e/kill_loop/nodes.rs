//! Three servers, each on a Galera node of its own, that change the same transactions all the
//! time: nodes undo each other's statements, and nothing that was acknowledged may be missing.

use std::sync::Arc;
use std::time::Instant;

use dtmd_demo::client::TransOptions;
use dtmd_local_servers::{DatabaseOptions, Galera};
use dtmd_tests::{Server, tell};
use serde_json::{Value, json};

use super::book::Dice;
use super::fleet::SharedStore;
use super::{PATIENCE, seed};

/// Transactions that everybody registers branches of.
const SHARED: u64 = 6;
const CLIENTS: u64 = 24;
/// Registrations of each client, and transactions of its own.
const ROUNDS: u64 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by `cargo xtask failover`"]
async fn galera_nodes_keep_what_was_acknowledged() {
    let _turn = crate::turn::alone().await;
    let cluster = Galera::start(DatabaseOptions { fsync: true }).await.unwrap();
    let store = SharedStore::Galera(cluster);
    let mut servers = Vec::new();
    for node in 0..3 {
        servers.push(store.server(node).await);
    }
    let servers = Arc::new(servers);
    // Nobody is to give up while the clients are at it.
    let options = TransOptions { timeout_to_fail_ms: Some(3_600_000), ..TransOptions::default() };
    for number in 0..SHARED {
        servers[0].client.prepare("tcc", &shared(number), &options).await.unwrap();
    }

    let seed = seed();
    tell(&format!("three servers on three Galera nodes: {CLIENTS} clients, DTMD_SEED={seed}"));
    let clients = (0..CLIENTS).map(|client| {
        let servers = Arc::clone(&servers);
        tokio::spawn(async move { work(&servers, client, Dice::new(seed ^ client << 48)).await })
    });
    let mut repeated = 0;
    for client in clients.collect::<Vec<_>>() {
        repeated += client.await.unwrap();
    }

    for server in servers.iter() {
        let mut found = 0;
        for number in 0..SHARED {
            let query = server.query(&shared(number)).await;
            found += query["branches"].as_array().unwrap().len() as u64;
        }
        // A confirm and a cancel each.
        assert_eq!(found, 2 * CLIENTS * ROUNDS, "branches that were acknowledged are missing");
        for client in 0..CLIENTS {
            for round in 0..ROUNDS {
                let gid = own(client, round);
                assert_eq!(server.status(&gid).await, "succeed", "{gid} was acknowledged");
            }
        }
    }
    tell(&format!(
        "three servers on three Galera nodes: {} registrations and as many sagas, {repeated} \
         requests repeated, nothing is missing on any node",
        CLIENTS * ROUNDS
    ));
}

fn shared(number: u64) -> String {
    format!("shared-{number}")
}

fn own(client: u64, round: u64) -> String {
    format!("own-{client}-{round}")
}

/// Registers a branch of a shared transaction and submits a saga, again and again, each at any
/// server; returns how often a request had to be repeated.
async fn work(servers: &[Server], client: u64, mut dice: Dice) -> u64 {
    let mut repeated = 0;
    for round in 0..ROUNDS {
        let registration = json!({
            "gid": shared(dice.below(SHARED)), "trans_type": "tcc",
            "branch_id": format!("{client:02}{round:02}"), "data": "{}",
            "confirm": "http://localhost:1/confirm", "cancel": "http://localhost:1/cancel",
        });
        repeated += insist(servers, &mut dice, "registerBranch", &registration).await;
        let saga = json!({
            "gid": own(client, round), "trans_type": "saga", "wait_result": true,
            "steps": [{ "action": "", "compensate": "" }], "payloads": [""],
        });
        repeated += insist(servers, &mut dice, "submit", &saga).await;
    }
    repeated
}

/// Sends a request until it is acknowledged.
async fn insist(servers: &[Server], dice: &mut Dice, operation: &str, body: &Value) -> u64 {
    let begun = Instant::now();
    for repeated in 0.. {
        let server = &servers[dice.below(servers.len() as u64) as usize];
        let answer = server.client.post(operation, body).await;
        if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
            return repeated;
        }
        // A saga that an earlier repetition submitted has ended.
        if repeated > 0 && answer.as_ref().is_ok_and(|it| it.body.contains("'succeed'")) {
            return repeated;
        }
        assert!(begun.elapsed() < PATIENCE, "{operation} {body} is not acknowledged: {answer:?}");
    }
    unreachable!("it ends by returning")
}
