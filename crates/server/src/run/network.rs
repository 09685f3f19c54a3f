//! The network threads.

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use dtmd_engine::Engine;
use dtmd_transport::inbound::{self, InboundOptions, SpanHook};
use dtmd_transport_grpc::inbound::{self as grpc, GrpcOptions};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tracing::warn;

use super::alerts::{self, AlertSettings};
use super::{grpc_options, inbound_options};
use crate::config::Config;
use crate::logs;

/// The threads that serve, and where.
pub(super) struct Network {
    pub(super) address: SocketAddr,
    pub(super) grpc_address: SocketAddr,
    pub(super) test_control: Option<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

/// What one network thread serves.
struct Seat {
    number: usize,
    places: Places,
    reuse_port: bool,
    options: InboundOptions,
    grpc_options: GrpcOptions,
    engine: Engine,
    shutdown: watch::Receiver<bool>,
}

/// Where one network thread listens.
#[derive(Debug, Clone, Copy)]
struct Places {
    http: SocketAddr,
    grpc: SocketAddr,
}

/// What one network thread listens with.
struct Listeners {
    http: TcpListener,
    grpc: TcpListener,
}

impl Network {
    /// Starts the threads; returns when all of them accept.
    pub(super) async fn start(
        config: &Config,
        engine: &Engine,
        alerts: &AlertSettings,
        spans: &SpanHook,
        shutdown: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let count = config.network_threads();
        let (mut options, mut grpc_options) = (inbound_options(config), grpc_options(config));
        (options.spans, grpc_options.spans) = (spans.clone(), spans.clone());
        options.connections_max = options.connections_max.div_ceil(count);
        grpc_options.connections_max = grpc_options.connections_max.div_ceil(count);
        let mut places = free_places(config)?;
        let mut threads = Vec::with_capacity(count + 1);
        for number in 0..count {
            let seat = Seat {
                number,
                places,
                reuse_port: count > 1,
                options: options.clone(),
                grpc_options: grpc_options.clone(),
                engine: engine.clone(),
                shutdown: shutdown.clone(),
            };
            let (thread, bound) = spawn(seat)?;
            threads.push(thread);
            places = bound.await.map_err(|_| anyhow!("a network thread ended at its start"))??;
        }
        let test_control = match config.listen.test_control {
            Some(at) => Some(serve_test_control(at, engine, alerts, shutdown).await?),
            None => None,
        };
        alerts::start(engine, alerts);
        Ok(Self { address: places.http, grpc_address: places.grpc, test_control, threads })
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

/// Returns where to listen.
fn free_places(config: &Config) -> anyhow::Result<Places> {
    let http = free_address(config.listen.http(), "--http-port")?;
    let mut grpc = config.listen.grpc();
    match free_address(grpc, "--grpc-port") {
        Ok(_) => {}
        Err(_) if config.listen.grpc_may_move() => {
            warn!(target: logs::START, taken = grpc.port(), "gRPC takes any free port");
            grpc.set_port(0);
        }
        Err(error) => return Err(error),
    }
    Ok(Places { http, grpc })
}

/// Returns the address if nobody listens there. With `SO_REUSEPORT` a second server would get half
/// of the connections instead of an error.
fn free_address(address: SocketAddr, flag: &str) -> anyhow::Result<SocketAddr> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(address),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(anyhow!(
            "port {} is taken: is another dtmd or DTM running? Stop it, or choose another port \
             with {flag} (0 takes any free one)",
            address.port()
        )),
        Err(error) => Err(error).with_context(|| format!("cannot listen on {address}")),
    }
}

type Bound = oneshot::Receiver<anyhow::Result<Places>>;

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

async fn serve(seat: Seat, tell: oneshot::Sender<anyhow::Result<Places>>) {
    let (listeners, bound) = match listen(seat.places, seat.reuse_port) {
        Ok(done) => done,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    seat.engine.register_runtime(true);
    let _ = tell.send(Ok(bound));
    let http =
        inbound::serve(listeners.http, seat.engine.clone(), seat.options, seat.shutdown.clone());
    let grpc = grpc::serve(listeners.grpc, seat.engine, seat.grpc_options, seat.shutdown);
    tokio::join!(http, grpc);
}

/// Listens; returns where, now that every port has a number.
fn listen(places: Places, reuse_port: bool) -> anyhow::Result<(Listeners, Places)> {
    let bind = |address| {
        inbound::bind(address, reuse_port)
            .and_then(|listener| Ok((listener.local_addr()?, listener)))
            .with_context(|| format!("cannot listen on {address}"))
    };
    let ((http_at, http), (grpc_at, grpc)) = (bind(places.http)?, bind(places.grpc)?);
    Ok((Listeners { http, grpc }, Places { http: http_at, grpc: grpc_at }))
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
