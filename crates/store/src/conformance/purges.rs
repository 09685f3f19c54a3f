//! Deleting what has ended, and everything.

use dtmd_protocol::{GlobalStatus, Timestamp};

use super::changes::{commit, create, load};
use super::sample::{at, ended, saga};
use crate::{Claim, ListFilter, Purge, Store, Write};

pub(super) async fn a_purge_deletes_what_ended_before(store: &dyn Store) {
    for (text, second) in [("a", 10), ("b", 20), ("c", 30)] {
        create(store, &ended(saga(text), at(second))).await;
    }
    let mut failed = saga("d");
    failed.status = GlobalStatus::Failed;
    failed.rolled_back = Some(at(15));
    create(store, &failed).await;
    let purge = store.purge(at(20), 100).await.unwrap();
    assert_eq!(purge, Purge { deleted: 2, more: false });
    for (text, there) in [("a", false), ("b", true), ("c", true), ("d", false)] {
        assert_eq!(load(store, text).await.is_some(), there, "{text}");
    }
    let listed = store.list(&ListFilter::default(), "", 10).await.unwrap();
    assert_eq!(listed.globals.len(), 2);
    let again = store.purge(at(20), 100).await.unwrap();
    assert_eq!(again, Purge { deleted: 0, more: false });
}

/// However old: unfinished work is never dropped.
pub(super) async fn a_purge_never_deletes_unfinished_globals(store: &dyn Store) {
    for status in GlobalStatus::ALL.iter().filter(|status| !status.is_final()) {
        let mut global = saga(status.as_str());
        global.status = *status;
        global.created = Timestamp::ZERO;
        global.updated = Timestamp::ZERO;
        create(store, &global).await;
    }
    let purge = store.purge(Timestamp(i64::MAX), 100).await.unwrap();
    assert_eq!(purge, Purge::default());
    assert_eq!(store.list(&ListFilter::default(), "", 10).await.unwrap().globals.len(), 3);
}

pub(super) async fn a_purge_takes_no_more_than_its_limit_and_says_so(store: &dyn Store) {
    for index in 0..10 {
        create(store, &ended(saga(&format!("g{index}")), at(index))).await;
    }
    create(store, &saga("live")).await;
    for expected in [(4, true), (4, true), (2, false), (0, false)] {
        let purge = store.purge(at(100), 4).await.unwrap();
        assert_eq!((purge.deleted, purge.more), expected);
    }
    assert!(load(store, "live").await.is_some());
}

pub(super) async fn a_purged_gid_can_be_used_again(store: &dyn Store) {
    create(store, &ended(saga("a"), at(10))).await;
    store.purge(at(20), 10).await.unwrap();
    create(store, &saga("a")).await;
    assert_eq!(load(store, "a").await, Some(saga("a")));
    let due = Claim { owner: "o".into(), due: at(1000), until: at(2000), limit: 10 };
    assert_eq!(store.claim_due(&due).await.unwrap().len(), 1);
}

pub(super) async fn a_reset_store_is_empty_and_works(store: &dyn Store) {
    create(store, &saga("a")).await;
    create(store, &ended(saga("b"), at(10))).await;
    let key = |expected| Write::Kv {
        cat: "topics".to_owned(),
        key: "k".to_owned(),
        expected,
        value: Some("v".to_owned()),
        now: at(1),
    };
    commit(store, key(0)).await.unwrap();
    store.reset().await.unwrap();
    assert_eq!((load(store, "a").await, load(store, "b").await), (None, None));
    assert_eq!(store.load_kv("topics", "k").await.unwrap(), None);
    assert_eq!(store.totals().await.unwrap(), []);
    assert!(store.list(&ListFilter::default(), "", 10).await.unwrap().globals.is_empty());
    assert!(store.list_kv("topics", "", 10).await.unwrap().entries.is_empty());
    let due = Claim { owner: "o".into(), due: at(1000), until: at(2000), limit: 10 };
    assert!(store.claim_due(&due).await.unwrap().is_empty());
    create(store, &saga("a")).await;
    commit(store, key(0)).await.unwrap();
    assert_eq!(load(store, "a").await, Some(saga("a")));
}

pub(super) async fn a_store_answers_and_says_what_it_is(store: &dyn Store) {
    store.ping().await.unwrap();
    let info = store.info();
    assert!(!info.kind.is_empty() && !info.location.is_empty());
}
