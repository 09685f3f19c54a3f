//! Writes as calls of the script that makes them.

use dtmd_protocol::{Gid, Global};
use dtmd_store::{Lease, StoreError, Write, record};

use crate::clock::{Clock, exact};
use crate::header::{self, Code, Header};
use crate::keys::{Keys, SHARDS, shard_of, shard_of_cat, shard_of_gid_text};
use crate::script::{Args, ScriptCall};

/// A call holds no more writes than this: a script keeps Redis from everything else.
const CALL_MAX_WRITES: usize = 512;
/// Nor more bytes, unless one write alone is larger.
const CALL_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What became of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    Yes,
    Exists,
    Changed,
    Missing,
}

impl Made {
    pub(crate) fn of(letter: u8) -> Option<Self> {
        Some(match letter {
            b'1' => Self::Yes,
            b'E' => Self::Exists,
            b'C' => Self::Changed,
            b'N' => Self::Missing,
            _ => return None,
        })
    }
}

/// A call, and which of the plan's writes it makes.
#[derive(Debug)]
pub(crate) struct PlannedCall {
    pub(crate) call: ScriptCall,
    pub(crate) writes: Vec<usize>,
}

/// Calls in the order in which they must be made: those of one lane one after the other, lanes
/// independently. A cluster has a lane for each shard; a single server has one.
#[derive(Debug)]
pub(crate) struct Plan {
    keys: Keys,
    by_shard: bool,
    lanes: Vec<Vec<PlannedCall>>,
    /// The lane of each shard; the one of a single server is that of shard 0.
    lane_of: Vec<Option<usize>>,
    count: usize,
}

