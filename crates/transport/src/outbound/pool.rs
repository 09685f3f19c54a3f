//! Idle connections, kept by the thread that used them.
//!
//! A thread finds its connections without waiting for another one. What is idle is bounded here;
//! what is open in all is bounded by the [`Connector`](super::connect::Connector).
//!
//! One task for all of a thread's idle connections, the *keeper*, closes those that the service has
//! closed or that have been idle for too long. It sleeps while connections come and go.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

// Quicker than the standard library's, and seeded at random: URLs come from outside.
use foldhash::fast::RandomState;
use tokio::runtime;
use tokio::time::{Instant, Sleep, sleep};

use super::connection::Connection;
use super::options::OutboundOptions;
use super::target::Target;

/// Parsed URLs kept by each thread.
const TARGETS_MAX: usize = 1024;

thread_local! {
    /// Almost always one: a process has one caller. Tests have several.
    static LOCALS: RefCell<Vec<(Weak<PoolKey>, Local)>> = const { RefCell::new(Vec::new()) };
}

/// Identifies a caller's pools in all threads; what they hold closes by itself when it is dropped.
///
/// It has no content; the place where it lies is what tells callers apart.
#[derive(Debug)]
pub(super) struct PoolKey;

/// One thread's connections and parsed URLs.
#[derive(Default)]
struct Local {
    targets: HashMap<Arc<str>, Arc<Target>, RandomState>,
    // A mutex for the keeper's sake: a runtime of several threads may run it on another one.
    idle: Arc<Mutex<Idle>>,
}

/// One thread's idle connections.
#[derive(Default)]
struct Idle {
    by_destination: HashMap<Arc<str>, Vec<Connection>, RandomState>,
    count: usize,
    keeper: Option<Keeper>,
}

/// How the keeper is reached.
struct Keeper {
    runtime: runtime::Id,
    /// Set when it has run for the first time.
    waker: Option<Waker>,
}

/// Runs `work` on the thread's part of a caller.
fn with_local<T>(key: &Arc<PoolKey>, work: impl FnOnce(&mut Local) -> T) -> T {
    LOCALS.with_borrow_mut(|locals| {
        let known = locals.iter().position(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(key)));
        let at = known.unwrap_or_else(|| {
            locals.retain(|(of, _)| of.strong_count() > 0);
            locals.push((Arc::downgrade(key), Local::default()));
            locals.len() - 1
        });
        work(&mut locals[at].1)
    })
}

/// Returns the parsed form of a URL, from the thread's cache if it is there.
///
/// # Errors
///
/// What [`Target::parse`] says.
pub(super) fn target(
    key: &Arc<PoolKey>,
    url: &str,
    localhost_alias: Option<&str>,
) -> Result<Arc<Target>, String> {
    with_local(key, |local| {
        if let Some(target) = local.targets.get(url) {
            return Ok(target.clone());
        }
        let target = Arc::new(Target::parse(url, localhost_alias)?);
        if local.targets.len() >= TARGETS_MAX {
            // URLs that differ with every call fill it; those that repeat are back soon.
            local.targets.clear();
        }
        local.targets.insert(Arc::from(url), target.clone());
        Ok(target)
    })
}

/// Takes the connection to a destination that was used last, if one is open and young enough.
pub(super) fn check_out(
    key: &Arc<PoolKey>,
    destination: &str,
    options: &OutboundOptions,
) -> Option<Connection> {
    let runtime = runtime::Handle::current().id();
    with_local(key, |local| {
        let mut idle = lock(&local.idle);
        let idle = &mut *idle;
        let of_destination = idle.by_destination.get_mut(destination)?;
        while let Some(mut connection) = of_destination.pop() {
            idle.count -= 1;
            // A thread that has entered another runtime since would wait for a socket that nobody
            // watches. What has happened to a quiet one is learned here or by the request itself.
            let is_usable = connection.runtime == runtime
                && connection.opened_at.elapsed() < options.connection_age_max
                && connection.is_quiet(&mut Context::from_waker(Waker::noop()));
            if is_usable {
                return Some(connection);
            }
        }
        None
    })
}

