//! The store: what the trait asks, on a runtime of its own.

use std::sync::Arc;

use async_trait::async_trait;
use dtmd_protocol::{Gid, Global, Timestamp};
use dtmd_store::{
    Check, Claim, Kv, KvPage, ListFilter, ListPage, Oldest, Purge, Store, StoreError, StoreInfo,
    Totals, Write, WriteError,
};
use tokio::runtime::Runtime;

use crate::commit;
use crate::doctor;
use crate::error::SqlError;
use crate::inner::Inner;
use crate::migrate;
use crate::options::{Driver, SqlOptions};

/// Global transactions in a database, on DTM's tables.
///
/// Its connections live on a runtime of its own, so that it can be called from any; a call that is
/// given up by its caller is carried to its end nevertheless.
pub struct SqlStore {
    inner: Arc<Inner>,
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlStore").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl SqlStore {
    /// Connects, and makes the tables or what is missing in them (see [`SqlOptions::migrate`]).
    ///
    /// # Errors
    ///
    /// [`SqlError`]: an option is wrong, the database does not answer, or the schema is not up to
    /// date and may not be changed.
    pub async fn open(options: SqlOptions) -> Result<Self, SqlError> {
        options.validate()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // One: a statement and its connection are two tasks, and waking another thread for
            // each exchange costs more than the work of both.
            .worker_threads(1)
            .thread_name("dtmd-sql")
            .enable_all()
            .build()
            .map_err(|error| SqlError::Options(format!("no thread for the database: {error}")))?;
        let location = options.location();
        let store = Self { inner: Arc::new(Inner::new(options.clone())), runtime: Some(runtime) };
        let inner = store.inner.clone();
        store
            .on_runtime(async move {
                if options.migrate {
                    migrate::apply(&options).await?;
                } else {
                    let missing = migrate::plan(&options).await?;
                    if !missing.is_empty() {
                        return Err(SqlError::Schema { location: options.location(), missing });
                    }
                }
                let lent = inner.pool.reader().await;
                let lent =
                    lent.map_err(|error| error.into_open(options.location(), "connecting"))?;
                inner.pool.give_back(lent);
                Ok(())
            })
            .await
            .map_err(|source| SqlError::Database {
                location,
                doing: "opening the store",
                is_passing: false,
                source,
            })??;
        Ok(store)
    }

    /// Runs something on the store's own runtime, to its end whatever the caller does.
    async fn on_runtime<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, dtmd_store::BoxError> {
        let runtime = self.runtime.as_ref().ok_or("the store is closed")?;
        Ok(runtime.spawn(work).await?)
    }

    async fn call<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let ended = self.on_runtime(work).await;
        ended.map_err(|source| StoreError::Unavailable { doing, source })?
    }
}

impl Drop for SqlStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting is not allowed where the store may be dropped, on another runtime.
            runtime.shutdown_background();
        }
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn commit(&self, batch: &[Write]) -> Result<Vec<Result<(), WriteError>>, StoreError> {
        let (inner, batch) = (self.inner.clone(), batch.to_vec());
        self.call("committing a batch", async move {
            let results = commit::commit(&inner, &batch).await?;
            inner.counts.committed(&batch, &results);
            Ok(results)
        })
        .await
    }

    fn writers(&self) -> usize {
        self.inner.options.writers()
    }

    async fn load(&self, gid: &Gid) -> Result<Option<Arc<Global>>, StoreError> {
        let (inner, gid) = (self.inner.clone(), gid.clone());
        self.call("loading a global", async move { inner.load(&gid).await }).await
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<Arc<Global>>, StoreError> {
        let (inner, claim) = (self.inner.clone(), claim.clone());
        self.call("claiming due globals", async move { inner.claim(&claim).await }).await
    }

    async fn list(
        &self,
        filter: &ListFilter,
        position: &str,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let (inner, filter, position) = (self.inner.clone(), filter.clone(), position.to_owned());
        self.call("listing globals", async move { inner.list(&filter, &position, limit).await })
            .await
    }

    async fn load_kv(&self, cat: &str, key: &str) -> Result<Option<Kv>, StoreError> {
        let (inner, cat, key) = (self.inner.clone(), cat.to_owned(), key.to_owned());
        self.call("loading a key", async move { inner.load_kv(&cat, &key).await }).await
    }

    async fn list_kv(&self, cat: &str, position: &str, limit: usize) -> Result<KvPage, StoreError> {
        let (inner, cat, position) = (self.inner.clone(), cat.to_owned(), position.to_owned());
        self.call("listing keys", async move { inner.list_kv(&cat, &position, limit).await }).await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        let inner = self.inner.clone();
        self.call("counting globals", async move { inner.totals().await }).await
    }

    async fn oldest(&self) -> Result<Oldest, StoreError> {
        let inner = self.inner.clone();
        self.call("looking for the oldest", async move { inner.oldest().await }).await
    }

    async fn purge(&self, ended_before: Timestamp, limit: usize) -> Result<Purge, StoreError> {
        let inner = self.inner.clone();
        self.call(
            "deleting finished globals",
            async move { inner.purge(ended_before, limit).await },
        )
        .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        self.call("asking the database", async move { inner.ping().await }).await
    }

    /// Looks at reachability, version, schema, durable settings and clock.
    async fn examine(&self) -> Vec<Check> {
        let inner = self.inner.clone();
        match self.on_runtime(async move { doctor::examine(&inner).await }).await {
            Ok(checks) => checks,
            Err(error) => vec![doctor::bad("database", error.to_string())],
        }
    }

    async fn reset(&self) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        self.call("emptying the store", async move { inner.reset().await }).await
    }

    fn info(&self) -> StoreInfo {
        StoreInfo {
            kind: match self.inner.options.driver {
                Driver::Mysql => "mysql",
                Driver::Postgres => "postgres",
            },
            location: self.inner.options.location(),
            exclusive: false,
            durable: true,
        }
    }
}
