//! What lies outside of all hosts, and so survives their crashes: the store, the banks' databases,
//! the applications' memory of what they were told. And what must be true of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dtmd_engine::Now;
use dtmd_protocol::{BranchId, Gid, Global, GlobalStatus, Op, Outcome, Timestamp, TransType};
use dtmd_store::{MemoryStore, Store as _, Write, WriteError};
use dtmd_testkit::invariants::{
    Checked, Promises, Violation, check_change, check_effects, check_message, check_outcome,
    check_promises, check_send, check_told,
};
use dtmd_testkit::rng::{Rng, mix};
use dtmd_testkit::sim::{Absorbed, Kind, Local, Service, Xa};
use futures_util::FutureExt as _;
use tokio::sync::watch;

use crate::chance::{Chance, Seen};
use crate::plan::Plan;
use crate::play::Scene;
use crate::store::Forgetful;

pub(crate) const DTM_PORT: u16 = 36789;
pub(crate) const DTM_GRPC_PORT: u16 = 36790;
pub(crate) const BANK_PORT: u16 = 8080;
pub(crate) const BANK_GRPC_PORT: u16 = 8082;
pub(crate) const APP_PORT: u16 = 8081;
/// What each bank has at first.
const CAPITAL: i64 = 1_000_000;
/// When the simulated time begins: some day of 2026.
const EPOCH_US: i64 = 1_780_000_000_000_000;

/// What there is of hosts.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) servers: usize,
    pub(crate) banks: usize,
    pub(crate) apps: usize,
}

/// All that the hosts share.
pub(crate) struct World {
    pub(crate) sizes: Sizes,
    pub(crate) chance: Arc<Chance>,
    pub(crate) plans: Vec<Plan>,
    pub(crate) store: Mutex<Arc<MemoryStore>>,
    /// The store takes changes at once, on the caller's stack.
    pub(crate) at_once: bool,
    /// Batches that may be on their way to it from one server.
    pub(crate) writers: usize,
    forgetful: Option<Mutex<Forgetful>>,
    /// By how much each server's clock is wrong, in microseconds.
    pub(crate) clocks: Vec<AtomicI64>,
    /// Ends each server gracefully.
    pub(crate) stops: Mutex<Vec<Option<watch::Sender<bool>>>>,
    state: Mutex<State>,
}

struct State {
    txs: Vec<Tx>,
    accounts: Vec<i64>,
    absorbed: Absorbed,
    violation: Option<Violation>,
    hash: u64,
    elapsed: Duration,
}

/// One transaction, as it really is.
#[derive(Default)]
struct Tx {
    services: Vec<Service>,
    local: Local,
    promises: Promises,
    was_submitted: bool,
    was_aborting: bool,
    status: Option<GlobalStatus>,
    begun: bool,
    /// Its application has no more to do with it.
    over: bool,
}

/// A request of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Prepare,
    Register(usize),
    Submit,
    Abort,
}

impl World {
    pub(crate) fn new(seed: u64, transactions: usize, scene: Scene) -> Self {
        let mut rng = Rng::new(mix(seed, 0x5e11));
        let sizes = Sizes { servers: 1 + rng.index(3), banks: 2, apps: 1 + rng.index(2) };
        let plans: Vec<Plan> = (0..transactions)
            .map(|number| Plan::draw(number, sizes.apps, sizes.banks, &mut rng))
            .collect();
        let barrier = scene != Scene::NoBarrier;
        let txs = plans.iter().map(|plan| Tx {
            services: plan
                .branches
                .iter()
                .map(|branch| Service::new(branch.refuses, barrier))
                .collect(),
            ..Tx::default()
        });
        let state = State {
            txs: txs.collect(),
            accounts: vec![CAPITAL; sizes.banks],
            absorbed: Absorbed::default(),
            violation: None,
            hash: seed,
            elapsed: Duration::ZERO,
        };
        Self {
            sizes,
            plans,
            store: Mutex::new(Arc::new(MemoryStore::new())),
            at_once: rng.chance(250),
            writers: if rng.chance(500) { 1 } else { 3 },
            forgetful: (scene == Scene::ForgetfulStore).then(Mutex::default),
            clocks: (0..sizes.servers).map(|_| AtomicI64::new(0)).collect(),
            stops: Mutex::new(vec![None; sizes.servers]),
            chance: Arc::new(Chance::new(rng, scene == Scene::Calm)),
            state: Mutex::new(state),
        }
    }

