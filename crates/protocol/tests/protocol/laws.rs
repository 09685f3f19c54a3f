//! The laws, over arbitrary sequences of inputs.

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{
    BranchStatus, GlobalStatus, Input, Limits, Mode, NewGlobal, Outcome, Request, Target,
    TransType, plan, step,
};
use proptest::prelude::*;

use crate::story::{Story, new_global};

fn mode() -> impl Strategy<Value = Mode> {
    let orders = prop::collection::vec(prop::collection::vec(0..4usize, 0..3), 0..4);
    prop_oneof![
        (any::<bool>(), orders)
            .prop_map(|(concurrent, orders)| Mode::Saga { concurrent, orders: Arc::from(orders) }),
        Just(Mode::Tcc),
        Just(Mode::Xa),
        (0..60u64).prop_map(|delay| Mode::Msg { delay: Duration::from_secs(delay) }),
        Just(Mode::Workflow { name: Arc::from("wf"), data: Arc::from(*b"in") }),
    ]
}

/// What is accepted, but for a workflow, which its application must end. A filter, not an
/// assumption in the test: proptest gives up after a number of those.
fn decidable() -> impl Strategy<Value = NewGlobal> {
    let new = (mode(), 0..4usize).prop_map(|(mode, steps)| {
        let has_steps = matches!(mode, Mode::Saga { .. } | Mode::Msg { .. });
        new_global(mode, if has_steps { steps } else { 0 })
    });
    new.prop_filter("accepted, and no workflow", |new| {
        new.mode.trans_type() != TransType::Workflow && new.validate(&Limits::default()).is_ok()
    })
}

#[derive(Debug, Clone)]
enum Happening {
    Pass(u64),
    Reply(usize, u8),
    QueryReply(u8),
    /// An answer to what is planned: makes progress likely.
    Answer(usize, u8),
    Ask(u8),
    Kick,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (0..100u64).prop_map(Happening::Pass),
        2 => (0..12usize, 0..5u8).prop_map(|(row, outcome)| Happening::Reply(row, outcome)),
        1 => (0..5u8).prop_map(Happening::QueryReply),
        6 => (0..4usize, 0..5u8).prop_map(|(nth, outcome)| Happening::Answer(nth, outcome)),
        3 => (0..8u8).prop_map(Happening::Ask),
        1 => Just(Happening::Kick),
    ]
}

fn outcome(number: u8, story: &Story) -> Outcome {
    match number {
        0 | 1 => Outcome::Success,
        2 => Outcome::Failure(Arc::from("no")),
        3 => Outcome::Ongoing,
        4 if story.now.0 % 2 == 0 => Outcome::Postponed(story.now.after(Duration::from_secs(5))),
        _ => Outcome::Unknown(Arc::from("timeout")),
    }
}

fn input(happening: &Happening, story: &mut Story) -> Option<Input> {
    Some(match happening {
        Happening::Pass(seconds) => {
            story.now = story.now.after(Duration::from_secs(*seconds));
            Input::Wake
        }
        Happening::Reply(row, number) => {
            Input::Reply { target: Target::Branch(*row), outcome: outcome(*number, story) }
        }
        Happening::QueryReply(number) => {
            Input::Reply { target: Target::Query, outcome: outcome(*number, story) }
        }
        Happening::Answer(nth, number) => {
            let calls = plan(&story.global, &story.policy, &story.cx()).calls;
            let call = calls.get(nth % calls.len().max(1))?;
            Input::Reply { target: call.target, outcome: outcome(*number, story) }
        }
        Happening::Kick => Input::Kick,
        Happening::Ask(number) => Input::Request(match number {
            0 => Request::Prepare,
            1 => Request::Submit(Arc::new(story.new.clone())),
            2 => Request::Abort {
                trans_type: Some(story.global.trans_type()),
                reason: Arc::from("r"),
            },
            3 => Request::RetryNow,
            4 if story.now.0 % 7 == 0 => Request::ForceStop,
            5 => Request::FinishWorkflow {
                succeed: story.now.0 % 2 == 0,
                reason: Arc::from(""),
                result: Arc::from(""),
            },
            6 => Request::PrepareWorkflow,
            _ => return Some(story.registration("01")),
        }),
    })
}

