//! One transaction with its application, its services and their barrier, in one process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dtmd_engine::{Answer, BranchCall, BranchCaller, Engine, EngineError, EngineOptions};
use dtmd_protocol::{
    BranchId, BranchStatus, CallProtocol, Gid, Mode, NewBranch, NewGlobal, NewStep, Op, Options,
    Outcome, Policy, StepDef, TransType,
};
use dtmd_store::Store;
use dtmd_store_embedded::EmbeddedStore;
use dtmd_store_embedded::sim::SimDisk;
use dtmd_testkit::invariants::{Effects, Promises, check_outcome, check_promises};
use dtmd_testkit::rng::Rng;
use dtmd_testkit::{Counted, FaultyStore, StoreFault};

pub(crate) type Fault = Option<(StoreFault, Counted, u64)>;

/// Far beyond what anything here needs, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of one play.
pub(crate) struct Played {
    pub(crate) end: &'static str,
    /// Store calls that the work needed.
    pub(crate) work: u64,
    pub(crate) was_hit: bool,
    /// Requests that the application had to repeat.
    pub(crate) unclear: u64,
}

/// A transaction, drawn from a number.
pub(crate) struct Scenario {
    number: u64,
    new: NewGlobal,
    prepares: bool,
    aborts: bool,
    /// What each call of a branch answers, before it is done.
    answers: HashMap<(usize, &'static str), VecDeque<Outcome>>,
    refuses: Option<usize>,
}

/// What a branch's database holds.
#[derive(Default, Clone, Copy)]
struct Branch {
    effects: Effects,
    forward: Option<bool>,
    back: bool,
    finished: bool,
}

struct Services {
    trans_type: TransType,
    branches: Mutex<Vec<Branch>>,
    answers: Mutex<HashMap<(usize, &'static str), VecDeque<Outcome>>>,
    refuses: Option<usize>,
    committed: bool,
}

fn branch_of(id: &str) -> usize {
    id.parse::<usize>().unwrap_or(1).saturating_sub(1)
}

impl Services {
    /// One local transaction with the barrier.
    fn run(&self, branch: usize, op: &Op) -> Outcome {
        let mut branches = self.branches.lock().unwrap();
        let Some(row) = branches.get_mut(branch) else { return Outcome::Success };
        match op {
            Op::Action | Op::Try if row.forward.is_none() => {
                if self.refuses == Some(branch) {
                    return Outcome::Failure("no money".into());
                }
                row.forward = Some(true);
                row.effects.done += 1;
            }
            Op::Compensate | Op::Cancel | Op::Rollback if !row.back => {
                row.back = true;
                match row.forward {
                    Some(true) => row.effects.undone += 1,
                    _ => row.forward = Some(false),
                }
                row.effects.held = false;
            }
            Op::Confirm | Op::Commit if !row.finished => {
                row.finished = true;
                row.effects.confirmed += 1;
                row.effects.held = false;
            }
            _ => {}
        }
        Outcome::Success
    }
}

#[async_trait]
impl BranchCaller for Services {
    async fn call(&self, call: &BranchCall) -> Answer {
        let branch = branch_of(call.call.branch_id.as_str());
        let op = &call.call.op;
        tokio::task::yield_now().await;
        let said = {
            let mut answers = self.answers.lock().unwrap();
            answers.get_mut(&(branch, op.label())).and_then(VecDeque::pop_front)
        };
        let outcome = match said {
            // An unknown answer of a call that was done.
            Some(Outcome::Unknown(text)) => {
                self.run(branch, op);
                Outcome::Unknown(text)
            }
            Some(other) => other,
            None if matches!(op, Op::Msg) => match self.committed {
                true => Outcome::Success,
                false => Outcome::Failure("never".into()),
            },
            None if self.trans_type == TransType::Workflow => Outcome::Ongoing,
            None => self.run(branch, op),
        };
        Answer { outcome, unreachable: false }
    }

