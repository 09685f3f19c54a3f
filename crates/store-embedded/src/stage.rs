//! Deciding a batch: which writes hold, and the records and changes of those that do.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use dtmd_protocol::{Gid, Global, Timestamp};
use dtmd_store::record::{self, Delta, RecordError};
use dtmd_store::{Kv, Lease, StoreError, Write, WriteError};

use crate::event::{KvRecord, encode};
use crate::format::{BatchBuilder, Kind, Place};
use crate::index::{Found, Index, KvEntry, Live, QuickMap};
use crate::log::Appended;

/// Why a write was not staged.
pub(crate) enum Refusal {
    /// It does not hold; the others may.
    Write(WriteError),
    /// The batch as a whole cannot be decided.
    Store(StoreError),
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A batch that is being decided: its writes see the earlier ones, the index does not change.
pub(crate) struct Stage<'a> {
    index: &'a Index,
    globals: QuickMap<Gid, Current>,
    keys: HashMap<(String, String), Option<Kv>>,
    outcome: Staged,
}

/// What has been decided: to be appended, and then applied to the index.
pub(crate) struct Staged {
    pub(crate) batch: BatchBuilder,
    pub(crate) next_number: u64,
    changes: Vec<Change>,
}

#[derive(Clone)]
struct Current {
    number: u64,
    global: Arc<Global>,
    /// Owner or wake-up are not those of the log.
    leased: bool,
}

enum Change {
    Global { number: u64, global: Arc<Global>, record: Recorded },
    Kv { slot: (String, String), kv: Option<(Kv, Place)> },
}

#[derive(Clone, Copy)]
enum Recorded {
    Whole(Place),
    Delta(Place),
    /// In memory only.
    Lease,
}

impl<'a> Stage<'a> {
    /// Returns a batch that is going to have so many writes.
    pub(crate) fn new(index: &'a Index, writes: usize) -> Self {
        let outcome = Staged {
            batch: BatchBuilder::for_records(writes),
            next_number: index.next_number,
            changes: Vec::with_capacity(writes),
        };
        let globals = QuickMap::with_capacity_and_hasher(writes, Default::default());
        Self { index, globals, keys: HashMap::new(), outcome }
    }

    pub(crate) fn finish(self) -> Staged {
        self.outcome
    }

    /// Decides one write.
    pub(crate) fn stage(&mut self, write: &Write) -> Result<(), Refusal> {
        match write {
            Write::Create(global) => self.create(global),
            Write::Update { before, after } => self.update(before, after),
            Write::Lease(lease) => self.lease(lease),
            Write::Kv { cat, key, expected, value, now } => {
                self.kv(cat, key, *expected, value.as_deref(), *now)
            }
        }
    }

    fn create(&mut self, global: &Arc<Global>) -> Result<(), Refusal> {
        // A record that cannot be read back, and whose hash is that of this gid, is taken for it.
        let taken = match self.current(&global.gid) {
            Ok(current) => current.is_some(),
            Err(StoreError::Corrupt { .. }) => true,
            Err(error) => return Err(error.into()),
        };
        if taken {
            return Err(WriteError::AlreadyExists(global.gid.to_string()).into());
        }
        let number = self.outcome.next_number;
        self.outcome.next_number += 1;
        self.put(Current { number, global: global.clone(), leased: false })
    }

    fn update(&mut self, before: &Global, after: &Arc<Global>) -> Result<(), Refusal> {
        let stored = self.stored(&before.gid)?;
        let same = stored.global.revision == before.revision && stored.global.epoch == before.epoch;
        if !same || after.gid != before.gid {
            return Err(WriteError::Conflict(before.gid.to_string()).into());
        }
        let long = self.index.live.get(&stored.number).is_some_and(Live::is_long);
        let next = Current { global: after.clone(), leased: false, ..stored.clone() };
        if long || after.status.is_final() || stored.global.status.is_final() {
            return self.put(next);
        }
        let mut delta = Delta::between(&stored.global, after);
        if stored.leased {
            delta.restate_lease(after);
        }
        let pushed = self.outcome.batch.push(Kind::Delta, next.number, |out| delta.encode(out));
        let place = pushed.map_err(|source| corrupt(&after.gid, source))?;
        self.change(next, Recorded::Delta(place));
        Ok(())
    }

    fn lease(&mut self, lease: &Lease) -> Result<(), Refusal> {
        let stored = self.stored(&lease.gid)?;
        if stored.global.revision != lease.revision || stored.global.epoch != lease.epoch {
            return Err(WriteError::Conflict(lease.gid.to_string()).into());
        }
        let mut global = Global::clone(&stored.global);
        global.owner = lease.owner.clone();
        global.epoch = lease.new_epoch;
        global.wake_at = lease.wake_at;
        let next = Current { global: Arc::new(global), leased: true, ..stored };
        if next.global.status.is_final() {
            // A finished global is not in memory: there is no other place for it.
            return self.put(next);
        }
        self.change(next, Recorded::Lease);
        Ok(())
    }

    /// Writes a global whole.
    fn put(&mut self, mut current: Current) -> Result<(), Refusal> {
        current.leased = false;
        let global = current.global.clone();
        let pushed =
            self.outcome.batch.push(Kind::Put, current.number, |out| record::encode(&global, out));
        let place = pushed.map_err(|source| corrupt(&global.gid, source))?;
        self.change(current, Recorded::Whole(place));
        Ok(())
    }

