//! Arbitrary sequences of inputs to the protocol, with its invariants asked after each.

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{
    BranchId, BranchStatus, CallProtocol, Context, Gid, Global, GlobalStatus, Input, Limits, Mode,
    NewBranch, NewGlobal, NewStep, Op, Options, Outcome, Policy, Request, StepDef, Target,
    Timestamp, TransType, create, durability, plan, schedule, step,
};
use dtmd_testkit::invariants;

use crate::Bytes;
use crate::requests::NOW;

/// Inputs at most; a longer story says nothing new.
const INPUTS_MAX: usize = 150;

struct Story {
    new: NewGlobal,
    global: Global,
    policy: Policy,
    limits: Limits,
    now: Timestamp,
}

/// A few bytes of mode and options, then two bytes an input.
pub(crate) fn steps(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let Some(mut story) = begin(&mut bytes) else { return };
    for _ in 0..INPUTS_MAX {
        let (Some(kind), Some(value)) = (bytes.next(), bytes.next()) else { break };
        if let Some(input) = story.input(kind, value) {
            story.plays(&input);
        }
    }
    story.comes_to_an_end();
}

fn begin(bytes: &mut Bytes<'_>) -> Option<Story> {
    let mode = bytes.below(6);
    let steps = bytes.below(5);
    let flags = bytes.below(256);
    let mode = match mode {
        0 | 1 => {
            let orders = (0..steps).map(|_| {
                let before = bytes.below(32);
                (0..steps).filter(|step| before >> step & 1 == 1).collect()
            });
            Mode::Saga { concurrent: mode == 1, orders: orders.collect::<Vec<_>>().into() }
        }
        2 => Mode::Tcc,
        3 => Mode::Xa,
        4 => Mode::Msg { delay: Duration::from_secs(bytes.below(100) as u64) },
        _ => Mode::Workflow { name: Arc::from("wf"), data: Arc::from(*b"in") },
    };
    let has_steps = matches!(mode, Mode::Saga { .. } | Mode::Msg { .. });
    let seconds = |number: usize| Some(Duration::from_secs(number as u64));
    let options = Options {
        timeout_to_fail: if flags & 1 == 1 { seconds(1 + bytes.below(60)) } else { None },
        retry_interval: if flags & 2 == 2 { seconds(1 + bytes.below(20)) } else { None },
        retry_limit: if flags & 4 == 4 { 1 + bytes.below(3) as u32 } else { 0 },
        concurrent: flags & 8 == 8,
        ..Options::default()
    };
    let new = NewGlobal {
        gid: Gid::new("g").ok()?,
        namespace: Arc::from("default"),
        protocol: CallProtocol::Http,
        query_prepared: Arc::from("http://ap/query"),
        custom_data: Arc::from(""),
        options,
        steps: (0..if has_steps { steps } else { 0 }).map(|n| new_step(&mode, n, flags)).collect(),
        content: 7,
        mode,
    };
    let (policy, limits) = (Policy::default(), Limits::default());
    new.validate(&limits).ok()?;
    let submitted = flags & 16 == 16 && new.mode.trans_type() != TransType::Workflow;
    let global = create(&new, submitted, &[], &policy, &Context::at(NOW));
    Some(Story { new, global, policy, limits, now: NOW })
}

/// Some steps have nothing to call.
fn new_step(mode: &Mode, number: usize, flags: usize) -> NewStep {
    let compensates = matches!(mode, Mode::Saga { .. }) && flags & 32 == 0;
    let url = |path: &str| Arc::from(format!("http://rm/{number}{path}"));
    NewStep {
        def: StepDef {
            action: if flags & 64 == 64 && number == 1 { Arc::from("") } else { url("") },
            compensate: if compensates { url("/undo") } else { Arc::from("") },
        },
        payload: Arc::from(*b"{}"),
    }
}

impl Story {
    fn cx(&self) -> Context {
        Context::at(self.now)
    }

    fn outcome(&self, value: u8) -> Outcome {
        match value % 6 {
            0 | 1 => Outcome::Success,
            2 => Outcome::Failure(Arc::from("no money")),
            3 => Outcome::Ongoing,
            4 => Outcome::Postponed(self.now.after(Duration::from_secs(u64::from(value)))),
            _ => Outcome::Unknown(Arc::from("timeout")),
        }
    }

    fn input(&mut self, kind: u8, value: u8) -> Option<Input> {
        let row = usize::from(value / 6);
        Some(match kind % 8 {
            0 => {
                self.now = self.now.after(Duration::from_secs(u64::from(value)));
                Input::Wake
            }
            1 | 2 => {
                let calls = plan(&self.global, &self.policy, &self.cx()).calls;
                let call = calls.get(row % calls.len().max(1))?;
                Input::Reply { target: call.target, outcome: self.outcome(value) }
            }
            3 => Input::Reply { target: Target::Branch(row), outcome: self.outcome(value) },
            4 => Input::Reply { target: Target::Query, outcome: self.outcome(value) },
            5 => Input::Kick,
            // A clock that goes back.
            6 if value < 8 => {
                self.now = Timestamp(self.now.0 - i64::from(value) * 1_000_000);
                Input::Wake
            }
            _ => Input::Request(self.request(value)?),
        })
    }