    fn cannot_call(&self, _: &str, _: CallProtocol) -> Option<String> {
        None
    }
}

impl Scenario {
    pub(crate) fn draw(number: u64) -> Self {
        let mut rng = Rng::new(number);
        let steps = 1 + rng.index(3);
        let mode = match number % 6 {
            0 => Mode::Saga { concurrent: false, orders: Arc::from([]) },
            1 => Mode::Saga { concurrent: true, orders: Arc::from([]) },
            2 => Mode::Tcc,
            3 => Mode::Xa,
            4 => Mode::Msg { delay: Duration::ZERO },
            _ => Mode::Workflow { name: "wf".into(), data: Arc::from(*b"in") },
        };
        let trans_type = mode.trans_type();
        let mut answers = HashMap::new();
        for branch in 0..steps {
            for op in ["action", "compensate", "confirm", "cancel", "commit", "rollback"] {
                let count = if rng.chance(250) { 1 + rng.index(2) } else { 0 };
                let one = |nth: usize| match (nth + branch) % 2 {
                    0 => Outcome::Unknown("timeout".into()),
                    _ => Outcome::Ongoing,
                };
                answers.insert((branch, op), (0..count).map(one).collect());
            }
        }
        let is_saga = trans_type == TransType::Saga;
        let new = NewGlobal {
            gid: Gid::new(format!("g{number}")).unwrap(),
            namespace: "default".into(),
            protocol: CallProtocol::Http,
            query_prepared: "http://ap/query".into(),
            custom_data: "".into(),
            options: Options { wait_result: rng.chance(200), ..Options::default() },
            steps: (0..steps)
                .filter(|_| matches!(trans_type, TransType::Saga | TransType::Msg))
                .map(|step| NewStep {
                    def: StepDef {
                        action: format!("http://rm/{step}").into(),
                        compensate: if is_saga { format!("http://rm/{step}/u") } else { "".into() }
                            .into(),
                    },
                    payload: Arc::from(*b"{}"),
                })
                .collect(),
            content: 1,
            mode,
        };
        Self {
            number,
            new,
            prepares: rng.chance(500),
            aborts: rng.chance(350),
            refuses: (is_saga && rng.chance(400)).then(|| rng.index(steps)),
            answers,
        }
    }

    fn branches(&self) -> usize {
        let named = self.new.steps.len();
        if named == 0 { 1 + (self.number / 6) as usize % 3 } else { named }
    }

