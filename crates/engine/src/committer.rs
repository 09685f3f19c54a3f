//! The group committer: the one way by which anything becomes durable.
//!
//! Changes gather inside each network runtime (its *lane*) while the tasks that are ready run, cross
//! to the store's thread together, and are written by one `Store::commit` while the next ones
//! gather. The results cross back together too: one wake a batch each way, because waking a thread
//! for every operation costs more than the disk does.
//!
//! A store that has nothing to wait for takes each change where it arises, instead.
//!
//! In a simulation the store's thread is a task; it does the same, in the same order.
//!
//! A lazy change does not ask for a flush; it rides in the next one, which comes within
//! [`LAZY_WAIT`] at the latest.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dtmd_store::{Store, StoreError, Write, WriteError};
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info};

use crate::environment::Environment;
use crate::metrics::Metrics;

/// How long a lazy change waits for a forced one to ride with.
const LAZY_WAIT: Duration = Duration::from_millis(5);
/// Changes in one batch, at most: bounds the memory and the time of one flush.
const BATCH_MAX: usize = 4096;
/// How often an unavailable store is asked whether it is back.
const PING_EVERY: Duration = Duration::from_millis(250);

/// Why a change was not made durable.
#[derive(Debug, Clone)]
pub(crate) enum CommitError {
    /// The store holds something else than the writer believed.
    Refused(WriteError),
    /// Whether it was made is unknown: reload before acting.
    Unavailable(Arc<str>),
    /// It was not made, for lack of room.
    Full(Arc<str>),
}

pub(crate) type Ack = oneshot::Receiver<Result<(), CommitError>>;
type Acker = oneshot::Sender<Result<(), CommitError>>;
/// A result, and who waits for it.
type Done = (Acker, Result<(), CommitError>);
type Job = Box<dyn for<'a> FnOnce(&'a dyn Store) -> BoxFuture<'a, ()> + Send>;

struct Pending {
    write: Write,
    forced: bool,
    acker: Acker,
    /// Which of the lanes it came by. Not the lane itself: two threads would count it to and fro.
    lane: Option<usize>,
}

/// A handle to the committer; clones share it. The thread ends when [`Committer::stop`] is called.
#[derive(Clone)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    queue: Mutex<Queue>,
    filled: Filled,
    /// Never gets shorter.
    lanes: Mutex<Vec<Arc<LaneInbox>>>,
    /// False from a failed commit, or an unanswered question, until the store answers again.
    healthy: AtomicBool,
    metrics: Arc<Metrics>,
}

/// Wakes the store's thread, or its task.
enum Filled {
    Thread(Condvar),
    Task(Notify),
}

#[derive(Default)]
struct Queue {
    writes: VecDeque<Pending>,
    jobs: VecDeque<Job>,
    /// Something waits that must be flushed without delay.
    forced: bool,
    /// When the oldest lazy change has waited long enough.
    lazy_until: Option<Instant>,
    /// Something other than a commit has failed: whether the store is there must be asked.
    doubted: bool,
    /// The store's thread waits; waking it when it does not would cost a system call for nothing.
    sleeping: bool,
    stopping: bool,
    stopped: bool,
    ended: Option<oneshot::Sender<()>>,
}

impl Queue {
    /// Takes what is to be flushed now, if anything is.
    fn take_batch(&mut self, now: Instant) -> Option<Vec<Pending>> {
        let waited = self.lazy_until.is_some_and(|until| until <= now);
        if self.writes.is_empty() || !(self.forced || waited || self.stopping) {
            return None;
        }
        let batch = match self.writes.len() > BATCH_MAX {
            true => self.writes.drain(..BATCH_MAX).collect(),
            false => std::mem::take(&mut self.writes).into(),
        };
        if self.writes.is_empty() {
            self.forced = false;
            self.lazy_until = None;
        }
        Some(batch)
    }
}

/// Results on their way back to a lane.
struct LaneInbox {
    done: Mutex<Vec<Done>>,
    notify: Notify,
}

/// What gathers in one runtime until its ready tasks have run.
struct Lane {
    /// Whose it is: a process may have several engines, and so may a thread.
    shared: Arc<Shared>,
    inbox: Arc<LaneInbox>,
    index: usize,
    pending: RefCell<Vec<Pending>>,
    forced: RefCell<bool>,
}

thread_local! {
    static LANES: RefCell<Vec<Rc<Lane>>> = const { RefCell::new(Vec::new()) };
}

