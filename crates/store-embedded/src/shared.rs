//! The state that the store and its maintenance work on.

use std::any::Any;
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::{Duration, Instant};

use dtmd_store::{BoxError, StoreError};

use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::{BatchBuilder, SEGMENT_HEADER, SegmentHeader};
use crate::index::{Index, SegmentUse};
use crate::load::{self, Loaded, Reading};
use crate::log::{AppendError, Appended, Log};
use crate::spares::Spares;
use crate::stats::Stats;
use crate::store::Options;

/// What is shared. Order of locks: `maintaining`, `writer`, `index`, `stats`.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) spares: Arc<Spares>,
    index: RwLock<Index>,
    writer: Mutex<Writer>,
    stats: Mutex<Stats>,
    pub(crate) signal: Signal,
    /// Held while maintenance runs; taken before `writer`.
    pub(crate) maintaining: Mutex<()>,
    /// Keeps other processes away.
    _lock: Box<dyn Any + Send + Sync>,
}

/// The right to change anything.
pub(crate) struct Writer {
    pub(crate) log: Log,
    /// Why the log must be read again before it is written to.
    pub(crate) broken: Option<Arc<str>>,
}

/// Wakes the maintenance.
#[derive(Default)]
pub(crate) struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Default)]
struct SignalState {
    wanted: bool,
    stopped: bool,
}

impl Signal {
    pub(crate) fn want(&self) {
        self.set(|state| state.wanted = true);
    }

    pub(crate) fn stop(&self) {
        self.set(|state| state.stopped = true);
    }