    /// Plays it to its end with one fault.
    pub(crate) async fn play(self, fault: Fault) -> Played {
        let options = dtmd_store_embedded::Options {
            segment_bytes: 64 * 1024,
            history_max_count: None,
            background: false,
        };
        let disk = SimDisk::new();
        let inner = EmbeddedStore::open_on(Arc::new(disk.clone()), options.clone()).unwrap();
        let inner = Arc::new(inner);
        let pause = Duration::from_millis(40);
        let store = Arc::new(FaultyStore::new(inner.clone(), fault, pause));
        let trans_type = self.new.mode.trans_type();
        let commits = !self.aborts;
        let services = Arc::new(Services {
            trans_type,
            branches: Mutex::new(vec![Branch::default(); self.branches()]),
            answers: Mutex::new(self.answers.clone()),
            refuses: self.refuses,
            committed: commits,
        });
        let engine = Engine::start(store.clone(), services.clone(), engine_options()).unwrap();
        engine.register_runtime(true);
        let mut app = App { engine: &engine, unclear: 0, promises: Promises::default() };
        self.application(&mut app, &services).await;
        let (unclear, promises) = (app.unclear, app.promises);
        let global = self.ended(&*inner, fault).await;
        let work = store.calls(Counted::Work);
        if fault.is_some_and(|(_, counted, _)| counted == Counted::Claims) {
            // They come with the clock: wait for the one that is meant.
            let begun = Instant::now();
            while !store.was_hit() && begun.elapsed() < PATIENCE {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let branches: Vec<(Effects, bool)> =
            services.branches.lock().unwrap().iter().map(|row| (row.effects, true)).collect();
        let what = format!("scenario {} with {fault:?}", self.number);
        for checked in
            [check_outcome(&global, &branches), check_promises(&promises, Some(&global), false)]
        {
            assert!(checked.is_ok(), "{what}: {checked:?}\n{global:?}");
        }
        engine.shutdown(Duration::from_secs(5)).await;
        // What it says is on the disk.
        let was_hit = store.was_hit();
        drop((engine, store, inner));
        let image = disk.after_crash(dtmd_store_embedded::sim::Unsynced::Dropped);
        let after = EmbeddedStore::open_on(Arc::new(image), options).unwrap();
        let found = after.load(&self.new.gid).await.unwrap();
        let found = found.unwrap_or_else(|| panic!("{what}: it is not on the disk"));
        assert!(check_promises(&promises, Some(&found), false).is_ok(), "{what}: {found:?}");
        Played { end: global.status.as_str(), work, was_hit, unclear }
    }

    async fn application(&self, app: &mut App<'_>, services: &Services) {
        let new = &self.new;
        let trans_type = new.mode.trans_type();
        match trans_type {
            TransType::Saga => {
                app.submit(new).await;
            }
            TransType::Msg => {
                if self.prepares || self.aborts {
                    app.prepare(new).await;
                }
                if self.aborts {
                    app.abort(new).await;
                } else {
                    app.submit(new).await;
                }
            }
            TransType::Workflow => {
                app.prepare_workflow(new).await;
                for branch in 0..self.branches() {
                    app.register(new, branch, vec![(Op::Action, BranchStatus::Succeed)]).await;
                }
                app.finish(new, !self.aborts).await;
            }
            TransType::Tcc | TransType::Xa => {
                app.prepare(new).await;
                let ops = match trans_type {
                    TransType::Tcc => [Op::Cancel, Op::Confirm],
                    _ => [Op::Rollback, Op::Commit],
                };
                for branch in 0..self.branches() {
                    let rows = ops.iter().cloned().map(|op| (op, BranchStatus::Prepared));
                    app.register(new, branch, rows.collect()).await;
                    services.run(branch, &Op::Try);
                }
                if self.aborts {
                    app.abort(new).await;
                } else {
                    app.submit(new).await;
                }
            }
        }
    }

    /// Waits for its end, past the store that counts.
    async fn ended(&self, store: &dyn Store, fault: Fault) -> Arc<dtmd_protocol::Global> {
        let begun = Instant::now();
        loop {
            let global = store.load(&self.new.gid).await.unwrap();
            if let Some(global) = global.as_ref().filter(|global| global.status.is_final()) {
                return global.clone();
            }
            let what = format!("scenario {} with {fault:?} never ends", self.number);
            assert!(begun.elapsed() < PATIENCE, "{what}: {global:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn engine_options() -> EngineOptions {
    EngineOptions {
        policy: Policy {
            retry_interval: Duration::from_millis(20),
            retry_interval_max: Duration::from_millis(60),
            ..Policy::default()
        },
        claim_interval: Duration::from_millis(50),
        ..EngineOptions::default()
    }
}

/// An application that repeats what has no clear answer, with the same gid.
struct App<'a> {
    engine: &'a Engine,
    unclear: u64,
    promises: Promises,
}

impl App<'_> {
    /// Repeats a request until it is answered; returns whether it was accepted.
    async fn insist<T, F>(&mut self, what: &str, ask: impl Fn() -> F) -> bool
    where
        F: Future<Output = Result<T, EngineError>>,
    {
        let begun = Instant::now();
        loop {
            match ask().await {
                Ok(_) => return true,
                // Accepted, and its first pass has not come to the end that was waited for.
                Err(EngineError::Ongoing(_) | EngineError::Branch(_)) => return true,
                Err(EngineError::RolledBack(_)) => return false,
                Err(EngineError::Unavailable(_) | EngineError::Overloaded(_)) => {}
                Err(EngineError::NotFound(_) | EngineError::NotPrepared(_)) => {
                    panic!("{what}: what was acknowledged is not there")
                }
                // The first answer was lost, and all is done by now.
                Err(EngineError::Refused(_)) if self.unclear > 0 => return false,
                Err(other) => panic!("{what}: {other}"),
            }
            self.unclear += 1;
            assert!(begun.elapsed() < PATIENCE, "{what} stays without an answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn prepare(&mut self, new: &NewGlobal) {
        let engine = self.engine;
        if self.insist("prepare", || engine.prepare(new.clone())).await {
            self.promises.prepared = true;
        }
    }

    async fn prepare_workflow(&mut self, new: &NewGlobal) {
        let engine = self.engine;
        if self.insist("prepareWorkflow", || engine.prepare_workflow(new.clone())).await {
            self.promises.prepared = true;
        }
    }

    async fn submit(&mut self, new: &NewGlobal) {
        let engine = self.engine;
        if self.insist("submit", || engine.submit(new.clone())).await {
            self.promises.submitted = true;
        }
    }

    async fn abort(&mut self, new: &NewGlobal) {
        let engine = self.engine;
        let trans_type = Some(new.mode.trans_type());
        if self.insist("abort", || engine.abort(&new.gid, trans_type, "changed my mind")).await {
            self.promises.aborted = true;
        }
    }

    async fn finish(&mut self, new: &NewGlobal, succeed: bool) {
        let engine = self.engine;
        if self.insist("submit", || engine.finish_workflow(&new.gid, succeed, "r", "")).await {
            self.promises.finished = Some(succeed);
        }
    }

    async fn register(&mut self, new: &NewGlobal, branch: usize, ops: Vec<(Op, BranchStatus)>) {
        let engine = self.engine;
        let branch_id = BranchId::of_step(branch);
        let rows: Vec<NewBranch> = ops
            .into_iter()
            .map(|(op, status)| NewBranch {
                branch_id: branch_id.clone(),
                url: format!("http://rm/{branch}/{op}").into(),
                op,
                data: Arc::from(*b"{}"),
                status,
            })
            .collect();
        let trans_type = new.mode.trans_type();
        let ask = || engine.register(&new.gid, trans_type, rows.clone());
        if self.insist("registerBranch", ask).await {
            self.promises.registered.push(branch_id);
        }
    }
}
