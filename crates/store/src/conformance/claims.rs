//! Leases, and taking what is due.

use std::collections::HashSet;
use std::sync::Arc;

use dtmd_protocol::{Global, Revision, Timestamp};

use super::changes::{change, commit, create, load, update};
use super::sample::{at, ended, gid, later, saga};
use crate::{Claim, Lease, Store, Write, WriteError};

fn lease(global: &Global, owner: &str, new_epoch: u64, wake_at: Timestamp) -> Lease {
    Lease {
        gid: global.gid.clone(),
        revision: global.revision,
        epoch: global.epoch,
        owner: owner.into(),
        new_epoch,
        wake_at,
    }
}

fn leased(global: &Global, lease: &Lease) -> Global {
    let mut global = global.clone();
    global.owner = lease.owner.clone();
    global.epoch = lease.new_epoch;
    global.wake_at = lease.wake_at;
    global
}

fn claim(owner: &str, due: i64, limit: usize) -> Claim {
    Claim { owner: owner.into(), due: at(due), until: at(due + 60), limit }
}

async fn create_due(store: &dyn Store, text: &str, due: i64) {
    let mut global = saga(text);
    global.wake_at = at(due);
    create(store, &global).await;
}

async fn claimed(store: &dyn Store, claim: &Claim) -> Vec<String> {
    let globals = store.claim_due(claim).await.unwrap();
    globals.iter().map(|global| global.gid.to_string()).collect()
}

pub(super) async fn a_lease_is_taken_and_renewed_and_handed_back(store: &dyn Store) {
    let first = saga("a");
    create(store, &first).await;
    let take = lease(&first, "one", 1, at(500));
    commit(store, Write::Lease(take.clone())).await.unwrap();
    let taken = leased(&first, &take);
    assert_eq!(load(store, "a").await, Some(taken.clone()));
    let renew = lease(&taken, "one", 1, at(600));
    commit(store, Write::Lease(renew.clone())).await.unwrap();
    let renewed = leased(&taken, &renew);
    assert_eq!(load(store, "a").await, Some(renewed.clone()));
    assert_eq!(claimed(store, &claim("two", 599, 10)).await, [""; 0]);
    let back = lease(&renewed, "", 1, at(300));
    commit(store, Write::Lease(back.clone())).await.unwrap();
    let free = leased(&renewed, &back);
    assert_eq!(load(store, "a").await, Some(free.clone()));
    // A lease does not count as a revision, and a change after it holds.
    let next = later(&free, |global| global.updated = at(301));
    update(store, &free, &next).await;
    assert_eq!(load(store, "a").await, Some(next));
    assert_eq!(claimed(store, &claim("two", 300, 10)).await, ["a"]);
}

pub(super) async fn a_lease_of_another_epoch_is_refused(store: &dyn Store) {
    let mut first = saga("a");
    first.epoch = 3;
    create(store, &first).await;
    for epoch in [2, 4] {
        let mut other = lease(&first, "one", epoch + 1, at(500));
        other.epoch = epoch;
        let refused = commit(store, Write::Lease(other)).await;
        assert_eq!(refused, Err(WriteError::Conflict("a".to_owned())), "epoch {epoch}");
    }
    assert_eq!(load(store, "a").await, Some(first));
}

pub(super) async fn a_lease_of_another_revision_is_refused(store: &dyn Store) {
    let first = saga("a");
    create(store, &first).await;
    let mut other = lease(&first, "one", 1, at(500));
    other.revision = Revision(2);
    let refused = commit(store, Write::Lease(other)).await;
    assert_eq!(refused, Err(WriteError::Conflict("a".to_owned())));
    assert_eq!(load(store, "a").await, Some(first));
}

pub(super) async fn a_lease_of_nothing_is_refused(store: &dyn Store) {
    let refused = commit(store, Write::Lease(lease(&saga("a"), "one", 1, at(500)))).await;
    assert_eq!(refused, Err(WriteError::NotFound("a".to_owned())));
}

/// Spec 07 D02: two passes over one gid must not interleave.
pub(super) async fn a_writer_that_lost_its_lease_is_refused(store: &dyn Store) {
    create(store, &saga("a")).await;
    let mine = store.claim_due(&claim("one", 100, 1)).await.unwrap().remove(0);
    let theirs = store.claim_due(&claim("two", 160, 1)).await.unwrap().remove(0);
    assert_eq!((mine.epoch, theirs.epoch), (1, 2));
    let late = later(&mine, |global| global.updated = at(170));
    let refused = commit(store, change(&mine, &late)).await;
    assert_eq!(refused, Err(WriteError::Conflict("a".to_owned())));
    let renewal = commit(store, Write::Lease(lease(&mine, "one", 1, at(900)))).await;
    assert_eq!(renewal, Err(WriteError::Conflict("a".to_owned())));
    let next = later(&theirs, |global| global.updated = at(171));
    update(store, &theirs, &next).await;
    assert_eq!(load(store, "a").await, Some(next));
}

