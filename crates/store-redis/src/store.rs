//! The store as the engine sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dtmd_protocol::{Gid, Global, Timestamp};
use dtmd_store::{
    Check, Claim, Kv, KvPage, ListFilter, ListPage, Oldest, Purge, Store, StoreError, StoreInfo,
    Totals, Write, WriteError,
};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::checks;
use crate::error::{self, OpenError, unavailable, unexpected};
use crate::keys::{Keys, SHARDS};
use crate::link::{Line, Link};
use crate::options::RedisOptions;
use crate::plan::Made;
use crate::shared::{Shared, bytes};
use crate::writer::{Core, run_writer};
use crate::{claim, kv, list, upkeep};

/// Jobs that may wait; the engine has one at a time.
const JOBS_MAX: usize = 64;
/// The pause between two tries of an opening.
const OPEN_PAUSE: Duration = Duration::from_millis(100);

/// Global transactions in Redis. Any number of stores, in any number of processes, may share one.
///
/// It has a thread of its own, with the connections; it may be called from any runtime.
pub struct RedisStore {
    shared: Arc<Shared>,
    runtime: Handle,
    info: StoreInfo,
    /// Dropping it ends the thread.
    _open: oneshot::Sender<()>,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("location", &self.info.location).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Connects, checks that the data is of this layout, and says in the log what an operator
    /// should change.
    ///
    /// # Errors
    ///
    /// [`OpenError`], saying what to do. Redis that is not there yet is waited for as long as
    /// [`RedisOptions::open_for`].
    pub async fn open(options: RedisOptions) -> Result<Self, OpenError> {
        options.validate()?;
        let options = Arc::new(options);
        let link = Link::new(&options)?;
        let (open, closed) = oneshot::channel();
        let runtime = start_thread(closed).await?;
        let core = Arc::new(Core {
            link,
            keys: Keys::new(&options.prefix),
            options: options.clone(),
            instance: uuid::Uuid::new_v4().simple().to_string(),
        });
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        runtime.spawn(run_writer(core.clone(), queue));
        let shared = Arc::new(Shared::new(core, jobs));
        let opening = shared.clone();
        let opened = runtime.spawn(async move { prepare(&opening).await });
        let durable = opened.await.unwrap_or_else(|_| Err(ended()))?;
        let info = StoreInfo {
            kind: "redis",
            location: format!("{}, prefix {}", options.mode, options.prefix),
            exclusive: false,
            durable,
        };
        Ok(Self { shared, runtime, info, _open: open })
    }

    /// Runs work on the store's thread, where the connections are.
    async fn run<T, F>(
        &self,
        doing: &'static str,
        work: impl FnOnce(Arc<Shared>) -> F + Send,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let work = work(self.shared.clone());
        let ended = |_| Err(unavailable(doing, unexpected("the store's thread has ended")));
        self.runtime.spawn(work).await.unwrap_or_else(ended)
    }
}

/// Starts the thread with the connections' runtime. It ends when the sender of `closed` is dropped.
async fn start_thread(closed: oneshot::Receiver<()>) -> Result<Handle, OpenError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(OpenError::Thread)?;
    let handle = runtime.handle().clone();
    let thread = std::thread::Builder::new().name("dtmd-redis".to_owned());
    let spawned = thread.spawn(move || {
        // An error is the sender's end, which is what is waited for.
        let _ = runtime.block_on(closed);
    });
    spawned.map_err(OpenError::Thread)?;
    Ok(handle)
}

fn ended() -> OpenError {
    OpenError::Unusable {
        location: "this process".to_owned(),
        advice: "the store's thread has ended".to_owned(),
        is_passing: false,
        source: None,
    }
}

/// Makes the store ready; returns whether it keeps what is acknowledged through a loss of power.
async fn prepare(shared: &Shared) -> Result<bool, OpenError> {
    let options = &shared.core.options;
    check_layout(shared).await?;
    let facts = checks::facts(shared).await.map_err(|error| unusable(shared, error))?;
    if options.wait_aof && facts.iter().any(|facts| facts.version() < (7, 2)) {
        let text = "waiting for the append-only file (WAITAOF) needs Redis 7.2 or later; switch \
                    it off, or use `appendfsync always`";
        return Err(OpenError::Options(text.to_owned()));
    }
    checks::warn_of(&facts);
    let of_dtm = checks::count_of_dtm(shared).await;
    if of_dtm > 0 {
        tracing::warn!("{}", checks::dtm_text(of_dtm));
    }
    shared.compare_clocks().await;
    match upkeep::mend(shared).await {
        Ok(0) => {}
        Ok(mended) => tracing::warn!(
            mended,
            "unfinished transactions were missing from the index of due ones and are back; look \
             whether Redis evicts keys"
        ),
        Err(error) => tracing::warn!(%error, "the indexes could not be compared"),
    }
    Ok(facts.iter().all(|facts| facts.syncs_always()) || options.wait_aof)
}

