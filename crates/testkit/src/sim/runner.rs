//! The engine's rules for one gid, played again without tasks: load, step, commit, act.
//!
//! It follows `dtmd-engine`'s runner function by function; where that one awaits, this one puts
//! what follows into [`Work`] and returns. A change of a rule there must be made here too.

mod saves;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use dtmd_protocol::{
    BranchStatus, Call, Context, Global, GlobalStatus, Input, Op, Outcome, Refused, Request,
    RequestKind, Target, TransType, create, plan, schedule, step,
};
use dtmd_store::Write;

use super::store::Refusal;
use super::tx::{Req, Told};
use super::world::{Ev, Party, World};
use crate::Bug;

const STORE_PAUSE: u64 = 100_000;

/// What a runner is told.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Ask { req: Req, no: u32 },
    Wake { claimed: Option<Arc<Global>> },
    Renew,
}

/// What a runner does, or goes on with when it has what it waits for.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Create {
        req: Req,
        no: u32,
    },
    Ask {
        req: Req,
        no: u32,
        tries: u32,
    },
    Look,
    Fold,
    Own,
    Recover {
        store: bool,
    },
    Reload,
    /// Refuses, once what the refusal names is durable.
    Refuse {
        req: Req,
        no: u32,
        tries: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteError {
    Refused(Refusal),
    Unavailable,
}

pub(crate) struct Flight {
    pub(crate) target: Target,
    pub(crate) id: u32,
    pub(crate) branch: usize,
    pub(crate) op: Op,
}

#[derive(Default)]
pub(crate) struct Runner {
    pub(crate) stored: Option<Arc<Global>>,
    pub(crate) inbox: VecDeque<Message>,
    pub(crate) flying: Vec<Flight>,
    /// Answers that nobody has looked at.
    pub(crate) arrived: Vec<(Target, Outcome)>,
    answers: Vec<(Target, Outcome)>,
    waiters: Vec<(RequestKind, u32)>,
    unconfirmed: Vec<(u64, Option<Result<(), WriteError>>)>,
    work: Option<Work>,
    /// Waits for this write, and then goes on with the work.
    awaits: Option<u64>,
    /// A load is under way, or a pause before the next.
    pub(crate) blocked: bool,
    /// Numbers its loads: writes that follow from one load are one chain.
    chain: u32,
    /// The load that was under way has found nothing.
    found_nothing: bool,
    /// Trying to own it has just failed.
    not_ours: bool,
}

enum Loaded {
    There(Arc<Global>),
    Nothing,
    Blocked,
}

impl World {
    fn runner(&mut self, s: usize, tx: u32) -> &mut Runner {
        self.servers[s].runners.get_or_default(tx)
    }

    /// Gives a message to a gid's runner.
    pub(crate) fn tell(&mut self, s: usize, tx: u32, message: Message) {
        self.servers[s].timers.remove(tx);
        self.runner(s, tx).inbox.push_back(message);
        self.drive(s, tx);
    }

    /// Runs a gid's runner until it waits for something or has ended.
    pub(crate) fn drive(&mut self, s: usize, tx: u32) {
        for _ in 0..10_000 {
            let Some(runner) = self.servers[s].runners.get_mut(tx) else { return };
            if runner.blocked || runner.awaits.is_some() {
                return;
            }
            if let Some(work) = runner.work.take() {
                self.perform(s, tx, work);
                continue;
            }
            if let Some(message) = runner.inbox.pop_front() {
                self.handle(s, tx, message);
                continue;
            }
            let arrived = std::mem::take(&mut runner.arrived);
            runner.answers.extend(arrived);
            if !self.runner(s, tx).answers.is_empty() && self.may_fold(s, tx) {
                self.runner(s, tx).work = Some(Work::Fold);
                continue;
            }
            if !self.wanted(s, tx).is_empty() && !self.runner(s, tx).not_ours {
                self.runner(s, tx).work = Some(Work::Own);
                continue;
            }
            let runner = self.runner(s, tx);
            runner.not_ours = false;
            if !runner.flying.is_empty() || !runner.answers.is_empty() {
                return;
            }
            if self.rest(s, tx) {
                return;
            }
        }
        self.fail("I15", format!("the runner of tx {tx} never rests"));
    }

    fn handle(&mut self, s: usize, tx: u32, message: Message) {
        match message {
            Message::Ask { req, no } => {
                let creates = req.creates();
                let runner = self.runner(s, tx);
                runner.work = Some(if creates && runner.stored.is_none() {
                    Work::Create { req, no }
                } else {
                    Work::Ask { req, no, tries: 0 }
                });
            }
            Message::Wake { claimed } => {
                let chain = self.next_id();
                let runner = self.runner(s, tx);
                let had = runner.stored.is_some();
                runner.stored = if had { None } else { claimed };
                runner.chain = chain;
                runner.work = Some(Work::Look);
                if had {
                    self.txs[tx as usize].reasons += 1;
                }
            }
            Message::Renew => self.renew(s, tx),
        }
    }

    /// Returns the global, loading it if it must be.
    fn loaded(&mut self, s: usize, tx: u32) -> Loaded {
        let chain = self.next_id();
        let runner = self.runner(s, tx);
        if let Some(global) = &runner.stored {
            return Loaded::There(global.clone());
        }
        runner.chain = chain;
        if std::mem::take(&mut runner.found_nothing) {
            return Loaded::Nothing;
        }
        if !self.reaches_store(s) {
            self.refuse_waiting(s, tx);
            self.pause(s, tx);
            return Loaded::Blocked;
        }
        if self.slow_load(s, tx) {
            self.runner(s, tx).blocked = true;
            return Loaded::Blocked;
        }
        match self.store.get(tx).cloned() {
            Some(global) => {
                self.runner(s, tx).stored = Some(global.clone());
                Loaded::There(global)
            }
            None => Loaded::Nothing,
        }
    }

    /// What was read arrives, perhaps long after it was true.
    pub(crate) fn load_arrived(&mut self, s: usize, tx: u32, global: Option<Arc<Global>>) {
        let chain = self.next_id();
        let Some(runner) = self.servers[s].runners.get_mut(tx) else { return };
        runner.blocked = false;
        runner.found_nothing = global.is_none();
        runner.chain = chain;
        runner.stored = global;
        self.drive(s, tx);
    }

    fn pause(&mut self, s: usize, tx: u32) {
        self.runner(s, tx).blocked = true;
        let inc = self.servers[s].incarnation;
        self.at(STORE_PAUSE, Ev::Drive { s, inc, tx });
    }

    fn perform(&mut self, s: usize, tx: u32, work: Work) {
        match work {
            Work::Create { req, no } => return self.create(s, tx, req, no),
            Work::Recover { store } => return self.recover(s, tx, store),
            _ => {}
        }
        let before = match self.loaded(s, tx) {
            Loaded::There(global) => global,
            Loaded::Blocked => {
                self.runner(s, tx).work = Some(work);
                return;
            }
            Loaded::Nothing => {
                match work {
                    Work::Ask { no, .. } => self.reply(s, tx, no, Told::Missing),
                    _ => self.runner(s, tx).answers.clear(),
                }
                return;
            }
        };
        match work {
            Work::Ask { req, no, tries } => self.ask(s, tx, &before, req, no, tries),
            Work::Look => self.look(s, tx, &before),
            Work::Fold => {
                let after = self.folded(s, tx, &before);
                let force = !self.runner(s, tx).waiters.is_empty() && after.status.is_final();
                let wait = self.bug != Some(Bug::ActBeforeCommit);
                if self.save(s, tx, &before, after, force, wait, Work::Fold) {
                    self.runner(s, tx).answers.clear();
                }
            }
            Work::Own => self.own(s, tx, &before),
            Work::Create { .. } | Work::Recover { .. } | Work::Reload | Work::Refuse { .. } => {}
        }
    }

    fn create(&mut self, s: usize, tx: u32, req: Req, no: u32) {
        let cx = self.context(s);
        let tr = &self.txs[tx as usize];
        let mut global = create(&tr.new, req.submits(), &tr.subscribers, &self.policy, &cx);
        if schedule(&global, &self.policy, &cx).has_calls {
            global.owner = self.servers[s].owner.clone();
            global.epoch = 1;
        }
        let global = Arc::new(global);
        let early = self.bug == Some(Bug::AckBeforeDurable);
        if early {
            self.reply(s, tx, no, Told::Done(global.clone()));
        }
        let go_on = Work::Create { req, no };
        self.write(s, tx, Write::Create(global.clone()), true, !early, global, go_on);
    }

    fn ask(&mut self, s: usize, tx: u32, before: &Arc<Global>, req: Req, no: u32, tries: u32) {
        let request = self.txs[tx as usize].request(req);
        let cx = self.context(s);
        let input = Input::Request(request);
        let next = match step(before, &input, &self.policy, &self.limits, &cx) {
            Ok(next) => next,
            Err(Refused::Status { status: GlobalStatus::Aborting, .. })
                if self.bug == Some(Bug::SubmitOverridesAbort) && req == Req::Submit =>
            {
                let mut next = Global::clone(before);
                next.status = GlobalStatus::Submitted;
                next
            }
            Err(refused) => {
                let status = match refused {
                    Refused::Status { status, .. } => Some(status),
                    _ => None,
                };
                let early = self.bug == Some(Bug::RefusalBeforeDurable);
                let runner = self.runner(s, tx);
                let open = runner.unconfirmed.iter().rposition(|(_, result)| result.is_none());
                if let Some(index) = open.filter(|_| !early) {
                    let (id, _) = runner.unconfirmed.remove(index);
                    runner.awaits = Some(id);
                    runner.work = Some(Work::Refuse { req, no, tries });
                    return;
                }
                return self.reply(s, tx, no, Told::Refused(status));
            }
        };
        if self.bug == Some(Bug::AckBeforeDurable) {
            self.reply(s, tx, no, Told::Done(Arc::new(next.clone())));
            self.save(s, tx, before, next, false, false, Work::Look);
            return;
        }
        if next == **before {
            return self.accepted(s, tx, req, no, before.clone());
        }
        self.save(s, tx, before, next, true, true, Work::Ask { req, no, tries });
    }

    /// Replies to a request that was done, now or at the end of the pass it begins.
    fn accepted(&mut self, s: usize, tx: u32, req: Req, no: u32, after: Arc<Global>) {
        let waits = matches!(req, Req::Submit | Req::Abort)
            && !(req == Req::Abort && after.trans_type() == TransType::Msg)
            && after.options.wait_result;
        if waits {
            let kind = if req == Req::Submit { RequestKind::Submit } else { RequestKind::Abort };
            self.runner(s, tx).waiters.push((kind, no));
        } else {
            self.reply(s, tx, no, Told::Done(after));
        }
    }

    fn look(&mut self, s: usize, tx: u32, before: &Arc<Global>) {
        let cx = self.context(s);
        let Ok(next) = step(before, &Input::Wake, &self.policy, &self.limits, &cx) else { return };
        let held = next.status != before.status && !self.runner(s, tx).flying.is_empty();
        if held && self.bug != Some(Bug::DecisionNotHeldBack) {
            return;
        }
        let wait = self.bug != Some(Bug::ActBeforeCommit);
        self.save(s, tx, before, next, false, wait, Work::Look);
    }

    /// Returns the calls that the plan wants and that are not in flight.
    fn wanted(&mut self, s: usize, tx: u32) -> Vec<Call> {
        let cx = self.context(s);
        let Some(runner) = self.servers[s].runners.get(tx) else { return Vec::new() };
        let Some(global) = &runner.stored else { return Vec::new() };
        if !runner.answers.is_empty() && self.bug != Some(Bug::DecisionNotHeldBack) {
            return Vec::new();
        }
        let mut calls = plan(global, &self.policy, &cx).calls;
        calls.retain(|call| !runner.flying.iter().any(|flight| flight.target == call.target));
        // Whoever decided to go back, and wherever: our own actions end first.
        let bugs = [Some(Bug::UndoWhileInFlight), Some(Bug::DecisionNotHeldBack)];
        if !bugs.contains(&self.bug) && runner.flying.iter().any(|flight| flight.op == Op::Action) {
            calls.retain(|call| call.op != Op::Compensate);
        }
        calls
    }

    /// Returns whether the answers may become state now (see `may_fold` of the engine).
    fn may_fold(&mut self, s: usize, tx: u32) -> bool {
        let runner = self.runner(s, tx);
        if runner.flying.is_empty() {
            return true;
        }
        let Some(before) = runner.stored.clone() else { return true };
        let after = self.folded(s, tx, &before);
        before.status == after.status
            || after.status != GlobalStatus::Aborting
            || self.bug == Some(Bug::DecisionNotHeldBack)
    }

    fn folded(&self, s: usize, tx: u32, before: &Arc<Global>) -> Global {
        let cx = self.context(s);
        let mut after = Cow::Borrowed(&**before);
        let Some(runner) = self.servers[s].runners.get(tx) else { return after.into_owned() };
        let rank = |outcome: &Outcome| u8::from(!matches!(outcome, Outcome::Success));
        let mut answers: Vec<&(Target, Outcome)> = runner.answers.iter().collect();
        answers.sort_by_key(|(_, outcome)| rank(outcome));
        for (target, outcome) in answers {
            let outcome = match self.bug {
                None => outcome.clone(),
                Some(bug) => misheard(bug, after.to_mut(), *target, outcome.clone()),
            };
            let input = Input::Reply { target: *target, outcome };
            if let Ok(next) = step(&after, &input, &self.policy, &self.limits, &cx) {
                after = Cow::Owned(next);
            }
        }
        let mut after = after.into_owned();
        if self.bug == Some(Bug::FailedNotCompensated) && after.status == GlobalStatus::Aborting {
            for row in 1..after.branches.len() {
                if after.branches[row].status == BranchStatus::Failed {
                    after.branches[row - 1].status = BranchStatus::Succeed;
                }
            }
        }
        after
    }

    /// Ends the pass; returns whether the runner waits or has ended.
    fn rest(&mut self, s: usize, tx: u32) -> bool {
        let runner = self.runner(s, tx);
        while let Some((_, result)) = runner.unconfirmed.last() {
            match *result {
                None => return true,
                Some(Ok(())) => {
                    runner.unconfirmed.pop();
                }
                Some(Err(failure)) => {
                    runner.unconfirmed.clear();
                    let store = failure == WriteError::Unavailable;
                    runner.work = Some(Work::Recover { store });
                    return false;
                }
            }
        }
        for (kind, no) in std::mem::take(&mut self.runner(s, tx).waiters) {
            let told = match self.runner(s, tx).stored.clone() {
                Some(global) if global.status == GlobalStatus::Succeed => Told::Done(global),
                Some(global) if global.status == GlobalStatus::Failed => match kind {
                    RequestKind::Submit => Told::RolledBack,
                    _ => Told::Done(global),
                },
                _ => Told::Ongoing,
            };
            self.reply(s, tx, no, told);
        }
        let Some(runner) = self.servers[s].runners.get(tx) else { return true };
        if !runner.inbox.is_empty() {
            return false;
        }
        let wake_at = runner.stored.as_ref().filter(|global| !global.status.is_final());
        let wake_at = wake_at.map(|global| global.wake_at);
        self.servers[s].runners.remove(tx);
        if let Some(at) = wake_at {
            self.set_timer(s, tx, at);
        }
        true
    }

    fn start_call(&mut self, s: usize, tx: u32, global: &Arc<Global>, call: Call) {
        let id = self.next_id();
        let branch = branch_of(call.branch_id.as_str());
        let timeout = u64::try_from(call.timeout.as_micros()).unwrap_or(u64::MAX);
        let flight = Flight { target: call.target, id, branch, op: call.op.clone() };
        self.runner(s, tx).flying.push(flight);
        self.renew_later(s);
        let inc = self.servers[s].incarnation;
        if self.postponed(s, tx, inc, id, call.target) {
            return;
        }
        self.check_call(s, tx, global, &call, branch);
        self.at(timeout, Ev::Timeout { s, inc, tx, id });
        let ev = Ev::Call { s, inc, tx, id, target: call.target, op: call.op, branch };
        self.send(Party::Server(s), Party::Service(branch), tx, ev);
    }

    /// Takes an answer, unless its call has been given up.
    pub(crate) fn answered(&mut self, s: usize, tx: u32, id: u32, target: Target, out: Outcome) {
        let blind = self.bug == Some(Bug::BlindBranchOverwrite);
        if !matches!(out, Outcome::Success) {
            self.txs[tx as usize].reasons += 1;
        }
        let Some(runner) = self.servers[s].runners.get_mut(tx) else { return };
        let known = runner.flying.iter().position(|flight| flight.id == id);
        if let Some(index) = known {
            runner.flying.remove(index);
        } else if !blind {
            return;
        }
        runner.arrived.push((target, out));
        self.drive(s, tx);
    }

    pub(crate) fn context(&self, s: usize) -> Context {
        Context::at(self.local_now(s))
    }
}

/// Returns the index of a branch by its id: `01` is 0; the reserved `00` is 0 too.
pub(crate) fn branch_of(id: &str) -> usize {
    let number = id.split('-').next_back().and_then(|last| last.parse::<usize>().ok());
    number.unwrap_or(1).saturating_sub(1)
}

/// What a server with a mistake makes of an answer.
fn misheard(bug: Bug, global: &mut Global, target: Target, outcome: Outcome) -> Outcome {
    let Target::Branch(index) = target else { return outcome };
    let Some(row) = global.branches.get_mut(index) else { return outcome };
    match (bug, &outcome) {
        (Bug::UnknownIsSuccess, Outcome::Unknown(_)) => Outcome::Success,
        (Bug::RefusedUndoIsDone, Outcome::Failure(_)) if row.op != Op::Action => Outcome::Success,
        (Bug::BlindBranchOverwrite, Outcome::Success | Outcome::Failure(_))
            if global.status == GlobalStatus::Submitted =>
        {
            row.status = BranchStatus::Prepared;
            outcome
        }
        _ => outcome,
    }
}

impl Req {
    /// Returns whether the request stores a new global if its gid is free.
    fn creates(self) -> bool {
        matches!(self, Req::Prepare | Req::Submit | Req::SubmitOther)
    }

    fn submits(self) -> bool {
        matches!(self, Req::Submit | Req::SubmitOther)
    }
}

impl super::tx::Tx {
    /// Returns a request as the engine is given it.
    fn request(&self, req: Req) -> Request {
        let trans_type = self.new.mode.trans_type();
        match req {
            Req::Prepare if trans_type == TransType::Workflow => Request::PrepareWorkflow,
            Req::Prepare => Request::Prepare,
            Req::Submit => Request::Submit(self.new.clone()),
            Req::SubmitOther => {
                let mut other = dtmd_protocol::NewGlobal::clone(&self.new);
                other.content += 1;
                Request::Submit(Arc::new(other))
            }
            Req::Abort => Request::Abort { trans_type: Some(trans_type), reason: "r".into() },
            Req::Register(branch) => Request::Register { trans_type, rows: self.rows(branch) },
            Req::Finish(succeed) => {
                Request::FinishWorkflow { succeed, reason: "".into(), result: "r".into() }
            }
            Req::RetryNow => Request::RetryNow,
            Req::ForceStop => Request::ForceStop,
        }
    }
}
