//! One small transaction, its servers, services and application, as a state machine.

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{
    BranchId, BranchStatus, CallProtocol, Context, Durability, Gid, Global, GlobalStatus, Input,
    Limits, Mode, NewBranch, NewGlobal, NewStep, Op, Options, Outcome, Policy, Request, StepDef,
    Target, Timestamp, TransType, create, durability, plan, step,
};

use super::search::Machine;
use crate::Bug;
use crate::invariants::{Violation, check_effects, check_message, check_outcome};
use crate::sim::service::{Absorbed, Kind, Local, Service, Xa};

/// Rows of the largest transaction: two for each branch.
const ROWS_MAX: usize = 8;
const BRANCHES_MAX: usize = 4;
const DRIVERS_MAX: usize = 3;
const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// What a global is, as far as decisions depend on it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct View {
    status: GlobalStatus,
    count: u8,
    rows: [BranchStatus; ROWS_MAX],
}

/// A server's view: what it believes to be stored, and with its lazy changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Driver {
    base: View,
    view: View,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Decision {
    Open,
    Submit,
    Abort,
}

/// Everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Small {
    stored: View,
    drivers: [Option<Driver>; DRIVERS_MAX],
    services: [Service; BRANCHES_MAX],
    local: Local,
    /// Calls that were sent, a bit a row; the question is the last bit.
    sent: u16,
    /// Answers that were given: SUCCESS and FAILURE, a bit a row.
    success: u16,
    failure: u16,
    /// Tries that were sent and that answered well, a bit a branch.
    tries: u8,
    tried: u8,
    /// Registrations that were sent and acknowledged, a bit a branch.
    asked: u8,
    registered: u8,
    /// XA: acknowledged since the local phase began, a bit a branch.
    fresh: u8,
    decision: Decision,
    submit_acked: bool,
    abort_acked: bool,
    /// The application will never commit its local transaction.
    gave_up: bool,
}

/// The bit of the question.
const QUERY: usize = 15;

/// One transaction to search, and how.
#[derive(Debug, Clone)]
pub struct Transaction {
    template: Global,
    new: Arc<NewGlobal>,
    branches: usize,
    drivers: usize,
    bug: Option<Bug>,
    policy: Policy,
    limits: Limits,
}

impl Transaction {
    /// Returns a transaction of `branches` branches, worked on by `drivers` servers at a time.
    pub fn new(mode: Mode, branches: usize, drivers: usize, bug: Option<Bug>) -> Self {
        let policy = Policy { retry_interval: Duration::ZERO, ..Policy::default() };
        let trans_type = mode.trans_type();
        let steps =
            if matches!(trans_type, TransType::Saga | TransType::Msg) { branches } else { 0 };
        let url = |text: &str| Arc::from(text);
        let step = NewStep {
            def: StepDef { action: url("http://rm/do"), compensate: url("http://rm/undo") },
            payload: Arc::from(*b"{}"),
        };
        let options =
            Options { timeout_to_fail: Some(Duration::from_secs(10)), ..Options::default() };
        let new = Arc::new(NewGlobal {
            gid: Gid::new("g").expect("one letter is a gid"),
            namespace: Arc::from("default"),
            mode,
            protocol: CallProtocol::Http,
            query_prepared: url("http://ap/query"),
            custom_data: Arc::from(""),
            options: Options { concurrent: true, ..options },
            steps: vec![step; steps],
            content: 7,
        });
        let submitted = trans_type == TransType::Saga;
        let mut template = create(&new, submitted, &[], &policy, &Context::at(NOW));
        let mut made = Self {
            template: template.clone(),
            new,
            branches,
            drivers,
            bug,
            policy,
            limits: Limits::default(),
        };
        for branch in 0..branches {
            let request = Input::Request(made.registration(branch));
            if let Ok(next) = step_of(&made, &template, &request, NOW) {
                template = next;
            }
        }
        made.template = template;
        made
    }

    fn trans_type(&self) -> TransType {
        self.template.trans_type()
    }

