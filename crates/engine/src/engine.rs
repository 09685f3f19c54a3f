//! What applications and operators can ask for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dtmd_protocol::{
    CallProtocol, Gid, Global, Invalid, Limits, NewBranch, NewGlobal, Request, Scheme, TransType,
};
use dtmd_store::{Kv, KvPage, ListFilter, ListPage, Oldest, Store, StoreError, StoreInfo, Totals};
use tokio::sync::{broadcast, oneshot};

use crate::alert_log::AlertLog;
use crate::attempts::Attempt;
use crate::background;
use crate::caller::BranchCaller;
use crate::committer::Committer;
use crate::core::Core;
use crate::error::EngineError;
use crate::events::Event;
use crate::metrics::Metrics;
use crate::options::EngineOptions;
use crate::runner::{Message, Reply};
use crate::test_control::TestControl;
use crate::topics;

/// Globals read at a time while a bulk reset looks for candidates.
const RESET_PAGE: usize = 200;

/// What a bulk reset did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetCount {
    /// How many are due now.
    pub succeed_count: usize,
    /// Whether more would match.
    pub has_remaining: bool,
}

/// A handle to the engine; clones share it.
///
/// Every request on a gid runs in that gid's own task: a caller that hangs up cancels nothing.
#[derive(Clone)]
pub struct Engine {
    core: Arc<Core>,
    test: Option<TestControl>,
}

