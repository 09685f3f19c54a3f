//! What one of the store's threads is given to do, and how it is woken.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dtmd_store::{Store, Write};
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::Acker;
use crate::environment::Environment;

/// How long a lazy change waits for a forced one to ride with.
const LAZY_WAIT: Duration = Duration::from_millis(5);
/// Changes in one batch, at most: bounds the memory and the time of one flush.
pub(super) const BATCH_MAX: usize = 4096;

pub(super) type Job = Box<dyn for<'a> FnOnce(&'a dyn Store) -> BoxFuture<'a, ()> + Send>;

pub(super) struct Pending {
    pub(super) write: Write,
    pub(super) forced: bool,
    pub(super) acker: Acker,
    /// Which of the lanes it came by. Not the lane itself: two threads would count it to and fro.
    pub(super) lane: Option<usize>,
}

/// What one of the store's threads is given to do.
pub(super) struct Writer {
    queue: Mutex<Queue>,
    pub(super) filled: Filled,
    /// False from a failed commit, or an unanswered question, until the store answers again.
    pub(super) healthy: AtomicBool,
}

/// Wakes a store's thread, or its task.
pub(super) enum Filled {
    Thread(Condvar),
    Task(Notify),
}

#[derive(Default)]
pub(super) struct Queue {
    writes: VecDeque<Pending>,
    pub(super) jobs: VecDeque<Job>,
    /// Something waits that must be flushed without delay.
    forced: bool,
    /// When the oldest lazy change has waited long enough.
    pub(super) lazy_until: Option<Instant>,
    /// Something other than a commit has failed: whether the store is there must be asked.
    pub(super) doubted: bool,
    /// The store's thread waits; waking it when it does not would cost a system call for nothing.
    pub(super) sleeping: bool,
    pub(super) stopping: bool,
    pub(super) stopped: bool,
    ended: Option<oneshot::Sender<()>>,
}

impl Queue {
    /// Takes what is to be flushed now, if anything is.
    pub(super) fn take_batch(&mut self, now: Instant) -> Option<Vec<Pending>> {
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

impl Writer {
    pub(super) fn new(environment: &Environment) -> Self {
        Self {
            queue: Mutex::default(),
            filled: match environment {
                Environment::Machine => Filled::Thread(Condvar::new()),
                Environment::Simulation(_) => Filled::Task(Notify::new()),
            },
            healthy: AtomicBool::new(true),
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held; the queue is whole in any case.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, writes: Vec<Pending>, forced: bool) {
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
    pub(super) fn end(&self) -> Option<oneshot::Sender<()>> {
        let mut queue = self.queue();
        queue.stopped = true;
        // Dropping the ackers and jobs tells their tasks.
        queue.writes.clear();
        queue.jobs.clear();
        queue.ended.take()
    }

    pub(super) fn push_job(&self, job: Job) {
        let mut queue = self.queue();
        if !queue.stopped {
            queue.jobs.push_back(job);
        }
        self.wake(queue);
    }

    pub(super) fn stop(&self, ended: oneshot::Sender<()>) {
        let mut queue = self.queue();
        if !queue.stopped {
            queue.stopping = true;
            queue.ended = Some(ended);
        }
        self.wake(queue);
    }

    pub(super) fn wake(&self, queue: MutexGuard<'_, Queue>) {
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