    fn registration(&self, branch: usize) -> Request {
        let trans_type = self.trans_type();
        let ops = match trans_type {
            TransType::Xa => [Op::Rollback, Op::Commit],
            _ => [Op::Cancel, Op::Confirm],
        };
        let row = |op| NewBranch {
            branch_id: BranchId::of_step(branch),
            op,
            url: Arc::from("http://rm/two"),
            data: Arc::from(*b"{}"),
            status: BranchStatus::Prepared,
        };
        Request::Register { trans_type, rows: ops.into_iter().map(row).collect() }
    }

    fn global(&self, view: &View) -> Global {
        let mut global = self.template.clone();
        global.status = view.status;
        global.branches.truncate(usize::from(view.count));
        for (row, status) in global.branches.iter_mut().zip(view.rows) {
            row.status = status;
        }
        global
    }

    fn later(&self) -> Timestamp {
        NOW.after(Duration::from_secs(3600))
    }

    fn branch_of(&self, row: usize) -> usize {
        match self.trans_type() {
            TransType::Msg => row,
            _ => row / 2,
        }
    }

    /// Lets a server take in something; returns the state after it, if anything changed, and
    /// whether its change (or none) is durable.
    fn takes(
        &self,
        state: &Small,
        d: usize,
        input: &Input,
        age: Timestamp,
    ) -> Option<(Small, bool)> {
        let mut next = *state;
        let driver = state.drivers[d]?;
        let mut before = self.global(&driver.view);
        if self.bug == Some(Bug::BlindBranchOverwrite)
            && let Input::Reply { target: Target::Branch(row), .. } = input
            && before.status == GlobalStatus::Submitted
        {
            before.branches[*row].status = BranchStatus::Prepared;
        }
        let after = step_of(self, &before, input, age).ok()?;
        let mut view = view_of(&after);
        if self.bug == Some(Bug::FailedNotCompensated) && view.status == GlobalStatus::Aborting {
            for row in (1..usize::from(view.count)).step_by(2) {
                if view.rows[row] == BranchStatus::Failed {
                    view.rows[row - 1] = BranchStatus::Succeed;
                }
            }
        }
        if view == driver.view {
            // Success without a change is true only of what is stored now, not of an old view.
            let old_is_good_enough = self.bug == Some(Bug::RepeatFromOldView);
            let fresh = driver.view == driver.base && driver.base == state.stored;
            return Some((next, fresh || old_is_good_enough));
        }
        let mut class = durability(Some(&self.global(&driver.view)), &self.global(&view));
        let is_request = matches!(input, Input::Request(_));
        if is_request {
            class = Durability::Forced;
        }
        if self.bug == Some(Bug::LazySagaResults) && view.status == driver.view.status {
            class = Durability::Lazy;
        }
        if self.bug == Some(Bug::AckBeforeDurable) && is_request {
            class = Durability::Lazy;
        }
        next.drivers[d] = Some(Driver { base: driver.base, view });
        if class == Durability::Lazy {
            return Some((next, self.bug == Some(Bug::AckBeforeDurable)));
        }
        let made = self.flush(&mut next, d);
        Some((next, made))
    }

    /// Writes a server's view; a server whose write is refused reloads.
    fn flush(&self, state: &mut Small, d: usize) -> bool {
        let Some(driver) = state.drivers[d] else { return false };
        let passes = state.stored == driver.base || self.bug == Some(Bug::NoRevisionCheck);
        let back = matches!(driver.view.status, GlobalStatus::Aborting | GlobalStatus::Failed);
        if passes {
            state.stored = driver.view;
        } else if self.bug == Some(Bug::StaleViewAtAbort)
            && back
            && state.stored.status == driver.base.status
        {
            state.stored.status = driver.view.status;
        } else {
            state.drivers[d] = Some(Driver { base: state.stored, view: state.stored });
            return false;
        }
        state.drivers[d] = Some(Driver { base: driver.view, view: driver.view });
        true
    }