    /// Returns a request that a transport can make; none of them lets a saga or message register.
    fn request(&self, value: u8) -> Option<Request> {
        let trans_type = self.global.trans_type();
        let registers = !matches!(trans_type, TransType::Saga | TransType::Msg);
        Some(match value % 16 {
            0 => Request::Prepare,
            1 | 2 => Request::Submit(Arc::new(self.new.clone())),
            3 => Request::Submit(Arc::new(NewGlobal { content: 8, ..self.new.clone() })),
            4 | 5 => Request::Abort { trans_type: Some(trans_type), reason: Arc::from("r") },
            6 => Request::Abort { trans_type: None, reason: Arc::from("") },
            7 => Request::RetryNow,
            8 => Request::FinishWorkflow {
                succeed: value & 16 == 0,
                reason: Arc::from("r"),
                result: Arc::from("cg=="),
            },
            9 => Request::PrepareWorkflow,
            10 if value > 200 => Request::ForceStop,
            number if registers => Request::Register {
                trans_type,
                rows: rows(trans_type, usize::from(number % 4), value),
            },
            _ => return None,
        })
    }

    /// Plays an input, and asks every law.
    fn plays(&mut self, input: &Input) {
        let (before, cx) = (self.global.clone(), self.cx());
        let played = step(&before, input, &self.policy, &self.limits, &cx);
        assert_eq!(played, step(&before, input, &self.policy, &self.limits, &cx), "twice");
        let Ok(mut after) = played else {
            assert!(matches!(input, Input::Request(_)), "only a request can be refused");
            return;
        };
        if after != before {
            // The writer counts, not the protocol.
            after.revision = before.revision.next();
        }
        let forced = matches!(input, Input::Request(Request::ForceStop));
        for checked in [
            invariants::check_change(&before, &after, forced),
            invariants::check_backoff(&before, &after, &self.policy),
        ] {
            assert!(checked.is_ok(), "{checked:?}: {input:?} of {before:?}");
        }
        let _ = durability(Some(&before), &after);
        self.check_rows(&before, &after, input);
        self.check_plan(&after);
        self.global = after;
    }

    fn check_rows(&self, before: &Global, after: &Global, input: &Input) {
        if before.status.is_final() {
            assert_eq!(before.branches, after.branches, "what has ended changes");
        }
        if let Input::Reply { target: Target::Branch(_), .. } = input {
            assert_eq!(before.branches.len(), after.branches.len(), "an answer adds no row");
        }
        for (nth, row) in after.branches.iter().enumerate() {
            let twice = |other: &&dtmd_protocol::Branch| {
                other.branch_id == row.branch_id && other.op == row.op
            };
            assert_eq!(after.branches.iter().position(|other| twice(&other)), Some(nth));
        }
        // A refusal or repetition is only told; it is no change of what was decided.
        let repeated = step(after, input, &self.policy, &self.limits, &self.cx());
        if let (Ok(repeated), Input::Reply { target: Target::Branch(row), .. }) = (repeated, input)
            && after.branches.get(*row).is_none_or(|row| !row.is_pending())
        {
            assert_eq!(repeated, *after, "a repeated answer changes something");
        }
    }

    fn check_plan(&self, after: &Global) {
        let planned = plan(after, &self.policy, &self.cx());
        let short = schedule(after, &self.policy, &self.cx());
        assert_eq!((short.has_calls, short.wake_at), (!planned.calls.is_empty(), planned.wake_at));
        assert_eq!(planned.wake_at.is_some(), !after.status.is_final(), "who wakes it up?");
        assert!(!after.status.is_final() || planned.calls.is_empty(), "calls after the end");
        for call in &planned.calls {
            let Target::Branch(row) = call.target else { continue };
            let row = &after.branches[row];
            assert_eq!(row.status, BranchStatus::Prepared, "what is known is called again");
            let back = matches!(row.op, Op::Compensate | Op::Cancel | Op::Rollback);
            assert_eq!(back, after.status == GlobalStatus::Aborting, "{} is called", row.op);
        }
    }

    /// I9: when services answer, everything ends that somebody has decided or that times out.
    fn comes_to_an_end(mut self) {
        let waits = self.global.status == GlobalStatus::Prepared
            && matches!(self.global.trans_type(), TransType::Saga | TransType::Workflow);
        if waits {
            return;
        }
        for _ in 0..400 {
            if self.global.status.is_final() {
                return;
            }
            let planned = plan(&self.global, &self.policy, &self.cx());
            match planned.calls.first() {
                Some(call) => {
                    let outcome = Outcome::Success;
                    self.plays(&Input::Reply { target: call.target, outcome });
                }
                None => {
                    let Some(at) = planned.wake_at else { break };
                    self.now = Timestamp(self.now.0.max(at.0) + 1);
                    self.plays(&Input::Wake);
                }
            }
        }
        assert!(self.global.status.is_final(), "it never ends: {:?}", self.global);
    }
}

fn rows(trans_type: TransType, number: usize, value: u8) -> Vec<NewBranch> {
    let ops = match trans_type {
        TransType::Tcc => vec![Op::Cancel, Op::Confirm],
        TransType::Xa => vec![Op::Rollback, Op::Commit],
        _ => vec![Op::Action],
    };
    let status = match trans_type {
        TransType::Workflow if value & 32 == 0 => BranchStatus::Succeed,
        TransType::Workflow => BranchStatus::Failed,
        _ => BranchStatus::Prepared,
    };
    let row = |op: Op| NewBranch {
        branch_id: BranchId::of_step(number),
        url: Arc::from(format!("http://rm/{number}/{op}")),
        op,
        data: Arc::from(*b"{}"),
        status,
    };
    ops.into_iter().map(row).collect()
}
