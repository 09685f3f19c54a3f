//! A server's machine: its committer, its timers, its claims, its deaths.

use std::sync::Arc;

use dtmd_protocol::{Target, Timestamp};
use dtmd_store::Write;

use super::agenda::Claim;
use super::by_tx::ByTx;
use super::fault::FaultKind;
use super::runner::{Message, Runner, WriteError};
use super::tx::Req;
use super::world::{Ev, Party, World};
use crate::Bug;
use crate::rng::mix;

const SECOND: u64 = 1_000_000;
const LAZY_WAIT: u64 = 5_000;
const PING_EVERY: u64 = 250_000;
const CLAIM_EVERY: u64 = 3 * SECOND;
const CLAIM_MAX: usize = 256;

/// A change on its way to the store.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    tx: u32,
    id: u64,
    write: Write,
}

/// What will become of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Made,
    /// An error, and nothing was written.
    Lost,
    /// An error, and all was written.
    MadeAll,
    /// An error, and some was written.
    MadeSome,
}

pub(crate) struct Server {
    pub(crate) alive: bool,
    pub(crate) incarnation: u32,
    name: String,
    pub(crate) owner: Arc<str>,
    /// Its clock minus the true time, in microseconds.
    pub(crate) offset: i64,
    pub(crate) paused_until: u64,
    pub(crate) runners: ByTx<Runner>,
    pub(crate) timers: ByTx<Timestamp>,
    pub(crate) asked: Vec<(u32, u32, Req)>,
    queue: Vec<Pending>,
    batch: Option<(Vec<Pending>, Fate)>,
    results: Vec<(u32, u64, Result<(), WriteError>)>,
    flush_planned: bool,
    /// A look at its leases is planned; there is none while it works on nothing.
    pub(crate) renewing: bool,
    /// When it looks for due globals next.
    claim_at: u64,
    pub(crate) healthy: bool,
    writes: u64,
}

impl Server {
    pub(crate) fn new(number: usize, seed: u64, transactions: usize) -> Self {
        Self {
            alive: false,
            incarnation: 0,
            name: format!("{seed:x}-s{number}"),
            owner: Arc::from(""),
            offset: 0,
            paused_until: 0,
            runners: ByTx::new(transactions),
            timers: ByTx::new(transactions),
            asked: Vec::new(),
            queue: Vec::new(),
            batch: None,
            results: Vec::new(),
            flush_planned: false,
            renewing: false,
            claim_at: 0,
            healthy: true,
            writes: 0,
        }
    }
}

impl World {
    /// Starts a server, for the first time or again.
    pub(crate) fn boot(&mut self, s: usize) {
        let server = &mut self.servers[s];
        if server.alive {
            return;
        }
        server.alive = true;
        server.incarnation += 1;
        server.owner = Arc::from(format!("{}.{}", server.name, server.incarnation));
        server.healthy = true;
        server.flush_planned = false;
        if self.embedded {
            self.store.all_due();
        }
        let stagger = 1_000 * (s as u64 + 1);
        self.claim_in(s, stagger);

        self.servers[s].renewing = false;
    }

    /// Kills a server: what it had not written is gone.
    pub(crate) fn crash(&mut self, s: usize, down_for: u64) {
        if !self.servers[s].alive {
            return;
        }
        self.note(|| format!("server {s} dies"));
        let server = &mut self.servers[s];
        let chance = mix(self.seed, u64::from(server.incarnation) << 8 | s as u64);
        server.alive = false;
        for (tx, _) in server.runners.iter() {
            self.txs[tx as usize].reasons += 1;
        }
        server.runners.clear();
        server.timers.clear();
        server.asked.clear();
        // Lazy results that were queued were believed done: their calls are made again.
        for pending in std::mem::take(&mut server.queue) {
            self.txs[pending.tx as usize].reasons += 1;
        }
        let server = &mut self.servers[s];
        for (tx, _, _) in std::mem::take(&mut server.results) {
            self.txs[tx as usize].reasons += 1;
        }
        if let Some((mut batch, fate)) = self.servers[s].batch.take() {
            for pending in &batch {
                self.txs[pending.tx as usize].reasons += 1;
            }
            if self.embedded {
                // The journal holds what had reached the disk: a beginning of the batch.
                batch.truncate(usize::try_from(chance).unwrap_or(0) % (batch.len() + 1));
                self.apply_orphan(&batch);
            } else if fate != Fate::Lost && chance & 1 == 0 {
                // It had left for the database, which does not know that its sender is dead.
                self.at(chance % (8 * SECOND), Ev::Orphan { batch });
            }
        }
        self.at(down_for, Ev::Restart { s });
    }

    /// Returns the next key of a transaction's own: what happens to others does not shift it.
    pub(crate) fn next_key(&mut self, tx: u32) -> u64 {
        let tr = &mut self.txs[tx as usize];
        tr.messages += 1;
        u64::from(tx) << 32 | tr.messages
    }

