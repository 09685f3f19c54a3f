//! Idle connections, kept by the thread that used them.
//!
//! A thread finds its connections without a lock and without waking another thread. What is idle is
//! bounded here; what is open in all is bounded by the [`Connector`](super::connect::Connector).

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::runtime;

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
    targets: HashMap<Arc<str>, Arc<Target>>,
    idle: HashMap<Arc<str>, Vec<Connection>>,
    idle_count: usize,
    swept_at: Option<Instant>,
}

/// An open connection.
pub(super) struct Connection {
    /// Sends requests into it.
    pub(super) send: SendRequest<Full<Bytes>>,
    idle: Arc<IdleClock>,
    opened_at: Instant,
    runtime: runtime::Id,
}

/// Tells a connection's task since when the connection has not been used.
#[derive(Debug)]
pub(super) struct IdleClock {
    opened_at: Instant,
    /// Milliseconds after `opened_at`; [`BUSY`] while a call uses the connection.
    idle_since: AtomicU64,
}

const BUSY: u64 = u64::MAX;

impl IdleClock {
    /// Returns for how long the connection has been idle, `None` while it is used.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        // The value stands alone: nothing else is read on the strength of it.
        match self.idle_since.load(Ordering::Relaxed) {
            BUSY => None,
            since => Some(self.opened_at.elapsed().saturating_sub(Duration::from_millis(since))),
        }
    }
}

impl Connection {
    /// Returns a new connection, in use, and what its task watches.
    pub(super) fn new(send: SendRequest<Full<Bytes>>) -> (Self, Arc<IdleClock>) {
        let opened_at = Instant::now();
        let idle = Arc::new(IdleClock { opened_at, idle_since: AtomicU64::new(BUSY) });
        let runtime = runtime::Handle::current().id();
        let connection = Self { send, idle: idle.clone(), opened_at, runtime };
        (connection, idle)
    }

    fn set_idle(&self) {
        let since = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(BUSY - 1);
        self.idle.idle_since.store(since, Ordering::Relaxed);
    }

    fn set_busy(&self) {
        self.idle.idle_since.store(BUSY, Ordering::Relaxed);
    }
}

/// Runs `work` on the thread's pool of a caller.
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
    destination: &Arc<str>,
    options: &OutboundOptions,
) -> Option<Connection> {
    let runtime = runtime::Handle::current().id();
    with_local(key, |local| {
        let idle = local.idle.get_mut(destination)?;
        while let Some(connection) = idle.pop() {
            local.idle_count -= 1;
            // A connection's task lives in the runtime that opened it; a thread that has entered
            // another one since would wait for a task that nobody runs.
            let usable = !connection.send.is_closed()
                && connection.runtime == runtime
                && connection.opened_at.elapsed() < options.connection_age_max;
            if usable {
                connection.set_busy();
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
    connection: Connection,
    options: &OutboundOptions,
) {
    if connection.send.is_closed() {
        return;
    }
    with_local(key, |local| {
        if local.idle_count >= options.idle_max || local.idle.len() > options.idle_max {
            local.sweep(options.idle_timeout);
        }
        if local.idle_count >= options.idle_max {
            return;
        }
        connection.set_idle();
        // Not `entry`, which would clone the key for every call.
        match local.idle.get_mut(destination) {
            Some(idle) if idle.len() >= options.idle_per_destination_max => return,
            Some(idle) => idle.push(connection),
            None => {
                local.idle.insert(destination.clone(), vec![connection]);
            }
        }
        local.idle_count += 1;
    });
}

impl Local {
    /// Forgets connections that have closed, and destinations without any; at most once a second.
    fn sweep(&mut self, idle_timeout: Duration) {
        let pause = idle_timeout.min(Duration::from_secs(1));
        if self.swept_at.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        self.swept_at = Some(Instant::now());
        self.idle.retain(|_, idle| {
            idle.retain(|connection| !connection.send.is_closed());
            !idle.is_empty()
        });
        self.idle_count = self.idle.values().map(Vec::len).sum();
    }
}

/// Returns how many idle connections the thread keeps for a caller.
#[cfg(test)]
pub(super) fn idle_count(key: &Arc<PoolKey>) -> usize {
    with_local(key, |local| local.idle_count)
}
