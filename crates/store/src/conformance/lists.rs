//! Listing and counting.

use std::collections::BTreeMap;
use std::sync::Arc;

use dtmd_protocol::{GlobalStatus, Mode, Timestamp, TransType};

use super::changes::{create, load, update};
use super::sample::{at, ended, later, saga};
use crate::{ListFilter, ListPage, Oldest, Store, Write};

async fn page(store: &dyn Store, filter: &ListFilter, position: &str, limit: usize) -> ListPage {
    store.list(filter, position, limit).await.unwrap()
}

fn gids(page: &ListPage) -> Vec<&str> {
    page.globals.iter().map(|global| global.gid.as_str()).collect()
}

async fn listed(store: &dyn Store, filter: &ListFilter) -> Vec<String> {
    let page = page(store, filter, "", 1000).await;
    assert_eq!(page.next_position, "");
    gids(&page).into_iter().map(str::to_owned).collect()
}

/// Makes globals one after the other, each a second younger; every third is finished.
async fn fill(store: &dyn Store, count: i64) {
    for index in 0..count {
        let mut global = saga(&format!("g{index:03}"));
        global.created = at(1000 + index);
        if index % 3 == 0 {
            global = ended(global, at(5000 + index));
        }
        create(store, &global).await;
    }
}

pub(super) async fn a_list_is_newest_first(store: &dyn Store) {
    assert_eq!(listed(store, &ListFilter::default()).await, [""; 0]);
    fill(store, 7).await;
    let expected = ["g006", "g005", "g004", "g003", "g002", "g001", "g000"];
    assert_eq!(listed(store, &ListFilter::default()).await, expected);
}

pub(super) async fn a_list_is_paged_without_gaps_or_repeats(store: &dyn Store) {
    fill(store, 25).await;
    for limit in [1, 2, 5, 24, 25, 26] {
        let (mut seen, mut position) = (Vec::new(), String::new());
        loop {
            let page = page(store, &ListFilter::default(), &position, limit).await;
            assert!(page.globals.len() <= limit);
            seen.extend(page.globals.iter().map(|global| global.gid.to_string()));
            position = page.next_position;
            if position.is_empty() {
                break;
            }
        }
        let expected: Vec<String> = (0..25).rev().map(|index| format!("g{index:03}")).collect();
        assert_eq!(seen, expected, "limit {limit}");
    }
}

pub(super) async fn a_position_stays_valid_while_globals_come_and_go(store: &dyn Store) {
    fill(store, 12).await;
    let filter = ListFilter::default();
    let first = page(store, &filter, "", 4).await;
    assert_eq!(gids(&first), ["g011", "g010", "g009", "g008"]);
    // New ones come, the one at the position and one after it go, one after it changes.
    create(store, &saga("new")).await;
    store.purge(at(5007), 100).await.unwrap();
    let changed = first.globals.last().unwrap();
    update(store, changed, &later(changed, |global| global.updated = at(9000))).await;
    let second = page(store, &filter, &first.next_position, 4).await;
    assert_eq!(gids(&second), ["g007", "g005", "g004", "g002"]);
    let third = page(store, &filter, &second.next_position, 4).await;
    assert_eq!((gids(&third), third.next_position.as_str()), (vec!["g001"], ""));
}

pub(super) async fn an_unknown_position_is_an_empty_page(store: &dyn Store) {
    fill(store, 3).await;
    for position in ["nonsense", "-1", "\u{1F980}", "1e9", "' or 1=1"] {
        let page = page(store, &ListFilter::default(), position, 10).await;
        assert_eq!((gids(&page), page.next_position.as_str()), (Vec::new(), ""), "{position}");
    }
}

/// One global of each type in each status; the gid says which.
async fn one_of_each(store: &dyn Store) {
    let modes = [
        Mode::Saga { concurrent: false, orders: Arc::from([]) },
        Mode::Tcc,
        Mode::Xa,
        Mode::Msg { delay: std::time::Duration::ZERO },
        Mode::Workflow { name: "w".into(), data: Arc::from([]) },
    ];
    let mut second = 0;
    for mode in modes {
        for status in GlobalStatus::ALL {
            let mut global = saga(&format!("{}-{status}", mode.trans_type()));
            global.mode = mode.clone();
            global.status = *status;
            global.created = at(second);
            global.wake_at = at(second);
            global.finished = (*status == GlobalStatus::Succeed).then(|| at(100));
            global.rolled_back = (*status == GlobalStatus::Failed).then(|| at(100));
            create(store, &global).await;
            second += 1;
        }
    }
}