    /// Returns whether a server can read and write the store now.
    pub(crate) fn reaches_store(&self, s: usize) -> bool {
        self.store_down == 0
            && !self.is_cut(Party::Server(s), Party::Store)
            && !self.is_cut(Party::Store, Party::Server(s))
    }

    /// Queues a change; returns its number.
    pub(crate) fn commit(&mut self, s: usize, tx: u32, write: Write, forced: bool) -> u64 {
        let server = &mut self.servers[s];
        server.writes += 1;
        let id = server.writes;
        server.queue.push(Pending { tx, id, write });
        let inc = server.incarnation;
        if forced {
            self.at(50, Ev::Flush { s, inc });
        } else if !server.flush_planned {
            server.flush_planned = true;
            self.at(LAZY_WAIT, Ev::Flush { s, inc });
        }
        id
    }

    /// Sends what is queued to the store, if no batch is under way.
    pub(crate) fn flush(&mut self, s: usize) {
        let server = &mut self.servers[s];
        if server.batch.is_some() || !server.results.is_empty() || server.queue.is_empty() {
            return;
        }
        server.flush_planned = false;
        let batch = std::mem::take(&mut server.queue);
        let (inc, healthy) = (server.incarnation, server.healthy);
        let k = self.next_key(batch[0].tx);
        let chance = mix(self.seed, k);
        let mut latency = 200 + chance % 1_500;
        if !healthy {
            self.servers[s].batch = Some((batch, Fate::Lost));
            return self.at(1, Ev::Apply { s, inc });
        }
        let fate = if !self.reaches_store(s) {
            latency += 2 * SECOND;
            Fate::Lost
        } else if self.faults.hits(FaultKind::StoreError, k) {
            Fate::Lost
        } else if self.faults.hits(FaultKind::StoreErrorWritten, k) {
            Fate::MadeAll
        } else if self.faults.hits(FaultKind::StoreErrorPartly, k) {
            Fate::MadeSome
        } else {
            Fate::Made
        };
        if self.faults.hits(FaultKind::SlowStore, k) {
            latency += chance % (12 * SECOND);
        }
        self.servers[s].batch = Some((batch, fate));
        self.at(latency, Ev::Apply { s, inc });
    }

    /// A batch reaches the store.
    pub(crate) fn apply_batch(&mut self, s: usize) {
        let Some((batch, fate)) = self.servers[s].batch.take() else { return };
        let inc = self.servers[s].incarnation;
        let k = self.next_key(batch[0].tx);
        let chance = mix(self.seed, k);
        let mut results = Vec::with_capacity(batch.len());
        let mut late = Vec::new();
        for (nth, pending) in batch.into_iter().enumerate() {
            let made = match fate {
                Fate::Made | Fate::MadeAll => true,
                Fate::Lost => false,
                Fate::MadeSome => chance >> (nth % 60) & 1 == 0,
            };
            let (tx, id) = (pending.tx, pending.id);
            if fate == Fate::Made {
                let result = self.apply_one(&pending).map_err(WriteError::Refused);
                results.push((tx, id, result));
            } else {
                results.push((tx, id, Err(WriteError::Unavailable)));
                if made {
                    late.push(pending);
                }
            }
        }
        if fate != Fate::Made && self.servers[s].healthy {
            self.servers[s].healthy = false;
            self.at(PING_EVERY, Ev::Ping { s, inc });
        }
        // A statement that was given up may be carried out before or after its error is seen.
        if !self.embedded && chance & 1 == 0 && !late.is_empty() {
            self.at(chance % (5 * SECOND), Ev::Orphan { batch: late });
        } else {
            self.apply_orphan(&late);
        }
        self.servers[s].results = results;
        if self.faults.hits(FaultKind::CrashAfterWrite, k) {
            return self.crash(s, SECOND / 10 + chance % (20 * SECOND));
        }
        self.at(50 + chance % 500, Ev::Flushed { s, inc });
    }

    /// Makes writes whose sender will not hear of it.
    pub(crate) fn apply_orphan(&mut self, batch: &[Pending]) {
        for pending in batch {
            let _ = self.apply_one(pending);
        }
    }

    fn apply_one(&mut self, pending: &Pending) -> Result<(), super::store::Refusal> {
        let tx = pending.tx;
        let result = self.store.apply(tx, &pending.write);
        if let Ok(before) = &result {
            self.observe(tx, before.as_ref(), matches!(pending.write, Write::Lease(_)));
        }
        result.map(drop)
    }

    /// The results of a batch are back; the next one leaves.
    pub(crate) fn flushed(&mut self, s: usize) {
        let inc = self.servers[s].incarnation;
        if !self.servers[s].queue.is_empty() {
            self.at(1, Ev::Flush { s, inc });
        }
        for (tx, id, result) in std::mem::take(&mut self.servers[s].results) {
            self.written(s, tx, id, result);
        }
    }

