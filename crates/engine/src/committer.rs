//! The group committer: the one way by which anything becomes durable.
//!
//! Changes gather inside each network runtime (its *lane*) while the tasks that are ready run, cross
//! to the store's thread together, and are written by one `Store::commit` while the next ones
//! gather. The results cross back together too: one wake a batch each way, because waking a thread
//! for every operation costs more than the disk does.
//!
//! A store that has nothing to wait for takes each change where it arises, instead. One whose
//! writes go over a network may have several writers ([`Store::writers`]): each has a queue and a
//! thread, and the changes of one global always take the same.
//!
//! In a simulation a store's thread is a task; it does the same, in the same order.
//!
//! A lazy change does not ask for a flush; it rides in the next one, which comes within
//! `LAZY_WAIT` at the latest.

mod queue;
mod worker;

use std::cell::{Cell, RefCell};
use std::hash::BuildHasher as _;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dtmd_store::{Store, StoreError, Write, WriteError};
use foldhash::fast::FixedState;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, oneshot};

use crate::environment::Environment;
use crate::metrics::Metrics;
use queue::{BATCH_MAX, Job, Pending, Writer};
use worker::Worker;

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

/// A handle to the committer; clones share it. Its threads end when [`Committer::stop`] is called.
#[derive(Clone)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    /// As many as the store wants; at least one.
    writers: Vec<Writer>,
    /// Never gets shorter.
    lanes: Mutex<Vec<Arc<LaneInbox>>>,
    metrics: Arc<Metrics>,
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
    /// For each writer.
    gathered: RefCell<Vec<Gathered>>,
    /// Its task has been told that there is something.
    told: Cell<bool>,
}

#[derive(Default)]
struct Gathered {
    writes: Vec<Pending>,
    forced: bool,
}

thread_local! {
    static LANES: RefCell<Vec<Rc<Lane>>> = const { RefCell::new(Vec::new()) };
}

impl Committer {
    /// Starts the store's threads; in a simulation tasks of the current runtime.
    ///
    /// # Errors
    ///
    /// When the operating system gives no thread.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        environment: &Environment,
    ) -> std::io::Result<Self> {
        let writers = (0..store.writers().max(1)).map(|_| Writer::new(environment)).collect();
        let shared = Arc::new(Shared { store, writers, lanes: Mutex::default(), metrics });
        for index in 0..shared.writers.len() {
            let worker = Worker::new(shared.clone(), index);
            match environment {
                Environment::Machine => {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                    let thread = std::thread::Builder::new().name("dtmd-store".to_owned());
                    thread.spawn(move || worker.run_on(runtime))?;
                }
                Environment::Simulation(_) => drop(tokio::spawn(worker.run_as_task())),
            }
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
            gathered: RefCell::new(
                self.shared.writers.iter().map(|_| Gathered::default()).collect(),
            ),
            told: Cell::new(false),
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
        let writer = self.shared.writer_of(&write);
        let Some(lane) = self.lane() else {
            let writes = vec![Pending { write, forced, acker, lane: None }];
            self.shared.writers[writer].push(writes, forced);
            return ack;
        };
        let gathered = &mut lane.gathered.borrow_mut()[writer];
        gathered.writes.push(Pending { write, forced, acker, lane: Some(lane.index) });
        gathered.forced |= forced;
        if !lane.told.replace(true) {
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

    /// Runs something on the store's first thread, between two of its batches: claims, clean-ups,
    /// resets.
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
        self.shared.jobs().push_job(job);
        result.await.unwrap_or_else(|_| {
            let source = "the store's thread has ended".into();
            Err(StoreError::Unavailable { doing: "running a job", source })
        })
    }

    /// Has the store asked whether it is there, because something other than a commit has failed:
    /// a server that has nothing to write must find out, too.
    pub(crate) fn doubt(&self) {
        let asker = self.shared.jobs();
        let mut queue = asker.queue();
        queue.doubted = true;
        asker.wake(queue);
    }

    /// Returns whether the last commits succeeded, or the store has answered since.
    pub(crate) fn is_healthy(&self) -> bool {
        self.shared.is_healthy()
    }

    /// Writes what is queued and ends the threads; returns when they have ended.
    pub(crate) async fn stop(&self) {
        // What has gathered in this runtime's lane crosses first.
        tokio::task::yield_now().await;
        let stop = |writer: &Writer| {
            let (ended, end) = oneshot::channel();
            writer.stop(ended);
            end
        };
        let ends: Vec<_> = self.shared.writers.iter().map(stop).collect();
        for end in ends {
            // An error means that it had ended before.
            let _ = end.await;
        }
    }
}

impl Shared {
    /// Returns which writer a change takes.
    fn writer_of(&self, write: &Write) -> usize {
        if self.writers.len() == 1 {
            return 0;
        }
        let gid = match write {
            Write::Create(global) => &global.gid,
            Write::Update { before, .. } => &before.gid,
            Write::Lease(lease) => &lease.gid,
            Write::Kv { .. } => return 0,
        };
        // Not seeded at random, so that a simulation repeats itself.
        let hash = FixedState::default().hash_one(gid.as_str());
        usize::try_from(hash % self.writers.len() as u64).unwrap_or(0)
    }

    /// Returns the writer that claims and asks besides.
    fn jobs(&self) -> &Writer {
        &self.writers[0]
    }

    fn is_healthy(&self) -> bool {
        self.writers.iter().all(|writer| writer.healthy.load(Ordering::Acquire))
    }

    /// Lets a lane's results and its end be seen.
    fn wake_lanes(&self) {
        for lane in lock(&self.lanes).iter() {
            lane.notify.notify_one();
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
        lane.told.set(false);
        for (gathered, writer) in
            lane.gathered.borrow_mut().iter_mut().zip(&committer.shared.writers)
        {
            if gathered.writes.is_empty() {
                continue;
            }
            // The next batch is about as large.
            let next = Vec::with_capacity(gathered.writes.len().min(BATCH_MAX));
            let writes = std::mem::replace(&mut gathered.writes, next);
            writer.push(writes, std::mem::take(&mut gathered.forced));
        }
        let done = std::mem::take(&mut *lock(&inbox.done));
        for (acker, result) in done {
            let _ = acker.send(result);
        }
        if committer.shared.writers.iter().all(|writer| writer.queue().stopped) {
            LANES.with(|lanes| lanes.borrow_mut().retain(|kept| !Rc::ptr_eq(kept, &lane)));
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
