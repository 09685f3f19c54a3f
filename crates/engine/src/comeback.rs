//! What has waited for a destination that answers again.
//!
//! Each of those that waited has its own next retry, up to an hour away. They are not left to it:
//! when the breaker closes they come one after the other, and so does everybody else who calls that
//! destination, few at first. A service that has just started is not run over.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::core::Core;
use crate::destinations::{Destination, Returned};
use crate::runner::Message;

/// After this time a destination gets as many calls as ever, at the latest.
const RAMP_MAX: Duration = Duration::from_secs(10);
/// How often it gets more.
const RAMP_STEP: Duration = Duration::from_millis(100);

/// Brings back who has waited for a destination, in a task of the current runtime.
pub(crate) fn begin(core: &Arc<Core>, destination: &Arc<Destination>, returned: Returned) {
    tokio::spawn(bring_back(core.clone(), destination.clone(), returned));
}

/// Ends when all are back, the destination is away again, or the server closes.
async fn bring_back(core: Arc<Core>, destination: Arc<Destination>, returned: Returned) {
    // As long as it was away: one that has only stumbled is soon itself again.
    let ramp = returned.away.min(RAMP_MAX);
    let mut waiting: Vec<_> = returned.waiting.into_iter().rev().collect();
    let mut places = destination.hold_places();
    let held_at_first = places.count();
    let mut under_way: FuturesUnordered<oneshot::Receiver<()>> = FuturesUnordered::new();
    let begun = Instant::now();
    while !core.is_closing() && !core.destinations.wait_again(&destination, &waiting) {
        places.keep(part_left(held_at_first, ramp, begun.elapsed()));
        let room = core.destinations.concurrency().saturating_sub(places.count());
        while under_way.len() < room
            && let Some(gid) = waiting.pop()
        {
            if !core.timers.is_set(&gid) {
                // It does not wait any more, or another server has it.
                continue;
            }
            let (ended, end) = oneshot::channel();
            if core.send_spread(&gid, Message::Kick { ended }).is_err() {
                // Too much to do at this moment.
                waiting.push(gid);
                break;
            }
            under_way.push(end);
        }
        if waiting.is_empty() && places.count() == 0 {
            return;
        }
        tokio::select! {
            Some(_) = under_way.next() => {}
            () = tokio::time::sleep(RAMP_STEP) => {}
        }
    }
}

/// Returns how many places of `all` are still held after a time.
fn part_left(all: usize, ramp: Duration, elapsed: Duration) -> usize {
    let ramp = ramp.as_millis().max(1);
    let left = ramp.saturating_sub(elapsed.as_millis());
    usize::try_from(all as u128 * left / ramp).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_evenly() {
        let after = |ms| part_left(63, RAMP_MAX, Duration::from_millis(ms));
        assert_eq!([0, 100, 159, 5000, 9999, 10_000, 20_000].map(after), [63, 62, 61, 31, 0, 0, 0]);
        assert_eq!(part_left(63, Duration::ZERO, Duration::ZERO), 63);
        assert_eq!(part_left(63, Duration::ZERO, Duration::from_millis(1)), 0);
    }
}
