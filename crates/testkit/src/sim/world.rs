//! One world: simulated time, network and machines, and the loop that plays them.

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{Global, Limits, Op, Outcome, Policy, Target, Timestamp};

use super::SimOptions;
use super::agenda::{Agenda, Claim};
use super::coverage::Coverage;
use super::env::EnvFault;
use super::fault::{FaultKind, Faults};
use super::runner::Message;
use super::server::{Pending, Server};
use super::service::Absorbed;
use super::store::SimStore;
use super::tx::{Req, Step, Told, Tx};
use crate::Bug;
use crate::invariants::{Checked, Violation};
use crate::rng::{Rng, mix};

/// Simulated time begins here, in microseconds since the Unix epoch.
const START: i64 = 1_700_000_000_000_000;
const SECOND: u64 = 1_000_000;
const HOUR: u64 = 3600 * SECOND;
/// How long after the end of all faults everything must be final. Clocks may have been wrong by
/// three hours, messages late by three, and a retry waits for an hour at most.
pub(crate) const QUIET: u64 = 12 * HOUR;
/// Past this a world runs in circles.
const EVENTS_MAX: u64 = 3_000_000;

/// Someone who sends or receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    Apps,
    Server(usize),
    Service(usize),
    Store,
}

/// Something that happens.
#[derive(Debug, Clone)]
pub(crate) enum Ev {
    App { tx: u32, no: u32 },
    Patience { tx: u32, no: u32 },
    Commit { tx: u32 },
    Ask { s: usize, tx: u32, no: u32, req: Req },
    Told { tx: u32, no: u32, req: Req, told: Told },
    Try { tx: u32, no: u32, branch: usize, xa: bool },
    Tried { tx: u32, no: u32, branch: usize, done: bool },
    XaGivesUp { tx: u32, no: u32, branch: usize },
    Call { s: usize, inc: u32, tx: u32, id: u32, target: Target, op: Op, branch: usize },
    Work { s: usize, inc: u32, tx: u32, id: u32, target: Target, op: Op, branch: usize },
    Reply { s: usize, inc: u32, tx: u32, id: u32, target: Target, outcome: Outcome },
    Timeout { s: usize, inc: u32, tx: u32, id: u32 },
    Loaded { s: usize, inc: u32, tx: u32, global: Option<Arc<Global>> },
    Drive { s: usize, inc: u32, tx: u32 },
    Flush { s: usize, inc: u32 },
    Apply { s: usize, inc: u32 },
    Orphan { batch: Vec<Pending> },
    Flushed { s: usize, inc: u32 },
    Ping { s: usize, inc: u32 },
    Timer { s: usize, inc: u32, tx: u32, due: Timestamp },
    Renew { s: usize, inc: u32 },
    Restart { s: usize },
    EnvBegins { nth: usize },
    EnvEnds { nth: usize },
    Quiet,
}

impl Ev {
    /// Returns whether something may still follow from it when everything is final.
    fn matters(&self) -> bool {
        !matches!(self, Ev::Timer { .. } | Ev::Renew { .. } | Ev::Ping { .. })
    }
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) bug: Option<Bug>,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    /// One server with a journal of its own, instead of several on a shared store.
    pub(crate) embedded: bool,
    pub(crate) now: u64,
    pub(crate) agenda: Agenda,
    matters: u64,
    ids: u32,
    pub(crate) faults: Faults,
    pub(crate) env: Vec<EnvFault>,
    /// Directions in which nothing passes.
    pub(crate) cut: Vec<(Party, Party)>,
    pub(crate) store: SimStore,
    pub(crate) store_down: u32,
    pub(crate) servers: Vec<Server>,
    pub(crate) txs: Vec<Tx>,
    pub(crate) quiet_at: u64,
    /// When a transaction last became final.
    pub(crate) last_end: u64,
    pub(crate) is_quiet: bool,
    pub(crate) absorbed: Absorbed,
    pub(crate) coverage: Coverage,
    pub(crate) events: u64,
    pub(crate) hash: u64,
    trace: Option<Vec<String>>,
    pub(crate) violation: Option<Violation>,
}

