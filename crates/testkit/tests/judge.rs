//! What judges a mutant of the protocol that the protocol's own tests let live
//! (`cargo xtask prove mutants`): a short simulation that is always the same, and the model.
//!
//! Ignored in the ordinary run, which plays far more of both.

use dtmd_protocol::Mode;
use dtmd_testkit::model::{Transaction, search};
use dtmd_testkit::sim::{Report, SimOptions, play};

/// 75,000 transactions: every row of the tables is met, but the rarest.
const WORLDS: u64 = 3_000;

#[test]
#[ignore = "for `cargo xtask prove mutants`"]
fn a_short_simulation_has_no_violation() {
    let mut report = Report::default();
    for seed in 1..=WORLDS {
        let played = play(seed, &SimOptions::default());
        assert!(played.violation.is_none(), "seed {seed}: {:?}", played.violation);
        report.add(&played);
    }
    let missing = report.missing();
    assert!(missing.len() <= 1, "{missing:?}\n{report}");
}

#[test]
#[ignore = "for `cargo xtask prove mutants`"]
fn the_model_has_no_violation() {
    let saga = |concurrent| Mode::Saga { concurrent, orders: [].into() };
    let msg = Mode::Msg { delay: std::time::Duration::ZERO };
    for mode in [saga(false), saga(true), Mode::Tcc, Mode::Xa, msg] {
        let found = search(&Transaction::new(mode.clone(), 2, 2, None), 1_000_000);
        assert!(found.complete && found.violation.is_none(), "{mode:?}: {:?}", found.violation);
    }
}