/// Gives a connection back after a complete answer. Past the bounds it is closed.
pub(super) fn check_in(
    key: &Arc<PoolKey>,
    destination: &Arc<str>,
    mut connection: Connection,
    options: &OutboundOptions,
) {
    connection.rest();
    with_local(key, |local| {
        let mut idle = lock(&local.idle);
        if idle.count >= options.idle_max {
            return;
        }
        if idle.by_destination.len() > options.idle_max {
            idle.by_destination.retain(|_, idle| !idle.is_empty());
        }
        if idle.keeper.as_ref().is_none_or(|keeper| keeper.runtime != connection.runtime) {
            idle.keeper = Some(Keeper { runtime: connection.runtime, waker: None });
            let (of, key) = (Arc::downgrade(&local.idle), Arc::downgrade(key));
            tokio::spawn(keep(of, key, connection.runtime, options.idle_timeout));
        }
        // A keeper that has not run yet will look at all connections when it does.
        let waker = idle.keeper.as_ref().and_then(|keeper| keeper.waker.as_ref());
        let waker = waker.unwrap_or(Waker::noop());
        if !connection.is_quiet(&mut Context::from_waker(waker)) {
            return;
        }
        // Not `entry`, which would clone the key for every call.
        match idle.by_destination.get_mut(destination) {
            Some(idle) if idle.len() >= options.idle_per_destination_max => return,
            Some(idle) => idle.push(connection),
            None => {
                idle.by_destination.insert(destination.clone(), vec![connection]);
            }
        }
        idle.count += 1;
    });
}

/// Closes idle connections in time; ends when there are none.
async fn keep(
    idle: Weak<Mutex<Idle>>,
    key: Weak<PoolKey>,
    runtime: runtime::Id,
    timeout: Duration,
) {
    let mut alarm = pin!(sleep(timeout));
    let looking = std::future::poll_fn(|cx| {
        let Some(idle) = idle.upgrade() else { return Poll::Ready(()) };
        let mut idle = lock(&idle);
        match &mut idle.keeper {
            Some(keeper) if keeper.runtime == runtime => {
                keeper.waker.get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
            }
            // The thread has entered another runtime, which has a keeper of its own.
            Some(_) | None => return Poll::Ready(()),
        }
        if key.strong_count() == 0 {
            idle.by_destination.clear();
            idle.count = 0;
        }
        idle.look(cx, runtime, timeout);
        poll_alarm(&mut idle, alarm.as_mut(), cx, timeout)
    });
    // What is idle may be more than a task may look at before it lets others run, and it is looked
    // at in one go.
    tokio::task::coop::unconstrained(looking).await;
}

/// Sets the alarm to when the next connection has been idle for too long; ready if there is none.
///
/// Connections that come in later expire later, so the alarm never has to be set back.
fn poll_alarm(
    idle: &mut Idle,
    mut alarm: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
    timeout: Duration,
) -> Poll<()> {
    loop {
        let Some(oldest) = idle.oldest() else {
            idle.keeper = None;
            return Poll::Ready(());
        };
        // Never sooner than timers can tell apart, or the task would spin.
        let at = (oldest + timeout).max(Instant::now() + Duration::from_millis(1));
        if alarm.deadline() < at {
            alarm.as_mut().reset(at);
        }
        if alarm.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
    }
}

impl Idle {
    /// Closes what has expired, or is closed on the other side; has `cx` woken when more is.
    fn look(&mut self, cx: &mut Context<'_>, runtime: runtime::Id, timeout: Duration) {
        self.by_destination.retain(|_, idle| {
            idle.retain_mut(|connection| {
                connection.runtime == runtime
                    && connection.idle_since.elapsed() < timeout
                    && connection.is_quiet(cx)
            });
            !idle.is_empty()
        });
        self.count = self.by_destination.values().map(Vec::len).sum();
    }

    /// Returns since when the connection has been idle that has been for longest.
    fn oldest(&self) -> Option<Instant> {
        let all = self.by_destination.values().flatten();
        all.map(|connection| connection.idle_since).min()
    }
}

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    // Nothing panics while it is held.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns how many idle connections the thread keeps for a caller.
#[cfg(test)]
pub(super) fn idle_count(key: &Arc<PoolKey>) -> usize {
    with_local(key, |local| lock(&local.idle).count)
}
