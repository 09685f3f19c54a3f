//! A store's thread, or its task: it writes batches, runs jobs, and asks a store that was away
//! whether it is back.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use dtmd_store::StoreError;
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info};

use super::queue::{Filled, Job, Pending, Queue, Writer};
use super::{Acker, CommitError, Done, Shared, lock};

/// How often an unavailable store is asked whether it is back.
const PING_EVERY: Duration = Duration::from_millis(250);

/// What a store's thread, or its task, works with.
pub(super) struct Worker {
    shared: Arc<Shared>,
    /// Which of the writers it is.
    index: usize,
    /// Set while the store is unavailable: when to ask it again.
    ping_at: Option<Instant>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A bug in the store: nothing is accepted any more, and `/readyz` says so.
            error!("the store's thread has panicked; restart the server");
            self.writer().healthy.store(false, Ordering::Release);
            self.writer().end();
            self.shared.wake_lanes();
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
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self { shared, index, ping_at: None }
    }

    pub(super) fn run_on(mut self, runtime: Runtime) {
        loop {
            match self.wait_for_work() {
                Work::Stop => break,
                work => runtime.block_on(self.work(work)),
            }
        }
        drop(runtime);
        self.finish();
    }

    pub(super) async fn run_as_task(mut self) {
        loop {
            match self.work_that_comes().await {
                Work::Stop => break,
                work => self.work(work).await,
            }
        }
        self.finish();
    }

    fn writer(&self) -> &Writer {
        &self.shared.writers[self.index]
    }

    fn finish(self) {
        let ended = self.writer().end();
        self.shared.wake_lanes();
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
        let mut queue = self.writer().queue();
        loop {
            let until = match self.next_work(&mut queue) {
                Ok(work) => return work,
                Err(until) => until,
            };
            let Filled::Thread(filled) = &self.writer().filled else { return Work::Stop };
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
        let Filled::Task(filled) = &self.writer().filled else { return Work::Stop };
        loop {
            let until = {
                let mut queue = self.writer().queue();
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
            self.writer().queue().sleeping = false;
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
        // Each of several writers finds out by itself.
        if self.shared.is_healthy() {
            error!(error = %text, "the store failed; nothing is accepted until it answers again");
        } else {
            debug!(error = %text, "the store failed");
        }
        self.is_away();
        match failure {
            StoreError::Full { .. } => CommitError::Full(Arc::from(text)),
            _ => CommitError::Unavailable(Arc::from(text)),
        }
    }

    fn is_away(&mut self) {
        self.writer().healthy.store(false, Ordering::Release);
        self.ping_at = Some(Instant::now() + PING_EVERY);
    }

    async fn ask_whether_it_is_there(&mut self) {
        let was_away = self.ping_at.is_some();
        match self.shared.store.ping().await {
            Ok(()) if was_away => {
                self.ping_at = None;
                self.writer().healthy.store(true, Ordering::Release);
                if self.shared.is_healthy() {
                    info!("the store answers again");
                }
            }
            Ok(()) => {}
            Err(failure) => {
                if !self.shared.is_healthy() {
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