    fn set(&self, set: impl FnOnce(&mut SignalState)) {
        set(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until there is something to do; returns false when it is over. Tries again by
    /// itself after `at_most`.
    pub(crate) fn wait(&self, at_most: Option<Duration>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |state: &mut SignalState| !state.wanted && !state.stopped;
        state = match at_most {
            None => self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
            Some(at_most) => {
                let waited = self.changed.wait_timeout_while(state, at_most, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.wanted = false;
        !state.stopped
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped
    }
}

impl Shared {
    /// Reads the directory, and makes it ready to be written to.
    pub(crate) fn open(disk: Arc<dyn Disk>, options: Options) -> Result<Self, OpenError> {
        let segment_bytes = dtmd_failpoint::value("segment_bytes").unwrap_or(options.segment_bytes);
        let options = Options { segment_bytes, ..options };
        if !(4096..=1 << 30).contains(&options.segment_bytes) {
            return Err(OpenError::Options { segment_bytes: options.segment_bytes });
        }
        let failed = |doing| {
            let dir = disk.location();
            move |source| OpenError::Io { dir, doing, source }
        };
        let lock = disk.lock().map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => OpenError::InUse { dir: disk.location() },
            _ => failed("taking the lock")(error),
        })?;
        let loaded = load::load(&*disk, Reading::Hints)?;
        for name in &loaded.leftovers {
            disk.remove(name).map_err(failed("removing what a clean-up left"))?;
        }
        // A process that was killed may have begun a segment whose name is not on the device yet.
        disk.sync_names().map_err(failed("making the files' names durable"))?;
        let spares = Arc::new(Spares::new(disk.clone(), options.segment_bytes));
        let names = disk.names().map_err(failed("listing the files"))?;
        spares.adopt(&names).map_err(failed("taking over spare files"))?;
        if let Some(tail) = &loaded.tail {
            tail.make_durable().map_err(failed("making the last batch durable"))?;
        }
        dtmd_failpoint::hit("store-loaded");
        let log = log_of(&disk, &spares, &options, &loaded);
        Ok(Self {
            disk,
            options,
            spares,
            index: RwLock::new(loaded.index),
            writer: Mutex::new(Writer { log, broken: None }),
            stats: Mutex::default(),
            signal: Signal::default(),
            maintaining: Mutex::new(()),
            _lock: lock,
        })
    }

    // A panic under one of these locks would be our own broken invariant; what is committed is on
    // disk, and the maps stay whole enough to be read.

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats_mut(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the right to write; fails while the log must be read again.
    pub(crate) fn writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        let writer = self.writer_even_broken();
        match &writer.broken {
            None => Ok(writer),
            Some(why) => Err(StoreError::Unavailable {
                doing: "waiting to be reopened after a failed flush",
                source: why.to_string().into(),
            }),
        }
    }

    pub(crate) fn writer_even_broken(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a batch and makes it durable, and enters a new segment into the index.
    pub(crate) fn append(
        &self,
        writer: &mut Writer,
        batch: &mut BatchBuilder,
        next_number: u64,
        doing: &'static str,
    ) -> Result<Appended, StoreError> {
        let begun = Instant::now();
        let appended = writer.log.append(batch, next_number);
        self.count(batch, &appended, begun.elapsed());
        match appended {
            Ok(appended) => {
                self.enter_segment(&appended);
                Ok(appended)
            }
            Err(AppendError::Full(source)) => {
                // There may be segments whose records are all dead.
                self.signal.want();
                // A segment may have been begun before the batch did not fit into it.
                self.enter_current(writer);
                Err(StoreError::Full { doing, source: Box::new(source) })
            }
            Err(AppendError::Unknown(source)) => {
                tracing::error!(
                    error = %source,
                    location = self.disk.location(),
                    "a flush failed; nothing is written until the store has been reopened"
                );
                writer.broken = Some(Arc::from(source.to_string()));
                self.stats_mut().broken = true;
                Err(StoreError::Unavailable { doing, source: Box::new(source) })
            }
        }
    }

    fn enter_segment(&self, appended: &Appended) {
        let mut index = self.index_mut();
        if let Some(file) = &appended.begun {
            seal_all(&mut index);
            index.segments.insert(file.header.id, new_segment(file.clone(), 0));
            self.signal.want();
        }
        if let Some(mut last) = index.segments.last_entry() {
            last.get_mut().written = appended.end;
        }
    }

    fn enter_current(&self, writer: &Writer) {
        let Some(current) = &writer.log.current else { return };
        let mut index = self.index_mut();
        if !index.segments.contains_key(&current.header.id) {
            seal_all(&mut index);
            let segment = new_segment(current.clone(), SEGMENT_HEADER as u64);
            index.segments.insert(current.header.id, segment);
        }
    }

    fn count(
        &self,
        batch: &BatchBuilder,
        appended: &Result<Appended, AppendError>,
        took: Duration,
    ) {
        let mut stats = self.stats_mut();
        stats.last_flush = took;
        stats.flush_time += took;
        if appended.is_err() {
            stats.failed_flushes += 1;
            return;
        }
        stats.flushes += 1;
        stats.bytes += batch.len() as u64;
        stats.records += batch.records() as u64;
        stats.last_batch_records = batch.records() as u64;
        stats.largest_batch_records = stats.largest_batch_records.max(batch.records() as u64);
    }

    /// Reads the log again after a flush failed, and goes on in a new segment.
    ///
    /// The file whose sync failed is never written to again: the operating system may show bytes
    /// that are not on the device. The last batch that reads well, whose outcome may have been
    /// unknown, is written into the new segment; earlier ones were synced before it was written.
    pub(crate) fn reopen(&self) -> Result<(), BoxError> {
        let mut writer = self.writer_even_broken();
        if writer.broken.is_none() {
            return Ok(());
        }
        let loaded = load::load(&*self.disk, Reading::Hints)?;
        if let Some(tail) = &loaded.tail {
            let log = log_of(&self.disk, &self.spares, &self.options, &loaded);
            let id = tail.file.header.id + 1;
            let (first_seq, mut first) = match tail.last_batch() {
                Some((seq, batch)) => (seq, Some(batch)),
                None => (tail.next_seq, None),
            };
            let header = SegmentHeader { first_seq, ..log.header(id, loaded.index.next_number) };
            log.begin(header, first.as_mut()).map_err(|error| match error {
                AppendError::Full(error) | AppendError::Unknown(error) => error,
            })?;
        }
        let mut loaded = load::load(&*self.disk, Reading::Hints)?;
        let log = log_of(&self.disk, &self.spares, &self.options, &loaded);
        let mut index = self.index_mut();
        // Who worked on a global before must be refused, as after a restart.
        for (number, live) in &mut loaded.index.live {
            if let Some(old) = index.live.get(number) {
                let global = Arc::make_mut(&mut live.global);
                global.epoch = global.epoch.max(old.global.epoch) + 1;
            }
        }
        *index = loaded.index;
        drop(index);
        *writer = Writer { log, broken: None };
        self.stats_mut().broken = false;
        tracing::info!(location = self.disk.location(), "the store has been reopened");
        self.signal.want();
        Ok(())
    }
}

fn seal_all(index: &mut Index) {
    for segment in index.segments.values_mut() {
        segment.sealed = true;
    }
}

fn new_segment(file: Arc<crate::segment::SegmentFile>, written: u64) -> SegmentUse {
    SegmentUse { file, needed: 0, written, sealed: false, hinted: false }
}

fn log_of(disk: &Arc<dyn Disk>, spares: &Arc<Spares>, options: &Options, loaded: &Loaded) -> Log {
    Log {
        disk: disk.clone(),
        spares: spares.clone(),
        current: loaded.tail.as_ref().map(|tail| tail.file.clone()),
        offset: loaded.tail.as_ref().map_or(SEGMENT_HEADER as u64, |tail| tail.offset),
        next_seq: loaded.tail.as_ref().map_or(1, |tail| tail.next_seq),
        segment_bytes: options.segment_bytes,
        oldest: loaded.oldest,
    }
}