    fn change(&mut self, current: Current, record: Recorded) {
        let (number, global) = (current.number, current.global.clone());
        self.outcome.changes.push(Change::Global { number, global, record });
        self.globals.insert(current.global.gid.clone(), current);
    }

    fn stored(&self, gid: &Gid) -> Result<Current, Refusal> {
        Ok(self.current(gid)?.ok_or_else(|| WriteError::NotFound(gid.to_string()))?)
    }

    fn current(&self, gid: &Gid) -> Result<Option<Current>, StoreError> {
        if let Some(current) = self.globals.get(gid) {
            return Ok(Some(current.clone()));
        }
        match self.index.find(gid) {
            Found::Nothing => Ok(None),
            Found::Live(number) => Ok(self.index.live.get(&number).map(|live| Current {
                number,
                global: live.global.clone(),
                leased: live.leased,
            })),
            Found::Finished(numbers) => {
                for number in numbers {
                    let Some((file, at)) = self.index.finished(number) else { continue };
                    let global = file.read_global(at).map_err(|error| corrupt(gid, error))?;
                    if global.gid == *gid {
                        let global = Arc::new(global);
                        return Ok(Some(Current { number, global, leased: false }));
                    }
                }
                Ok(None)
            }
        }
    }

    fn kv(
        &mut self,
        cat: &str,
        key: &str,
        expected: u64,
        value: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let slot = (cat.to_owned(), key.to_owned());
        let stored = match self.keys.get(&slot) {
            Some(staged) => staged.clone(),
            None => self.index.kv.get(&slot).map(|entry| entry.kv.clone()),
        };
        let name = || format!("{cat}/{key}");
        match &stored {
            Some(_) if expected == 0 => return Err(WriteError::AlreadyExists(name()).into()),
            None if expected != 0 => return Err(WriteError::NotFound(name()).into()),
            Some(kv) if kv.version != expected => return Err(WriteError::Conflict(name()).into()),
            // To delete what is not there changes nothing.
            None if value.is_none() => return Ok(()),
            Some(_) | None => {}
        }
        let created = stored.map_or(now, |kv| kv.created);
        let kv = value.map(|value| Kv {
            cat: slot.0.clone(),
            key: slot.1.clone(),
            value: value.to_owned(),
            version: expected + 1,
            created,
            updated: now,
        });
        let pushed = match &kv {
            Some(kv) => push_kv(&mut self.outcome.batch, kv),
            None => self.outcome.batch.push(Kind::KvDelete, 0, |out| encode(&slot, out)),
        };
        let place = pushed.map_err(|error| unwritable(Box::new(error)))?;
        self.keys.insert(slot.clone(), kv.clone());
        let kv = kv.map(|kv| (kv, place));
        self.outcome.changes.push(Change::Kv { slot, kv });
        Ok(())
    }
}

/// Adds the record of a key and its value.
pub(crate) fn push_kv(batch: &mut BatchBuilder, kv: &Kv) -> Result<Place, RecordError> {
    batch.push(Kind::KvPut, 0, |out| encode(&KvRecord::of(kv), out))
}

/// Adds a record of a payload that is one value.
pub(crate) fn push_value<T: serde::Serialize>(
    batch: &mut BatchBuilder,
    kind: Kind,
    value: &T,
) -> Result<Place, StoreError> {
    let pushed = batch.push(kind, 0, |out| encode(value, out));
    pushed.map_err(|error| unwritable(Box::new(error)))
}

/// Adds a record without a payload.
pub(crate) fn push_mark(batch: &mut BatchBuilder, kind: Kind) {
    let pushed: Result<Place, Infallible> = batch.push(kind, 0, Ok);
    match pushed {
        Ok(_) => {}
    }
}

fn unwritable(source: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    StoreError::Unavailable { doing: "writing a record", source }
}

/// Returns the error for a global whose record cannot be written or read.
pub(crate) fn corrupt(
    gid: &Gid,
    source: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    StoreError::Corrupt { gid: gid.clone(), source: Box::new(source) }
}

impl Staged {
    /// Returns whether there is nothing to write, and nothing to change.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Applies what was decided to the index. `appended` is given if there were records.
    pub(crate) fn apply(self, index: &mut Index, appended: Option<&Appended>) {
        index.next_number = self.next_number;
        let at = |place| appended.map(|appended| appended.at(place)).unwrap_or_default();
        for change in self.changes {
            match change {
                Change::Global { number, global, record } => match record {
                    Recorded::Whole(place) if global.status.is_final() => {
                        index.put_finished(number, &global, at(place));
                    }
                    Recorded::Whole(place) => {
                        let (due, chain) = (global.wake_at, vec![at(place)]);
                        index.put_live(number, Live { global, due, leased: false, chain });
                    }
                    Recorded::Delta(place) => {
                        index.change_live(number, global, false, Some(at(place)));
                    }
                    Recorded::Lease => index.change_live(number, global, true, None),
                },
                Change::Kv { slot, kv } => {
                    let entry = kv.map(|(kv, place)| KvEntry { kv, at: at(place) });
                    index.set_kv(slot, entry);
                }
            }
        }
    }
}