/// Checks that the data is of this layout, or makes it so if there is none.
async fn check_layout(shared: &Shared) -> Result<(), OpenError> {
    let options = &shared.core.options;
    let ours = format!("dtmd 2 {SHARDS}");
    let key = shared.keys().meta();
    let (mut set, mut get) = (redis::cmd("SET"), redis::cmd("GET"));
    set.arg(&key).arg(&ours).arg("NX");
    get.arg(&key);
    let asks = [shared.about(0, set), shared.about(0, get)];
    let begun = Instant::now();
    let values = loop {
        match shared.core.link.ask(Line::Read, &asks).await {
            Ok(values) => break values,
            Err(error) => {
                let unusable = unusable(shared, error);
                if !unusable.is_passing() || begun.elapsed() + OPEN_PAUSE > options.open_for {
                    return Err(unusable);
                }
            }
        }
        tokio::time::sleep(OPEN_PAUSE).await;
    };
    let found = values.into_iter().nth(1).and_then(bytes).unwrap_or_default();
    if found == ours.as_bytes() {
        return Ok(());
    }
    let found = String::from_utf8_lossy(&found).into_owned();
    Err(OpenError::Layout { found, ours })
}

fn unusable(shared: &Shared, error: redis::RedisError) -> OpenError {
    error::unusable(shared.core.options.mode.to_string(), error)
}

fn result_of(made: Made, write: &Write) -> Result<(), WriteError> {
    let name = || match write {
        Write::Create(global) => global.gid.to_string(),
        Write::Update { before, .. } => before.gid.to_string(),
        Write::Lease(lease) => lease.gid.to_string(),
        Write::Kv { cat, key, .. } => format!("{cat}/{key}"),
    };
    match made {
        Made::Yes => Ok(()),
        Made::Exists => Err(WriteError::AlreadyExists(name())),
        Made::Changed => Err(WriteError::Conflict(name())),
        Made::Missing => Err(WriteError::NotFound(name())),
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn commit(&self, batch: &[Write]) -> Result<Vec<Result<(), WriteError>>, StoreError> {
        let mut plan = self.shared.plan();
        for write in batch {
            plan.write(write, &self.shared.clock)?;
        }
        let made = self.shared.make("committing", plan).await?;
        Ok(made.into_iter().zip(batch).map(|(made, write)| result_of(made, write)).collect())
    }

    async fn load(&self, gid: &Gid) -> Result<Option<Arc<Global>>, StoreError> {
        let gid = gid.clone();
        self.run("loading", |shared| async move { claim::load(&shared, &gid).await }).await
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<Arc<Global>>, StoreError> {
        let claim = claim.clone();
        self.run("claiming", |shared| async move { claim::claim_due(&shared, &claim).await }).await
    }

    async fn list(
        &self,
        filter: &ListFilter,
        position: &str,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let (filter, position) = (filter.clone(), position.to_owned());
        self.run("listing", move |shared| async move {
            list::list(&shared, &filter, &position, limit).await
        })
        .await
    }

    async fn load_kv(&self, cat: &str, key: &str) -> Result<Option<Kv>, StoreError> {
        let (cat, key) = (cat.to_owned(), key.to_owned());
        self.run("reading keys", |shared| async move { kv::load(&shared, &cat, &key).await }).await
    }

    async fn list_kv(&self, cat: &str, position: &str, limit: usize) -> Result<KvPage, StoreError> {
        let (cat, position) = (cat.to_owned(), position.to_owned());
        self.run("reading keys", move |shared| async move {
            kv::list(&shared, &cat, &position, limit).await
        })
        .await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.run("counting", |shared| async move { shared.totals().await }).await
    }

    async fn oldest(&self) -> Result<Oldest, StoreError> {
        self.run("asking for the oldest", |shared| async move { list::oldest(&shared).await }).await
    }

    async fn purge(&self, ended_before: Timestamp, limit: usize) -> Result<Purge, StoreError> {
        self.run("cleaning up", move |shared| async move {
            upkeep::purge(&shared, ended_before, limit).await
        })
        .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.run("asking whether it is there", |shared| async move { upkeep::ping(&shared).await })
            .await
    }

    /// Looks at what may lose transactions or surprise an operator: whether Redis can be reached,
    /// its version, persistence, eviction, replicas, clocks, and data of DTM's own.
    async fn examine(&self) -> Vec<Check> {
        let shared = self.shared.clone();
        let asked = self.runtime.spawn(async move { checks::doctor(&shared).await });
        asked.await.unwrap_or_default()
    }

    async fn reset(&self) -> Result<(), StoreError> {
        self.run("emptying the store", |shared| async move { upkeep::reset(&shared).await }).await
    }

    fn info(&self) -> StoreInfo {
        self.info.clone()
    }
}
