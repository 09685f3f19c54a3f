//! What the tests play on: an engine, a store, services that do as they are told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dtmd_engine::{Answer, BranchCall, BranchCaller, Engine, EngineError, EngineOptions};
use dtmd_protocol::{
    CallProtocol, Gid, Global, GlobalStatus, Mode, NewGlobal, NewStep, Options, Outcome, Policy,
    StepDef,
};
use dtmd_store::{MemoryStore, Store};
use tokio::sync::Semaphore;

/// How long anything may take before a test gives up. Far beyond what it needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Services that answer by script; success where there is none.
#[derive(Default)]
pub(crate) struct Services {
    script: Mutex<BTreeMap<String, VecDeque<Said>>>,
    calls: Mutex<Vec<String>>,
    flying: AtomicUsize,
    pub(crate) most_flying: AtomicUsize,
}

pub(crate) enum Said {
    Outcome(Outcome),
    /// Answers when the semaphore gives a permit.
    When(Arc<Semaphore>, Outcome),
    Unreachable,
}

impl Services {
    /// Has the next call of an URL answer this.
    pub(crate) fn say(&self, url: &str, said: Said) {
        self.script.lock().unwrap().entry(url.to_owned()).or_default().push_back(said);
    }

    pub(crate) fn hold(&self, url: &str) -> Arc<Semaphore> {
        self.hold_for(url, Outcome::Success)
    }

    pub(crate) fn hold_for(&self, url: &str, outcome: Outcome) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        self.say(url, Said::When(gate.clone(), outcome));
        gate
    }

    pub(crate) fn fail(&self, url: &str) {
        self.say(url, Said::Outcome(Outcome::Failure(Arc::from("refused"))));
    }

    pub(crate) fn unknown(&self, url: &str) {
        self.say(url, Said::Outcome(Outcome::Unknown(Arc::from("status 500"))));
    }

    /// The calls so far, `branch op`, in order.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl BranchCaller for Services {
    async fn call(&self, call: &BranchCall) -> Answer {
        let word = format!("{} {}", call.call.branch_id, call.call.op);
        self.calls.lock().unwrap().push(word);
        let flying = self.flying.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_flying.fetch_max(flying, Ordering::SeqCst);
        let url = call.call.url.to_string();
        let said = self.script.lock().unwrap().get_mut(&url).and_then(VecDeque::pop_front);
        let (outcome, unreachable) = match said {
            None => (Outcome::Success, false),
            Some(Said::Outcome(outcome)) => (outcome, false),
            Some(Said::When(gate, outcome)) => {
                gate.acquire().await.unwrap().forget();
                (outcome, false)
            }
            Some(Said::Unreachable) => (Outcome::Unknown(Arc::from("refused")), true),
        };
        self.flying.fetch_sub(1, Ordering::SeqCst);
        Answer { outcome, unreachable }
    }

    fn cannot_call(&self, url: &str, _: CallProtocol) -> Option<String> {
        url.contains("nobody").then(|| "nobody can call it".to_owned())
    }
}

pub(crate) struct Stage {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) services: Arc<Services>,
}

pub(crate) fn options() -> EngineOptions {
    EngineOptions {
        policy: Policy {
            retry_interval: Duration::from_millis(20),
            retry_interval_max: Duration::from_millis(80),
            ..Policy::default()
        },
        claim_interval: Duration::from_millis(20),
        ..EngineOptions::default()
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(options())
    }

    pub(crate) fn with(options: EngineOptions) -> Self {
        // By the way that most stores take; the tests of ownership take the short one.
        Self::on(Arc::new(MemoryStore::in_batches()), Arc::default(), options)
    }

    pub(crate) fn on(
        store: Arc<dyn Store>,
        services: Arc<Services>,
        options: EngineOptions,
    ) -> Self {
        let engine = Engine::start(store.clone(), services.clone(), options).unwrap();
        engine.register_runtime(true);
        Self { engine, store, services }
    }

    pub(crate) async fn load(&self, name: &str) -> Arc<Global> {
        self.store.load(&gid(name)).await.unwrap().unwrap()
    }

    pub(crate) async fn until(&self, name: &str, status: GlobalStatus) -> Arc<Global> {
        eventually(async || {
            let global = self.store.load(&gid(name)).await.unwrap();
            global.filter(|global| global.status == status)
        })
        .await
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < end, "it never happened");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn gid(name: &str) -> Gid {
    Gid::new(name).unwrap()
}

pub(crate) fn new(name: &str, mode: Mode, steps: usize) -> NewGlobal {
    let step = |n: usize| NewStep {
        def: StepDef {
            action: Arc::from(format!("http://rm/{n}")),
            compensate: match mode {
                Mode::Saga { .. } => Arc::from(format!("http://rm/{n}/undo")),
                _ => Arc::from(""),
            },
        },
        payload: Arc::from(*b"{}"),
    };
    NewGlobal {
        gid: gid(name),
        namespace: Arc::from("default"),
        protocol: CallProtocol::Http,
        query_prepared: Arc::from(""),
        custom_data: Arc::from(""),
        options: Options::default(),
        steps: (1..=steps).map(step).collect(),
        content: 1,
        mode,
    }
}

pub(crate) fn saga(name: &str, steps: usize) -> NewGlobal {
    new(name, Mode::Saga { concurrent: false, orders: Arc::from([]) }, steps)
}

pub(crate) fn msg(name: &str, steps: usize) -> NewGlobal {
    new(name, Mode::Msg { delay: Duration::ZERO }, steps)
}

pub(crate) fn waiting(mut new: NewGlobal) -> NewGlobal {
    new.options.wait_result = true;
    new
}

/// The error's variant and text.
pub(crate) fn text(result: Result<(), EngineError>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(failure) => failure.to_string(),
    }
}
