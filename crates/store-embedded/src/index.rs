//! What is in memory: unfinished globals whole, finished ones as slots, keys, and which segment
//! holds how much that is still needed.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dtmd_protocol::{Gid, Global, Timestamp};
use dtmd_store::record::Head;
use dtmd_store::{Kv, Oldest, Totals};

use crate::event::{PutEvent, status_of, type_of};
use crate::hashes::Hashes;
use crate::segment::SegmentFile;
use crate::slots::{Location, Slot, Slots, Use};

/// A map of this process alone, asked for with every change: by a hash that is quicker than the
/// standard library's, and seeded at random, because gids come from outside.
pub(crate) type QuickMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// An unfinished global.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) global: Arc<Global>,
    /// When it is due: its wake-up, or at once after the store was opened.
    pub(crate) due: Timestamp,
    /// Owner or wake-up are not those of the log.
    pub(crate) leased: bool,
    /// Its records: a whole one, then changes.
    pub(crate) chain: Vec<Location>,
}

impl Live {
    /// Returns whether the next change should be written as a whole record: reading a global back
    /// must not cost much more than its size.
    pub(crate) fn is_long(&self) -> bool {
        const SMALL: usize = 4096;
        let mut lengths = self.chain.iter().map(|at| at.len as usize);
        let whole = lengths.next().unwrap_or(0);
        lengths.sum::<usize>() > SMALL.max(2 * whole)
    }
}

/// How a segment is used.
#[derive(Debug)]
pub(crate) struct SegmentUse {
    pub(crate) file: Arc<SegmentFile>,
    /// Bytes of records that are still needed.
    pub(crate) needed: u64,
    /// Bytes written.
    pub(crate) written: u64,
    /// Nothing more is written to it.
    pub(crate) sealed: bool,
    /// It has a hint.
    pub(crate) hinted: bool,
}

/// A key and where its record is.
#[derive(Debug)]
pub(crate) struct KvEntry {
    pub(crate) kv: Kv,
    pub(crate) at: Location,
}

/// Where a gid is.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nowhere.
    Nothing,
    /// Unfinished, with this number.
    Live(u64),
    /// Finished, at one of these numbers: whose hash is that of the gid.
    Finished(Vec<u64>),
}

/// The whole of it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    hasher: RandomState,
    pub(crate) slots: Slots,
    /// The numbers of finished ones.
    finished_gids: Hashes,
    /// The numbers of unfinished ones: asked for with every change.
    live_gids: QuickMap<Gid, u64>,
    pub(crate) live: QuickMap<u64, Live>,
    due: BTreeSet<(Timestamp, u64)>,
    pub(crate) kv: BTreeMap<(String, String), KvEntry>,
    pub(crate) segments: BTreeMap<u32, SegmentUse>,
    /// By type's and status' code.
    totals: [[u64; 5]; 5],
    pub(crate) next_number: u64,
    /// No unfinished global has a number below this; moves up when it is asked for.
    first_live: AtomicU64,
}

impl Index {
    /// Returns an index with what was replayed; live ones and keys are added one by one.
    pub(crate) fn new(
        hasher: RandomState,
        slots: Slots,
        next_number: u64,
        segments: BTreeMap<u32, SegmentUse>,
    ) -> Self {
        let finished_gids = Hashes::with_capacity(slots.finished());
        let mut index = Self { hasher, finished_gids, next_number, segments, ..Self::default() };
        for (number, slot) in slots.from(0).filter(|(_, slot)| slot.used == Use::Finished) {
            index.finished_gids.insert(slot.hash, number);
            index.occupy(slot.at);
            index.count(slot, 1);
        }
        index.slots = slots;
        index
    }

    pub(crate) fn hash(&self, gid: &str) -> u64 {
        self.hasher.hash_one(gid)
    }