    /// Returns a server's wall clock.
    pub(crate) fn clock(self: &Arc<Self>, server: usize) -> Now {
        let world = self.clone();
        Arc::new(move || {
            let us = i64::try_from(world.elapsed().as_micros()).unwrap();
            Timestamp(EPOCH_US + us + world.clocks[server].load(Ordering::Relaxed))
        })
    }

    /// Returns the simulated time. Outside of a host: as a host has seen it last.
    fn elapsed(&self) -> Duration {
        let mut state = self.state.lock().unwrap();
        if let Some(elapsed) = turmoil::sim_elapsed() {
            state.elapsed = elapsed;
        }
        state.elapsed
    }

    pub(crate) fn stored(&self, gid: &Gid) -> Option<Arc<Global>> {
        let store = self.store.lock().unwrap().clone();
        store.load(gid).now_or_never().unwrap().unwrap()
    }

    fn note_hash(state: &mut State, words: &[u64]) {
        for word in words {
            state.hash = mix(state.hash, *word);
        }
    }

    /// Returns a transaction's number.
    pub(crate) fn number_of(gid: &str) -> usize {
        gid[1..].parse().unwrap()
    }

    fn judge(state: &mut State, checked: Checked) {
        if let Err(violation) = checked {
            state.violation.get_or_insert(violation);
        }
    }

    // What servers do.

    /// The store has taken a change, or refused it.
    pub(crate) fn written(&self, write: &Write, result: &Result<(), WriteError>) {
        let (before, after) = match write {
            _ if result.is_err() => return,
            Write::Create(global) => (None, global.clone()),
            Write::Update { before, after } => (Some(before), after.clone()),
            Write::Lease(lease) => {
                if let Some(global) = self.stored(&lease.gid) {
                    self.claimed(&[global]);
                }
                return;
            }
            Write::Kv { .. } => return,
        };
        self.claimed(std::slice::from_ref(&after));
        let mut state = self.state.lock().unwrap();
        let tx = &mut state.txs[Self::number_of(after.gid.as_str())];
        let stays = tx.status.is_none_or(|status| !status.is_final() || status == after.status);
        tx.status = Some(after.status);
        tx.was_submitted |= after.status == GlobalStatus::Submitted;
        tx.was_aborting |= after.status == GlobalStatus::Aborting;
        if !stays {
            let text = format!("{}: what was final is {}", after.gid, after.status);
            Self::judge(&mut state, Err(Violation { invariant: "I4", text }));
        }
        if let Some(before) = before {
            Self::judge(&mut state, check_change(before, &after, false));
        }
    }

    /// A server has got globals, or changed who works on them.
    pub(crate) fn claimed(&self, globals: &[Arc<Global>]) {
        if let Some(forgetful) = &self.forgetful {
            let now = self.elapsed();
            for global in globals {
                forgetful.lock().unwrap().note(now, global.clone());
            }
        }
    }

    /// A server has crashed: if the store forgets, it does now.
    pub(crate) fn server_crashed(&self) {
        if let Some(forgetful) = &self.forgetful {
            let kept = forgetful.lock().unwrap().kept(self.elapsed());
            *self.store.lock().unwrap() = Arc::new(kept);
        }
    }

    // What applications do.

    pub(crate) fn begin(&self, tx: usize) {
        self.state.lock().unwrap().txs[tx].begun = true;
    }

