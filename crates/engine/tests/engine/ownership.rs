//! Several servers on one store: one works on a gid at a time, and another goes on after it.

use std::sync::Arc;
use std::time::Duration;

use dtmd_engine::EngineOptions;
use dtmd_protocol::{GlobalStatus, Policy};
use dtmd_store::MemoryStore;

use crate::stage::{Services, Stage, eventually, gid, options, saga};

fn short_lease() -> EngineOptions {
    let policy = Policy { lease: Duration::from_millis(100), ..options().policy };
    EngineOptions { policy, ..options() }
}

#[tokio::test]
async fn d02_a_long_call_keeps_its_lease() {
    let store = Arc::new(MemoryStore::new());
    let services = Arc::new(Services::default());
    let one = Stage::on(store.clone(), services.clone(), short_lease());
    let _two = Stage::on(store, services.clone(), short_lease());
    let gate = services.hold("http://rm/1");
    one.engine.submit(saga("a", 2)).await.unwrap();
    // Several leases and the claimers' grace.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(services.calls(), ["01 action"], "nobody else has called it");
    gate.add_permits(1);
    one.until("a", GlobalStatus::Succeed).await;
    assert_eq!(services.calls(), ["01 action", "02 action"]);
}

#[tokio::test]
async fn another_server_goes_on_after_a_death() {
    let store = Arc::new(MemoryStore::new());
    let services = Arc::new(Services::default());
    let gate = services.hold("http://rm/2");
    let death = {
        // A runtime of its own, so that it can die with everything in it.
        let (store, services) = (store.clone(), services.clone());
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let one = Stage::on(store, services.clone(), short_lease());
                one.engine.submit(saga("a", 2)).await.unwrap();
                eventually(async || (services.calls().len() == 2).then_some(())).await;
            });
        })
    };
    tokio::task::spawn_blocking(move || death.join().unwrap()).await.unwrap();
    drop(gate);
    let two = Stage::on(store, services.clone(), short_lease());
    two.until("a", GlobalStatus::Succeed).await;
    assert_eq!(services.calls(), ["01 action", "02 action", "02 action"]);
    assert!(two.load("a").await.epoch >= 2);
}

#[tokio::test]
async fn a_request_to_the_wrong_server_is_done_and_the_owner_notices() {
    let store = Arc::new(MemoryStore::new());
    let services = Arc::new(Services::default());
    let one = Stage::on(store.clone(), services.clone(), options());
    let two = Stage::on(store, services.clone(), options());
    let gate = services.hold("http://rm/1");
    one.engine.submit(saga("a", 2)).await.unwrap();
    eventually(async || (!services.calls().is_empty()).then_some(())).await;
    two.engine.force_stop(&gid("a")).await.unwrap();
    gate.add_permits(1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(one.load("a").await.status, GlobalStatus::Failed, "final stays final");
    assert_eq!(services.calls(), ["01 action"]);
}

#[tokio::test]
async fn two_servers_that_get_one_submit_call_each_branch_once() {
    let store = Arc::new(MemoryStore::new());
    let services = Arc::new(Services::default());
    let one = Stage::on(store.clone(), services.clone(), options());
    let two = Stage::on(store, services.clone(), options());
    for n in 0..50 {
        let name = format!("g{n}");
        let (first, second) =
            tokio::join!(one.engine.submit(saga(&name, 2)), two.engine.submit(saga(&name, 2)));
        // The later one may find it ended already.
        assert!(first.is_ok() || second.is_ok());
        one.until(&name, GlobalStatus::Succeed).await;
    }
    assert_eq!(services.calls().len(), 100);
}

#[tokio::test]
async fn shutdown_waits_for_calls_and_hands_the_rest_over() {
    let store = Arc::new(MemoryStore::new());
    let services = Arc::new(Services::default());
    let one = Stage::on(store.clone(), services.clone(), options());
    let gate = services.hold("http://rm/1");
    one.engine.submit(saga("a", 2)).await.unwrap();
    eventually(async || (!services.calls().is_empty()).then_some(())).await;
    let engine = one.engine.clone();
    let shutdown = tokio::spawn(async move { engine.shutdown(Duration::from_secs(10)).await });
    eventually(async || one.engine.ready().await.err()).await;
    assert!(one.engine.submit(saga("b", 1)).await.is_err(), "nothing new is accepted");
    gate.add_permits(1);
    assert_eq!(shutdown.await.unwrap(), 0);
    assert_eq!(services.calls(), ["01 action"], "nothing new is called");
    let global = one.load("a").await;
    assert_eq!((global.status, &*global.owner), (GlobalStatus::Submitted, ""));

    let two = Stage::on(store, services.clone(), options());
    two.until("a", GlobalStatus::Succeed).await;
    assert_eq!(services.calls(), ["01 action", "02 action"]);
}
