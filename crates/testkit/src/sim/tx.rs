//! One transaction: what it is, its application, its services, and what has been promised.

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{
    BranchId, BranchStatus, CallProtocol, Gid, Global, GlobalStatus, Mode, NewBranch, NewGlobal,
    NewStep, Op, Options, StepDef, TransType,
};

use super::service::{Local, Service};
use crate::invariants::Promises;
use crate::rng::{Rng, mix};

/// A request of an application or operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Req {
    Prepare,
    Submit,
    /// A submit of the same gid with other content: must be refused, and change nothing.
    SubmitOther,
    Abort,
    Register(usize),
    Finish(bool),
    RetryNow,
    ForceStop,
}

/// What a server answers.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Done(Arc<Global>),
    Refused(Option<GlobalStatus>),
    Missing,
    RolledBack,
    Ongoing,
    Unavailable,
}

/// Where an application stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Prepare,
    Register(usize),
    Try(usize),
    Local,
    Submit,
    Abort,
    Finish(bool),
    Extra(Req),
    Done,
}

pub(crate) struct App {
    pub(crate) step: Step,
    /// Counts requests; answers to older ones are only noted.
    pub(crate) no: u32,
    pub(crate) server: usize,
    pub(crate) dead: bool,
    /// How long its local transaction takes.
    pub(crate) local_time: u64,
    /// It changes its mind: aborts, or rolls its local transaction back.
    pub(crate) gives_up: bool,
    /// It never learns whether its local commit was made.
    pub(crate) commit_unknown: bool,
    /// What it asks after its submit.
    pub(crate) extra: Option<Req>,
    pub(crate) rng: Rng,
}

pub(crate) struct Tx {
    pub(crate) new: Arc<NewGlobal>,
    pub(crate) subscribers: Vec<Option<Vec<Arc<str>>>>,
    pub(crate) services: Vec<Service>,
    pub(crate) local: Local,
    pub(crate) app: App,
    pub(crate) promises: Promises,
    pub(crate) was_submitted: bool,
    pub(crate) was_aborting: bool,
    pub(crate) force_stopped: bool,
    /// What may explain another call: answers that decide nothing, crashes, lost writes.
    pub(crate) reasons: u32,
    /// How often the question or the callback was sent.
    pub(crate) asked: u32,
    /// Numbers its messages, as keys of faults.
    pub(crate) messages: u64,
    pub(crate) started: bool,
}

impl Tx {
    pub(crate) fn trans_type(&self) -> TransType {
        self.new.mode.trans_type()
    }

    pub(crate) fn has_barrier(&self) -> bool {
        self.services.iter().all(|service| service.barrier)
    }

    /// Draws a transaction.
    pub(crate) fn draw(seed: u64, number: u32) -> Self {
        let mut rng = Rng::new(mix(seed, u64::from(number) + 1000));
        let count = 1 + rng.index(4);
        let mut options = Options {
            retry_interval: rng.chance(300).then(|| Duration::from_secs(rng.range(1, 20))),
            wait_result: rng.chance(200),
            ..Options::default()
        };
        let mode = draw_mode(&mut rng, count, &mut options);
        let trans_type = mode.trans_type();
        let starts_prepared = rng.chance(60);
        let compensates = trans_type == TransType::Saga;
        let has_steps = matches!(trans_type, TransType::Saga | TransType::Msg);
        let steps: Vec<NewStep> = (1..=count)
            .filter(|_| has_steps)
            .map(|n| NewStep {
                def: StepDef {
                    action: Arc::from(format!("http://rm{n}/do")),
                    compensate: Arc::from(if compensates { "http://rm/undo" } else { "" }),
                },
                payload: Arc::from(*b"{}"),
            })
            .collect();
        let barrier = !rng.chance(120);
        let refusing = if rng.chance(350) { Some(rng.index(count)) } else { None };
        let services = (0..count).map(|index| Service {
            barrier,
            refuses: refusing == Some(index) && trans_type != TransType::Msg,
            ..Service::default()
        });
        let step = match trans_type {
            TransType::Saga if !starts_prepared => Step::Submit,
            TransType::Msg if rng.chance(200) => Step::Local,
            _ => Step::Prepare,
        };
        let extra = match rng.below(100) {
            0..=7 => Some(Req::Submit),
            8..=11 => Some(Req::SubmitOther),
            12..=17 => Some(Req::RetryNow),
            18 => Some(Req::ForceStop),
            19..=21 => Some(Req::Abort),
            _ => None,
        };
        Self {
            new: Arc::new(NewGlobal {
                gid: gid(seed, number),
                namespace: Arc::from("default"),
                mode,
                protocol: CallProtocol::Http,
                query_prepared: Arc::from("http://ap/query"),
                custom_data: Arc::from(""),
                options,
                steps,
                content: 7,
            }),
            subscribers: Vec::new(),
            services: services.collect(),
            local: Local::default(),
            app: App {
                step,
                no: 0,
                server: rng.index(8),
                dead: false,
                local_time: if rng.chance(150) { rng.range(1, 90) * 1_000_000 } else { 20_000 },
                gives_up: rng.chance(180),
                commit_unknown: rng.chance(100),
                extra,
                rng,
            },
            promises: Promises::default(),
            was_submitted: false,
            was_aborting: false,
            force_stopped: false,
            reasons: 0,
            asked: 0,
            messages: 0,
            started: false,
        }
    }

