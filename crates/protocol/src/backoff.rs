//! The retry schedule: DTM's doubling, with a cap and a deviation (design.md section 6).

use std::time::Duration;

use crate::global::{Global, Retry};
use crate::options::Policy;
use crate::time::Timestamp;

/// Returns the interval in force after `attempts` unknown outcomes in a row: base · 2^attempts,
/// at most the cap (or the base, if that is longer).
pub fn interval(base: Duration, attempts: u32, policy: &Policy) -> Duration {
    let cap = policy.retry_interval_max.max(base);
    let factor = 1u32.checked_shl(attempts).unwrap_or(u32::MAX);
    base.checked_mul(factor).unwrap_or(cap).min(cap)
}

/// Returns the retry state after an outcome that decides nothing.
///
/// The first failure waits twice the base (spec 07 E7). The deviation is drawn from the gid, the
/// row and the attempt, so that equal states plan equal times while thousands of globals whose
/// service failed at one moment do not come back at one moment.
pub fn after_unknown(
    global: &Global,
    row: usize,
    retry: Retry,
    policy: &Policy,
    now: Timestamp,
) -> Retry {
    let attempts = retry.attempts.saturating_add(1);
    let wait = interval(global.base_interval(policy), attempts, policy);
    let seed = seed(global.gid.as_str(), row, attempts);
    Retry { attempts, next_at: now.after(deviate(wait, policy.retry_jitter_percent, seed)) }
}

/// Returns the retry state after ONGOING: the interval does not grow (spec 01 §3).
pub fn after_ongoing(global: &Global, retry: Retry, policy: &Policy, now: Timestamp) -> Retry {
    let wait = interval(global.base_interval(policy), retry.attempts, policy);
    Retry { attempts: retry.attempts, next_at: now.after(wait) }
}

/// Moves `wait` by up to `percent` of it to either side, where `seed` says.
fn deviate(wait: Duration, percent: u32, seed: u64) -> Duration {
    let span = u64::from(percent.min(100)) * 2 + 1;
    let percent = 100 + seed % span - u64::from(percent.min(100));
    let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX / 200);
    Duration::from_micros(micros.saturating_mul(percent) / 100)
}

/// FNV-1a over the parts: spread, not secrecy.
fn seed(gid: &str, row: usize, attempts: u32) -> u64 {
    let row = (row as u64).to_le_bytes();
    let attempts = attempts.to_le_bytes();
    let bytes = gid.bytes().chain(row).chain(attempts);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_doubles_up_to_the_cap() {
        let policy = Policy::default();
        let base = Duration::from_secs(10);
        for (attempts, seconds) in
            [(0, 10), (1, 20), (2, 40), (3, 80), (8, 2560), (9, 3600), (31, 3600), (u32::MAX, 3600)]
        {
            assert_eq!(interval(base, attempts, &policy), Duration::from_secs(seconds));
        }
        let longer_than_the_cap = Duration::from_secs(7200);
        assert_eq!(interval(longer_than_the_cap, 5, &policy), longer_than_the_cap);
    }

    #[test]
    fn the_deviation_stays_within_its_percentage_and_uses_all_of_it() {
        let wait = Duration::from_secs(100);
        let waits: Vec<_> = (0..1000).map(|n| deviate(wait, 10, seed("g", 0, n))).collect();
        assert_eq!(waits.iter().min(), Some(&Duration::from_secs(90)));
        assert_eq!(waits.iter().max(), Some(&Duration::from_secs(110)));
        assert_eq!(deviate(wait, 0, 17), wait);
    }
}
