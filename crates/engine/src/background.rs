//! What runs without being asked: timers, the claimer, lease renewal, the clean-up.

use std::sync::Arc;
use std::time::Duration;

use dtmd_store::Claim;
use tracing::{debug, info, warn};

use crate::core::Core;
use crate::runner::Message;

/// How long a due global is left to the server that knows it, before others claim it.
const CLAIM_GRACE: Duration = Duration::from_secs(1);
/// Globals claimed at a time.
const CLAIM_MAX: usize = 256;
/// Globals woken at a time.
const WAKE_MAX: usize = 1024;
/// The longest sleep of the timer loop, in case a clock is set.
const TIMER_SLEEP_MAX: Duration = Duration::from_secs(1);
/// How often finished globals are cleaned up.
const PURGE_EVERY: Duration = Duration::from_secs(30);
/// Finished globals deleted at a time: short enough not to hold commits up.
const PURGE_MAX: usize = 500;

/// Starts the loops on the current runtime. They end when the engine closes.
pub(crate) fn start(core: &Arc<Core>) {
    if core.options.test_control {
        // Time is driven from outside.
        return;
    }
    tokio::spawn(fire_timers(core.clone()));
    tokio::spawn(claim(core.clone()));
    tokio::spawn(renew(core.clone()));
    tokio::spawn(purge(core.clone()));
}

async fn fire_timers(core: Arc<Core>) {
    let mut jumped = false;
    while !core.is_closing() {
        tell_of_jumps(core.clock.behind(), &mut jumped);
        let room = core.room_for_due().min(WAKE_MAX);
        let (due, next) = core.timers.take_due(core.clock.now(), room);
        for gid in due {
            if core.send_spread(&gid, Message::Wake { claimed: None }).is_err() {
                // Too much to do: the claimer finds it again.
                debug!(%gid, "a wake-up was put off");
            }
        }
        let sleep = next.map_or(TIMER_SLEEP_MAX, |at| core.clock.until(at).min(TIMER_SLEEP_MAX));
        if room == 0 && sleep.is_zero() {
            core.pace.pause().await;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = core.timers.earlier() => {}
        }
    }
}

/// Tells when the machine's clock was set, and when that has been made up for.
fn tell_of_jumps(behind: i64, jumped: &mut bool) {
    let seconds = behind / 1_000_000;
    match (*jumped, seconds != 0) {
        (false, true) => warn!(
            seconds,
            "the machine's clock has jumped; the server's runs a tenth faster or slower until it \
             has caught up, so that transactions do not time out all at once. A restart takes the \
             machine's time as it is"
        ),
        (true, false) => info!("the server's clock has caught up with the machine's"),
        _ => return,
    }
    *jumped = !*jumped;
}

/// Takes over what is due and nobody works on: another server's after its death, ours after a
/// restart, and whatever a lost timer has forgotten.
async fn claim(core: Arc<Core>) {
    // An exclusive store has no other server's globals; what it holds at the start is ours.
    let mut grace = if core.store.info().exclusive { Duration::ZERO } else { CLAIM_GRACE };
    while !core.is_closing() {
        let limit = core.room_for_due().min(CLAIM_MAX);
        // Many claims of one global each would be dear.
        if limit < core.pace.window().min(CLAIM_MAX).div_ceil(4) {
            core.pace.pause().await;
        } else if claim_once(&core, grace, limit).await < limit {
            grace = CLAIM_GRACE;
            tokio::time::sleep(core.options.claim_interval).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

async fn claim_once(core: &Arc<Core>, grace: Duration, limit: usize) -> usize {
    let now = core.clock.now();
    let due = dtmd_protocol::Timestamp(
        now.0.saturating_sub(i64::try_from(grace.as_micros()).unwrap_or(0)),
    );
    let until = now.after(core.options.policy.lease);
    let claim = Claim { owner: core.owner.clone(), due, until, limit };
    let claimed =
        core.committer.run(move |store| Box::pin(async move { store.claim_due(&claim).await }));
    match claimed.await {
        Ok(globals) => {
            let count = globals.len();
            core.metrics.claimed.inc_by(count as u64);
            for global in globals {
                dtmd_failpoint::hit("claim-done");
                let gid = global.gid.clone();
                let message = Message::Wake { claimed: Some(global) };
                if core.send_spread(&gid, message).is_err() {
                    debug!(%gid, "claimed, but put off; its lease will end");
                }
            }
            count
        }
        Err(failure) => {
            // One line an outage: while the store is known to be away nothing new is told.
            if core.committer.is_healthy() {
                warn!(error = %failure, "the store gave no due transactions; trying again");
            }
            core.committer.doubt();
            0
        }
    }
}

async fn renew(core: Arc<Core>) {
    while !core.is_closing() {
        tokio::time::sleep(core.options.policy.lease / 4).await;
        core.tell_all(|| Message::Renew);
    }
}

async fn purge(core: Arc<Core>) {
    let Some(keep) = core.options.keep_finished else { return };
    let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let mut deleted = 0;
    while !core.is_closing() {
        let before = dtmd_protocol::Timestamp(core.clock.now().0.saturating_sub(keep));
        let work = core
            .committer
            .run(move |store| Box::pin(async move { store.purge(before, PURGE_MAX).await }));
        match work.await {
            Ok(purge) => {
                deleted += purge.deleted;
                if purge.more {
                    tokio::task::yield_now().await;
                    continue;
                }
            }
            Err(failure) => warn!(error = %failure, "finished transactions were not cleaned up"),
        }
        if deleted > 0 {
            info!(deleted, "finished transactions were cleaned up");
            deleted = 0;
        }
        tokio::time::sleep(PURGE_EVERY).await;
    }
}
