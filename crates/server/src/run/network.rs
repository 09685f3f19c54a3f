//! The network threads.

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use dtmd_engine::Engine;
use dtmd_transport::inbound::{self, InboundOptions};
use tokio::sync::{oneshot, watch};

use super::alerts::{self, AlertSettings};
use crate::config::Config;

/// The threads that serve, and where.
pub(super) struct Network {
    pub(super) address: SocketAddr,
    pub(super) test_control: Option<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

/// What one network thread serves.
struct Seat {
    number: usize,
    address: SocketAddr,
    reuse_port: bool,
    options: InboundOptions,
    engine: Engine,
    shutdown: watch::Receiver<bool>,
}

impl Network {
    /// Starts the threads; returns when all of them accept.
    pub(super) async fn start(
        config: &Config,
        mut options: InboundOptions,
        engine: &Engine,
        alerts: &AlertSettings,
        shutdown: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let count = config.network_threads();
        options.connections_max = options.connections_max.div_ceil(count);
        let mut address = free_address(config.listen.http())?;
        let mut threads = Vec::with_capacity(count + 1);
        for number in 0..count {
            let seat = Seat {
                number,
                address,
                reuse_port: count > 1,
                options: options.clone(),
                engine: engine.clone(),
                shutdown: shutdown.clone(),
            };
            let (thread, bound) = spawn(seat)?;
            threads.push(thread);
            address = bound
                .await
                .map_err(|_| anyhow!("a network thread ended at its start"))?
                .with_context(|| format!("cannot listen on {address}"))?;
        }
        let test_control = match config.listen.test_control {
            Some(at) => Some(serve_test_control(at, engine, alerts, shutdown).await?),
            None => None,
        };
        alerts::start(engine, alerts);
        Ok(Self { address, test_control, threads })
    }

    /// Waits until every thread has ended.
    pub(super) async fn join(self) {
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }
}

/// Returns the address if nobody listens there. With `SO_REUSEPORT` a second server would get half
/// of the connections instead of an error.
fn free_address(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(address),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(anyhow!(
            "port {} is taken: is another dtmd or DTM running? Stop it, or choose another port \
             with --http-port (0 takes any free one)",
            address.port()
        )),
        Err(error) => Err(error).with_context(|| format!("cannot listen on {address}")),
    }
}

type Bound = oneshot::Receiver<io::Result<SocketAddr>>;

fn spawn(seat: Seat) -> anyhow::Result<(JoinHandle<()>, Bound)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a network runtime cannot be made")?;
    let (tell, bound) = oneshot::channel();
    let name = format!("dtmd-net-{}", seat.number);
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || runtime.block_on(serve(seat, tell)))
        .context("a network thread cannot be started")?;
    Ok((thread, bound))
}

async fn serve(seat: Seat, tell: oneshot::Sender<io::Result<SocketAddr>>) {
    let listener = match inbound::bind(seat.address, seat.reuse_port) {
        Ok(listener) => listener,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    seat.engine.register_runtime(true);
    let _ = tell.send(listener.local_addr());
    inbound::serve(listener, seat.engine, seat.options, seat.shutdown).await;
}

async fn serve_test_control(
    at: SocketAddr,
    engine: &Engine,
    alerts: &AlertSettings,
    shutdown: &watch::Receiver<bool>,
) -> anyhow::Result<SocketAddr> {
    let listener =
        inbound::bind(at, false).with_context(|| format!("cannot listen on {at} for tests"))?;
    let address = listener.local_addr()?;
    let alerts = alerts.clone();
    let configure: inbound::Configure = std::sync::Arc::new(move |change| {
        alerts.change(change.alert_web_hook, change.alert_retry_limit)
    });
    let serving =
        inbound::serve_test_control(listener, engine.clone(), configure, shutdown.clone());
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the test clock is not served");
        }
    });
    Ok(address)
}
