//! Sizes, letters, pages; what people are told.

use std::sync::Arc;

use dtmd_protocol::Op;
use dtmd_store::conformance::sample::{at, later, row, saga};
use dtmd_store::{Claim, Health, ListFilter, Store, Write};
use dtmd_store_sql::{Driver, SqlOptions, SqlStore};

use crate::common::{Kind, change, commit, create, load, on_both, open, options, run};

/// Spec 07 D13: DTM's columns hold 1024 characters.
#[test]
fn long_and_odd_texts_are_kept() {
    on_both(async |kind| {
        let store = kind.fresh().await;
        let long = "库存不足 🦀 '\"\\ \0 ".repeat(10_000);
        let mut first = saga("long");
        first.custom_data = long.as_str().into();
        first.query_prepared = format!("http://a/{}", "x".repeat(3_000)).into();
        first.branches[0].url = format!("http://b/{}", "y'".repeat(3_000)).into();
        first.branches.push(row("03", Op::Named("a workflow's step ".repeat(20).into())));
        first.branches.push(row("03", Op::Named("a workflow's step ".repeat(21).into())));
        commit(&store, create(&first)).await.unwrap();
        assert_eq!(load(&store, "long").await, Some(first.clone()));
        let second = later(&first, |global| {
            global.rollback_reason = long.as_str().into();
            global.result = long.as_str().into();
            global.branches[3].status = dtmd_protocol::BranchStatus::Succeed;
        });
        commit(&store, change(&first, &second)).await.unwrap();
        assert_eq!(load(&store, "long").await, Some(second));
    });
}

#[test]
fn a_batch_may_be_larger_than_an_exchange() {
    on_both(async |kind| {
        let store = kind.fresh().await;
        let payload: Arc<[u8]> = (0..400_000u32).map(|index| (index % 256) as u8).collect();
        let globals = (0..12).map(|index| {
            let mut global = saga(&format!("g{index}"));
            global.branches[1].data = payload.clone();
            global
        });
        let globals: Vec<_> = globals.collect();
        let writes: Vec<Write> = globals.iter().map(create).collect();
        assert!(store.commit(&writes).await.unwrap().iter().all(Result::is_ok));
        assert_eq!(load(&store, "g11").await.as_ref(), globals.last());
    });
}

#[test]
fn five_thousand_rows_are_paged_claimed_counted_and_purged() {
    on_both(async |kind| {
        let store = kind.fresh().await;
        let globals: Vec<_> = (0..5_000)
            .map(|index| {
                let mut global = saga(&format!("g{index:05}"));
                global.branches.truncate(1);
                global.wake_at = at(i64::from(index));
                global
            })
            .collect();
        for part in globals.chunks(2_500) {
            let writes: Vec<Write> = part.iter().map(create).collect();
            assert!(store.commit(&writes).await.unwrap().iter().all(Result::is_ok));
        }
        let (mut seen, mut position) = (Vec::new(), String::new());
        loop {
            let page = store.list(&ListFilter::default(), &position, 700).await.unwrap();
            seen.extend(page.globals.iter().map(|global| global.gid.to_string()));
            position = page.next_position;
            if position.is_empty() {
                break;
            }
        }
        seen.reverse();
        assert!(seen.iter().eq(globals.iter().map(|global| global.gid.as_str())));
        let claim = Claim { owner: "o".into(), due: at(999), until: at(9_000), limit: 1_500 };
        assert_eq!(store.claim_due(&claim).await.unwrap().len(), 1_000);
        let totals = store.totals().await.unwrap();
        assert_eq!(totals.iter().map(|(_, _, count)| count).sum::<u64>(), 5_000);
        let oldest = store.oldest().await.unwrap();
        assert_eq!((oldest.created, oldest.due), (Some(at(100)), Some(at(1_000))));
    });
}

#[test]
fn the_doctor_finds_a_sound_database() {
    on_both(async |kind| {
        let store = kind.fresh().await;
        let checks = store.examine().await;
        let level =
            |name: &str| checks.iter().find(|check| check.name == name).map(|check| check.health);
        for name in ["reachable", "version", "schema", "writable"] {
            assert_eq!(level(name), Some(Health::Good), "{checks:?}");
        }
        assert!(level("clock").is_some());
        // The private servers do not force commits to disk.
        assert_eq!(level("durability"), Some(Health::Warning), "{checks:?}");
    });
}

#[test]
fn no_password_is_ever_shown() {
    run(async {
        for driver in ["mysql", "postgres"] {
            let url = format!("{driver}://user:s3cr%65t%2Fx@127.0.0.1:1/db");
            let mut options = SqlOptions::from_url(&url).unwrap();
            assert_eq!((options.password.as_str(), options.user.as_str()), ("s3cret/x", "user"));
            options.timeout = std::time::Duration::from_secs(2);
            let error = SqlStore::open(options.clone()).await.unwrap_err();
            let shown = format!("{options:?} {error} {error:?} {}", options.location());
            assert!(!shown.contains("s3cr"), "{shown}");
            assert!(shown.contains("127.0.0.1:1"), "{shown}");
        }
        for bad in ["nonsense", "http://u:s3cret@h/d", "mysql://u:s3cret@h:port/d"] {
            let error = SqlOptions::from_url(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"));
        }
        let mut injected = SqlOptions::new(Driver::Mysql);
        injected.trans_global = "x` (id int); drop table y; --".to_owned();
        assert!(SqlStore::open(injected).await.is_err());
    });
}

#[test]
fn a_zone_moves_the_wall_clock_and_nothing_else() {
    run(async {
        let url = Kind::Mariadb.url().await;
        let mut zoned = options(&url);
        zoned.time_zone_seconds = Some(8 * 3600);
        let store = SqlStore::open(zoned).await.unwrap();
        let mut first = saga("z");
        first.wake_at = at(1_700_000_000);
        commit(&store, create(&first)).await.unwrap();
        assert_eq!(load(&store, "z").await, Some(first.clone()));
        let mut plain = crate::common::Plain::connect(&url).await;
        let row = plain
            .run("select count(*) from trans_global where next_cron_time='2023-11-15 06:13:20'")
            .await;
        assert_eq!(row, ["1"]);
        let claim = |due| Claim { owner: "o".into(), due: at(due), until: at(due + 60), limit: 1 };
        assert!(store.claim_due(&claim(1_699_999_999)).await.unwrap().is_empty());
        assert_eq!(store.claim_due(&claim(1_700_000_000)).await.unwrap().len(), 1);
        drop(open(&url).await);
    });
}