impl Plan {
    pub(crate) fn new(keys: &Keys, by_shard: bool) -> Self {
        Self {
            keys: keys.clone(),
            by_shard,
            lanes: Vec::new(),
            lane_of: vec![None; usize::from(SHARDS)],
            count: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn into_lanes(self) -> Vec<Vec<PlannedCall>> {
        self.lanes
    }

    fn add(&mut self, shard: u16, verb: &str, keys: impl IntoIterator<Item = String>) -> &mut Args {
        let lane_shard = if self.by_shard { shard } else { 0 };
        let lanes = &mut self.lanes;
        let slot = &mut self.lane_of[usize::from(lane_shard)];
        let lane = *slot.get_or_insert_with(|| {
            lanes.push(Vec::new());
            lanes.len() - 1
        });
        let lane = &mut self.lanes[lane];
        let has_room = lane.last().is_some_and(|last| {
            last.writes.len() < CALL_MAX_WRITES && last.call.args.bytes() < CALL_MAX_BYTES
        });
        if !has_room {
            let call = ScriptCall { shard: lane_shard, keys: Vec::new(), args: Args::default() };
            lane.push(PlannedCall { call, writes: Vec::new() });
        }
        let last = lane.len() - 1;
        let planned = &mut lane[last];
        planned.writes.push(self.count);
        self.count += 1;
        planned.call.keys.extend(keys);
        planned.call.args.push(verb);
        &mut planned.call.args
    }

    /// Adds a write.
    ///
    /// # Errors
    ///
    /// If it cannot be encoded; no global of the protocol is such.
    pub(crate) fn write(&mut self, write: &Write, clock: &Clock) -> Result<(), StoreError> {
        match write {
            Write::Create(global) => self.create(global, clock),
            Write::Update { before, after } => self.update(before, after, clock),
            Write::Lease(lease) => {
                self.lease(lease, clock);
                Ok(())
            }
            Write::Kv { cat, key, expected, value, now } => {
                let keys = [self.keys.values(cat), self.keys.names(cat)];
                let shard = shard_of_cat(cat);
                let cats = self.keys.cats(shard);
                let version = match value {
                    Some(_) => (expected + 1).to_string(),
                    None => String::new(),
                };
                self.add(shard, "K", keys.into_iter().chain([cats]))
                    .push(cat)
                    .push(key)
                    .push(expected.to_string())
                    .push(now.0.to_string())
                    .push(version)
                    .push(value.as_deref().unwrap_or_default());
                Ok(())
            }
        }
    }

    fn create(&mut self, global: &Global, clock: &Clock) -> Result<(), StoreError> {
        let code = code_of(global)?;
        let shard = shard_of(&global.gid);
        let gid = global.gid.as_str();
        let head = header::encode(global, code, clock.arrive());
        let keys = [
            self.keys.global(shard, gid),
            self.keys.times(shard, code),
            self.keys.list(shard, code),
            self.keys.totals(shard),
        ];
        let record = encode(global)?;
        self.add(shard, "C", keys)
            .push(gid)
            .push(head)
            .push(record)
            .push(score(global, clock).to_string());
        Ok(())
    }

    fn update(&mut self, before: &Global, after: &Global, clock: &Clock) -> Result<(), StoreError> {
        let (old, new) = (code_of(before)?, code_of(after)?);
        let shard = shard_of(&before.gid);
        let gid = before.gid.as_str();
        let mut keys = vec![self.keys.global(shard, gid), self.keys.times(shard, old)];
        if old != new {
            keys.extend([
                self.keys.times(shard, new),
                self.keys.list(shard, old),
                self.keys.list(shard, new),
                self.keys.totals(shard),
            ]);
        }
        let record = encode(after)?;
        self.add(shard, if old == new { "U" } else { "V" }, keys)
            .push(gid)
            .push(header::state(before, old))
            .push(header::encode(after, new, 0))
            .push(record)
            .push(score(after, clock).to_string());
        Ok(())
    }

    fn lease(&mut self, lease: &Lease, clock: &Clock) {
        let shard = shard_of(&lease.gid);
        let gid = lease.gid.as_str();
        let mut held = [0; 16];
        let (revision, epoch) = held.split_at_mut(8);
        revision.copy_from_slice(&lease.revision.0.to_be_bytes());
        epoch.copy_from_slice(&lease.epoch.to_be_bytes());
        let keys = [self.keys.global(shard, gid), self.keys.due(shard)];
        self.add(shard, "L", keys)
            .push(gid)
            .push(held)
            .push(lease.new_epoch.to_be_bytes())
            .push(header::time_text(lease.wake_at))
            .push(&*lease.owner)
            .push(clock.score(lease.wake_at).to_string());
    }

    /// Adds a claim: the header becomes another, if it is exactly as it was read, and the entry of
    /// the index still as it was seen before that.
    pub(crate) fn pick(
        &mut self,
        gid: &str,
        read: &Header,
        next: &[u8],
        (seen, score): (i64, i64),
    ) {
        let shard = shard_of_gid_text(gid);
        let keys = [self.keys.global(shard, gid), self.keys.due(shard)];
        self.add(shard, "P", keys)
            .push(gid)
            .push(read.bytes())
            .push(next)
            .push(seen.to_string())
            .push(score.to_string());
    }

    /// Adds that an entry stands elsewhere in its index, whatever is behind it.
    pub(crate) fn postpone(&mut self, gid: &str, score: i64) {
        let shard = shard_of_gid_text(gid);
        let keys = [self.keys.due(shard)];
        self.add(shard, "S", keys).push(gid).push(score.to_string());
    }

    /// Adds that an unfinished global is in the index of due ones, if it is in none; or that a
    /// list forgets a gid that is no global any more.
    pub(crate) fn mend(&mut self, gid: &str, code: Code, score: i64) {
        let shard = shard_of_gid_text(gid);
        let keys = [
            self.keys.global(shard, gid),
            self.keys.due(shard),
            self.keys.list(shard, code),
            self.keys.totals(shard),
        ];
        self.add(shard, "M", keys).push(gid).push(score.to_string());
    }

    /// Adds that a list is counted anew.
    pub(crate) fn recount(&mut self, shard: u16, list: String) {
        let keys = [list, self.keys.totals(shard)];
        self.add(shard, "T", keys);
    }

    /// Adds the deletion of a finished global.
    pub(crate) fn delete(&mut self, gid: &str, read: &Header) {
        let shard = shard_of_gid_text(gid);
        let keys = [
            self.keys.global(shard, gid),
            self.keys.ended(shard),
            self.keys.list(shard, read.code),
            self.keys.totals(shard),
        ];
        self.add(shard, "X", keys).push(gid).push(read.state());
    }

    /// Adds the removal of an entry of an index, if nothing is behind it.
    pub(crate) fn drop_entry(&mut self, gid: &str, index: String, of_due: bool) {
        let shard = shard_of_gid_text(gid);
        let keys = [self.keys.global(shard, gid), index];
        self.add(shard, "D", keys).push(gid).push(if of_due { "1" } else { "0" });
    }
}

/// Returns where a global stands in the index of its times.
fn score(global: &Global, clock: &Clock) -> i64 {
    if global.status.is_final() {
        // As the clean-up asks for it: in the servers' time.
        exact(header::ended_at(global).0)
    } else {
        clock.score(global.wake_at)
    }
}

fn code_of(global: &Global) -> Result<Code, StoreError> {
    Code::of(global).ok_or_else(|| unwritable(&global.gid, "its type has no code".into()))
}

fn encode(global: &Global) -> Result<Vec<u8>, StoreError> {
    let out = Vec::with_capacity(1024);
    record::encode(global, out).map_err(|error| unwritable(&global.gid, error.into()))
}

fn unwritable(gid: &Gid, source: dtmd_store::BoxError) -> StoreError {
    StoreError::Corrupt { gid: gid.clone(), source }
}
