//! The simulator, and the mistakes that it must find.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::time::{Instant, SystemTime};

use dtmd_testkit::Bug;
use dtmd_testkit::sim::{Played, Report, SimOptions, play};

/// Plays seeds on two threads and adds them up; the first violation is told with its command.
fn play_all(from: u64, count: u64) -> Report {
    let part = |first: u64| {
        let mut report = Report::default();
        for seed in (from + first..from + count).step_by(2) {
            let played = play(seed, &SimOptions::default());
            if let Some(violation) = &played.violation {
                panic!("{violation}\nrepeat it with: cargo xtask sim --seed {seed} --trace");
            }
            report.add(&played);
        }
        report
    };
    let mut report = std::thread::scope(|scope| {
        let other = scope.spawn(|| part(1));
        let mut report = part(0);
        report.merge(&other.join().expect("no world may panic (I15)"));
        report
    });
    report.worlds = count;
    report
}

/// Worlds of the ordinary run, with seeds that are always the same.
const WORLDS: u64 = 41_500;
/// And worlds with seeds that are new each time.
const NEW_WORLDS: u64 = 200;

#[test]
fn no_fault_breaks_an_invariant_and_everything_ends() {
    let begun = Instant::now();
    let mut report = play_all(1, WORLDS);
    let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let new = today << 20;
    report.merge(&play_all(new, NEW_WORLDS));
    let seconds = begun.elapsed().as_secs_f64();
    let told: Vec<String> = report.lines();
    let mut out = std::io::stderr();
    let _ = writeln!(
        out,
        "simulation: seeds 1 to {WORLDS} and {NEW_WORLDS} from {new}, {seconds:.0} s"
    );
    for line in told {
        let _ = writeln!(out, "simulation: {line}");
    }
    assert!(report.transactions > 1_000_000, "{report}");
    assert!(report.crashes() > 150_000, "{report}");
    assert_eq!(report.missing(), Vec::<String>::new(), "{report}");
}

#[test]
fn the_same_seed_plays_the_same_story() {
    for seed in 1..=100 {
        let first = play(seed, &SimOptions::default());
        let again = play(seed, &SimOptions::default());
        assert_eq!((first.hash, first.events), (again.hash, again.events), "seed {seed}");
    }
}

/// Returns the first world of `seeds` in which a mistake shows.
fn found(bug: Bug, seeds: u64) -> Option<Played> {
    let options = SimOptions { bug: Some(bug), ..SimOptions::default() };
    (1..=seeds).map(|seed| play(seed, &options)).find(|played| played.violation.is_some())
}

#[test]
fn every_mistake_is_found() {
    let missed: Vec<&str> = Bug::ALL
        .iter()
        .filter(|bug| !bug.is_harmless() && !bug.is_for_the_model())
        .filter(|bug| found(**bug, 8_000).is_none())
        .map(|bug| bug.name())
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn ignoring_leases_costs_calls_and_nothing_else() {
    let played = found(Bug::LeaseIgnored, 1_500);
    assert!(played.is_none(), "{:?}", played.map(|played| (played.seed, played.violation)));
}
