//! What is written is what is read.

use std::sync::Arc;

use dtmd_protocol::{Op, Revision};

use super::changes::{change, create, load, update};
use super::sample::{all, at, ended, full, gid, later, row, saga};
use crate::{Store, Write};

pub(super) async fn every_sample_is_read_back_as_written(store: &dyn Store) {
    let samples = all("s");
    let writes: Vec<Write> =
        samples.iter().map(|global| Write::Create(Arc::new(global.clone()))).collect();
    assert!(store.commit(&writes).await.unwrap().iter().all(Result::is_ok));
    for sample in samples {
        assert_eq!(load(store, sample.gid.as_str()).await.as_ref(), Some(&sample));
    }
}

pub(super) async fn every_change_between_samples_is_read_back(store: &dyn Store) {
    let samples = all("s");
    for (index, pair) in samples.windows(2).enumerate() {
        let gid = gid(&format!("changed-{index}"));
        let (mut before, mut after) = (pair[0].clone(), pair[1].clone());
        // Nothing leads out of a final status.
        if before.status.is_final() {
            before.status = dtmd_protocol::GlobalStatus::Prepared;
        }
        (before.gid, after.gid) = (gid.clone(), gid.clone());
        before.revision = Revision(1);
        after.revision = Revision(2);
        // Rows are added and changed, never taken away.
        before.branches.truncate(2);
        create(store, &before).await;
        update(store, &before, &after).await;
        assert_eq!(load(store, gid.as_str()).await.as_ref(), Some(&after));
    }
}

pub(super) async fn a_thousand_branches_keep_their_order(store: &dyn Store) {
    let mut first = saga("many");
    first.branches = (0..1000).map(|index| row(&format!("{index:02}"), Op::Action)).collect();
    create(store, &first).await;
    let second = later(&first, |global| {
        let added = (0..500).map(|index| row(&format!("{index:02}"), Op::Compensate));
        global.branches.extend(added);
        for index in [0, 1, 99, 100, 999] {
            global.branches[index].data = Arc::from(index.to_string().as_bytes());
        }
    });
    update(store, &first, &second).await;
    assert_eq!(load(store, "many").await, Some(second.clone()));
    let last = ended(later(&second, |_| ()), at(200));
    update(store, &second, &last).await;
    assert_eq!(load(store, "many").await, Some(last));
}

pub(super) async fn payloads_may_be_large_and_binary(store: &dyn Store) {
    let mut global = full("large");
    let bytes: Arc<[u8]> = (0..256 * 1024u32).map(|index| (index % 251) as u8).collect();
    for row in &mut global.branches {
        row.data = bytes.clone();
    }
    create(store, &global).await;
    assert_eq!(load(store, "large").await, Some(global));
}

pub(super) async fn gids_may_be_prefixes_of_one_another(store: &dyn Store) {
    let gids = ["order", "order-1", "order10", "a", "a0", "a00", "a:0", "a/0", "A"];
    for gid in gids {
        let mut global = saga(gid);
        global.custom_data = gid.into();
        create(store, &global).await;
    }
    for gid in gids {
        assert_eq!(&*load(store, gid).await.unwrap().custom_data, gid);
    }
    for missing in ["orde", "order-", "order1", "a000", "a:"] {
        assert_eq!(load(store, missing).await, None, "{missing}");
    }
}

/// Spec 07 D04: rows became invisible when another gid shared the prefix.
pub(super) async fn rows_of_prefix_gids_do_not_mix(store: &dyn Store) {
    let rows = |text: &str, count: usize| {
        let mut global = saga(text);
        global.branches =
            (0..count).map(|index| row(&format!("{text}-{index}"), Op::Action)).collect();
        global
    };
    let globals = [rows("order-1", 3), rows("order", 12), rows("order10", 101), rows("order1", 1)];
    for global in &globals {
        create(store, global).await;
    }
    let batch: Vec<Write> = globals
        .iter()
        .map(|global| {
            let id = format!("{}-new", global.gid);
            change(global, &later(global, |global| global.branches.push(row(&id, Op::Action))))
        })
        .collect();
    assert!(store.commit(&batch).await.unwrap().iter().all(Result::is_ok));
    for global in &globals {
        let stored = load(store, global.gid.as_str()).await.unwrap();
        assert_eq!(stored.branches.len(), global.branches.len() + 1);
        let own = |row: &dtmd_protocol::Branch| {
            let (prefix, _) = row.branch_id.as_str().rsplit_once('-').unwrap_or_default();
            prefix == global.gid.as_str()
        };
        assert!(stored.branches.iter().all(own), "{}", global.gid);
    }
}

pub(super) async fn gids_may_be_any_text(store: &dyn Store) {
    let longest = "x".repeat(128);
    let gids = [
        "订单-1",
        "é",
        "e\u{301}",
        "🦀",
        "'; drop table x",
        "a b",
        " a",
        "a%_\\",
        "{tag}",
        "../../etc",
        "%2e",
        longest.as_str(),
        "\"",
        "null",
        "0",
    ];
    for gid in gids {
        create(store, &saga(gid)).await;
    }
    for gid in gids {
        assert_eq!(load(store, gid).await, Some(saga(gid)), "{gid}");
    }
}
