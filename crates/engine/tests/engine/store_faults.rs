//! A store that fails: nothing it did not keep is acknowledged or acted on, and work resumes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use dtmd_engine::{EngineError, Event};
use dtmd_protocol::{Gid, Global, GlobalStatus, Timestamp};
use dtmd_store::{
    Claim, Kv, KvPage, ListFilter, ListPage, MemoryStore, Purge, Store, StoreError, StoreInfo,
    Totals, Write, WriteError,
};
use tokio::sync::broadcast::Receiver;

use crate::stage::{PATIENCE, Services, Stage, eventually, gid, options, saga, waiting};

/// A memory store that can be taken away; every n-th commit may also lie about its failure.
#[derive(Default)]
struct Faulty {
    inner: MemoryStore,
    away: AtomicBool,
    /// Fail the n-th commit from now, after having done it.
    fail_done: AtomicU64,
}

impl Faulty {
    fn check(&self, doing: &'static str) -> Result<(), StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable { doing, source: "it is away".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Faulty {
    async fn commit(&self, batch: &[Write]) -> Result<Vec<Result<(), WriteError>>, StoreError> {
        self.check("committing")?;
        let done = self.inner.commit(batch).await;
        if self.fail_done.load(Ordering::SeqCst) > 0
            && self.fail_done.fetch_sub(1, Ordering::SeqCst) == 1
        {
            let source = "the answer was lost".into();
            return Err(StoreError::Unavailable { doing: "committing", source });
        }
        done
    }
    fn writers(&self) -> usize {
        2
    }
    async fn load(&self, gid: &Gid) -> Result<Option<Arc<Global>>, StoreError> {
        self.check("loading")?;
        self.inner.load(gid).await
    }
    async fn claim_due(&self, claim: &Claim) -> Result<Vec<Arc<Global>>, StoreError> {
        self.check("claiming")?;
        self.inner.claim_due(claim).await
    }
    async fn list(&self, f: &ListFilter, at: &str, limit: usize) -> Result<ListPage, StoreError> {
        self.inner.list(f, at, limit).await
    }
    async fn load_kv(&self, cat: &str, key: &str) -> Result<Option<Kv>, StoreError> {
        self.inner.load_kv(cat, key).await
    }
    async fn list_kv(&self, cat: &str, at: &str, limit: usize) -> Result<KvPage, StoreError> {
        self.inner.list_kv(cat, at, limit).await
    }
    async fn totals(&self) -> Result<Totals, StoreError> {
        self.inner.totals().await
    }
    async fn purge(&self, before: Timestamp, limit: usize) -> Result<Purge, StoreError> {
        self.inner.purge(before, limit).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.check("pinging")
    }
    async fn reset(&self) -> Result<(), StoreError> {
        self.inner.reset().await
    }
    fn info(&self) -> StoreInfo {
        self.inner.info()
    }
}

#[tokio::test]
async fn an_outage_is_told_at_once_and_work_resumes() {
    let store = Arc::new(Faulty::default());
    let services = Arc::new(Services::default());
    let stage = Stage::on(store.clone(), services.clone(), options());
    let gate = services.hold("http://rm/1");
    stage.engine.submit(saga("a", 2)).await.unwrap();
    eventually(async || (!services.calls().is_empty()).then_some(())).await;

    store.away.store(true, Ordering::SeqCst);
    gate.add_permits(1);
    let refused = stage.engine.submit(saga("b", 1)).await;
    assert!(matches!(refused, Err(EngineError::Unavailable(_))), "{refused:?}");
    eventually(async || stage.engine.ready().await.err()).await;
    assert_eq!(services.calls(), ["01 action"], "02 does not start before 01 is durable");

    store.away.store(false, Ordering::SeqCst);
    stage.until("a", GlobalStatus::Succeed).await;
    assert_eq!(services.calls(), ["01 action", "02 action"], "the answer was not forgotten");
    stage.engine.ready().await.unwrap();
    stage.engine.submit(waiting(saga("b", 1))).await.unwrap();
}

#[tokio::test]
async fn an_outage_is_told_without_anything_to_write() {
    let store = Arc::new(Faulty::default());
    let stage = Stage::on(store.clone(), Arc::default(), options());
    stage.engine.ready().await.unwrap();
    for _ in 0..2 {
        store.away.store(true, Ordering::SeqCst);
        eventually(async || stage.engine.ready().await.err()).await;
        store.away.store(false, Ordering::SeqCst);
        eventually(async || stage.engine.ready().await.ok()).await;
    }
    stage.engine.submit(waiting(saga("a", 1))).await.unwrap();
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_resolved_by_reading() {
    // For every commit of a saga: it is done, but reported as failed.
    for nth in 1..=4 {
        let store = Arc::new(Faulty::default());
        let stage = Stage::on(store.clone(), Arc::default(), options());
        let mut events = stage.engine.events();
        store.fail_done.store(nth, Ordering::SeqCst);
        let told = stage.engine.submit(saga("a", 3)).await;
        if nth == 1 {
            // The caller does not know: it repeats, with the same gid.
            assert!(matches!(told, Err(EngineError::Unavailable(_))), "{told:?}");
            eventually(async || stage.engine.submit(saga("a", 3)).await.ok()).await;
        } else {
            told.unwrap();
        }
        stage.until("a", GlobalStatus::Succeed).await;
        let mut calls = stage.services.calls();
        calls.dedup();
        assert_eq!(calls, ["01 action", "02 action", "03 action"], "at commit {nth}");
        assert!(stage.engine.query(&gid("a")).await.unwrap().is_some());
        stage.engine.shutdown(PATIENCE).await;
        // What the caller does not know, nobody is told.
        let expected = ["submitted", "succeed"];
        assert_eq!(told_statuses(&mut events), expected[usize::from(nth == 1)..], "commit {nth}");
    }
}

#[tokio::test]
async fn an_end_is_told_once_and_not_before_it_is_durable() {
    let store = Arc::new(Faulty::default());
    let services = Arc::new(Services::default());
    let stage = Stage::on(store.clone(), services.clone(), options());
    let mut events = stage.engine.events();
    let gate = services.hold("http://rm/1");
    stage.engine.submit(saga("a", 1)).await.unwrap();
    eventually(async || (!services.calls().is_empty()).then_some(())).await;

    store.away.store(true, Ordering::SeqCst);
    gate.add_permits(1);
    eventually(async || stage.engine.ready().await.err()).await;
    assert_eq!(told_statuses(&mut events), ["submitted"]);

    store.away.store(false, Ordering::SeqCst);
    stage.until("a", GlobalStatus::Succeed).await;
    stage.engine.shutdown(PATIENCE).await;
    assert_eq!(told_statuses(&mut events), ["succeed"]);
}

fn told_statuses(events: &mut Receiver<Event>) -> Vec<String> {
    let told = std::iter::from_fn(|| events.try_recv().ok());
    let statuses = told.filter_map(|event| match event {
        Event::Status { status, .. } => Some(status.to_string()),
        _ => None,
    });
    statuses.collect()
}
