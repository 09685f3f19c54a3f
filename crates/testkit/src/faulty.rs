//! A store that fails at one chosen call: before the call, after it was carried out, or by being
//! slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dtmd_protocol::{Gid, Global, Timestamp};
use dtmd_store::{
    Claim, Kv, KvPage, ListFilter, ListPage, Oldest, Purge, Store, StoreError, StoreInfo, Totals,
    Write, WriteError,
};

/// What goes wrong at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// It fails, and nothing was done.
    ErrorBefore,
    /// It is carried out, and reported as failed.
    ErrorAfter,
    /// It takes long.
    Slow,
}

impl StoreFault {
    /// Every fault.
    pub const ALL: &[StoreFault] = &[Self::ErrorBefore, Self::ErrorAfter, Self::Slow];
}

/// Which calls are counted towards the chosen one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Commits and reads: what the work on transactions needs, in an order that repeats.
    Work,
    /// Claims: they come with the clock.
    Claims,
}

/// A store in front of another one.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    fault: Option<(StoreFault, Counted, u64)>,
    pause: Duration,
    work: AtomicU64,
    claims: AtomicU64,
    hits: AtomicU64,
}

impl FaultyStore {
    /// Returns a store whose `nth` call (from 0) of a kind has a fault; none for a store that only
    /// counts. A slow call takes `pause` longer.
    pub fn new(
        inner: Arc<dyn Store>,
        fault: Option<(StoreFault, Counted, u64)>,
        pause: Duration,
    ) -> Self {
        let zero = || AtomicU64::new(0);
        Self { inner, fault, pause, work: zero(), claims: zero(), hits: zero() }
    }

    /// Returns how many calls of a kind there were.
    pub fn calls(&self, counted: Counted) -> u64 {
        match counted {
            Counted::Work => self.work.load(Ordering::SeqCst),
            Counted::Claims => self.claims.load(Ordering::SeqCst),
        }
    }

    /// Returns whether the fault has happened.
    pub fn was_hit(&self) -> bool {
        self.hits.load(Ordering::SeqCst) > 0
    }

    /// Counts a call; returns the fault that it has.
    fn count(&self, counted: Counted) -> Option<StoreFault> {
        let counter = match counted {
            Counted::Work => &self.work,
            Counted::Claims => &self.claims,
        };
        let number = counter.fetch_add(1, Ordering::SeqCst);
        let (fault, of, nth) = self.fault?;
        if of != counted || nth != number {
            return None;
        }
        self.hits.fetch_add(1, Ordering::SeqCst);
        Some(fault)
    }

    async fn call<T>(
        &self,
        counted: Counted,
        doing: &'static str,
        inner: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let failed = |source: &str| Err(StoreError::Unavailable { doing, source: source.into() });
        match self.count(counted) {
            None => inner.await,
            Some(StoreFault::ErrorBefore) => failed("on purpose; nothing was done"),
            Some(StoreFault::ErrorAfter) => {
                inner.await?;
                failed("on purpose; it was done")
            }
            Some(StoreFault::Slow) => {
                tokio::time::sleep(self.pause).await;
                inner.await
            }
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn commit(&self, batch: &[Write]) -> Result<Vec<Result<(), WriteError>>, StoreError> {
        self.call(Counted::Work, "committing", self.inner.commit(batch)).await
    }

    async fn load(&self, gid: &Gid) -> Result<Option<Arc<Global>>, StoreError> {
        self.call(Counted::Work, "loading", self.inner.load(gid)).await
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<Arc<Global>>, StoreError> {
        self.call(Counted::Claims, "claiming", self.inner.claim_due(claim)).await
    }

    async fn list(
        &self,
        filter: &ListFilter,
        position: &str,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        self.inner.list(filter, position, limit).await
    }

    async fn load_kv(&self, cat: &str, key: &str) -> Result<Option<Kv>, StoreError> {
        self.call(Counted::Work, "loading a key", self.inner.load_kv(cat, key)).await
    }

    async fn list_kv(&self, cat: &str, position: &str, limit: usize) -> Result<KvPage, StoreError> {
        self.inner.list_kv(cat, position, limit).await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.inner.totals().await
    }

    async fn oldest(&self) -> Result<Oldest, StoreError> {
        self.inner.oldest().await
    }

    async fn purge(&self, ended_before: Timestamp, limit: usize) -> Result<Purge, StoreError> {
        self.inner.purge(ended_before, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }

    async fn reset(&self) -> Result<(), StoreError> {
        self.inner.reset().await
    }

    fn info(&self) -> StoreInfo {
        self.inner.info()
    }
}