    fn server_moves(&self, state: &Small, d: usize, found: &mut dyn FnMut(String, Small)) {
        let Some(driver) = state.drivers[d] else { return };
        if driver.base != state.stored || driver.view != driver.base {
            let mut next = *state;
            next.drivers[d] = Some(Driver { base: state.stored, view: state.stored });
            found(format!("server {d} dies, starts and reads the store"), next);
        }
        if driver.view != driver.base {
            let mut next = *state;
            self.flush(&mut next, d);
            found(format!("server {d} flushes"), next);
        }
        if let Some((next, _)) = self.takes(state, d, &Input::Wake, self.later()) {
            found(format!("server {d} finds it timed out"), next);
        }
        let far = Context { now: NOW, age: self.later(), delay: self.later() };
        let calls = plan(&self.global(&driver.view), &self.policy, &far).calls;
        let mut next = *state;
        for call in &calls {
            match call.target {
                Target::Branch(row) => next.sent |= 1 << row,
                Target::Query => next.sent |= 1 << QUERY,
            }
        }
        if next != *state {
            found(format!("server {d} calls {}", words(&calls)), next);
        }
        for bit in 0..16 {
            for (answers, outcome) in [
                (state.success, Outcome::Success),
                (state.failure, Outcome::Failure(Arc::from("no"))),
            ] {
                if answers >> bit & 1 == 0 {
                    continue;
                }
                let target = if bit == QUERY { Target::Query } else { Target::Branch(bit) };
                let word = outcome.as_str();
                let input = Input::Reply { target, outcome };
                if let Some((next, _)) = self.takes(state, d, &input, NOW) {
                    found(format!("server {d} hears {word} of {target:?}"), next);
                }
            }
        }
        self.requests_arrive(state, d, found);
    }

    fn requests_arrive(&self, state: &Small, d: usize, found: &mut dyn FnMut(String, Small)) {
        for branch in (0..self.branches).filter(|branch| state.asked >> branch & 1 == 1) {
            let input = Input::Request(self.registration(branch));
            if let Some((mut next, done)) = self.takes(state, d, &input, NOW) {
                let lost = self.bug == Some(Bug::LostRegistration);
                if done || lost {
                    next.registered |= 1 << branch;
                    next.fresh |= 1 << branch;
                }
                found(format!("server {d} takes the registration of {branch}"), next);
            }
        }
        let request = match state.decision {
            Decision::Open => return,
            Decision::Submit => Request::Submit(self.new.clone()),
            Decision::Abort => {
                let trans_type = Some(self.trans_type());
                Request::Abort { trans_type, reason: Arc::from("r") }
            }
        };
        if let Some((mut next, done)) = self.takes(state, d, &Input::Request(request), NOW) {
            next.submit_acked |= done && state.decision == Decision::Submit;
            next.abort_acked |= done && state.decision == Decision::Abort;
            found(format!("server {d} takes the {:?}", state.decision), next);
        }
    }

    /// Calls arrive at services, once more or for the first time.
    fn services_move(&self, state: &Small, found: &mut dyn FnMut(String, Small)) {
        let absorbed = &mut Absorbed::default();
        if state.sent >> QUERY & 1 == 1 {
            let mut next = *state;
            match next.local.query(self.bug) {
                Outcome::Success => next.success |= 1 << QUERY,
                _ => next.failure |= 1 << QUERY,
            }
            found("the question is answered".to_owned(), next);
        }
        for row in (0..self.template.branches.len()).filter(|row| state.sent >> row & 1 == 1) {
            let op = &self.template.branches[row].op;
            let (branch, kind) = (self.branch_of(row), Kind::of(op));
            let mut next = *state;
            let out = next.services[branch].run(self.trans_type(), kind, false, self.bug, absorbed);
            if out == Outcome::Success {
                next.success |= 1 << row;
            }
            found(format!("{} {op} is done", branch + 1), next);
            if *op == Op::Action && self.trans_type() == TransType::Saga {
                // It may also refuse, this time: the local transaction is rolled back.
                let mut next = *state;
                next.failure |= 1 << row;
                found(format!("{} {op} is refused", branch + 1), next);
            }
        }
        if self.trans_type() == TransType::Tcc {
            for branch in (0..self.branches).filter(|branch| state.tries >> branch & 1 == 1) {
                let mut next = *state;
                next.services[branch].run(TransType::Tcc, Kind::Forward, false, self.bug, absorbed);
                next.tried |= 1 << branch;
                found(format!("{} try is done", branch + 1), next);
            }
        }
    }