    pub(crate) fn end(&self, tx: usize) {
        self.state.lock().unwrap().txs[tx].over = true;
    }

    /// Returns whether an application that starts has to begin a transaction. If it has crashed in
    /// the middle of one, that is begun again from its start, or given up.
    pub(crate) fn is_to_begin(&self, tx: usize) -> bool {
        let again = self.chance.rng().chance(700);
        let mut state = self.state.lock().unwrap();
        let tx = &mut state.txs[tx];
        tx.over |= tx.begun && !again;
        !tx.over
    }

    /// A server has answered SUCCESS.
    pub(crate) fn acknowledged(&self, tx: usize, asked: Asked) {
        self.chance.see(match self.plans[tx].over_grpc {
            true => Seen::AcknowledgedOverGrpc,
            false => Seen::AcknowledgedOverHttp,
        });
        let mut state = self.state.lock().unwrap();
        Self::note_hash(&mut state, &[1, tx as u64]);
        let promises = &mut state.txs[tx].promises;
        match asked {
            Asked::Prepare => promises.prepared = true,
            Asked::Submit => promises.submitted = true,
            Asked::Abort => promises.aborted = true,
            Asked::Register(branch) => promises.registered.push(BranchId::of_step(branch)),
        }
    }

    /// A query has named a final status.
    pub(crate) fn told(&self, tx: usize, status: GlobalStatus) {
        self.state.lock().unwrap().txs[tx].promises.told = Some(status);
    }

    pub(crate) fn commit_locally(&self, tx: usize) -> bool {
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        state.txs[tx].local.commit(None, &mut state.absorbed)
    }

    pub(crate) fn query_prepared(&self, tx: usize) -> Outcome {
        self.state.lock().unwrap().txs[tx].local.query(None)
    }

    // What banks do.

    /// A bank starts: what its database had begun and not prepared is rolled back.
    pub(crate) fn bank_starts(&self, bank: usize) {
        let mut state = self.state.lock().unwrap();
        for (plan, tx) in self.plans.iter().zip(&mut state.txs) {
            for (branch, service) in plan.branches.iter().zip(&mut tx.services) {
                if branch.bank == bank && service.xa == Xa::Active {
                    service.xa = Xa::None;
                }
            }
        }
    }

    /// Runs a branch's op in its bank: one local transaction.
    pub(crate) fn run(&self, tx: usize, branch: usize, op: &Op, refuse: bool) -> Outcome {
        let plan = &self.plans[tx];
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        let us = u64::try_from(state.elapsed.as_micros()).unwrap();
        let kind = Kind::of(op);
        Self::note_hash(state, &[us, tx as u64, branch as u64, kind as u64]);
        let service = &mut state.txs[tx].services[branch];
        let refuse = kind == Kind::Forward && (refuse || service.refuses);
        let net =
            |service: &Service| i64::from(service.effects.done) - i64::from(service.effects.undone);
        let before = net(service);
        let outcome = service.run(plan.trans_type, kind, refuse, None, &mut state.absorbed);
        let branch_plan = &plan.branches[branch];
        state.accounts[branch_plan.bank] += branch_plan.amount * (net(service) - before);
        let checked = check_effects(branch, &service.effects);
        Self::judge(state, checked);
        outcome
    }

    /// A server's call has arrived: was there reason to send it?
    pub(crate) fn check_call(&self, tx: usize, branch: usize, op: &Op) {
        let stored = self.stored(&self.plans[tx].gid());
        let mut state = self.state.lock().unwrap();
        let (forth, back) = (state.txs[tx].was_submitted, state.txs[tx].was_aborting);
        let checked = check_send(stored.as_deref(), &BranchId::of_step(branch), op, forth, back);
        Self::judge(&mut state, checked);
    }