pub(super) async fn a_list_is_filtered_by_every_condition(store: &dyn Store) {
    one_of_each(store).await;
    for status in GlobalStatus::ALL {
        let filter = ListFilter { status: Some(*status), ..ListFilter::default() };
        let expected: Vec<String> =
            TransType::ALL.iter().rev().map(|kind| format!("{kind}-{status}")).collect();
        assert_eq!(listed(store, &filter).await, expected);
    }
    for kind in TransType::ALL {
        let filter = ListFilter { trans_type: Some(*kind), ..ListFilter::default() };
        let expected: Vec<String> =
            GlobalStatus::ALL.iter().rev().map(|status| format!("{kind}-{status}")).collect();
        assert_eq!(listed(store, &filter).await, expected);
    }
    let from = ListFilter { created_from: Some(at(23)), ..ListFilter::default() };
    assert_eq!(listed(store, &from).await, ["workflow-failed", "workflow-succeed"]);
    let to = ListFilter { created_to: Some(at(1)), ..ListFilter::default() };
    assert_eq!(listed(store, &to).await, ["saga-submitted", "saga-prepared"]);
    let wakes = ListFilter { wakes_after: Some(at(17)), ..ListFilter::default() };
    let expected = ["workflow-aborting", "workflow-submitted", "workflow-prepared"];
    assert_eq!(listed(store, &wakes).await, expected);
}

pub(super) async fn filters_hold_together(store: &dyn Store) {
    one_of_each(store).await;
    let filter = ListFilter {
        status: Some(GlobalStatus::Aborting),
        created_from: Some(at(7)),
        created_to: Some(at(17)),
        wakes_after: Some(at(7)),
        ..ListFilter::default()
    };
    assert_eq!(listed(store, &filter).await, ["msg-aborting", "xa-aborting"]);
    let both = ListFilter { trans_type: Some(TransType::Xa), ..filter.clone() };
    assert_eq!(listed(store, &both).await, ["xa-aborting"]);
    let first = page(store, &filter, "", 1).await;
    let second = page(store, &filter, &first.next_position, 1).await;
    assert_eq!((gids(&first), gids(&second)), (vec!["msg-aborting"], vec!["xa-aborting"]));
    assert_eq!(second.next_position, "");
    let none = ListFilter { created_from: Some(Timestamp(i64::MAX)), ..ListFilter::default() };
    assert_eq!(listed(store, &none).await, [""; 0]);
}

type Counts = BTreeMap<(TransType, GlobalStatus), u64>;

pub(super) async fn totals_follow_every_change(store: &dyn Store) {
    use GlobalStatus::{Submitted, Succeed};

    let totals = async || -> Counts {
        let totals = store.totals().await.unwrap();
        totals.into_iter().map(|(kind, status, count)| ((kind, status), count)).collect()
    };
    assert_eq!(totals().await, Counts::new());
    let writes: Vec<Write> =
        (0..5).map(|index| Write::Create(Arc::new(saga(&format!("g{index}"))))).collect();
    store.commit(&writes).await.unwrap();
    create(store, &ended(saga("done"), at(10))).await;
    let key = |status| (TransType::Saga, status);
    assert_eq!(totals().await, Counts::from([(key(Submitted), 5), (key(Succeed), 1)]));
    let first = saga("g0");
    update(store, &first, &ended(later(&first, |_| ()), at(20))).await;
    let second = saga("g1");
    let aborting = later(&second, |global| global.status = GlobalStatus::Aborting);
    update(store, &second, &aborting).await;
    let expected = [(key(Submitted), 3), (key(GlobalStatus::Aborting), 1), (key(Succeed), 2)];
    assert_eq!(totals().await, Counts::from(expected));
    store.purge(at(15), 10).await.unwrap();
    let expected = [(key(Submitted), 3), (key(GlobalStatus::Aborting), 1), (key(Succeed), 1)];
    assert_eq!(totals().await, Counts::from(expected));
}

pub(super) async fn the_oldest_is_the_first_accepted_that_is_unfinished(store: &dyn Store) {
    assert_eq!(store.oldest().await.unwrap(), Oldest::default());
    for (index, text) in ["a", "b", "c"].iter().enumerate() {
        let mut global = saga(text);
        let index = i64::try_from(index).unwrap();
        global.created = at(10 + index);
        global.wake_at = at(50 - index);
        create(store, &global).await;
    }
    let oldest = store.oldest().await.unwrap();
    assert_eq!(oldest, Oldest { created: Some(at(10)), due: Some(at(48)) });
    let before = load(store, "a").await.unwrap();
    let mut after = ended(before.clone(), at(60));
    after.revision = before.revision.next();
    update(store, &before, &after).await;
    assert_eq!(store.oldest().await.unwrap().created, Some(at(11)));
    let before = load(store, "c").await.unwrap();
    let mut after = ended(before.clone(), at(60));
    after.revision = before.revision.next();
    update(store, &before, &after).await;
    let oldest = store.oldest().await.unwrap();
    assert_eq!(oldest, Oldest { created: Some(at(11)), due: Some(at(49)) });
    store.reset().await.unwrap();
    assert_eq!(store.oldest().await.unwrap(), Oldest::default());
    create(store, &saga("a")).await;
    assert_eq!(store.oldest().await.unwrap().created, Some(saga("a").created));
}
