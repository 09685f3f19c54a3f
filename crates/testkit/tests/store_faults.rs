//! The real engine on the embedded store, failing at one store call after the other (T7).
//!
//! A scenario is a transaction of any mode with its application and services, drawn from a number.
//! It is played once to count its store calls; then once for every call and every kind of fault.
//! Whatever fails, the transaction must end, and end right: no effect twice, none left, nothing
//! acknowledged lost. `DTMD_SCENARIOS` sets how many scenarios there are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "store_faults/scenario.rs"]
mod scenario;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::Instant;

use dtmd_testkit::{Counted, StoreFault};
use futures_util::StreamExt as _;
use scenario::{Fault, Scenario};

/// Scenarios of the ordinary run.
const SCENARIOS: u64 = 200;
/// Transactions that are played at a time on each of two threads.
const AT_A_TIME: usize = 48;
/// Claims come with the clock; the first ones meet every case.
const CLAIMS: u64 = 2;

/// Plays all cases on two threads, each with its runtime.
fn play_all(cases: Vec<(u64, Fault)>) -> Vec<(u64, Fault, scenario::Played)> {
    let (even, odd): (Vec<_>, Vec<_>) =
        cases.into_iter().enumerate().partition(|(number, _)| number % 2 == 0);
    let part = |cases: Vec<(usize, (u64, Fault))>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let plays = cases.into_iter().map(|(_, (number, fault))| async move {
                (number, fault, Scenario::draw(number).play(fault).await)
            });
            futures_util::stream::iter(plays).buffer_unordered(AT_A_TIME).collect::<Vec<_>>().await
        })
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| part(odd));
        let mut all = part(even);
        all.extend(other.join().unwrap());
        all
    })
}

#[test]
fn a_fault_at_any_store_call_leaves_every_transaction_right() {
    let begun = Instant::now();
    let wanted = std::env::var("DTMD_SCENARIOS").ok().and_then(|count| count.parse().ok());
    let scenarios = wanted.unwrap_or(SCENARIOS);
    let counted = play_all((0..scenarios).map(|number| (number, None)).collect());
    let mut cases = Vec::new();
    for (number, _, played) in &counted {
        let work = (0..played.work).map(|nth| (Counted::Work, nth));
        let claims = (0..CLAIMS).map(|nth| (Counted::Claims, nth));
        for (counted, nth) in work.chain(claims) {
            let faults = StoreFault::ALL.iter();
            cases.extend(faults.map(|fault| (*number, Some((*fault, counted, nth)))));
        }
    }
    let count = cases.len();
    let ends: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let (mut hits, mut unclear) = (0, 0);
    for (_, fault, played) in play_all(cases) {
        hits += u64::from(played.was_hit);
        unclear += played.unclear;
        let what = format!("{:?}", fault.unwrap().0);
        *ends.lock().unwrap().entry(format!("{} {}", played.end, what)).or_default() += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let _ = writeln!(
        std::io::stderr(),
        "store faults: {scenarios} scenarios of every mode, {count} faults ({hits} met), {unclear} \
         requests without a clear answer, in {seconds:.0} s; ends: {:?}",
        ends.lock().unwrap()
    );
    // Without its fault a run proves nothing; a call that a run does not repeat may be missed.
    assert!(hits * 100 >= count as u64 * 90, "only {hits} of {count} faults were met");
    assert!(unclear > scenarios, "nothing failed for an application");
}