pub(super) async fn due_globals_are_claimed_oldest_first(store: &dyn Store) {
    for (text, due) in [("c", 30), ("a", 10), ("d", 40), ("b", 20)] {
        create_due(store, text, due).await;
    }
    assert_eq!(claimed(store, &claim("one", 30, 10)).await, ["a", "b", "c"]);
    let stored = load(store, "a").await.unwrap();
    let seen = (&*stored.owner, stored.epoch, stored.wake_at, stored.revision);
    assert_eq!(seen, ("one", 1, at(90), Revision(1)));
}

pub(super) async fn a_claim_takes_no_more_than_its_limit(store: &dyn Store) {
    for index in 0..10 {
        create_due(store, &format!("g{index}"), index).await;
    }
    assert_eq!(claimed(store, &claim("one", 30, 3)).await, ["g0", "g1", "g2"]);
    assert_eq!(claimed(store, &claim("one", 30, 0)).await, [""; 0]);
    assert_eq!(claimed(store, &claim("one", 30, 4)).await, ["g3", "g4", "g5", "g6"]);
    assert_eq!(claimed(store, &claim("one", 30, 100)).await, ["g7", "g8", "g9"]);
    assert_eq!(claimed(store, &claim("one", 30, 100)).await, [""; 0]);
}

pub(super) async fn what_is_not_due_is_not_claimed(store: &dyn Store) {
    create_due(store, "a", 31).await;
    assert_eq!(claimed(store, &claim("one", 30, 10)).await, [""; 0]);
    assert_eq!(load(store, "a").await.unwrap().epoch, 0);
    assert_eq!(claimed(store, &claim("one", 31, 10)).await, ["a"]);
}

pub(super) async fn finished_globals_are_never_claimed(store: &dyn Store) {
    create_due(store, "a", 10).await;
    create_due(store, "b", 10).await;
    let first = load(store, "a").await.unwrap();
    update(store, &first, &ended(later(&first, |_| ()), at(20))).await;
    create(store, &ended(saga("c"), at(20))).await;
    assert_eq!(claimed(store, &claim("one", 1_000_000, 10)).await, ["b"]);
}

pub(super) async fn a_claimed_global_is_due_again_after_its_lease(store: &dyn Store) {
    create_due(store, "a", 10).await;
    assert_eq!(claimed(store, &claim("one", 10, 10)).await, ["a"]);
    assert_eq!(claimed(store, &claim("two", 69, 10)).await, [""; 0]);
    assert_eq!(claimed(store, &claim("two", 70, 10)).await, ["a"]);
    assert_eq!(load(store, "a").await.unwrap().epoch, 2);
}

pub(super) async fn an_update_moves_the_wake_up(store: &dyn Store) {
    create_due(store, "a", 10).await;
    let first = load(store, "a").await.unwrap();
    let second = later(&first, |global| global.wake_at = at(1000));
    update(store, &first, &second).await;
    assert_eq!(claimed(store, &claim("one", 999, 10)).await, [""; 0]);
    let third = later(&second, |global| global.wake_at = at(5));
    update(store, &second, &third).await;
    assert_eq!(claimed(store, &claim("one", 5, 10)).await, ["a"]);
}

pub(super) async fn concurrent_claimers_get_disjoint_sets(store: &dyn Store) {
    let writes: Vec<Write> =
        (0..100).map(|index| Write::Create(Arc::new(saga(&format!("g{index}"))))).collect();
    store.commit(&writes).await.unwrap();
    let mut taken = HashSet::new();
    loop {
        let (one, two) = (claim("one", 100, 9), claim("two", 100, 7));
        let (one, two) = tokio::join!(store.claim_due(&one), store.claim_due(&two));
        let (one, two) = (one.unwrap(), two.unwrap());
        if one.is_empty() && two.is_empty() {
            break;
        }
        for (owner, globals) in [("one", one), ("two", two)] {
            for global in globals {
                assert!(taken.insert(global.gid.clone()), "{} was claimed twice", global.gid);
                assert_eq!((&*global.owner, global.epoch), (owner, 1));
                let stored = store.load(&gid(global.gid.as_str())).await.unwrap();
                assert_eq!(stored, Some(global));
            }
        }
    }
    assert_eq!(taken.len(), 100);
}