    pub(crate) fn find(&self, gid: &Gid) -> Found {
        if let Some(number) = self.live_gids.get(gid) {
            return Found::Live(*number);
        }
        let finished: Vec<u64> = self.finished_gids.numbers(self.hash(gid.as_str())).collect();
        if finished.is_empty() { Found::Nothing } else { Found::Finished(finished) }
    }

    /// Returns the file and the place of a finished global's record.
    pub(crate) fn finished(&self, number: u64) -> Option<(Arc<SegmentFile>, Location)> {
        let slot = self.slots.get(number).filter(|slot| slot.used == Use::Finished)?;
        let segment = self.segments.get(&slot.at.segment)?;
        Some((segment.file.clone(), slot.at))
    }

    /// Enters an unfinished global.
    pub(crate) fn put_live(&mut self, number: u64, live: Live) {
        let event = PutEvent::of(number, Head::of(&live.global));
        self.set_slot(number, self.slot(&event, Use::Live, Location::default()));
        self.live_gids.insert(live.global.gid.clone(), number);
        self.first_live.fetch_min(number, Ordering::Relaxed);
        for at in &live.chain {
            self.occupy(*at);
        }
        self.due.insert((live.due, number));
        self.live.insert(number, live);
    }

    /// Enters a finished global.
    pub(crate) fn put_finished(&mut self, number: u64, global: &Global, at: Location) {
        // A gid is hashed once in its life.
        let hash = match self.slots.get(number) {
            Some(old) => old.hash,
            None => self.hash(global.gid.as_str()),
        };
        let event = PutEvent::of(number, Head::of(global));
        self.set_slot(number, slot(hash, &event, Use::Finished, at));
        self.finished_gids.insert(hash, number);
        self.occupy(at);
    }

    fn slot(&self, event: &PutEvent<'_>, used: Use, at: Location) -> Slot {
        slot(self.hash(&event.gid), event, used, at)
    }

    /// Returns what has waited longest. Numbers are given in the order of acceptance, so the lowest
    /// unfinished one is the oldest; finished ones below it are passed over once only.
    pub(crate) fn oldest(&self) -> Oldest {
        let from = self.first_live.load(Ordering::Relaxed);
        let found = self.slots.from(from).find(|(_, slot)| slot.used == Use::Live);
        let first = found.map_or(self.next_number.max(from), |(number, _)| number);
        self.first_live.store(first, Ordering::Relaxed);
        Oldest {
            created: found.map(|(_, slot)| Timestamp(slot.created)),
            due: self.due.first().map(|(at, _)| *at),
        }
    }

    /// Takes a global out of everything.
    pub(crate) fn remove(&mut self, number: u64) {
        if let Some(slot) = self.slots.remove(number) {
            self.forget(number, &slot);
        }
    }

    /// Sets the slot of a global, and forgets everything else that was known of it.
    fn set_slot(&mut self, number: u64, slot: Slot) {
        self.count(&slot, 1);
        if let Some(old) = self.slots.set(number, slot) {
            self.forget(number, &old);
        }
    }

    /// Forgets what there is of a global beside its slot.
    fn forget(&mut self, number: u64, slot: &Slot) {
        self.count(slot, -1);
        match self.live.remove(&number) {
            Some(live) => {
                self.live_gids.remove(&live.global.gid);
                self.due.remove(&(live.due, number));
                for at in live.chain {
                    self.release(at);
                }
            }
            None => {
                self.finished_gids.remove(slot.hash, number);
                self.release(slot.at);
            }
        }
    }

