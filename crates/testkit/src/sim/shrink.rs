//! Makes a failing world small: fewer transactions, fewer faults, the same violation.

use std::collections::BTreeSet;

use super::{Played, SimOptions, play};

/// A small world that fails in the same way.
#[derive(Debug, Clone)]
pub struct Small {
    /// How to play it.
    pub options: SimOptions,
    /// What came of it.
    pub played: Played,
}

/// Returns the smallest world found that violates the same invariant; `tries` worlds are played
/// at most.
pub fn shrink(seed: u64, options: &SimOptions, found: &Played, tries: u32) -> Small {
    let mut small = Small { options: options.clone(), played: found.clone() };
    let mut left = tries;
    let mut only: Vec<u32> =
        options.only.clone().unwrap_or_else(|| (0..options.transactions).collect());
    let mut part = only.len();
    while part > 0 && only.len() > 1 && left > tries / 2 {
        let mut from = 0;
        while from < only.len() && left > tries / 2 {
            let mut fewer = only.clone();
            fewer.drain(from..(from + part).min(only.len()));
            let options = SimOptions { only: Some(fewer.clone()), ..small.options.clone() };
            if !fewer.is_empty() && take_if_same(seed, options, &mut small, &mut left) {
                only = fewer;
            } else {
                from += part;
            }
        }
        part /= 2;
    }
    let mut faults: Vec<u64> = ids(&small.played);
    let mut size = faults.len();
    while size > 0 && left > 0 {
        let mut from = 0;
        while from < faults.len() && left > 0 {
            let to = (from + size).min(faults.len());
            let mut fewer = faults.clone();
            fewer.drain(from..to);
            let allowed: BTreeSet<u64> = fewer.iter().copied().collect();
            let options = SimOptions { faults: Some(allowed), ..small.options.clone() };
            if take_if_same(seed, options, &mut small, &mut left) {
                faults = ids(&small.played);
            } else {
                from = to;
            }
        }
        size /= 2;
    }
    small
}

fn ids(played: &Played) -> Vec<u64> {
    let ids: BTreeSet<u64> = played.injected.iter().map(|(id, _)| *id).collect();
    ids.into_iter().collect()
}

fn take_if_same(seed: u64, options: SimOptions, small: &mut Small, left: &mut u32) -> bool {
    if *left == 0 {
        return false;
    }
    *left -= 1;
    let played = play(seed, &options);
    let name = |played: &Played| played.violation.as_ref().map(|found| found.invariant);
    let same = name(&played) == name(&small.played);
    if same {
        *small = Small { options, played };
    }
    same
}