impl Committer {
    /// Starts the store's thread; in a simulation a task of the current runtime.
    ///
    /// # Errors
    ///
    /// When the operating system gives no thread.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        environment: &Environment,
    ) -> std::io::Result<Self> {
        let filled = match environment {
            Environment::Machine => Filled::Thread(Condvar::new()),
            Environment::Simulation(_) => Filled::Task(Notify::new()),
        };
        let shared = Arc::new(Shared {
            store,
            queue: Mutex::default(),
            filled,
            lanes: Mutex::default(),
            healthy: AtomicBool::new(true),
            metrics,
        });
        let worker = Worker { shared: shared.clone(), ping_at: None };
        match environment {
            Environment::Machine => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let thread = std::thread::Builder::new().name("dtmd-store".to_owned());
                thread.spawn(move || worker.run_on(runtime))?;
            }
            Environment::Simulation(_) => drop(tokio::spawn(worker.run_as_task())),
        }
        Ok(Self { shared })
    }

    /// Makes this thread's runtime gather its changes. Called once on each network runtime, which
    /// must be single-threaded.
    pub(crate) fn register_lane(&self) {
        let inbox = Arc::new(LaneInbox { done: Mutex::default(), notify: Notify::new() });
        let index = {
            let mut lanes = lock(&self.shared.lanes);
            lanes.push(inbox.clone());
            lanes.len() - 1
        };
        let lane = Rc::new(Lane {
            shared: self.shared.clone(),
            inbox: inbox.clone(),
            index,
            pending: RefCell::default(),
            forced: RefCell::new(false),
        });
        LANES.with(|lanes| lanes.borrow_mut().push(lane));
        tokio::spawn(run_lane(self.clone(), inbox));
    }

    /// Returns this thread's lane, if it has one.
    fn lane(&self) -> Option<Rc<Lane>> {
        let ours = |lane: &&Rc<Lane>| Arc::ptr_eq(&lane.shared, &self.shared);
        LANES.with(|lanes| lanes.borrow().iter().find(ours).cloned())
    }

    /// Hands a change over; it becomes durable in the order of the calls of one task.
    pub(crate) fn write(&self, write: Write, forced: bool) -> Ack {
        let (acker, ack) = oneshot::channel();
        if let Some(result) = self.shared.store.commit_at_once(&write) {
            self.shared.metrics.written_at_once(forced);
            let _ = acker.send(result.map_err(CommitError::Refused));
            return ack;
        }
        let Some(lane) = self.lane() else {
            self.shared.push(vec![Pending { write, forced, acker, lane: None }], forced);
            return ack;
        };
        let mut pending = lane.pending.borrow_mut();
        pending.push(Pending { write, forced, acker, lane: Some(lane.index) });
        *lane.forced.borrow_mut() |= forced;
        if pending.len() == 1 {
            lane.inbox.notify.notify_one();
        }
        ack
    }

    /// Makes a change durable.
    pub(crate) async fn commit(&self, write: Write) -> Result<(), CommitError> {
        match self.write(write, true).await {
            Ok(result) => result,
            Err(_) => Err(CommitError::Unavailable(Arc::from("the store's thread has ended"))),
        }
    }

    /// Runs something on the store's thread, between two batches: claims, clean-ups, resets.
    pub(crate) async fn run<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a dyn Store) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            let work = job(store);
            Box::pin(async move {
                let _ = reply.send(work.await);
            })
        });
        self.shared.push_job(job);
        result.await.unwrap_or_else(|_| {
            let source = "the store's thread has ended".into();
            Err(StoreError::Unavailable { doing: "running a job", source })
        })
    }

    /// Has the store asked whether it is there, because something other than a commit has failed:
    /// a server that has nothing to write must find out, too.
    pub(crate) fn doubt(&self) {
        let mut queue = self.shared.queue();
        queue.doubted = true;
        self.shared.wake(queue);
    }

    /// Returns whether the last commit succeeded, or the store has answered since.
    pub(crate) fn is_healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Acquire)
    }

    /// Writes what is queued and ends the thread; returns when it has ended.
    pub(crate) async fn stop(&self) {
        // What has gathered in this runtime's lane crosses first.
        tokio::task::yield_now().await;
        let (ended, end) = oneshot::channel();
        self.shared.stop(ended);
        // An error means that it had ended before.
        let _ = end.await;
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held; the queue is whole in any case.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, writes: Vec<Pending>, forced: bool) {
        let mut queue = self.queue();
        if queue.stopped {
            // Dropping the ackers tells their tasks.
            return;
        }
        if queue.writes.is_empty() {
            queue.writes = writes.into();
        } else {
            queue.writes.extend(writes);
        }
        queue.forced |= forced;
        if !forced && queue.lazy_until.is_none() {
            queue.lazy_until = Some(Instant::now() + LAZY_WAIT);
        }
        self.wake(queue);
    }

    /// Takes nothing more, and lets everybody who waits know.
    fn end(&self) -> Option<oneshot::Sender<()>> {
        let mut queue = self.queue();
        queue.stopped = true;
        // Dropping the ackers and jobs tells their tasks.
        queue.writes.clear();
        queue.jobs.clear();
        let ended = queue.ended.take();
        drop(queue);
        for lane in lock(&self.lanes).iter() {
            lane.notify.notify_one();
        }
        ended
    }

    fn push_job(&self, job: Job) {
        let mut queue = self.queue();
        if !queue.stopped {
            queue.jobs.push_back(job);
        }
        self.wake(queue);
    }

    fn stop(&self, ended: oneshot::Sender<()>) {
        let mut queue = self.queue();
        if !queue.stopped {
            queue.stopping = true;
            queue.ended = Some(ended);
        }
        self.wake(queue);
    }

    fn wake(&self, queue: MutexGuard<'_, Queue>) {
        let sleeping = queue.sleeping;
        drop(queue);
        if sleeping {
            match &self.filled {
                Filled::Thread(filled) => filled.notify_one(),
                Filled::Task(filled) => filled.notify_one(),
            }
        }
    }
}

