//! The real process ended at every named place (`dtmd_failpoint::PLACES`), under the kill loop's
//! load, and started again; the bank's invariants are looked at after each.
//!
//! `DTMD_FAILPOINT_HITS` sets how often each place is hit, `DTMD_SEED` repeats a run's choices.

use std::collections::BTreeMap;
use std::path::Path;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtmd_failpoint::PLACES;
use dtmd_tests::{PATIENCE, Server, tell};
use tempfile::TempDir;

use super::book::{Book, Dice};
use super::load::Load;
use super::{check_after_restart, check_quiet, from_env, open_banks};

/// Hits of each place in the ordinary run.
const HITS: u64 = 3;
/// Small segments, so that many are begun, emptied and given up.
const SEGMENT_BYTES: u64 = 16 * 1024;

/// Orders the end of the next process at a place, or no end.
fn order(file: &Path, place: Option<(&str, u64)>) {
    let mut text = format!("value:segment_bytes={SEGMENT_BYTES}\n");
    if let Some((name, nth)) = place {
        text += &format!("{name}={nth}\n");
        if ["segment-emptied", "segment-retired"].contains(&name) {
            // The oldest segment is emptied however much of it is needed.
            text += "value:compaction_percent=100\n";
        }
    }
    std::fs::write(file, text).unwrap();
}

/// Places that are reached at every turn are left alone for a while, others are rare.
fn nth(place: &str, dice: &mut Dice) -> u64 {
    let is_common = ["commit", "reply", "call", "fold", "log"].iter();
    let is_common = is_common.clone().any(|word| place.starts_with(word));
    1 + dice.below(if is_common { 25 } else { 2 }) * u64::from(place != "store-loaded")
}

/// Waits until the process has ended by itself.
async fn ended(server: &mut Server, place: &str) {
    let begun = Instant::now();
    while server.process.has_ended().unwrap().is_none() {
        let what = "is never reached; is the server built without `armed`?";
        assert!(begun.elapsed() < PATIENCE, "{place} {what} (`cargo build --workspace` has it)");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for its last words, which may still be on their way into the log, and counts them.
async fn told(server: &Server, place: &str, wanted: u64) -> u64 {
    let said = format!("failpoint {place}\n");
    let begun = Instant::now();
    loop {
        let count = server.log().matches(&said).count() as u64;
        if count >= wanted {
            return count;
        }
        assert!(begun.elapsed() < PATIENCE, "{place} was not told: {}", server.process.log_tail());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_at_any_named_place_leaves_the_banks_right() {
    let _turn = crate::turn::alone().await;
    let seed = from_env("DTMD_SEED").unwrap_or(7);
    let hits = from_env("DTMD_FAILPOINT_HITS").unwrap_or(HITS);
    let begun = Instant::now();
    let folder = TempDir::new().unwrap();
    let orders = folder.path().join("orders");
    order(&orders, None);
    let (banks, mut audit) = open_banks(&folder).await;
    let env = [("BREAKER_OPEN", "1"), ("DTMD_FAILPOINTS", orders.to_str().unwrap())];
    let mut server = Server::start_with(&[], &env).await;
    let book = Arc::new(Book::default());
    let mut load = Load::begin(seed, from_ref(&server), &banks, &book);
    let mut dice = Dice::new(seed);
    let mut met: BTreeMap<&str, u64> = BTreeMap::new();
    for round in 0..hits {
        for place in PLACES {
            order(&orders, Some((place, nth(place, &mut dice))));
            // A process that ends while it starts never gets ready.
            if server.process.restart().await.is_ok() {
                ended(&mut server, place).await;
            }
            let count = told(&server, place, round + 1).await;
            met.insert(place, count);
            order(&orders, None);
            server.process.restart().await.unwrap();
            check_after_restart(&server, &book, &mut audit).await;
            load.check();
        }
        let _all = load.pause().await;
        check_quiet(from_ref(&server), &book, &mut audit, &banks).await;
    }
    load.end().await;
    let (succeed, failed) = book.ends();
    let seconds = begun.elapsed().as_secs_f64();
    tell(&format!(
        "failpoints: {} places, {} hits, {} of each at least; {} transactions ({succeed} succeed, \
         {failed} failed) in {seconds:.0} s, DTMD_SEED={seed}",
        PLACES.len(),
        met.values().sum::<u64>(),
        met.values().min().copied().unwrap_or(0),
        book.begun(),
    ));
    assert!(met.values().all(|count| *count >= hits), "{met:?}");
    assert!(succeed > 0 && failed > 0, "only one end was reached");
}
