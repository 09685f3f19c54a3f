//! The model check, and the mistakes that it must find.

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::Mode;
use dtmd_testkit::Bug;
use dtmd_testkit::model::{Searched, Transaction, search};

const STATES_MAX: usize = 2_000_000;

fn saga(concurrent: bool) -> Mode {
    Mode::Saga { concurrent, orders: Arc::from([]) }
}

fn msg() -> Mode {
    Mode::Msg { delay: Duration::ZERO }
}

fn searched(mode: Mode, branches: usize, bug: Option<Bug>) -> Searched {
    search(&Transaction::new(mode, branches, 2, bug), STATES_MAX)
}

#[test]
fn no_reachable_state_breaks_an_invariant_and_none_is_stuck() {
    for (name, mode, branches, at_least) in [
        ("saga", saga(false), 3, 10_000),
        ("concurrent saga", saga(true), 2, 5_000),
        ("tcc", Mode::Tcc, 2, 1_000),
        ("msg", msg(), 2, 300),
        ("xa", Mode::Xa, 2, 300),
    ] {
        let found = searched(mode, branches, None);
        assert!(found.violation.is_none(), "{name}: {:#?}", found.violation);
        assert!(found.complete && found.states >= at_least, "{name}: {} states", found.states);
    }
}

#[test]
fn a_mutated_rule_is_found() {
    for (bug, mode, invariant) in [
        (Bug::NoBarrier, saga(false), "I3"),
        (Bug::PlainIdempotency, saga(false), "I3"),
        (Bug::NoRevisionCheck, saga(false), "I2"),
        (Bug::BlindBranchOverwrite, saga(false), "I2"),
        (Bug::FailedNotCompensated, saga(false), "I2"),
        (Bug::LazySagaResults, saga(false), "I2"),
        (Bug::StaleViewAtAbort, Mode::Tcc, "I2"),
        (Bug::LostRegistration, Mode::Tcc, "I5"),
        (Bug::AckBeforeDurable, Mode::Tcc, "I5"),
        (Bug::SubmitOverridesAbort, Mode::Tcc, "I3"),
        (Bug::TryBeforeRegister, Mode::Tcc, "I2"),
        (Bug::RepeatFromOldView, Mode::Xa, "I8"),
        (Bug::QueryWithoutInsert, msg(), "I7"),
        (Bug::LocalCommitOutsideBarrier, msg(), "I7"),
        (Bug::AbortOnUnknownCommit, msg(), "I7"),
    ] {
        let found = searched(mode, 2, Some(bug));
        let violated = found.violation.as_ref().map(|(violation, _)| violation.invariant);
        assert_eq!(violated, Some(invariant), "{}: {:#?}", bug.name(), found.violation);
    }
}
