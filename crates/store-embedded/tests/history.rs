//! Bounds of the history, leases over a restart, and what is counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod story;

use std::sync::Arc;

use dtmd_store::conformance::sample::{at, ended, gid, later, saga};
use dtmd_store::{Claim, ListFilter, Store, Write, WriteError};
use dtmd_store_embedded::sim::SimDisk;
use dtmd_store_embedded::{EmbeddedStore, Options};
use story::{now, open};

fn create(store: &EmbeddedStore, global: dtmd_protocol::Global) {
    let write = Write::Create(Arc::new(global));
    assert_eq!(now(store.commit(&[write])).unwrap(), [Ok(())]);
}

#[test]
fn the_oldest_finished_globals_go_when_there_are_too_many() {
    let disk = SimDisk::new();
    let options =
        Options { segment_bytes: 16 * 1024, history_max_count: Some(10), background: false };
    let store = EmbeddedStore::open_on(Arc::new(disk.clone()), options).unwrap();
    create(&store, saga("unfinished"));
    for index in 0..500 {
        create(&store, ended(saga(&format!("g{index:03}")), at(index)));
        store.maintain().unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.live, stats.finished, stats.history_dropped), (1, 10, 490));
    assert!(stats.segments <= 6, "old segments go: {stats:?}");
    drop(store);
    let store = open(&disk).unwrap();
    let page = now(store.list(&ListFilter::default(), "", 100)).unwrap();
    let gids: Vec<&str> = page.globals.iter().map(|global| global.gid.as_str()).collect();
    assert_eq!((gids.len(), gids[0], gids[9], gids[10]), (11, "g499", "g490", "unfinished"));
}

#[test]
fn leases_end_with_the_process_and_everything_unfinished_is_due() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, saga("a"));
    create(&store, saga("b"));
    create(&store, ended(saga("c"), at(1)));
    let claim = Claim { owner: "one".into(), due: at(100), until: at(900), limit: 1 };
    let mut claimed = now(store.claim_due(&claim)).unwrap();
    let before = claimed.remove(0);
    let after = Arc::new(later(&before, |global| global.updated = at(101)));
    let write = Write::Update { before, after: after.clone() };
    assert_eq!(now(store.commit(&[write])).unwrap(), [Ok(())]);
    drop(store);
    let store = open(&disk).unwrap();
    let claim = Claim { owner: "two".into(), due: at(0), until: at(900), limit: 10 };
    let claimed = now(store.claim_due(&claim)).unwrap();
    assert_eq!(claimed.len(), 2);
    // Who worked on it in the process that is gone is refused.
    let late = Arc::new(later(&after, |global| global.updated = at(102)));
    let write = Write::Update { before: after.clone(), after: late };
    let refused = now(store.commit(&[write])).unwrap();
    assert_eq!(refused, [Err(WriteError::Conflict(after.gid.to_string()))]);
    assert_eq!(now(store.load(&gid(after.gid.as_str()))).unwrap().unwrap().updated, at(101));
}

#[test]
fn a_batch_longer_than_a_segment_is_stored() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, saga("small"));
    let mut large = saga("large");
    large.branches[0].data = vec![7; 100_000].into();
    create(&store, large.clone());
    create(&store, saga("after"));
    store.maintain().unwrap();
    for _ in 0..2 {
        assert_eq!(*now(store.load(&gid("large"))).unwrap().unwrap(), large);
    }
    drop(store);
    let store = open(&disk).unwrap();
    let mut found = dtmd_protocol::Global::clone(&now(store.load(&gid("large"))).unwrap().unwrap());
    found.owner = large.owner.clone();
    assert_eq!(found, large);
    assert!(now(store.load(&gid("after"))).unwrap().is_some());
}

#[test]
fn one_flush_carries_a_batch_and_leases_need_none() {
    let store = open(&SimDisk::new()).unwrap();
    let batch: Vec<Write> =
        (0..50).map(|index| Write::Create(Arc::new(saga(&format!("g{index}"))))).collect();
    now(store.commit(&batch)).unwrap();
    let stats = store.stats();
    assert_eq!((stats.flushes, stats.records, stats.largest_batch_records), (1, 50, 50));
    let claim = Claim { owner: "one".into(), due: at(100), until: at(900), limit: 50 };
    assert_eq!(now(store.claim_due(&claim)).unwrap().len(), 50);
    now(store.commit(&batch)).unwrap();
    assert_eq!(store.stats().flushes, 1, "neither leases nor refused writes need a flush");
}