/// What must hold of one step, whatever it was.
fn check_step(before: &Story, input: &Input, after: &Story) {
    let (old, new) = (&before.global, &after.global);
    let forced = matches!(input, Input::Request(Request::ForceStop));

    // A final status never changes; aborting never succeeds; submitted fails by force only.
    if old.status.is_final() {
        assert_eq!(old.status, new.status);
        assert_eq!(old.branches, new.branches);
    }
    if old.status == GlobalStatus::Aborting {
        assert_ne!(new.status, GlobalStatus::Succeed);
        assert_ne!(new.status, GlobalStatus::Submitted);
    }
    if old.status == GlobalStatus::Submitted && new.status == GlobalStatus::Failed && !forced {
        // Only by way of aborting with nothing to undo, which a saga may have in one step.
        assert_eq!(old.trans_type(), TransType::Saga);
    }
    assert!(new.status != GlobalStatus::Prepared || old.status == GlobalStatus::Prepared);

    // Rows are only added; a row's status is written once.
    assert!(new.branches.len() >= old.branches.len());
    for (row, later) in old.branches.iter().zip(&new.branches) {
        assert_eq!((&row.branch_id, &row.op, &row.url), (&later.branch_id, &later.op, &later.url));
        if row.status != BranchStatus::Prepared {
            assert_eq!(row.status, later.status);
        }
    }

    // What is not final has exactly one wake-up; what is final has no calls.
    let planned = plan(new, &after.policy, &after.cx());
    assert_eq!(planned.wake_at.is_some(), !new.status.is_final());
    if new.status.is_final() {
        assert!(planned.calls.is_empty());
    }

    // Only what is pending is called, in the direction of the status.
    for call in &planned.calls {
        if let Target::Branch(row) = call.target {
            assert_eq!(new.branches[row].status, BranchStatus::Prepared);
            let back = ["compensate", "cancel", "rollback"].contains(&call.op.as_str());
            assert_eq!(back, new.status == GlobalStatus::Aborting, "{:?}", call.op);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_step_keeps_the_laws(
        mode in mode(),
        steps in 0..4usize,
        submitted in any::<bool>(),
        retry_limit in 0..3u32,
        timeout in prop::option::of(1..50u64),
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let has_steps = matches!(mode, Mode::Saga { .. } | Mode::Msg { .. });
        let mut new = new_global(mode, if has_steps { steps } else { 0 });
        new.options.retry_limit = retry_limit;
        new.options.timeout_to_fail = timeout.map(Duration::from_secs);
        let submitted = submitted && new.mode.trans_type() != TransType::Workflow;
        let mut story = Story::begin(new, submitted);
        for happening in &happenings {
            let Some(input) = input(happening, &mut story) else { continue };
            let before = story.copy();
            story.input(input.clone());
            check_step(&before, &input, &story);

            // Deterministic; a repeated answer to what is decided changes nothing.
            let mut again = before.copy();
            again.input(input.clone());
            prop_assert_eq!(&again.global, &story.global);
            if let Input::Reply { target: Target::Branch(row), .. } = &input
                && story.global.branches.get(*row).is_some_and(|row| !row.is_pending())
            {
                let mut repeated = story.copy();
                repeated.input(input.clone());
                prop_assert_eq!(&repeated.global, &story.global);
            }
            // A refused request changes nothing.
            if step(&before.global, &input, &before.policy, &before.limits, &before.cx()).is_err() {
                prop_assert_eq!(&before.global, &story.global);
            }
        }
    }

    /// If every call is answered with success from some point on, every global that was decided
    /// ends, and so does every one that times out.
    #[test]
    fn it_ends_when_services_answer(
        new in decidable(),
        happenings in prop::collection::vec(happening(), 0..30),
    ) {
        let submitted = new.mode.trans_type() == TransType::Saga;
        let mut story = Story::begin(new, submitted);
        for happening in &happenings {
            if let Some(input) = input(happening, &mut story) {
                story.input(input);
            }
        }
        for _ in 0..200 {
            if story.global.status.is_final() {
                break;
            }
            let planned = plan(&story.global, &story.policy, &story.cx());
            match planned.calls.first() {
                Some(call) => {
                    story.input(Input::Reply { target: call.target, outcome: Outcome::Success });
                }
                None => {
                    story.now = planned.wake_at.unwrap();
                    story.input(Input::Wake);
                }
            }
        }
        prop_assert!(story.global.status.is_final(), "{:?}", story.global);
    }
}
