//! The whole promise in its simplest form: everything in memory, nothing survives the process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use dtmd_protocol::{Gid, Global, GlobalStatus, Timestamp, TransType};

use crate::error::{StoreError, WriteError};
use crate::store::{
    Claim, Kv, KvPage, Lease, ListFilter, ListPage, Oldest, Purge, Store, StoreInfo, Totals, Write,
};

/// A store without a disk. Several engines in one process may share it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    // A std mutex: every critical section is a few map operations, none spans an await.
    state: Mutex<State>,
    in_batches: bool,
}

#[derive(Debug, Default)]
struct State {
    globals: HashMap<Gid, Entry, foldhash::fast::RandomState>,
    /// Unfinished globals by wake-up.
    due: BTreeSet<(Timestamp, Gid)>,
    /// All globals by arrival, for listing newest first.
    by_number: BTreeMap<u64, Gid>,
    /// Finished globals by end, for the clean-up.
    ended: BTreeSet<(Timestamp, Gid)>,
    totals: BTreeMap<(TransType, GlobalStatus), u64>,
    next_number: u64,
    kv: BTreeMap<(String, String), Kv>,
}

#[derive(Debug)]
struct Entry {
    global: Arc<Global>,
    number: u64,
}

impl MemoryStore {
    /// Returns an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty store that takes changes in batches only, as one with a device does: for
    /// tests of who hands them over.
    pub fn in_batches() -> Self {
        Self { in_batches: true, ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves maps that are still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, write: &Write) -> Result<(), WriteError> {
        match write {
            Write::Create(global) => self.create(global),
            Write::Update { before, after } => self.update(before, after),
            Write::Lease(lease) => self.lease(lease),
            Write::Kv { cat, key, expected, value, now } => {
                self.write_kv(cat, key, *expected, value.as_deref(), *now)
            }
        }
    }

    fn create(&mut self, global: &Arc<Global>) -> Result<(), WriteError> {
        if self.globals.contains_key(&global.gid) {
            return Err(WriteError::AlreadyExists(global.gid.to_string()));
        }
        self.next_number += 1;
        let number = self.next_number;
        self.by_number.insert(number, global.gid.clone());
        self.enter(Entry { global: global.clone(), number });
        Ok(())
    }

    fn update(&mut self, before: &Global, after: &Arc<Global>) -> Result<(), WriteError> {
        let stored = self.stored(&before.gid)?;
        if stored.revision != before.revision || stored.epoch != before.epoch {
            return Err(WriteError::Conflict(before.gid.to_string()));
        }
        self.replace(after.clone());
        Ok(())
    }

    fn lease(&mut self, lease: &Lease) -> Result<(), WriteError> {
        let stored = self.stored(&lease.gid)?;
        if stored.revision != lease.revision || stored.epoch != lease.epoch {
            return Err(WriteError::Conflict(lease.gid.to_string()));
        }
        let mut global = Global::clone(stored);
        global.owner = lease.owner.clone();
        global.epoch = lease.new_epoch;
        global.wake_at = lease.wake_at;
        self.replace(Arc::new(global));
        Ok(())
    }

    fn stored(&self, gid: &Gid) -> Result<&Arc<Global>, WriteError> {
        let entry = self.globals.get(gid);
        entry.map(|entry| &entry.global).ok_or_else(|| WriteError::NotFound(gid.to_string()))
    }

    fn replace(&mut self, global: Arc<Global>) {
        if let Some(Entry { number, .. }) = self.leave(&global.gid) {
            self.enter(Entry { global, number });
        }
    }

    /// Adds an entry to every index.
    fn enter(&mut self, entry: Entry) {
        let global = &entry.global;
        *self.totals.entry((global.trans_type(), global.status)).or_default() += 1;
        match ended_at(global) {
            Some(at) => self.ended.insert((at, global.gid.clone())),
            None => self.due.insert((global.wake_at, global.gid.clone())),
        };
        self.globals.insert(global.gid.clone(), entry);
    }

    /// Takes an entry out of every index but the order of arrival.
    fn leave(&mut self, gid: &Gid) -> Option<Entry> {
        let entry = self.globals.remove(gid)?;
        let global = &entry.global;
        if let Some(count) = self.totals.get_mut(&(global.trans_type(), global.status)) {
            *count -= 1;
        }
        match ended_at(global) {
            Some(at) => self.ended.remove(&(at, gid.clone())),
            None => self.due.remove(&(global.wake_at, gid.clone())),
        };
        Some(entry)
    }

    fn write_kv(
        &mut self,
        cat: &str,
        key: &str,
        expected: u64,
        value: Option<&str>,
        now: Timestamp,
    ) -> Result<(), WriteError> {
        let slot = (cat.to_owned(), key.to_owned());
        let stored = self.kv.get(&slot);
        let name = || format!("{cat}/{key}");
        match stored {
            Some(_) if expected == 0 => return Err(WriteError::AlreadyExists(name())),
            None if expected != 0 => return Err(WriteError::NotFound(name())),
            Some(kv) if kv.version != expected => return Err(WriteError::Conflict(name())),
            Some(_) | None => {}
        }
        let created = stored.map_or(now, |kv| kv.created);
        match value {
            None => {
                self.kv.remove(&slot);
            }
            Some(value) => {
                let kv = Kv {
                    cat: slot.0.clone(),
                    key: slot.1.clone(),
                    value: value.to_owned(),
                    version: expected + 1,
                    created,
                    updated: now,
                };
                self.kv.insert(slot, kv);
            }
        }
        Ok(())
    }
}

fn ended_at(global: &Global) -> Option<Timestamp> {
    global.status.is_final().then(|| global.finished.or(global.rolled_back).unwrap_or_default())
}

impl ListFilter {
    /// Returns whether a global meets every condition.
    pub fn admits(&self, global: &Global) -> bool {
        self.status.is_none_or(|status| global.status == status)
            && self.trans_type.is_none_or(|trans_type| global.trans_type() == trans_type)
            && self.created_from.is_none_or(|from| global.created >= from)
            && self.created_to.is_none_or(|to| global.created <= to)
            && self
                .wakes_after
                .is_none_or(|after| !global.status.is_final() && global.wake_at > after)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, batch: &[Write]) -> Result<Vec<Result<(), WriteError>>, StoreError> {
        let mut state = self.state();
        Ok(batch.iter().map(|write| state.apply(write)).collect())
    }