impl World {
    pub(crate) fn new(seed: u64, options: &SimOptions) -> Self {
        let mut rng = Rng::new(seed);
        let embedded = rng.chance(400);
        let count = if embedded { 1 } else { 1 + rng.index(3) };
        let length = rng.range(20, 300) * SECOND;
        let policy = Policy {
            retry_interval: Duration::from_secs(rng.range(1, 10)),
            retry_interval_max: Duration::from_secs([20, 60, 600, 3600][rng.index(4)]),
            lease: Duration::from_secs([4, 10, 30][rng.index(3)]),
            ..Policy::default()
        };
        let transactions = options.transactions as usize;
        let mut world = Self {
            seed,
            bug: options.bug,
            policy,
            limits: Limits::default(),
            embedded,
            now: 0,
            agenda: Agenda::default(),
            matters: 0,
            ids: 0,
            faults: Faults::new(seed, options.faults.clone()),
            env: Vec::new(),
            cut: Vec::new(),
            store: SimStore::new(transactions, options.bug),
            store_down: 0,
            servers: (0..count).map(|s| Server::new(s, seed, transactions)).collect(),
            txs: (0..options.transactions).map(|number| Tx::draw(seed, number)).collect(),
            quiet_at: length,
            last_end: 0,
            is_quiet: false,
            absorbed: Absorbed::default(),
            coverage: Coverage::default(),
            events: 0,
            hash: mix(seed, 1),
            trace: options.trace.then(Vec::new),
            violation: None,
        };
        for number in 0..options.transactions {
            let wanted = options.only.as_ref().is_none_or(|only| only.contains(&number));
            let at = mix(seed, u64::from(number)) % (length * 3 / 4);
            if wanted {
                world.at(at, Ev::App { tx: number, no: 0 });
            } else {
                world.txs[number as usize].app.step = Step::Done;
            }
        }
        world.draw_environment(length);
        world.at(length, Ev::Quiet);
        for s in 0..count {
            world.boot(s);
        }
        world
    }

    /// Plays the world to its end.
    pub(crate) fn run(&mut self) {
        loop {
            if let Some((at, claim)) = self.agenda.pop_claim() {
                if self.is_over(at, false) {
                    break;
                }
                self.claim_comes(claim);
            } else if let Some((at, ev)) = self.agenda.pop() {
                self.matters -= u64::from(ev.matters());
                if self.is_over(at, ev.matters()) {
                    break;
                }
                self.comes(ev);
            } else {
                break;
            }
        }
        self.check_end();
    }

    /// Goes on to the time of the next event, or returns that it will not happen any more.
    fn is_over(&mut self, at: u64, matters: bool) -> bool {
        if self.violation.is_some() || self.events > EVENTS_MAX {
            return true;
        }
        let idle = self.is_quiet && self.matters == 0 && !matters;
        if at > self.quiet_at + QUIET || idle && self.all_ended() {
            return true;
        }
        self.now = self.now.max(at);
        self.events += 1;
        false
    }

    fn claim_comes(&mut self, claim: Claim) {
        let Claim { s, inc } = claim;
        if let Some(until) = self.paused_until(s) {
            return self.agenda.push_claim(until, claim);
        }
        self.hash_in(0);
        self.note(|| format!("{claim:?}"));
        if self.lives(s, inc) {
            self.claim(s);
        }
    }

    fn comes(&mut self, ev: Ev) {
        if let Some(until) = ev.server().and_then(|s| self.paused_until(s)) {
            return self.at(until - self.now, ev);
        }
        self.hash_in(ev.part());
        self.note(|| format!("{ev:?}"));
        self.happens(ev);
    }

    /// Returns until when a server stands still, if it does.
    fn paused_until(&self, s: usize) -> Option<u64> {
        Some(self.servers[s].paused_until).filter(|until| *until > self.now)
    }

    fn all_ended(&self) -> bool {
        let numbers = 0..u32::try_from(self.txs.len()).unwrap_or(u32::MAX);
        numbers.into_iter().all(|tx| self.txs[tx as usize].may_rest(self.store.get(tx)))
    }

    fn happens(&mut self, ev: Ev) {
        match ev {
            Ev::App { tx, no } => {
                if self.txs[tx as usize].app.no == no {
                    self.app_acts(tx);
                }
            }
            Ev::Patience { tx, no } => self.app_times_out(tx, no),
            Ev::Commit { tx } => self.local_commits(tx),
            Ev::Ask { s, tx, no, req } => self.asked(s, tx, no, req),
            Ev::Told { tx, no, req, told } => self.app_hears(tx, no, req, &told),
            Ev::Try { tx, no, branch, xa } => self.try_arrives(tx, no, branch, xa),
            Ev::Tried { tx, no, branch, done } => self.tried(tx, no, branch, done),
            Ev::XaGivesUp { tx, no, branch } => self.xa_ends(tx, no, branch, false),
            Ev::Call { s, inc, tx, id, target, op, branch } => {
                self.call_arrives(s, inc, tx, id, target, op, branch);
            }
            Ev::Work { s, inc, tx, id, target, op, branch } => {
                let outcome = self.service_works(tx, branch, &op, false);
                let ev = Ev::Reply { s, inc, tx, id, target, outcome };
                self.send(Party::Service(branch), Party::Server(s), tx, ev);
            }
            Ev::EnvBegins { nth } => self.env_begins(nth),
            Ev::EnvEnds { nth } => self.env_ends(nth),
            Ev::Quiet => self.quiet(),
            Ev::Orphan { batch } => self.apply_orphan(&batch),
            Ev::Restart { s } => self.boot(s),
            ev => self.server_event(ev),
        }
    }