    pub(crate) fn ping(&mut self, s: usize) {
        if self.reaches_store(s) {
            self.servers[s].healthy = true;
        } else {
            let inc = self.servers[s].incarnation;
            self.at(PING_EVERY, Ev::Ping { s, inc });
        }
    }

    /// Returns whether a read takes long; what it read then arrives later, true or not.
    pub(crate) fn slow_load(&mut self, s: usize, tx: u32) -> bool {
        let k = self.next_key(tx);
        if !self.faults.hits(FaultKind::SlowStore, k) {
            return false;
        }
        let inc = self.servers[s].incarnation;
        let global = self.store.get(tx).cloned();
        let wait = mix(self.seed, k) % (3 * SECOND);
        self.at(wait, Ev::Loaded { s, inc, tx, global });
        true
    }

    pub(crate) fn postponed(
        &mut self,
        s: usize,
        tx: u32,
        inc: u32,
        id: u32,
        target: Target,
    ) -> bool {
        let k = self.next_key(tx);
        if !self.faults.hits(FaultKind::Postponed, k) {
            return false;
        }
        let until = self.local_now(s).after(std::time::Duration::from_secs(5));
        let outcome = dtmd_protocol::Outcome::Postponed(until);
        self.at(1, Ev::Reply { s, inc, tx, id, target, outcome });
        true
    }

    pub(crate) fn set_timer(&mut self, s: usize, tx: u32, due: Timestamp) {
        let server = &mut self.servers[s];
        server.timers.insert(tx, due);
        let inc = server.incarnation;
        let wait = due.since(self.local_now(s));
        // The loop that waits sleeps a second at most, in case the clock is set.
        let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX).min(4 * 3600 * SECOND);
        self.at(wait, Ev::Timer { s, inc, tx, due });
    }

    pub(crate) fn timer(&mut self, s: usize, tx: u32, due: Timestamp) {
        if self.servers[s].timers.get(tx) != Some(&due) {
            return;
        }
        if due > self.local_now(s) {
            return self.set_timer(s, tx, due);
        }
        self.servers[s].timers.remove(tx);
        self.tell(s, tx, Message::Wake { claimed: None });
    }

    /// The clock was set: what waits is looked at anew.
    pub(crate) fn clock_was_set(&mut self, s: usize) {
        let timers: Vec<(u32, Timestamp)> =
            self.servers[s].timers.iter().map(|(tx, due)| (tx, *due)).collect();
        for (tx, due) in timers {
            self.set_timer(s, tx, due);
        }
    }

    /// Takes over what is due and nobody works on.
    pub(crate) fn claim(&mut self, s: usize) {
        if self.now < self.servers[s].claim_at {
            return;
        }
        let now = self.local_now(s);
        let mut wait = CLAIM_EVERY;
        let grace = if self.embedded { 0 } else { 1_000_000 };
        let due = Timestamp(now.0 - grace);
        let busy = self.servers[s].batch.is_some() || !self.servers[s].healthy;
        let able = !busy && self.reaches_store(s) && self.bug != Some(Bug::NoTakeover);
        if able && self.store.earliest_due().is_some_and(|earliest| earliest <= due) {
            let until = now.after(self.policy.lease);
            let owner = self.servers[s].owner.clone();
            let claimed = self.store.claim(&owner, due, until, CLAIM_MAX);
            self.coverage.claimed += claimed.len() as u64;
            let k = claimed.first().map_or(0, |(tx, _)| self.next_key(*tx));
            // Taken, but the answer was lost: the lease will end.
            let lost = !claimed.is_empty() && self.faults.hits(FaultKind::StoreErrorWritten, k);
            for (tx, global) in claimed {
                self.txs[tx as usize].reasons += 1;
                if !lost {
                    self.tell(s, tx, Message::Wake { claimed: Some(global) });
                }
            }
        } else if busy {
            wait = 20_000;
        }
        // In the quiet phase nothing happens for long times.
        if self.is_quiet
            && let Some(earliest) = self.store.earliest_due()
        {
            let idle = u64::try_from(earliest.0 - now.0).unwrap_or(0) + 1_000_000;
            wait = wait.max(idle.min(3600 * SECOND));
        }
        self.claim_in(s, wait);
    }

    fn claim_in(&mut self, s: usize, wait: u64) {
        self.servers[s].claim_at = self.now + wait;
        let inc = self.servers[s].incarnation;
        self.agenda.push_claim(self.now + wait, Claim { s, inc });
    }

    /// Something is due earlier than a sleeping claimer would look.
    pub(crate) fn claim_no_later(&mut self, due: Timestamp) {
        for s in 0..self.servers.len() {
            let wait = due.since(self.local_now(s));
            let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX / 2);
            let wait = wait.max(CLAIM_EVERY) + SECOND;
            if self.servers[s].alive && self.now + wait < self.servers[s].claim_at {
                self.claim_in(s, wait);
            }
        }
    }
}