/// Carries a lane's changes over and its results back, each as one.
async fn run_lane(committer: Committer, inbox: Arc<LaneInbox>) {
    loop {
        inbox.notify.notified().await;
        // The tasks that are ready now may have changes too.
        tokio::task::yield_now().await;
        let Some(lane) = committer.lane() else { return };
        let pending = {
            let mut pending = lane.pending.borrow_mut();
            // The next batch is about as large.
            let next = Vec::with_capacity(pending.len().min(BATCH_MAX));
            std::mem::replace(&mut *pending, next)
        };
        let forced = std::mem::take(&mut *lane.forced.borrow_mut());
        if !pending.is_empty() {
            committer.shared.push(pending, forced);
        }
        let done = std::mem::take(&mut *lock(&inbox.done));
        for (acker, result) in done {
            let _ = acker.send(result);
        }
        if committer.shared.queue().stopped {
            LANES.with(|lanes| lanes.borrow_mut().retain(|kept| !Rc::ptr_eq(kept, &lane)));
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the store's thread, or its task, works with.
struct Worker {
    shared: Arc<Shared>,
    /// Set while the store is unavailable: when to ask it again.
    ping_at: Option<Instant>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A bug in the store: nothing is accepted any more, and `/readyz` says so.
            error!("the store's thread has panicked; restart the server");
            self.shared.healthy.store(false, Ordering::Release);
            self.shared.end();
        }
    }
}

enum Work {
    Job(Job),
    Batch(Vec<Pending>),
    Ping,
    Stop,
}

impl Worker {
    fn run_on(mut self, runtime: Runtime) {
        loop {
            match self.wait_for_work() {
                Work::Stop => break,
                work => runtime.block_on(self.work(work)),
            }
        }
        drop(runtime);
        self.finish();
    }

    async fn run_as_task(mut self) {
        loop {
            match self.work_that_comes().await {
                Work::Stop => break,
                work => self.work(work).await,
            }
        }
        self.finish();
    }

    fn finish(self) {
        let ended = self.shared.end();
        drop(self);
        if let Some(ended) = ended {
            let _ = ended.send(());
        }
    }

    async fn work(&mut self, work: Work) {
        match work {
            Work::Job(job) => job(&*self.shared.store).await,
            Work::Batch(batch) => self.commit(batch).await,
            Work::Ping => self.ask_whether_it_is_there().await,
            Work::Stop => {}
        }
    }

    /// Returns what to do now; if that is nothing, until when to wait for it.
    fn next_work(&self, queue: &mut Queue) -> Result<Work, Option<Instant>> {
        if let Some(job) = queue.jobs.pop_front() {
            return Ok(Work::Job(job));
        }
        let now = Instant::now();
        if let Some(batch) = queue.take_batch(now) {
            return Ok(Work::Batch(batch));
        }
        if queue.stopping {
            queue.stopped = true;
            return Ok(Work::Stop);
        }
        if std::mem::take(&mut queue.doubted) || self.ping_at.is_some_and(|at| at <= now) {
            return Ok(Work::Ping);
        }
        Err([queue.lazy_until, self.ping_at].into_iter().flatten().min())
    }

    fn wait_for_work(&self) -> Work {
        let mut queue = self.shared.queue();
        loop {
            let until = match self.next_work(&mut queue) {
                Ok(work) => return work,
                Err(until) => until,
            };
            let Filled::Thread(filled) = &self.shared.filled else { return Work::Stop };
            queue.sleeping = true;
            queue = match until {
                Some(until) => {
                    let wait = until.saturating_duration_since(Instant::now());
                    let result = filled.wait_timeout(queue, wait);
                    result.unwrap_or_else(PoisonError::into_inner).0
                }
                None => filled.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
            queue.sleeping = false;
        }
    }

    async fn work_that_comes(&self) -> Work {
        let Filled::Task(filled) = &self.shared.filled else { return Work::Stop };
        loop {
            let until = {
                let mut queue = self.shared.queue();
                match self.next_work(&mut queue) {
                    Ok(work) => return work,
                    Err(until) => {
                        queue.sleeping = true;
                        until
                    }
                }
            };
            // What is notified from here on is kept for the wait.
            match until {
                Some(until) => drop(timeout_at(until, filled.notified()).await),
                None => filled.notified().await,
            }
            self.shared.queue().sleeping = false;
        }
    }

    async fn commit(&mut self, batch: Vec<Pending>) {
        let forced = batch.iter().filter(|pending| pending.forced).count();
        let (writes, ackers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|pending| (pending.write, (pending.acker, pending.lane))).unzip();
        if self.ping_at.is_some() {
            let failure = CommitError::Unavailable(Arc::from("the store is unavailable"));
            let results = ackers.iter().map(|_| Err(failure.clone())).collect();
            return self.answer(ackers, results);
        }
        let begun = Instant::now();
        dtmd_failpoint::hit("commit-begins");
        let result = self.shared.store.commit(&writes).await;
        dtmd_failpoint::hit("commit-done");
        self.shared.metrics.flushed(writes.len(), forced, begun.elapsed());
        let results: Vec<Result<(), CommitError>> = match result {
            Ok(results) => {
                results.into_iter().map(|result| result.map_err(CommitError::Refused)).collect()
            }
            Err(failure) => {
                let failure = self.failed(&failure);
                ackers.iter().map(|_| Err(failure.clone())).collect()
            }
        };
        self.answer(ackers, results);
    }

    /// Notes a failed commit: nothing in it is acknowledged, and no effect of it runs.
    fn failed(&mut self, failure: &StoreError) -> CommitError {
        let mut text = failure.to_string();
        let mut source = std::error::Error::source(failure);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        error!(error = %text, "the store failed; nothing is accepted until it answers again");
        self.is_away();
        match failure {
            StoreError::Full { .. } => CommitError::Full(Arc::from(text)),
            _ => CommitError::Unavailable(Arc::from(text)),
        }
    }

    fn is_away(&mut self) {
        self.shared.healthy.store(false, Ordering::Release);
        self.ping_at = Some(Instant::now() + PING_EVERY);
    }

    async fn ask_whether_it_is_there(&mut self) {
        let was_away = self.ping_at.is_some();
        match self.shared.store.ping().await {
            Ok(()) if was_away => {
                info!("the store answers again");
                self.ping_at = None;
                self.shared.healthy.store(true, Ordering::Release);
            }
            Ok(()) => {}
            Err(failure) => {
                if was_away {
                    debug!(error = %failure, "the store is still unavailable");
                } else {
                    error!(
                        error = %failure,
                        "the store is away; nothing is accepted until it answers again"
                    );
                }
                self.is_away();
            }
        }
    }

    /// Sends each lane its results, and wakes it once.
    fn answer(&self, ackers: Vec<(Acker, Option<usize>)>, results: Vec<Result<(), CommitError>>) {
        let lanes = lock(&self.shared.lanes);
        let mut done: Vec<Vec<Done>> = lanes.iter().map(|_| Vec::new()).collect();
        for ((acker, lane), result) in ackers.into_iter().zip(results) {
            match lane.and_then(|lane| done.get_mut(lane)) {
                None => {
                    let _ = acker.send(result);
                }
                Some(done) => done.push((acker, result)),
            }
        }
        for (lane, done) in lanes.iter().zip(done).filter(|(_, done)| !done.is_empty()) {
            let mut waiting = lock(&lane.done);
            if waiting.is_empty() {
                *waiting = done;
            } else {
                waiting.extend(done);
            }
            drop(waiting);
            lane.notify.notify_one();
        }
    }
}
