//! The accept loop: connections in, deadlines kept, a graceful end.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::connection::{self, CoarseClock, ConnectionLimits, Handler, Watch};
use crate::socket::{Listener, Socket};

/// How long to wait after an accept that failed for want of file descriptors or memory. Short:
/// meanwhile nobody looks at the deadlines that would free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection past the limit is told.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json; charset=utf-8\r\ncontent-length: 64\r\n\
    retry-after: 1\r\nconnection: close\r\n\r\n\
    {\"message\":\"too many connections; close idle ones or try again\"}";

/// Accepts and serves until `shutdown` is true or its sender is gone.
pub(super) async fn run<L: Listener, H: Handler>(
    mut listener: L,
    handler: Arc<H>,
    limits: ConnectionLimits,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut connections = Connections::new(limits);
    let mut tick = interval(limits.tick());
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut is_failing = false;
    loop {
        // Every arm may be dropped while it waits: nothing is lost by it.
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            _ = tick.tick() => connections.look(),
            accepted = listener.accept() => match accepted {
                Ok(socket) => {
                    is_failing = false;
                    connections.add(socket, &handler);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if !is_failing {
                        warn!(%error, "cannot accept connections; raise the limit of open files");
                    }
                    is_failing = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    connections.drain(tick).await;
}

/// Waits for the shutdown. Who has lost the sender cannot ask for anything else.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Returns whether an accept failed because of its client alone.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// The connections of a listener.
struct Connections {
    limits: ConnectionLimits,
    clock: Arc<CoarseClock>,
    looked: Instant,
    tasks: JoinSet<()>,
    watches: Vec<Weak<Watch>>,
    is_full: bool,
}

impl Connections {
    fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            clock: Arc::new(CoarseClock::new()),
            looked: Instant::now(),
            tasks: JoinSet::new(),
            watches: Vec::new(),
            is_full: false,
        }
    }

    fn add<S: Socket, H: Handler>(&mut self, socket: S, handler: &Arc<H>) {
        if self.tasks.len() >= self.limits.connections_max {
            self.reap();
        }
        if self.tasks.len() >= self.limits.connections_max {
            if !self.is_full {
                let max = self.limits.connections_max;
                warn!(max, "the limit of connections is reached; new ones are refused");
            }
            self.is_full = true;
            return socket.write_last(TOO_MANY);
        }
        self.is_full = false;
        if let Err(error) = socket.set_nodelay() {
            debug!(%error, "a connection was gone when it was accepted");
            return;
        }
        let watch = Arc::new(Watch::new(self.clock.clone()));
        self.watches.push(Arc::downgrade(&watch));
        self.tasks.spawn(connection::run(socket, handler.clone(), self.limits, watch));
    }

    /// Ends the connections that are overdue, and forgets those that have ended.
    fn look(&mut self) {
        self.reap();
        // If this process was stopped for a while, that is not the clients' slowness: what they
        // sent meanwhile is read before much of it counts against them.
        let passed = self.looked.elapsed().min(self.limits.tick() * 2);
        self.looked = Instant::now();
        let now = self.clock.advance(passed);
        self.watches.retain(|watch| {
            let Some(watch) = watch.upgrade() else { return false };
            if let Some(deadline) = watch.overdue(now, &self.limits) {
                debug!(deadline, "a connection is closed: too slow");
                watch.end();
            }
            true
        });
    }

    fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a connection's task failed; this is a bug");
            }
        }
    }

    /// Lets running requests end, for a time.
    async fn drain(mut self, mut tick: tokio::time::Interval) {
        for watch in self.watches.iter().filter_map(Weak::upgrade) {
            watch.drain();
        }
        let deadline = Instant::now() + self.limits.drain;
        while !self.tasks.is_empty() {
            tokio::select! {
                _ = self.tasks.join_next() => {}
                _ = tick.tick() => self.look(),
                () = sleep_until(deadline) => {
                    info!(left = self.tasks.len(), "requests are cut off; their work goes on");
                    break;
                }
            }
        }
        self.tasks.shutdown().await;
    }
}