    fn application_moves(&self, state: &Small, found: &mut dyn FnMut(String, Small)) {
        match self.trans_type() {
            TransType::Tcc => self.tcc_moves(state, found),
            TransType::Xa => self.xa_moves(state, found),
            TransType::Msg => self.msg_moves(state, found),
            TransType::Saga | TransType::Workflow => {}
        }
    }

    fn decides(&self, state: &Small, decision: Decision, found: &mut dyn FnMut(String, Small)) {
        if state.decision == Decision::Open {
            found(format!("the application decides: {decision:?}"), Small { decision, ..*state });
        }
    }

    fn tcc_moves(&self, state: &Small, found: &mut dyn FnMut(String, Small)) {
        let all = (1u8 << self.branches) - 1;
        let early = self.bug == Some(Bug::TryBeforeRegister);
        let next_one = state.tried.trailing_ones() as usize;
        if state.decision == Decision::Open && next_one < self.branches {
            let bit = 1u8 << next_one;
            if state.asked & bit == 0 {
                found(
                    format!("{} registers", next_one + 1),
                    Small { asked: state.asked | bit, ..*state },
                );
            }
            if (state.registered & bit != 0 || early) && state.tries & bit == 0 {
                found(
                    format!("{} is tried", next_one + 1),
                    Small { tries: state.tries | bit, ..*state },
                );
            }
        }
        if state.tried == all && state.registered == all {
            self.decides(state, Decision::Submit, found);
        }
        self.decides(state, Decision::Abort, found);
    }

    fn xa_moves(&self, state: &Small, found: &mut dyn FnMut(String, Small)) {
        let all = (1u8 << self.branches) - 1;
        let next_one = state.tried.trailing_ones() as usize;
        if state.decision == Decision::Open && next_one < self.branches {
            let bit = 1u8 << next_one;
            found(
                format!("{} is called", next_one + 1),
                Small { tries: state.tries | bit, ..*state },
            );
        }
        for branch in (0..self.branches).filter(|branch| state.tries >> branch & 1 == 1) {
            let bit = 1u8 << branch;
            let mut next = *state;
            match state.services[branch].xa {
                Xa::None => {
                    next.services[branch].xa = Xa::Active;
                    next.asked |= bit;
                    next.fresh &= !bit;
                    found(format!("{} begins its local phase", branch + 1), next);
                }
                Xa::Active => {
                    next.services[branch].xa = Xa::None;
                    found(format!("{} gives its local phase up", branch + 1), next);
                    if state.fresh & bit != 0 {
                        let mut next = *state;
                        next.services[branch].xa = Xa::Prepared;
                        next.services[branch].effects.held = true;
                        next.tried |= bit;
                        found(format!("{} is prepared", branch + 1), next);
                    }
                }
                Xa::Prepared => {}
            }
        }
        if state.tried == all {
            self.decides(state, Decision::Submit, found);
        }
        self.decides(state, Decision::Abort, found);
    }

    fn msg_moves(&self, state: &Small, found: &mut dyn FnMut(String, Small)) {
        let unknown = self.bug == Some(Bug::AbortOnUnknownCommit);
        if !state.gave_up && !state.local.committed {
            let mut next = *state;
            if next.local.commit(self.bug, &mut Absorbed::default()) {
                found("the local transaction commits".to_owned(), next);
            } else {
                next.gave_up = true;
                found("the local transaction is refused".to_owned(), next);
            }
            found(
                "the local transaction is rolled back".to_owned(),
                Small { gave_up: true, ..*state },
            );
        }
        if state.local.committed {
            self.decides(state, Decision::Submit, found);
        }
        if state.gave_up || unknown {
            self.decides(state, Decision::Abort, found);
        }
    }
}

impl Machine for Transaction {
    type State = Small;