    /// Returns whether a server has not died since its incarnation `inc`.
    fn lives(&self, s: usize, inc: u32) -> bool {
        self.servers[s].alive && self.servers[s].incarnation == inc
    }

    /// What only a server that still lives can notice.
    fn server_event(&mut self, ev: Ev) {
        match ev {
            Ev::Reply { s, inc, tx, id, target, outcome } if self.lives(s, inc) => {
                self.answered(s, tx, id, target, outcome);
            }
            Ev::Timeout { s, inc, tx, id } if self.lives(s, inc) => {
                let runner = self.servers[s].runners.get(tx);
                let flying = runner.map(|runner| runner.flying.iter());
                let flight = flying.into_iter().flatten().find(|flight| flight.id == id);
                if let Some(target) = flight.map(|flight| flight.target) {
                    self.answered(s, tx, id, target, Outcome::Unknown("timeout".into()));
                }
            }
            Ev::Loaded { s, inc, tx, global } if self.lives(s, inc) => {
                self.load_arrived(s, tx, global);
            }
            Ev::Drive { s, inc, tx } if self.lives(s, inc) => {
                if let Some(runner) = self.servers[s].runners.get_mut(tx) {
                    runner.blocked = false;
                }
                self.drive(s, tx);
            }
            Ev::Flush { s, inc } if self.lives(s, inc) => self.flush(s),
            Ev::Apply { s, inc } if self.lives(s, inc) => self.apply_batch(s),
            Ev::Flushed { s, inc } if self.lives(s, inc) => self.flushed(s),
            Ev::Ping { s, inc } if self.lives(s, inc) => self.ping(s),
            Ev::Timer { s, inc, tx, due } if self.lives(s, inc) => self.timer(s, tx, due),
            Ev::Renew { s, inc } if self.lives(s, inc) => {
                self.servers[s].renewing = false;
                let active: Vec<u32> = self.servers[s].runners.iter().map(|(tx, _)| tx).collect();
                for tx in active {
                    self.tell(s, tx, Message::Renew);
                }
                self.renew_later(s);
            }
            _ => {}
        }
    }

    /// Plans the next look at a server's leases, if it works on anything.
    pub(crate) fn renew_later(&mut self, s: usize) {
        let server = &mut self.servers[s];
        if server.renewing || server.runners.is_empty() {
            return;
        }
        server.renewing = true;
        let inc = server.incarnation;
        let wait = u64::try_from(self.policy.lease.as_micros() / 4).unwrap_or(SECOND);
        self.at(wait, Ev::Renew { s, inc });
    }

    /// An application's request arrives at a server.
    fn asked(&mut self, s: usize, tx: u32, no: u32, req: Req) {
        if !self.servers[s].alive {
            return;
        }
        if !self.servers[s].healthy {
            return self.reply_with(s, tx, no, req, Told::Unavailable);
        }
        self.servers[s].asked.push((tx, no, req));
        self.tell(s, tx, Message::Ask { req, no });
    }

    /// Answers a request that is open at this server.
    pub(crate) fn reply(&mut self, s: usize, tx: u32, no: u32, told: Told) {
        let open = &mut self.servers[s].asked;
        let Some(index) = open.iter().position(|(of, number, _)| *of == tx && *number == no) else {
            return;
        };
        let (_, _, req) = open.remove(index);
        self.reply_with(s, tx, no, req, told);
    }

