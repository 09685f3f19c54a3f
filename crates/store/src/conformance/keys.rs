//! Keys and their values: topics.

use super::changes::commit;
use super::sample::at;
use crate::{Kv, Store, Write, WriteError};

fn write(cat: &str, key: &str, expected: u64, value: Option<&str>, now: i64) -> Write {
    Write::Kv {
        cat: cat.to_owned(),
        key: key.to_owned(),
        expected,
        value: value.map(str::to_owned),
        now: at(now),
    }
}

async fn put(store: &dyn Store, cat: &str, key: &str) {
    commit(store, write(cat, key, 0, Some(key), 1)).await.unwrap();
}

async fn load(store: &dyn Store, key: &str) -> Option<Kv> {
    store.load_kv("topics", key).await.unwrap()
}

fn kv(key: &str, value: &str, version: u64, created: i64, updated: i64) -> Kv {
    Kv {
        cat: "topics".to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
        version,
        created: at(created),
        updated: at(updated),
    }
}

pub(super) async fn a_key_is_created_changed_and_deleted(store: &dyn Store) {
    assert_eq!(load(store, "k").await, None);
    commit(store, write("topics", "k", 0, Some("one"), 1)).await.unwrap();
    assert_eq!(load(store, "k").await, Some(kv("k", "one", 1, 1, 1)));
    commit(store, write("topics", "k", 1, Some("two"), 2)).await.unwrap();
    assert_eq!(load(store, "k").await, Some(kv("k", "two", 2, 1, 2)));
    commit(store, write("topics", "k", 2, Some(""), 3)).await.unwrap();
    assert_eq!(load(store, "k").await, Some(kv("k", "", 3, 1, 3)));
    commit(store, write("topics", "k", 3, None, 4)).await.unwrap();
    assert_eq!(load(store, "k").await, None);
    commit(store, write("topics", "k", 0, Some("again"), 5)).await.unwrap();
    assert_eq!(load(store, "k").await, Some(kv("k", "again", 1, 5, 5)));
}

pub(super) async fn a_key_of_another_version_is_refused(store: &dyn Store) {
    let name = "topics/k".to_owned();
    for value in [Some("x"), None] {
        let missing = commit(store, write("topics", "k", 1, value, 1)).await;
        assert_eq!(missing, Err(WriteError::NotFound(name.clone())));
    }
    commit(store, write("topics", "k", 0, Some("one"), 1)).await.unwrap();
    let taken = commit(store, write("topics", "k", 0, Some("x"), 2)).await;
    assert_eq!(taken, Err(WriteError::AlreadyExists(name.clone())));
    for value in [Some("x"), None] {
        let stale = commit(store, write("topics", "k", 2, value, 2)).await;
        assert_eq!(stale, Err(WriteError::Conflict(name.clone())));
    }
    assert_eq!(load(store, "k").await, Some(kv("k", "one", 1, 1, 1)));
}

pub(super) async fn of_concurrent_changes_of_a_key_one_wins(store: &dyn Store) {
    for version in 0..20 {
        let left = [write("topics", "k", version, Some("left"), 1)];
        let right = [write("topics", "k", version, Some("right"), 1)];
        let (left, right) = tokio::join!(store.commit(&left), store.commit(&right));
        let (left, right) = (left.unwrap().remove(0), right.unwrap().remove(0));
        assert!(left.is_ok() != right.is_ok(), "{left:?}, {right:?}");
        let stored = load(store, "k").await.unwrap();
        assert_eq!(stored.version, version + 1);
        assert_eq!(stored.value, if left.is_ok() { "left" } else { "right" });
    }
}

pub(super) async fn later_writes_of_keys_see_the_earlier_ones(store: &dyn Store) {
    let batch = [
        write("topics", "k", 0, Some("one"), 1),
        write("topics", "k", 0, Some("other"), 2),
        write("topics", "k", 1, None, 3),
        write("topics", "k", 1, Some("late"), 4),
        write("topics", "k", 0, Some("new"), 5),
    ];
    let results = store.commit(&batch).await.unwrap();
    let held: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(held, [true, false, true, false, true]);
    assert_eq!(load(store, "k").await, Some(kv("k", "new", 1, 5, 5)));
}

async fn keys(store: &dyn Store, cat: &str, position: &str, limit: usize) -> (Vec<String>, String) {
    let page = store.list_kv(cat, position, limit).await.unwrap();
    assert!(page.entries.iter().all(|kv| kv.cat == cat));
    (page.entries.into_iter().map(|kv| kv.key).collect(), page.next_position)
}

pub(super) async fn a_list_of_keys_holds_one_category_in_order(store: &dyn Store) {
    for (cat, key) in [
        ("topics", "b"),
        ("topic", "x"),
        ("topics", "a"),
        ("topics2", "y"),
        ("topics", "B"),
        ("topics", "a-1"),
        ("topics", "ä"),
        ("", "z"),
    ] {
        put(store, cat, key).await;
    }
    let expected = ["B", "a", "a-1", "b", "ä"].map(str::to_owned).to_vec();
    assert_eq!(keys(store, "topics", "", 100).await, (expected, String::new()));
    assert_eq!(keys(store, "topic", "", 100).await, (vec!["x".to_owned()], String::new()));
    assert_eq!(keys(store, "none", "", 100).await, (vec![], String::new()));
}

pub(super) async fn keys_are_paged_without_gaps_or_repeats(store: &dyn Store) {
    for index in 0..10 {
        put(store, "topics", &format!("k{index}")).await;
        put(store, "other", &format!("k{index}")).await;
    }
    for limit in [1, 3, 5, 10, 11] {
        let (mut seen, mut position) = (Vec::new(), String::new());
        loop {
            let (page, next) = keys(store, "topics", &position, limit).await;
            seen.extend(page);
            if next.is_empty() {
                break;
            }
            position = next;
        }
        let expected: Vec<String> = (0..10).map(|index| format!("k{index}")).collect();
        assert_eq!(seen, expected, "limit {limit}");
    }
}