    /// Replaces an unfinished global by a later state, and adds a record to its chain.
    pub(crate) fn change_live(
        &mut self,
        number: u64,
        global: Arc<Global>,
        leased: bool,
        added: Option<Location>,
    ) {
        let Some(live) = self.live.get_mut(&number) else { return };
        let (old, new) = (live.due, global.wake_at);
        let old_code = (live.global.trans_type(), live.global.status);
        let new_code = (global.trans_type(), global.status);
        live.global = global;
        live.due = new;
        live.leased = leased;
        live.chain.extend(added);
        if old != new {
            self.due.remove(&(old, number));
            self.due.insert((new, number));
        }
        if let Some(at) = added {
            self.occupy(at);
        }
        if old_code != new_code
            && let Some(mut slot) = self.slots.get(number).copied()
        {
            self.count(&slot, -1);
            slot.status = crate::event::status_code(new_code.1);
            slot.trans_type = crate::event::type_code(new_code.0);
            self.count(&slot, 1);
            self.slots.set(number, slot);
        }
    }

    /// Moves a finished global's record.
    pub(crate) fn move_finished(&mut self, number: u64, at: Location) {
        if let Some(mut slot) = self.slots.get(number).copied() {
            self.release(slot.at);
            slot.at = at;
            self.slots.set(number, slot);
            self.occupy(at);
        }
    }

    /// Moves an unfinished global's records into one.
    pub(crate) fn move_live(&mut self, number: u64, at: Location) {
        if let Some(live) = self.live.get_mut(&number) {
            let old = std::mem::replace(&mut live.chain, vec![at]);
            live.leased = false;
            for at in old {
                self.release(at);
            }
            self.occupy(at);
        }
    }

    /// Sets or deletes a key.
    pub(crate) fn set_kv(&mut self, slot: (String, String), entry: Option<KvEntry>) {
        if let Some(entry) = &entry {
            self.occupy(entry.at);
        }
        let old = match entry {
            Some(entry) => self.kv.insert(slot, entry),
            None => self.kv.remove(&slot),
        };
        if let Some(old) = old {
            self.release(old.at);
        }
    }

    /// Moves a key's record.
    pub(crate) fn move_kv(&mut self, slot: &(String, String), at: Location) {
        if let Some(entry) = self.kv.get_mut(slot) {
            let old = std::mem::replace(&mut entry.at, at);
            self.release(old);
            self.occupy(at);
        }
    }

    /// Returns the numbers of the globals that are due, the oldest first.
    pub(crate) fn due(&self, due: Timestamp) -> impl Iterator<Item = u64> {
        self.due.range(..=(due, u64::MAX)).map(|(_, number)| *number)
    }

    /// Returns how many globals there are by type and status.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::new();
        for (trans_type, by_status) in (0u8..).zip(&self.totals) {
            for (status, count) in (0u8..).zip(by_status) {
                if let (Some(trans_type), Some(status), true) =
                    (type_of(trans_type), status_of(status), *count > 0)
                {
                    totals.push((trans_type, status, *count));
                }
            }
        }
        totals
    }

    /// Empties it; the segments stay, and nothing in them is needed.
    pub(crate) fn reset(&mut self) {
        let mut segments = std::mem::take(&mut self.segments);
        for segment in segments.values_mut() {
            segment.needed = 0;
        }
        *self = Self { segments, next_number: self.next_number, ..Self::default() };
    }

    fn count(&mut self, slot: &Slot, by: i64) {
        let by_status = self.totals.get_mut(usize::from(slot.trans_type));
        if let Some(count) = by_status.and_then(|row| row.get_mut(usize::from(slot.status))) {
            *count = count.saturating_add_signed(by);
        }
    }

    fn occupy(&mut self, at: Location) {
        if let Some(segment) = self.segments.get_mut(&at.segment) {
            segment.needed += u64::from(at.len);
        }
    }

    fn release(&mut self, at: Location) {
        if let Some(segment) = self.segments.get_mut(&at.segment) {
            segment.needed = segment.needed.saturating_sub(u64::from(at.len));
        }
    }
}

/// Returns the slot of a global.
pub(crate) fn slot(hash: u64, event: &PutEvent<'_>, used: Use, at: Location) -> Slot {
    Slot {
        hash,
        created: event.created,
        ended: event.ended,
        at,
        used,
        status: event.status,
        trans_type: event.trans_type,
    }
}
