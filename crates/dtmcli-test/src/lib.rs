//! A dtmd inside the test's own process: no container, no port to choose, nothing left behind.
//!
//! ```
//! use dtmcli_test::TestServer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let server = TestServer::start().await;
//! // dtmcli::Client::new(server.url()) ...
//! assert!(server.url().starts_with("http://127.0.0.1:"));
//! # }
//! ```
//!
//! [`TestServer::start`] gives a server whose clock stands still until the test moves it: a retry
//! that is due in an hour is made by `server.clock().forward(HOUR).await`, at once. With
//! [`TestServer::start_live`] time passes by itself, as in production.
//!
//! Transactions are kept in memory. Each server is another one: tests do not see each other.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use dtmd_server::config::{Config, StoreDriver};
use dtmd_server::run::Server;
use tokio::sync::{mpsc, oneshot};

/// How long branch calls that are on their way may take when the server is dropped.
const SHUTDOWN_MAX: Duration = Duration::from_millis(200);
/// How long the end of a dropped server is waited for. It has no more to do; a connection that its
/// test still holds must not hold up the test.
const STOP_MAX: Duration = Duration::from_secs(1);
/// Commands that wait for the server's thread; a test sends one at a time.
const COMMANDS_MAX: usize = 16;
/// The most passes that one [`Clock::forward`] makes: more is a transaction that never rests.
const PASSES_MAX: usize = 10_000;

/// A dtmd of this test's own. Dropping it stops it.
#[derive(Debug)]
pub struct TestServer {
    url: String,
    grpc_url: String,
    clock: Clock,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The clock of a [`TestServer`].
#[derive(Debug, Clone)]
pub struct Clock {
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
struct Command {
    forward: Duration,
    passed: oneshot::Sender<usize>,
}

impl TestServer {
    /// Starts a server on free ports, whose clock only the test moves: nothing times out and
    /// nothing is retried before [`Clock::forward`]. What is submitted is worked on as ever.
    ///
    /// # Panics
    ///
    /// If it cannot be started, which fails the test.
    pub async fn start() -> Self {
        Self::start_with(|config| config.listen.test_control = Some(SocketAddr::from(LOOPBACK)))
            .await
    }

    /// Starts a server on free ports, whose clock is the system's.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn start_live() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts a server with a configuration of the test's own: what `change` makes of a memory
    /// store on free ports. The clock can be moved if `listen.test_control` is set.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.store.driver = StoreDriver::Memory;
        config.listen.http_port = 0;
        config.listen.grpc_port = 0;
        config.network_threads = 1;
        config.timeouts.shutdown = SHUTDOWN_MAX;
        change(&mut config);
        let (started, start) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        // A thread and a runtime of its own: it outlives no test, and a test that blocks its own
        // runtime does not stop it.
        let thread = std::thread::Builder::new()
            .name("dtmd-test".to_owned())
            .spawn(move || serve(config, started, inbox, stopped));
        let thread = thread.unwrap_or_else(|error| panic!("no thread for dtmd: {error}"));
        let addresses = start.await.unwrap_or_else(|_| Err(anyhow::anyhow!("its thread ended")));
        let (http, grpc) =
            addresses.unwrap_or_else(|error| panic!("dtmd cannot be started: {error:#}"));
        Self {
            url: format!("http://{http}"),
            grpc_url: format!("grpc://{grpc}"),
            clock: Clock { commands },
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The URL of its HTTP interface, such as `http://127.0.0.1:41234`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of its gRPC interface as the SDK takes it, such as `grpc://127.0.0.1:41235`.
    #[must_use]
    pub fn grpc_url(&self) -> &str {
        &self.grpc_url
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl Clock {
    /// Moves the clock on, makes everything that is due by then due now, and returns when it has
    /// been worked on: how many passes over transactions there were.
    ///
    /// Without a test clock (see [`TestServer::start_live`]) nothing happens, and it returns 0.
    ///
    /// # Panics
    ///
    /// If the server has been dropped.
    pub async fn forward(&self, by: Duration) -> usize {
        let (passed, passes) = oneshot::channel();
        let command = Command { forward: by, passed };
        let sent = self.commands.send(command).await;
        assert!(sent.is_ok(), "the server of this clock has been dropped");
        passes.await.unwrap_or_default()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the server's thread has been printed; a second one would hide the test's.
            let _ = thread.join();
        }
    }
}

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

type Addresses = anyhow::Result<(SocketAddr, SocketAddr)>;

/// Runs a server until it is told to stop.
fn serve(
    config: Config,
    started: oneshot::Sender<Addresses>,
    inbox: mpsc::Receiver<Command>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(error.into()));
            return;
        }
    };
    runtime.block_on(async move {
        let server = match Server::start(config, false).await {
            Ok(server) => server,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        if started.send(Ok((server.address(), server.grpc_address()))).is_ok() {
            tokio::select! {
                _ = stopped => {}
                // Being stopped in the middle of a command is what the drop of a server means.
                () = obey(&server, inbox) => {}
            }
        }
        let _ = tokio::time::timeout(STOP_MAX, server.stop()).await;
    });
    runtime.shutdown_background();
}

/// Moves the clock as often as it is told to.
async fn obey(server: &Server, mut inbox: mpsc::Receiver<Command>) {
    let mut forwarded = Duration::ZERO;
    while let Some(Command { forward, passed }) = inbox.recv().await {
        let mut passes = 0;
        if let Some(control) = server.engine().test_control() {
            forwarded = forwarded.saturating_add(forward);
            let offset = i64::try_from(forwarded.as_millis()).unwrap_or(i64::MAX);
            control.set_clock(offset, offset);
            while passes < PASSES_MAX && matches!(control.cron_once(false).await, Ok(Some(_))) {
                passes += 1;
            }
        }
        let _ = passed.send(passes);
    }
    // Every clock is gone, but the server may still be wanted.
    std::future::pending().await
}
