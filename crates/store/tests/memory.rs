//! The memory store passes the suite that every store must pass, whichever way changes come.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dtmd_store::conformance::sample;
use dtmd_store::{MemoryStore, Store as _, Write, WriteError};

dtmd_store::conformance_suite!(|| async { MemoryStore::new() });

#[tokio::test]
async fn a_change_made_at_once_is_one_made_in_a_batch() {
    let store = MemoryStore::new();
    let write = Write::Create(std::sync::Arc::new(sample::saga("at-once")));
    assert_eq!(store.commit_at_once(&write), Some(Ok(())));
    let Write::Create(global) = &write else { unreachable!("it is one") };
    assert_eq!(store.load(&global.gid).await.unwrap().as_ref(), Some(global));
    assert!(matches!(store.commit_at_once(&write), Some(Err(WriteError::AlreadyExists(_)))));
    let again = store.commit(std::slice::from_ref(&write)).await.unwrap();
    assert!(matches!(again[..], [Err(WriteError::AlreadyExists(_))]));
    assert_eq!(MemoryStore::in_batches().commit_at_once(&write), None);
}
