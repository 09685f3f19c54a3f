//! The store as the engine sees it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use dtmd_protocol::{Gid, Global, Timestamp};
use dtmd_store::{
    Claim, Kv, KvPage, ListFilter, ListPage, Oldest, Purge, Store, StoreError, StoreInfo, Totals,
    Write, WriteError,
};

use crate::disk::{Disk, RealDisk};
use crate::error::OpenError;
use crate::event::{status_of, type_of};
use crate::format::{BatchBuilder, Kind};
use crate::index::Found;
use crate::maintain;
use crate::segment::SegmentFile;
use crate::shared::Shared;
use crate::slots::{Location, Slot, Use};
use crate::stage::{Refusal, Stage, corrupt, push_mark, push_value};
use crate::stats::Stats;

/// How the store works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Length of a segment in bytes, from 4096 to 1 GiB. Each holds a file descriptor.
    pub segment_bytes: u64,
    /// How many finished globals are kept; the oldest go first, whenever a segment is begun or
    /// something is purged. `None`: all, until they are purged by age.
    pub history_max_count: Option<usize>,
    /// Prepare segments, write hints and clean up in a thread of the store's own. Without it,
    /// [`EmbeddedStore::maintain`] does all that when it is called.
    pub background: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            history_max_count: Some(2_000_000),
            background: true,
        }
    }
}

/// The embedded store: a directory that one process at a time has.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens the store in a directory, or makes it.
    ///
    /// Reads only what unfinished globals need; takes about a second for a million finished ones.
    ///
    /// # Errors
    ///
    /// [`OpenError`], saying what to do.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(RealDisk::new(dir)), options)
    }

    /// Opens the store on any disk.
    ///
    /// # Errors
    ///
    /// As [`EmbeddedStore::open`].
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Self, OpenError> {
        let background = options.background;
        let shared = Arc::new(Shared::open(disk, options)?);
        let thread = if background { Some(maintain::spawn(&shared)?) } else { None };
        Ok(Self { shared, thread: Mutex::new(thread) })
    }

    /// Does all maintenance that is due: spare segments, hints, history, compaction.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; what was not done is tried again next time.
    pub fn maintain(&self) -> Result<(), StoreError> {
        maintain::run(&self.shared)
    }

    /// Returns what it has done, and how large it is.
    pub fn stats(&self) -> Stats {
        let index = self.shared.index();
        let segments = index.segments.values();
        Stats {
            segments: index.segments.len() as u64,
            log_bytes: segments.clone().map(|segment| segment.written).sum(),
            needed_bytes: segments.map(|segment| segment.needed).sum(),
            live: index.live.len() as u64,
            finished: index.slots.finished() as u64,
            ..*self.shared.stats_mut()
        }
    }

    fn close(&self) {
        self.shared.signal.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the store's maintenance panicked");
        }
        let Ok(mut writer) = self.shared.writer() else { return };
        if writer.log.current.is_none() {
            return;
        }
        // With it, damage to the last batch cannot be mistaken for one that was cut off.
        let mut batch = BatchBuilder::new();
        push_mark(&mut batch, Kind::Close);
        let next_number = self.shared.index().next_number;
        if let Err(error) = self.shared.append(&mut writer, &mut batch, next_number, "closing") {
            tracing::warn!(%error, "the store was not closed in order; nothing is lost");
        }
    }

    fn read_finished(&self, gid: &Gid, numbers: &[u64]) -> Result<Option<Arc<Global>>, StoreError> {
        for number in numbers {
            let place = self.shared.index().finished(*number);
            // Purged, or moved between the two looks; then it is not this one any more.
            let Some((file, at)) = place else { continue };
            let global = file.read_global(at).map_err(|error| corrupt(gid, error))?;
            if global.gid == *gid {
                return Ok(Some(Arc::new(global)));
            }
        }
        Ok(None)
    }

    /// Looks at the next entries of a list; returns what it admits, and where to go on.
    fn list_some(&self, filter: &ListFilter, before: u64, limit: usize) -> (Vec<Hit>, Option<u64>) {
        /// So many entries are looked at before others get their turn.
        const STEP: usize = 4096;
        let index = self.shared.index();
        let mut hits = Vec::new();
        for (seen, (number, slot)) in index.slots.before(before).enumerate() {
            let listed = match slot.used {
                Use::Live => index
                    .live
                    .get(&number)
                    .filter(|live| filter.admits(&live.global))
                    .map(|live| Listed::Live(live.global.clone())),
                Use::Finished if admits(filter, slot) => {
                    index.finished(number).map(|(file, at)| Listed::Finished(file, at))
                }
                Use::Finished | Use::Free => None,
            };
            hits.extend(listed.map(|listed| Hit { number, listed }));
            if hits.len() >= limit || seen >= STEP {
                return (hits, Some(number));
            }
        }
        (hits, None)
    }
}

struct Hit {
    number: u64,
    listed: Listed,
}

enum Listed {
    Live(Arc<Global>),
    Finished(Arc<SegmentFile>, Location),
}

impl Listed {
    fn read(self) -> Result<Arc<Global>, StoreError> {
        match self {
            Self::Live(global) => Ok(global),
            Self::Finished(file, at) => file.read_global(at).map(Arc::new).map_err(|error| {
                StoreError::Unavailable { doing: "reading a finished global", source: error.into() }
            }),
        }
    }
}

