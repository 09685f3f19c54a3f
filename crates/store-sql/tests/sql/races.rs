//! Two servers on one database, and clocks that differ.

use std::collections::HashSet;
use std::sync::Arc;

use dtmd_protocol::{Global, Timestamp};
use dtmd_store::conformance::sample::{at, later, saga};
use dtmd_store::{Claim, Store, Write};
use dtmd_store_sql::SqlStore;

use crate::common::{change, commit, create, load, on_both, open, options};

#[test]
fn of_two_servers_one_wins_each_write() {
    on_both(async |kind| {
        let url = kind.url().await;
        let (one, two) = (open(&url).await, open(&url).await);
        let all = |owner: &str| -> Vec<Write> {
            let global = |index| {
                let mut global = saga(&format!("g{index}"));
                global.owner = owner.into();
                create(&global)
            };
            (0..40).map(global).collect()
        };
        let (left, right) = (all("one"), all("two"));
        let (lefts, rights) = tokio::join!(one.commit(&left), two.commit(&right));
        let winners: Vec<bool> = lefts.unwrap().iter().map(Result::is_ok).collect();
        let others: Vec<bool> = rights.unwrap().iter().map(Result::is_ok).collect();
        assert!(winners.iter().zip(&others).all(|(left, right)| left != right));
        for round in 0..5 {
            let mut stored = Vec::new();
            for index in 0..40 {
                stored.push(load(&one, &format!("g{index}")).await.unwrap());
            }
            let updates = |add: i64, order: &mut dyn Iterator<Item = &Global>| -> Vec<Write> {
                order
                    .map(|before| {
                        change(before, &later(before, |global| global.updated = at(add + round)))
                    })
                    .collect()
            };
            // In opposite orders: locks are taken in one and the same.
            let left = updates(1_000, &mut stored.iter());
            let right = updates(2_000, &mut stored.iter().rev());
            let (lefts, rights) = tokio::join!(one.commit(&left), two.commit(&right));
            let (lefts, mut rights) = (lefts.unwrap(), rights.unwrap());
            rights.reverse();
            for (index, (left, right)) in lefts.iter().zip(&rights).enumerate() {
                assert!(left.is_ok() != right.is_ok(), "{index}: {left:?} {right:?}");
                let updated = load(&two, &format!("g{index}")).await.unwrap().updated;
                assert_eq!(updated, at(if left.is_ok() { 1_000 } else { 2_000 } + round));
            }
        }
    });
}

#[test]
fn two_servers_claim_each_global_once() {
    on_both(async |kind| {
        let url = kind.url().await;
        let stores = [Arc::new(open(&url).await), Arc::new(open(&url).await)];
        let writes: Vec<Write> =
            (0..150).map(|index| create(&saga(&format!("g{index}")))).collect();
        stores[0].commit(&writes).await.unwrap();
        let claimer = |index: usize, store: Arc<SqlStore>| async move {
            let mut taken = Vec::new();
            loop {
                let owner = index.to_string().into();
                let claim = Claim { owner, due: at(100), until: at(10_000), limit: 11 };
                let claimed = store.claim_due(&claim).await.unwrap();
                if claimed.is_empty() {
                    return taken;
                }
                taken.extend(claimed.iter().map(|global| global.gid.to_string()));
            }
        };
        let tasks = [0, 1].map(|index| tokio::spawn(claimer(index, stores[index].clone())));
        let mut seen = HashSet::new();
        for task in tasks {
            for gid in task.await.unwrap() {
                assert!(seen.insert(gid.clone()), "{gid} was claimed twice");
            }
        }
        assert_eq!(seen.len(), 150);
    });
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_micros()).unwrap())
}

/// The second server's clock is half a minute ahead, or behind. Each calls the claim with its own
/// time, and must not take what the other holds, nor wait longer than the lease.
#[test]
fn half_a_minute_between_clocks_is_harmless() {
    on_both(async |kind| {
        let url = kind.url().await;
        let one = open(&url).await;
        for ahead in [30_000_000i64, -30_000_000] {
            let mut options = options(&url);
            options.clock_ahead_micros = ahead;
            let two = SqlStore::open(options).await.unwrap();
            let theirs = |ours: Timestamp| Timestamp(ours.0 + ahead);
            let start = now();
            let mut held = saga("held");
            held.wake_at = Timestamp(start.0 + 20_000_000);
            let mut due = saga("due");
            due.wake_at = Timestamp(start.0 - 2_000_000);
            one.commit(&[create(&held), create(&due)]).await.unwrap();
            let claim = |time: i64| {
                let due = theirs(Timestamp(time));
                Claim { owner: "two".into(), due, until: Timestamp(due.0 + 60_000_000), limit: 10 }
            };
            let taken = two.claim_due(&claim(start.0)).await.unwrap();
            assert_eq!(taken.iter().map(|global| global.gid.as_str()).collect::<Vec<_>>(), ["due"]);
            // Seen by the first, in its own time, give or take what the clocks were measured by.
            let seen = load(&one, "due").await.unwrap().wake_at;
            assert!((seen.0 - (start.0 + 60_000_000)).abs() < 2_000_000, "{seen:?} {start:?}");
            let taken = two.claim_due(&claim(start.0 + 22_000_000)).await.unwrap();
            assert_eq!(
                taken.iter().map(|global| global.gid.as_str()).collect::<Vec<_>>(),
                ["held"]
            );
            one.reset().await.unwrap();
        }
    });
}

#[test]
fn a_store_is_used_from_several_runtimes_and_outlives_them() {
    let store = Arc::new(crate::common::BOTH.map(|kind| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(kind.fresh())
    }));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let store = store.clone();
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for store in store.iter() {
                        let gid = format!("g{thread}");
                        commit(store, create(&saga(&gid))).await.unwrap();
                        assert!(load(store, &gid).await.is_some());
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