impl Engine {
    /// Starts the store's thread, in a simulation its task. Timers and the claimer start with the
    /// first [`Engine::register_runtime`].
    ///
    /// # Errors
    ///
    /// When the operating system gives no thread.
    pub fn start(
        store: Arc<dyn Store>,
        caller: Arc<dyn BranchCaller>,
        options: EngineOptions,
    ) -> std::io::Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let committer = Committer::start(store.clone(), metrics.clone(), &options.environment)?;
        let test_control = options.test_control;
        let core = Arc::new(Core::new(options, store, committer, caller, metrics));
        let test = test_control.then(|| TestControl::new(core.clone()));
        Ok(Self { core, test })
    }

    /// Tells the engine of a network runtime, from within it. On a single-threaded runtime changes
    /// gather (`gather`); on any other each is handed over by itself.
    ///
    /// The first one also runs the timers, the claimer and the clean-up.
    pub fn register_runtime(&self, gather: bool) {
        if gather {
            self.core.committer.register_lane();
        }
        if self.core.add_runtime() {
            background::start(&self.core);
        }
    }

    /// Accepts a transaction as prepared. Returns when it is durable.
    ///
    /// # Errors
    ///
    /// `Refused` if the gid is taken and not prepared; `Invalid` if it cannot be accepted.
    pub async fn prepare(&self, new: NewGlobal) -> Result<(), EngineError> {
        self.create(new, |_| Request::Prepare).await.map(drop)
    }

    /// Accepts a transaction and starts it; with `wait_result` returns when its first pass has
    /// ended.
    ///
    /// A repeat with the same content is success, and nothing is executed because of it.
    ///
    /// # Errors
    ///
    /// `Refused` if the gid has ended, goes back, or has other content; with `wait_result` also
    /// `RolledBack`, `Ongoing` and `Branch`.
    pub async fn submit(&self, new: NewGlobal) -> Result<(), EngineError> {
        self.create(new, |new| Request::Submit(new.clone())).await.map(drop)
    }

    /// Accepts a workflow, or returns the one that is there, with its progress.
    ///
    /// # Errors
    ///
    /// `Refused` if the gid is another type's.
    pub async fn prepare_workflow(&self, new: NewGlobal) -> Result<Arc<Global>, EngineError> {
        self.create(new, |_| Request::PrepareWorkflow).await
    }

    /// Rolls a prepared tcc or xa back, or drops a prepared message.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Refused` if its type or status does not allow it.
    pub async fn abort(
        &self,
        gid: &Gid,
        trans_type: Option<TransType>,
        reason: &str,
    ) -> Result<(), EngineError> {
        let reason = Arc::from(reason);
        self.request(gid, Request::Abort { trans_type, reason }).await.map(drop)
    }

    /// Ends a transaction as failed, whatever has been done. No branch is called.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Refused` if it has ended.
    pub async fn force_stop(&self, gid: &Gid) -> Result<(), EngineError> {
        self.request(gid, Request::ForceStop).await.map(drop)
    }

    /// Registers rows of a prepared transaction: all or none. A repeat is success.
    ///
    /// # Errors
    ///
    /// `NotPrepared` or `Refused`: the application must give its transaction up.
    pub async fn register(
        &self,
        gid: &Gid,
        trans_type: TransType,
        rows: Vec<NewBranch>,
    ) -> Result<(), EngineError> {
        self.register_over(CallProtocol::Http, gid, trans_type, rows).await
    }

    /// As [`Engine::register`], for a caller who names URLs in the way of `protocol`: over gRPC
    /// one without a scheme is a service's method.
    ///
    /// # Errors
    ///
    /// As [`Engine::register`].
    pub async fn register_over(
        &self,
        protocol: CallProtocol,
        gid: &Gid,
        trans_type: TransType,
        rows: Vec<NewBranch>,
    ) -> Result<(), EngineError> {
        dtmd_protocol::step::validate_rows(&rows, &self.core.options.limits)?;
        if trans_type != TransType::Workflow {
            for row in &rows {
                self.check_callable(&row.url, protocol)?;
            }
        }
        self.request(gid, Request::Register { trans_type, rows }).await.map(drop)
    }

    /// Ends a workflow.
    ///
    /// # Errors
    ///
    /// `NoWorkflow`; `Refused` if it has ended otherwise.
    pub async fn finish_workflow(
        &self,
        gid: &Gid,
        succeed: bool,
        reason: &str,
        result: &str,
    ) -> Result<(), EngineError> {
        let (reason, result) = (Arc::from(reason), Arc::from(result));
        self.request(gid, Request::FinishWorkflow { succeed, reason, result }).await.map(drop)
    }

    /// Makes everything of one transaction that waits for a retry due now.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn retry_now(&self, gid: &Gid) -> Result<(), EngineError> {
        self.request(gid, Request::RetryNow).await.map(drop)
    }

    /// Makes unfinished transactions due now that would wait for longer than `wait`.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn reset_cron_time(
        &self,
        wait: Duration,
        limit: usize,
    ) -> Result<ResetCount, EngineError> {
        let wakes_after = Some(self.core.clock.now().after(wait));
        let filter = ListFilter { wakes_after, ..ListFilter::default() };
        let mut count = ResetCount { succeed_count: 0, has_remaining: false };
        let mut position = String::new();
        loop {
            let page = self.list(&filter, &position, RESET_PAGE).await?;
            for global in &page.globals {
                if count.succeed_count == limit {
                    count.has_remaining = true;
                    return Ok(count);
                }
                match self.retry_now(&global.gid).await {
                    Ok(()) => count.succeed_count += 1,
                    Err(EngineError::NotFound(_)) => {}
                    Err(failure) => return Err(failure),
                }
            }
            position = page.next_position;
            if position.is_empty() {
                return Ok(count);
            }
        }
    }

    /// Returns a transaction.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn query(&self, gid: &Gid) -> Result<Option<Arc<Global>>, EngineError> {
        self.core.store.load(gid).await.map_err(unavailable)
    }

    /// Returns the last calls of a transaction's branches that this server made and still
    /// remembers, oldest first: at most five of a branch operation, fifty in all.
    pub fn attempts(&self, gid: &Gid) -> Vec<Attempt> {
        self.core.attempts.of(gid)
    }

    /// Returns what became of the last alerts. Whoever sends alerts writes it.
    pub fn alert_log(&self) -> &AlertLog {
        &self.core.alert_log
    }

    /// Returns the engine's time, which a test clock may have moved.
    pub fn now(&self) -> dtmd_protocol::Timestamp {
        self.core.clock.now()
    }

    /// Returns a page of transactions, newest first.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn list(
        &self,
        filter: &ListFilter,
        position: &str,
        limit: usize,
    ) -> Result<ListPage, EngineError> {
        self.core.store.list(filter, position, limit).await.map_err(unavailable)
    }

    /// Returns how many transactions there are, by type and status.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn totals(&self) -> Result<Totals, EngineError> {
        self.core.store.totals().await.map_err(unavailable)
    }

    /// Returns what has waited longest.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn oldest(&self) -> Result<Oldest, EngineError> {
        self.core.store.oldest().await.map_err(unavailable)
    }

    /// Adds a subscriber to a topic; makes the topic if needed.
    ///
    /// # Errors
    ///
    /// `Topic`, with DTM's text.
    pub async fn subscribe(&self, topic: &str, url: &str, remark: &str) -> Result<(), EngineError> {
        self.subscribe_over(CallProtocol::Http, topic, url, remark).await
    }

    /// As [`Engine::subscribe`], for a caller who names URLs in the way of `protocol`.
    ///
    /// # Errors
    ///
    /// `Topic`, with DTM's text.
    pub async fn subscribe_over(
        &self,
        protocol: CallProtocol,
        topic: &str,
        url: &str,
        remark: &str,
    ) -> Result<(), EngineError> {
        self.check_open()?;
        topics::subscribe(&self.core, protocol, topic, url, remark).await
    }

    /// Removes a subscriber.
    ///
    /// # Errors
    ///
    /// `Topic`, with DTM's text.
    pub async fn unsubscribe(&self, topic: &str, url: &str) -> Result<(), EngineError> {
        self.check_open()?;
        topics::unsubscribe(&self.core, topic, url).await
    }

    /// Deletes a topic.
    ///
    /// # Errors
    ///
    /// `Topic`, with DTM's text.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), EngineError> {
        self.check_open()?;
        topics::delete(&self.core, topic).await
    }

    /// Returns one stored key.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn load_kv(&self, cat: &str, key: &str) -> Result<Option<Kv>, EngineError> {
        self.core.store.load_kv(cat, key).await.map_err(unavailable)
    }

    /// Returns a page of a category's keys.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn list_kv(
        &self,
        cat: &str,
        position: &str,
        limit: usize,
    ) -> Result<KvPage, EngineError> {
        self.core.store.list_kv(cat, position, limit).await.map_err(unavailable)
    }

    /// Answers if the server can accept transactions: the store answers, and it is not shutting
    /// down.
    ///
    /// # Errors
    ///
    /// `ShuttingDown`, `Unavailable`.
    pub async fn ready(&self) -> Result<(), EngineError> {
        self.check_open()
    }

    /// Returns the bounds of what is accepted.
    pub fn limits(&self) -> &Limits {
        &self.core.options.limits
    }

    /// Returns the metrics, with the gauges set anew.
    pub fn metrics(&self) -> &Metrics {
        &self.core.metrics
    }

    /// Sets the gauges that are cheap to read and pointless to keep.
    pub async fn refresh_metrics(&self) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.core.metrics;
        metrics.active.set(count(self.core.active_count()));
        metrics.timers.set(count(self.core.timers.len()));
        let usage = self.core.destinations.usage();
        metrics.breakers_open.set(count(usage.open + usage.half_open));
        metrics.destinations(&usage);
        if let Ok(totals) = self.core.store.totals().await {
            metrics.stored(&totals);
        }
        if let Ok(oldest) = self.core.store.oldest().await {
            let now = self.core.clock.now();
            let since = |at: Option<_>| at.map_or(Duration::ZERO, |at| now.since(at));
            metrics.oldest(since(oldest.created), since(oldest.due));
        }
    }

    /// Tells how many bytes of memory this process uses, and how many it may. From there on new
    /// transactions are refused as "overloaded", until it is a tenth less; what exists goes on.
    pub fn note_memory(&self, used: u64, max: u64) {
        self.core.memory.note(used, max);
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.core.metrics.memory.set(gauge(used));
        self.core.metrics.memory_max.set(gauge(max));
    }

    /// Answers if a request's body of which so many bytes have come may be read on: a large one may
    /// not while memory is short.
    ///
    /// # Errors
    ///
    /// `Overloaded`.
    pub fn admit_body(&self, bytes: usize) -> Result<(), EngineError> {
        self.core.memory.admit_body(bytes)
    }

    /// Looks at the store for an operator; may take seconds.
    pub async fn examine_store(&self) -> Vec<dtmd_store::Check> {
        self.core.store.examine().await
    }

    /// Returns what the store is.
    pub fn store_info(&self) -> StoreInfo {
        self.core.store.info()
    }

    /// Returns the test clock, if the server was started with one.
    pub fn test_control(&self) -> Option<&TestControl> {
        self.test.as_ref()
    }

    /// Returns the default of `timeout_to_fail`.
    pub fn timeout_to_fail(&self) -> Duration {
        self.core.options.policy.timeout_to_fail
    }

    /// Listens to what happens. A listener that is too slow misses events, and is told so.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        let listener = self.core.events.subscribe();
        self.core.watched.store(true, Ordering::Relaxed);
        listener
    }

    /// Listens to branches that keep failing, apart from all other events.
    pub fn alerts(&self) -> broadcast::Receiver<Event> {
        self.core.alerts.subscribe()
    }

    /// Stops: refuses new requests, starts no more calls, waits for those in flight until
    /// `deadline`, hands what is unfinished back and ends the store's thread.
    ///
    /// Returns how many transactions were still being worked on at the deadline. They are not
    /// lost: whoever opens the store next goes on with them.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        self.core.closing.store(true, Ordering::Release);
        let end = tokio::time::Instant::now() + deadline;
        while self.core.active_count() > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let left = self.core.active_count();
        self.core.committer.stop().await;
        left
    }

    async fn create(
        &self,
        new: NewGlobal,
        otherwise: impl FnOnce(&Arc<NewGlobal>) -> Request,
    ) -> Result<Arc<Global>, EngineError> {
        self.check_open()?;
        new.validate(&self.core.options.limits)?;
        self.check_callable(&new.query_prepared, new.protocol)?;
        for step in &new.steps {
            if !matches!(Scheme::of(&step.def.action), Scheme::Topic(_)) {
                self.check_callable(&step.def.action, new.protocol)?;
            }
            self.check_callable(&step.def.compensate, new.protocol)?;
        }
        let new = Arc::new(new);
        let gid = new.gid.clone();
        let otherwise = otherwise(&new);
        self.ask(&gid, |reply| Message::Create { new, otherwise, reply }).await
    }

    async fn request(&self, gid: &Gid, request: Request) -> Result<Arc<Global>, EngineError> {
        self.check_open()?;
        self.ask(gid, |reply| Message::Request { request, reply }).await
    }

    async fn ask(
        &self,
        gid: &Gid,
        message: impl FnOnce(Reply) -> Message,
    ) -> Result<Arc<Global>, EngineError> {
        let (reply, result) = oneshot::channel();
        self.core.send(gid, message(reply))?;
        match tokio::time::timeout(self.core.options.wait_max, result).await {
            Ok(Ok(result)) => result,
            // The runner has ended without a word: a panic, or the runtime stops.
            Ok(Err(_)) => Err(EngineError::Unavailable("the request was interrupted".to_owned())),
            Err(_) => Err(EngineError::Ongoing(format!(
                "not decided within {} s; query the transaction. ONGOING",
                self.core.options.wait_max.as_secs()
            ))),
        }
    }

    fn check_open(&self) -> Result<(), EngineError> {
        if self.core.is_closing() {
            return Err(EngineError::ShuttingDown);
        }
        if !self.core.committer.is_healthy() {
            return Err(EngineError::Unavailable("the store does not answer".to_owned()));
        }
        Ok(())
    }

    fn check_callable(&self, url: &str, protocol: CallProtocol) -> Result<(), EngineError> {
        if url.is_empty() {
            return Ok(());
        }
        match self.core.caller.cannot_call(url, protocol) {
            None => Ok(()),
            Some(why) => Err(Invalid::Uncallable { url: url.to_owned(), why }.into()),
        }
    }
}

fn unavailable(failure: StoreError) -> EngineError {
    EngineError::Unavailable(failure.to_string())
}
