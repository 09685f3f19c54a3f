//! The shared store: outside of all hosts, slow, at times failing, and watched.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dtmd_protocol::{Gid, Global, Timestamp};
use dtmd_store::{
    Claim, Kv, KvPage, ListFilter, ListPage, MemoryStore, Purge, Store, StoreError, StoreInfo,
    Totals, Write, WriteError,
};

use crate::chance::{Fault, Seen};
use crate::world::World;

/// How a server reaches the store.
pub(crate) struct SimStore(pub(crate) Arc<World>);

fn failed(doing: &'static str, source: &str) -> StoreError {
    StoreError::Unavailable { doing, source: source.into() }
}

impl SimStore {
    fn inner(&self) -> Arc<MemoryStore> {
        self.0.store.lock().unwrap().clone()
    }

    /// The way there: the store may be slow, or not be reached.
    async fn reach(&self, doing: &'static str) -> Result<(), StoreError> {
        let chance = &self.0.chance;
        match chance.hits(Fault::StoreSlow) {
            true => chance.pause(200, 4_000).await,
            false => chance.pause(0, 4).await,
        }
        match chance.hits(Fault::StoreErrorBefore) {
            true => Err(failed(doing, "on purpose; nothing was done")),
            false => Ok(()),
        }
    }

    /// The way back, on which the answer may be lost, or its reader crash.
    async fn reply(&self, doing: &'static str) -> Result<(), StoreError> {
        self.0.chance.pause(0, 4).await;
        match self.0.chance.hits(Fault::StoreErrorAfter) {
            true => Err(failed(doing, "on purpose; it was done")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Store for SimStore {
    async fn commit(&self, batch: &[Write]) -> Result<Vec<Result<(), WriteError>>, StoreError> {
        self.reach("committing").await?;
        let results = self.inner().commit(batch).await?;
        for (write, result) in batch.iter().zip(&results) {
            self.0.written(write, result);
        }
        self.reply("committing").await?;
        Ok(results)
    }

    fn commit_at_once(&self, write: &Write) -> Option<Result<(), WriteError>> {
        if !self.0.at_once {
            return None;
        }
        let result = self.inner().commit_at_once(write)?;
        self.0.written(write, &result);
        Some(result)
    }

    fn writers(&self) -> usize {
        self.0.writers
    }

    async fn load(&self, gid: &Gid) -> Result<Option<Arc<Global>>, StoreError> {
        self.reach("loading").await?;
        self.inner().load(gid).await
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<Arc<Global>>, StoreError> {
        self.reach("claiming").await?;
        let claimed = self.inner().claim_due(claim).await?;
        claimed.iter().for_each(|_| self.0.chance.see(Seen::Claimed));
        self.0.claimed(&claimed);
        self.reply("claiming").await?;
        Ok(claimed)
    }

    async fn list(
        &self,
        filter: &ListFilter,
        position: &str,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        self.inner().list(filter, position, limit).await
    }

    async fn load_kv(&self, cat: &str, key: &str) -> Result<Option<Kv>, StoreError> {
        self.inner().load_kv(cat, key).await
    }

    async fn list_kv(&self, cat: &str, position: &str, limit: usize) -> Result<KvPage, StoreError> {
        self.inner().list_kv(cat, position, limit).await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.inner().totals().await
    }

    async fn purge(&self, ended_before: Timestamp, limit: usize) -> Result<Purge, StoreError> {
        self.reach("purging").await?;
        self.inner().purge(ended_before, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.reach("asking").await
    }

    async fn reset(&self) -> Result<(), StoreError> {
        Err(failed("emptying", "nobody may"))
    }

    fn info(&self) -> StoreInfo {
        self.inner().info()
    }
}

/// The mistake that must be found: a store that acknowledges what it has not kept yet, and loses
/// it when a server crashes.
#[derive(Default)]
pub(crate) struct Forgetful {
    /// Every state, and when it was acknowledged.
    states: Vec<(Duration, Arc<Global>)>,
}

impl Forgetful {
    /// How long it takes to keep something.
    const LAG: Duration = Duration::from_millis(60);

    pub(crate) fn note(&mut self, now: Duration, global: Arc<Global>) {
        self.states.push((now, global));
    }

    /// Returns what was kept when it crashed.
    pub(crate) fn kept(&mut self, now: Duration) -> MemoryStore {
        self.states.retain(|(at, _)| *at + Self::LAG <= now);
        let store = MemoryStore::new();
        let mut gids = std::collections::BTreeSet::new();
        for (_, global) in self.states.iter().rev() {
            if gids.insert(global.gid.clone()) {
                let _ = store.commit_at_once(&Write::Create(global.clone()));
            }
        }
        store
    }
}