    fn reply_with(&mut self, s: usize, tx: u32, no: u32, req: Req, told: Told) {
        self.send(Party::Server(s), Party::Apps, tx, Ev::Told { tx, no, req, told });
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one call")]
    fn call_arrives(
        &mut self,
        s: usize,
        inc: u32,
        tx: u32,
        id: u32,
        target: Target,
        op: Op,
        branch: usize,
    ) {
        self.txs[tx as usize].messages += 1;
        let key = u64::from(tx) << 32 | self.txs[tx as usize].messages;
        let hit = |world: &mut World, kind| world.faults.hits(kind, key);
        let half = mix(self.seed, key) & 1 == 0;
        let slow = (3 + mix(self.seed, key) % 40) * SECOND;
        if hit(self, FaultKind::HangingService) || hit(self, FaultKind::SlowService) {
            // What it does, it does at the end; nobody waits any more by then.
            self.at(slow, Ev::Work { s, inc, tx, id, target, op, branch });
            return;
        }
        let outcome = if hit(self, FaultKind::Ongoing) {
            Outcome::Ongoing
        } else if hit(self, FaultKind::FailingService) {
            match half {
                true => drop(self.service_works(tx, branch, &op, false)),
                false if op != Op::Action => drop(self.service_works(tx, branch, &op, true)),
                false => {}
            }
            // Only the question's FAILURE and an action's are final.
            match op {
                Op::Compensate | Op::Cancel | Op::Rollback | Op::Confirm | Op::Commit if !half => {
                    Outcome::Failure("busy".into())
                }
                _ => Outcome::Unknown("garbage".into()),
            }
        } else if op == Op::Action && hit(self, FaultKind::InconsistentService) {
            self.service_works(tx, branch, &op, true)
        } else {
            self.service_works(tx, branch, &op, false)
        };
        let ev = Ev::Reply { s, inc, tx, id, target, outcome };
        self.send(Party::Service(branch), Party::Server(s), tx, ev);
    }

    /// Sends a message, if it gets through.
    pub(crate) fn send(&mut self, from: Party, to: Party, tx: u32, ev: Ev) {
        self.txs[tx as usize].messages += 1;
        let key = u64::from(tx) << 32 | self.txs[tx as usize].messages;
        let chance = mix(mix(self.seed, key), 77);
        if self.is_cut(from, to) || self.faults.hits(FaultKind::Lost, key) {
            return;
        }
        let mut delay = 100 + chance % 3_000;
        if self.faults.hits(FaultKind::Reordered, key) {
            delay += chance % (15 * SECOND);
        }
        if self.faults.hits(FaultKind::Delayed, key) {
            delay +=
                30 * SECOND + chance % (if chance & 1024 == 0 { 3 * HOUR } else { 120 * SECOND });
        }
        if self.faults.hits(FaultKind::Doubled, key) {
            let again = [SECOND, 60 * SECOND, 3 * HOUR][(chance >> 20) as usize % 3];
            self.at(delay + 1 + (chance >> 8) % again, ev.clone());
        }
        self.at(delay, ev);
    }

    pub(crate) fn is_cut(&self, from: Party, to: Party) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Has something happen `wait` microseconds from now.
    pub(crate) fn at(&mut self, wait: u64, ev: Ev) {
        self.matters += u64::from(ev.matters());
        self.agenda.push(self.now + wait, ev);
    }

    pub(crate) fn next_id(&mut self) -> u32 {
        self.ids += 1;
        self.ids
    }

    /// Returns a server's own time.
    pub(crate) fn local_now(&self, s: usize) -> Timestamp {
        let now = i64::try_from(self.now).unwrap_or(i64::MAX);
        Timestamp(START + now + self.servers[s].offset)
    }

    /// Adds a line to the story, if there is one.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let (seconds, micros) = (self.now / SECOND, self.now % SECOND);
            trace.push(format!("{seconds:>6}.{micros:06}  {}", line()));
        }
    }

    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    fn hash_in(&mut self, part: u64) {
        self.hash = mix(mix(self.hash, self.now), part);
    }

    /// Notes that something is that must never be; the first one ends the world.
    pub(crate) fn fail(&mut self, invariant: &'static str, text: String) {
        self.checked(Err(Violation { invariant, text }));
    }

    pub(crate) fn checked(&mut self, result: Checked) {
        if let Err(violation) = result
            && self.violation.is_none()
        {
            self.note(|| format!("VIOLATION {violation}"));
            self.violation = Some(violation);
        }
    }
}

impl Ev {
    /// Returns what the world's hash takes of it, beside its time.
    fn part(&self) -> u64 {
        match self {
            Ev::App { tx, no } | Ev::Ask { tx, no, .. } | Ev::Told { tx, no, .. } => {
                u64::from(*tx) << 20 | u64::from(*no)
            }
            Ev::Call { tx, id, .. } | Ev::Reply { tx, id, .. } | Ev::Timeout { tx, id, .. } => {
                u64::from(*tx) << 32 | u64::from(*id)
            }
            Ev::Drive { tx, .. } | Ev::Timer { tx, .. } => u64::from(*tx),
            _ => 0,
        }
    }

    /// Returns the server that has to be awake for it.
    fn server(&self) -> Option<usize> {
        match self {
            Ev::Ask { s, .. }
            | Ev::Reply { s, .. }
            | Ev::Timeout { s, .. }
            | Ev::Loaded { s, .. }
            | Ev::Drive { s, .. }
            | Ev::Flush { s, .. }
            | Ev::Flushed { s, .. }
            | Ev::Ping { s, .. }
            | Ev::Timer { s, .. }
            | Ev::Renew { s, .. } => Some(*s),
            _ => None,
        }
    }
}