    fn commit_at_once(&self, write: &Write) -> Option<Result<(), WriteError>> {
        (!self.in_batches).then(|| self.state().apply(write))
    }

    async fn load(&self, gid: &Gid) -> Result<Option<Arc<Global>>, StoreError> {
        Ok(self.state().globals.get(gid).map(|entry| entry.global.clone()))
    }

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<Arc<Global>>, StoreError> {
        let mut state = self.state();
        let due = state.due.iter().take_while(|(at, _)| *at <= claim.due).take(claim.limit);
        let gids: Vec<Gid> = due.map(|(_, gid)| gid.clone()).collect();
        let mut claimed = Vec::with_capacity(gids.len());
        for gid in gids {
            let Some(entry) = state.globals.get(&gid) else { continue };
            let mut global = Global::clone(&entry.global);
            global.owner = claim.owner.clone();
            global.epoch += 1;
            global.wake_at = claim.until;
            let global = Arc::new(global);
            state.replace(global.clone());
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
        let before = match position {
            "" => u64::MAX,
            position => match position.parse() {
                Ok(number) => number,
                Err(_) => return Ok(ListPage::default()),
            },
        };
        let state = self.state();
        let mut page = ListPage::default();
        let mut last = 0;
        for (number, gid) in state.by_number.range(..before).rev() {
            let Some(entry) = state.globals.get(gid) else { continue };
            if !filter.admits(&entry.global) {
                continue;
            }
            if page.globals.len() == limit {
                page.next_position = last.to_string();
                break;
            }
            last = *number;
            page.globals.push(entry.global.clone());
        }
        Ok(page)
    }

    async fn load_kv(&self, cat: &str, key: &str) -> Result<Option<Kv>, StoreError> {
        Ok(self.state().kv.get(&(cat.to_owned(), key.to_owned())).cloned())
    }

    async fn list_kv(&self, cat: &str, position: &str, limit: usize) -> Result<KvPage, StoreError> {
        let state = self.state();
        let from = (cat.to_owned(), position.to_owned());
        let mut entries: Vec<Kv> = state
            .kv
            .range(from..)
            .take_while(|((of, _), _)| of == cat)
            .filter(|((_, key), _)| position.is_empty() || key.as_str() > position)
            .take(limit.saturating_add(1))
            .map(|(_, kv)| kv.clone())
            .collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next_position = match entries.last() {
            Some(kv) if more => kv.key.clone(),
            _ => String::new(),
        };
        Ok(KvPage { entries, next_position })
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        let state = self.state();
        let counted = state.totals.iter().filter(|(_, count)| **count > 0);
        Ok(counted.map(|(&(trans_type, status), &count)| (trans_type, status, count)).collect())
    }

    async fn oldest(&self) -> Result<Oldest, StoreError> {
        let state = self.state();
        let unfinished = state.due.iter().filter_map(|(_, gid)| state.globals.get(gid));
        let created = unfinished.map(|entry| entry.global.created).min();
        Ok(Oldest { created, due: state.due.first().map(|(at, _)| *at) })
    }

    async fn purge(&self, ended_before: Timestamp, limit: usize) -> Result<Purge, StoreError> {
        let mut state = self.state();
        let old = state.ended.iter().take_while(|(at, _)| *at < ended_before);
        let mut gids: Vec<Gid> =
            old.take(limit.saturating_add(1)).map(|(_, gid)| gid.clone()).collect();
        let more = gids.len() > limit;
        gids.truncate(limit);
        for gid in &gids {
            if let Some(Entry { number, .. }) = state.leave(gid) {
                state.by_number.remove(&number);
            }
        }
        Ok(Purge { deleted: gids.len(), more })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn reset(&self) -> Result<(), StoreError> {
        *self.state() = State::default();
        Ok(())
    }

    fn info(&self) -> StoreInfo {
        StoreInfo {
            kind: "memory",
            location: "this process".to_owned(),
            exclusive: false,
            durable: false,
        }
    }
}