    /// Returns the rows that a registration brings.
    pub(crate) fn rows(&self, branch: usize) -> Vec<NewBranch> {
        let (ops, status) = match self.trans_type() {
            TransType::Xa => (vec![Op::Rollback, Op::Commit], BranchStatus::Prepared),
            TransType::Workflow => (vec![Op::Action], BranchStatus::Succeed),
            _ => (vec![Op::Cancel, Op::Confirm], BranchStatus::Prepared),
        };
        let row = |op| NewBranch {
            branch_id: BranchId::of_step(branch),
            op,
            url: Arc::from("http://rm/two"),
            data: Arc::from(*b"{}"),
            status,
        };
        ops.into_iter().map(row).collect()
    }

    /// Returns whether it may stay unfinished for ever: prepared, and nobody will decide it.
    pub(crate) fn may_rest(&self, stored: Option<&Arc<Global>>) -> bool {
        let Some(global) = stored else { return self.app.step == Step::Done || self.app.dead };
        let idle = global.trans_type() == TransType::Saga
            && global.status == GlobalStatus::Prepared
            && (self.app.step == Step::Done || self.app.dead);
        global.status.is_final() || idle
    }
}

fn gid(seed: u64, number: u32) -> Gid {
    // A gid of hexadecimal digits cannot be refused.
    Gid::new(format!("{seed:x}-{number}")).expect("a short text of letters and digits is a gid")
}

fn draw_mode(rng: &mut Rng, count: usize, options: &mut Options) -> Mode {
    let seconds = |rng: &mut Rng| Some(Duration::from_secs(rng.range(3, 90)));
    match rng.below(10) {
        0..=3 => {
            let concurrent = rng.chance(500);
            let mut orders = vec![Vec::new(); count];
            if rng.chance(400) {
                for (step, before) in orders.iter_mut().enumerate().skip(1) {
                    before.extend((0..step).filter(|_| rng.chance(400)));
                }
            }
            if rng.chance(400) {
                options.timeout_to_fail = seconds(rng);
            }
            if rng.chance(250) {
                options.retry_limit = u32::try_from(rng.range(1, 4)).unwrap_or(1);
            }
            options.concurrent = concurrent;
            Mode::Saga { concurrent, orders: Arc::from(orders) }
        }
        4 | 5 => {
            options.concurrent = rng.chance(400);
            options.timeout_to_fail = seconds(rng);
            let delay = if rng.chance(250) { rng.range(1, 120) } else { 0 };
            Mode::Msg { delay: Duration::from_secs(delay) }
        }
        6 | 7 => {
            options.timeout_to_fail = seconds(rng);
            Mode::Tcc
        }
        8 => {
            options.timeout_to_fail = seconds(rng);
            Mode::Xa
        }
        _ => Mode::Workflow { name: Arc::from("wf"), data: Arc::from(*b"in") },
    }
}