    /// An XA branch's local phase goes on, if it can.
    pub(crate) fn xa_moves(&self, tx: usize, branch: usize, from: Xa, to: Xa) -> bool {
        let mut state = self.state.lock().unwrap();
        let service = &mut state.txs[tx].services[branch];
        let can = service.xa == from && !(to == Xa::Active && service.refuses);
        if can {
            service.xa = to;
            service.effects.held = to == Xa::Prepared;
        }
        can
    }

    // What must hold.

    pub(crate) fn violation(&self) -> Option<String> {
        self.state.lock().unwrap().violation.as_ref().map(ToString::to_string)
    }

    /// Returns the transactions that have not come to their end.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let mut left = Vec::new();
        for (plan, tx) in self.plans.iter().zip(&state.txs) {
            let stored = self.stored(&plan.gid());
            if !tx.over {
                left.push(format!("{}: its application still works on it", plan.gid()));
            } else if let Some(global) = stored.filter(|global| !global.status.is_final()) {
                left.push(format!("{global:?}, {:?}", tx.services));
            }
        }
        left
    }

    /// Asks every invariant, now that all has ended.
    pub(crate) fn check_end(&self) {
        let mut ends = Vec::new();
        {
            let state = self.state.lock().unwrap();
            for (plan, tx) in self.plans.iter().zip(&state.txs) {
                ends.push(self.check_tx(plan, tx));
            }
            let sum: i64 = state.accounts.iter().sum();
            let whole = CAPITAL * i64::try_from(state.accounts.len()).unwrap();
            if sum != whole {
                let text = format!("the banks have {sum} instead of {whole}");
                ends.push(Err(Violation { invariant: "I13", text }));
            }
        }
        let mut state = self.state.lock().unwrap();
        for checked in ends {
            Self::judge(&mut state, checked);
        }
    }

    fn check_tx(&self, plan: &Plan, tx: &Tx) -> Checked {
        let stored = self.stored(&plan.gid());
        check_promises(&tx.promises, stored.as_deref(), false)?;
        let Some(global) = stored else {
            let idle =
                tx.services.iter().all(|service| service.effects.done == service.effects.undone);
            let text =
                || format!("{} is not stored, but has effects: {:?}", plan.gid(), tx.services);
            return if idle { Ok(()) } else { Err(Violation { invariant: "I2", text: text() }) };
        };
        check_told(&tx.promises, &global)?;
        let joined = |branch: usize| {
            let id = BranchId::of_step(branch);
            matches!(plan.trans_type, TransType::Saga | TransType::Msg)
                || global.branches.iter().any(|row| row.branch_id == id)
        };
        let branches: Vec<_> = tx
            .services
            .iter()
            .enumerate()
            .map(|(branch, service)| (service.effects, joined(branch)))
            .collect();
        check_outcome(&global, &branches).map_err(|found| Violation {
            text: format!("{}: {}", plan.gid(), found.text),
            ..found
        })?;
        if plan.trans_type == TransType::Msg {
            check_message(global.status, tx.local.committed)?;
        }
        Ok(())
    }

    /// Returns how the transactions ended, by type.
    pub(crate) fn ends(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut ends = BTreeMap::new();
        for plan in &self.plans {
            let end =
                self.stored(&plan.gid()).map_or("never stored", |global| global.status.as_str());
            *ends.entry((plan.trans_type.as_str(), end)).or_default() += 1;
        }
        ends
    }

    pub(crate) fn absorbed(&self) -> Absorbed {
        self.state.lock().unwrap().absorbed
    }

    pub(crate) fn hash(&self) -> u64 {
        self.state.lock().unwrap().hash
    }

    pub(crate) fn acknowledged_count(&self) -> u64 {
        let state = self.state.lock().unwrap();
        let promised = state.txs.iter().filter(|tx| tx.promises.submitted || tx.promises.aborted);
        promised.count() as u64
    }

    pub(crate) fn fail(&self, invariant: &'static str, text: String) {
        Self::judge(&mut self.state.lock().unwrap(), Err(Violation { invariant, text }));
    }
}
