//! Thousands of crash points, counted (T6): random histories, a crash at any operation, and after
//! each of them several fates of what was not synced. `DTMD_CRASH_POINTS` sets how many there are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod story;

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dtmd_store_embedded::sim::{Faults, Random, SimDisk, Unsynced};
use story::{Step, Story, open};

/// Crash points of the ordinary run.
const POINTS: u64 = 20_000;
/// Steps of a history, with two reopenings in between.
const STEPS: usize = 60;
/// Fates of what was not synced: all kept, all dropped, and torn in these many ways.
const TORN: u64 = 8;

#[derive(Default)]
struct Counts {
    points: AtomicU64,
    /// The step that was cut off turned out to be done.
    done: AtomicU64,
    /// It turned out not to be.
    undone: AtomicU64,
    /// Crashes while the store was being opened.
    opening: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Runs a history until its end or its crash; returns whether it crashed in an opening.
fn run(disk: &SimDisk, story: &mut Story) -> bool {
    for part in 0..3 {
        let Ok(store) = open(disk) else { return true };
        assert!(story.follows(&store).is_ok() || part == 0, "a clean reopening lost something");
        for _ in 0..STEPS / 3 {
            if !matches!(story.step(&store), Step::Done) {
                return false;
            }
        }
    }
    false
}

/// One history, one crash, all fates.
fn crash(seed: u64, counts: &Counts) {
    let whole = SimDisk::new();
    run(&whole, &mut Story::new(seed));
    let mut random = Random(seed);
    let crash_at = random.next() % whole.operations().max(1);
    let disk = SimDisk::new();
    disk.set_faults(Faults { crash_at: Some(crash_at), seed, ..Faults::default() });
    let mut story = Story::new(seed);
    if run(&disk, &mut story) {
        count(&counts.opening);
    }
    let held = (story.held.clone(), story.maybe.clone());
    let torn = (0..TORN).map(|nth| Unsynced::Torn(seed.rotate_left(8) ^ nth));
    for fate in [Unsynced::Kept, Unsynced::Dropped].into_iter().chain(torn) {
        (story.held, story.maybe) = held.clone();
        count(&counts.points);
        let survivor = disk.after_crash(fate);
        let what = || format!("seed {seed}, crash at {crash_at}, unsynced {fate:?}");
        let store = open(&survivor).unwrap_or_else(|error| panic!("{}: {error}", what()));
        story.follows(&store).unwrap_or_else(|why| panic!("{}: {why}", what()));
        if held.1.as_ref().is_some_and(|maybe| *maybe != held.0) {
            count(if story.held == held.0 { &counts.undone } else { &counts.done });
        }
        assert!(matches!(story.step(&store), Step::Done), "{}: it does not work on", what());
        drop(store);
        let store = open(&survivor).unwrap_or_else(|error| panic!("{}: {error}", what()));
        story.follows(&store).unwrap_or_else(|why| panic!("{}, reopened: {why}", what()));
    }
}

#[test]
fn thousands_of_crash_points_lose_nothing() {
    let begun = Instant::now();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let points = number("DTMD_CRASH_POINTS").unwrap_or(POINTS);
    let first = number("DTMD_SEED").unwrap_or(1_000_000);
    let histories = points.div_ceil(TORN + 2);
    let counts = Counts::default();
    std::thread::scope(|scope| {
        for part in 0..2 {
            let counts = &counts;
            scope.spawn(move || {
                for seed in (first + part..first + histories).step_by(2) {
                    crash(seed, counts);
                }
            });
        }
    });
    let Counts { points: played, done, undone, opening } = counts;
    let [played, done, undone, opening] =
        [played, done, undone, opening].map(AtomicU64::into_inner);
    let seconds = begun.elapsed().as_secs_f64();
    let _ = writeln!(
        std::io::stderr(),
        "crash points: {played} in {histories} histories, nothing lost; the step that was cut off \
         was done in {done} and not in {undone}; {opening} crashes while opening; {seconds:.0} s, \
         seeds from {first}"
    );
    assert!(played >= points, "only {played} crash points");
    assert!(done * 50 > played && undone * 50 > played, "the crashes met nothing");
    assert!(opening * 200 > histories, "no opening was interrupted");
}