/// Returns whether a finished global meets every condition, by what is in memory of it.
fn admits(filter: &ListFilter, slot: &Slot) -> bool {
    filter.status.is_none_or(|status| status_of(slot.status) == Some(status))
        && filter.trans_type.is_none_or(|wanted| type_of(slot.trans_type) == Some(wanted))
        && filter.created_from.is_none_or(|from| slot.created >= from.0)
        && filter.created_to.is_none_or(|to| slot.created <= to.0)
        && filter.wakes_after.is_none()
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn commit(&self, batch: &[Write]) -> Result<Vec<Result<(), WriteError>>, StoreError> {
        let mut writer = self.shared.writer()?;
        let mut results = Vec::with_capacity(batch.len());
        let mut staged = {
            // Only who has the writer changes the index, so it stays as it was decided on.
            let index = self.shared.index();
            let mut stage = Stage::new(&index, batch.len());
            for write in batch {
                results.push(match stage.stage(write) {
                    Ok(()) => Ok(()),
                    Err(Refusal::Write(error)) => Err(error),
                    Err(Refusal::Store(error)) => return Err(error),
                });
            }
            stage.finish()
        };
        if staged.is_empty() {
            return Ok(results);
        }
        let mut appended = None;
        if !staged.batch.is_empty() {
            let next_number = staged.next_number;
            let batch = &mut staged.batch;
            appended = Some(self.shared.append(&mut writer, batch, next_number, "committing")?);
        }
        staged.apply(&mut self.shared.index_mut(), appended.as_ref());
        Ok(results)
    }

    async fn load(&self, gid: &Gid) -> Result<Option<Arc<Global>>, StoreError> {
        let found = {
            let index = self.shared.index();
            match index.find(gid) {
                Found::Live(number) => {
                    return Ok(index.live.get(&number).map(|live| live.global.clone()));
                }
                found => found,
            }
        };
        match found {
            Found::Finished(numbers) => self.read_finished(gid, &numbers),
            Found::Nothing | Found::Live(_) => Ok(None),
        }
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<Arc<Global>>, StoreError> {
        let _writer = self.shared.writer()?;
        let mut index = self.shared.index_mut();
        let numbers: Vec<u64> = index.due(claim.due).take(claim.limit).collect();
        let mut claimed = Vec::with_capacity(numbers.len());
        for number in numbers {
            let Some(live) = index.live.get(&number) else { continue };
            let mut global = Global::clone(&live.global);
            global.owner = claim.owner.clone();
            global.epoch += 1;
            global.wake_at = claim.until;
            let global = Arc::new(global);
            index.change_live(number, global.clone(), true, None);
            claimed.push(global);
        }
        Ok(claimed)
    }

    async fn list(
        &self,
        filter: &ListFilter,
        position: &str,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let mut page = ListPage::default();
        let mut before = match position {
            "" => u64::MAX,
            position => match position.parse() {
                Ok(number) => number,
                Err(_) => return Ok(page),
            },
        };
        let mut last = before;
        loop {
            // One more than asked for shows whether there is a next page.
            let missing = limit.saturating_add(1) - page.globals.len();
            let (hits, next) = self.list_some(filter, before, missing);
            for hit in hits {
                if page.globals.len() == limit {
                    page.next_position = last.to_string();
                    return Ok(page);
                }
                page.globals.push(hit.listed.read()?);
                last = hit.number;
            }
            match next {
                Some(next) => before = next,
                None => return Ok(page),
            }
        }
    }

    async fn load_kv(&self, cat: &str, key: &str) -> Result<Option<Kv>, StoreError> {
        let slot = (cat.to_owned(), key.to_owned());
        Ok(self.shared.index().kv.get(&slot).map(|entry| entry.kv.clone()))
    }

    async fn list_kv(&self, cat: &str, position: &str, limit: usize) -> Result<KvPage, StoreError> {
        let index = self.shared.index();
        let from = (cat.to_owned(), position.to_owned());
        let of_cat = index.kv.range(from..).take_while(|((of, _), _)| of == cat);
        let after = of_cat.filter(|((_, key), _)| position.is_empty() || key.as_str() > position);
        let entries = after.take(limit.saturating_add(1)).map(|(_, entry)| entry.kv.clone());
        let mut entries: Vec<Kv> = entries.collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next_position = match entries.last() {
            Some(kv) if more => kv.key.clone(),
            _ => String::new(),
        };
        Ok(KvPage { entries, next_position })
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        Ok(self.shared.index().totals())
    }

    async fn oldest(&self) -> Result<Oldest, StoreError> {
        Ok(self.shared.index().oldest())
    }

    async fn purge(&self, ended_before: Timestamp, limit: usize) -> Result<Purge, StoreError> {
        let mut writer = self.shared.writer()?;
        let mut numbers: Vec<u64> = {
            let index = self.shared.index();
            let ended = index.slots.ended_before(ended_before.0);
            ended.take(limit.saturating_add(1)).map(|(number, _)| number).collect()
        };
        let more = numbers.len() > limit;
        numbers.truncate(limit);
        maintain::delete(&self.shared, &mut writer, &numbers)?;
        Ok(Purge { deleted: numbers.len(), more })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.shared
            .reopen()
            .map_err(|source| StoreError::Unavailable { doing: "reopening the log", source })
    }

    async fn reset(&self) -> Result<(), StoreError> {
        let mut writer = self.shared.writer()?;
        let mut batch = BatchBuilder::new();
        push_mark(&mut batch, Kind::Reset);
        let next_number = self.shared.index().next_number;
        self.shared.append(&mut writer, &mut batch, next_number, "emptying the store")?;
        self.shared.index_mut().reset();
        self.shared.signal.want();
        Ok(())
    }

    fn info(&self) -> StoreInfo {
        StoreInfo {
            kind: "embedded",
            location: self.shared.disk.location(),
            exclusive: true,
            durable: true,
        }
    }
}

/// Deletes finished globals, durably.
pub(crate) fn delete_batch(numbers: &[u64]) -> Result<BatchBuilder, StoreError> {
    let mut batch = BatchBuilder::new();
    push_value(&mut batch, Kind::Delete, &numbers)?;
    Ok(batch)
}