    fn first(&self) -> Small {
        let mut stored = view_of(&self.template);
        if matches!(self.trans_type(), TransType::Tcc | TransType::Xa) {
            stored.count = 0;
        }
        let driver = Driver { base: stored, view: stored };
        let service = Service { barrier: true, ..Service::default() };
        Small {
            stored,
            drivers: std::array::from_fn(|d| (d < self.drivers).then_some(driver)),
            services: [service; BRANCHES_MAX],
            local: Local::default(),
            sent: 0,
            success: 0,
            failure: 0,
            tries: 0,
            tried: 0,
            asked: 0,
            registered: 0,
            fresh: 0,
            decision: Decision::Open,
            submit_acked: false,
            abort_acked: false,
            gave_up: false,
        }
    }

    fn next(&self, state: &Small, found: &mut dyn FnMut(String, Small)) {
        let mut settled = |what: String, mut next: Small| {
            sort_drivers(&mut next);
            if next != *state {
                found(what, next);
            }
        };
        for d in 0..self.drivers {
            // Servers are alike: two with the same view do the same.
            if d == 0 || state.drivers[d] != state.drivers[d - 1] {
                self.server_moves(state, d, &mut settled);
            }
        }
        self.services_move(state, &mut settled);
        self.application_moves(state, &mut settled);
    }

    fn check(&self, state: &Small) -> Result<(), Violation> {
        let global = self.global(&state.stored);
        let joined = usize::from(state.stored.count) / 2;
        let known = |branch: usize| match self.trans_type() {
            TransType::Tcc | TransType::Xa => branch < joined,
            _ => true,
        };
        let mut branches = Vec::with_capacity(self.branches);
        for (branch, service) in state.services.iter().take(self.branches).enumerate() {
            check_effects(branch, &service.effects)?;
            branches.push((service.effects, known(branch)));
        }
        check_outcome(&global, &branches)?;
        if self.trans_type() == TransType::Msg {
            check_message(global.status, state.local.committed)?;
        }
        let says = |invariant, text: &str| Err(Violation { invariant, text: text.to_owned() });
        let is = |statuses: &[GlobalStatus]| statuses.contains(&global.status);
        let acked = state.registered.count_ones() as usize;
        match self.trans_type() {
            TransType::Tcc | TransType::Xa if acked > joined => {
                says("I5", "an acknowledged branch is not stored")
            }
            _ if state.submit_acked && !is(&[GlobalStatus::Submitted, GlobalStatus::Succeed]) => {
                says("I6", "an acknowledged submit was taken back")
            }
            _ if state.abort_acked && !is(&[GlobalStatus::Aborting, GlobalStatus::Failed]) => {
                says("I6", "an acknowledged abort was taken back")
            }
            _ => Ok(()),
        }
    }

    fn is_final(&self, state: &Small) -> bool {
        state.stored.status.is_final()
    }
}

fn sort_drivers(state: &mut Small) {
    let key = |driver: &Option<Driver>| {
        let views = driver.map(|Driver { base, view }| (part(&base), part(&view)));
        std::cmp::Reverse(views)
    };
    state.drivers.sort_by_key(key);
}

fn part(view: &View) -> (GlobalStatus, u8, [BranchStatus; ROWS_MAX]) {
    (view.status, view.count, view.rows)
}

fn view_of(global: &Global) -> View {
    let mut rows = [BranchStatus::Prepared; ROWS_MAX];
    for (slot, row) in rows.iter_mut().zip(&global.branches) {
        *slot = row.status;
    }
    let count = u8::try_from(global.branches.len()).unwrap_or(u8::MAX);
    View { status: global.status, count, rows }
}

fn step_of(
    of: &Transaction,
    global: &Global,
    input: &Input,
    age: Timestamp,
) -> Result<Global, dtmd_protocol::Refused> {
    let cx = Context { now: NOW, age, delay: age };
    match step(global, input, &of.policy, &of.limits, &cx) {
        Err(_)
            if of.bug == Some(Bug::SubmitOverridesAbort)
                && global.status == GlobalStatus::Aborting
                && matches!(input, Input::Request(Request::Submit(_))) =>
        {
            let mut next = global.clone();
            next.status = GlobalStatus::Submitted;
            Ok(next)
        }
        result => result,
    }
}

fn words(calls: &[dtmd_protocol::Call]) -> String {
    let words: Vec<String> =
        calls.iter().map(|call| format!("{} {}", call.branch_id, call.op)).collect();
    words.join(", ")
}
