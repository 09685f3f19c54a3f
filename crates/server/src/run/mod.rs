//! Wiring: a configuration becomes a running server.
//!
//! Threads: one single-threaded runtime for each network thread, each with a listener of its own
//! on the same port (`SO_REUSEPORT`), and one thread for the store. A transaction's task lives on
//! the runtime that accepted it.

mod alerts;
mod memory;
mod network;
#[cfg(test)]
mod ops_tests;
mod stores;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dtmd_engine::{DestinationLimits, Engine, EngineOptions};
use dtmd_protocol::{Limits, Policy};
use dtmd_transport::inbound::{InboundOptions, SpanHook};
use dtmd_transport::outbound::OutboundOptions;
use dtmd_transport_grpc::inbound::GrpcOptions;
use dtmd_transport_grpc::outbound::Callers;
use dtmd_wire::SubstringRule;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::Config;
use crate::logs;
use crate::spans::{CallRules, Calling, Spans};
use alerts::AlertSettings;
use network::Network;
pub(crate) use stores::sql_options;

/// How long the last spans may take to be sent when the server stops.
const SPANS_FLUSH_MAX: Duration = Duration::from_secs(2);

/// A running server. Dropping it does not stop it; [`Server::stop`] does.
pub struct Server {
    engine: Engine,
    address: SocketAddr,
    grpc_address: SocketAddr,
    test_control: Option<SocketAddr>,
    network: Network,
    spans: Option<Arc<Spans>>,
    shutdown: watch::Sender<bool>,
    config: Config,
}

impl Server {
    /// Opens the store and starts serving. Returns when connections are accepted.
    ///
    /// Must be called on a tokio runtime, which is not used for serving.
    ///
    /// # Errors
    ///
    /// The configuration is not valid, the store cannot be opened, or a port is taken. The text
    /// says what to do.
    pub async fn start(config: Config, reset: bool) -> anyhow::Result<Self> {
        config.validate()?;
        let store = stores::open(&config).await?;
        if reset {
            store.reset().await.context("the store cannot be emptied")?;
            warn!("the store was emptied (-r)");
        }
        let (shutdown, watch) = watch::channel(false);
        let outbound = outbound_options(&config).with_environment();
        let caller = Arc::new(Callers::new(outbound));
        if config.calls.ca_file.is_some() {
            // Better now than at the first call, in the middle of a transaction.
            caller.check_tls().map_err(|text| anyhow::anyhow!("CaFile: {text}"))?;
        }
        let spans = spans(&config)?;
        let rules = CallRules { workflow_callback_get: config.calls.workflow_callback_get };
        let caller = Arc::new(Calling::new(caller, rules, spans.clone()));
        let engine = Engine::start(store, caller, engine_options(&config))
            .context("the store's thread cannot be started")?;
        let alerts = AlertSettings::new(&config.alert);
        let hook = spans.clone().map(|spans| SpanHook::new(spans)).unwrap_or_default();
        let network = Network::start(&config, &engine, &alerts, &hook, &watch).await?;
        memory::watch(&engine, config.limits.memory_max as u64, watch);
        let server = Self {
            address: network.address,
            grpc_address: network.grpc_address,
            test_control: network.test_control,
            engine,
            network,
            spans,
            shutdown,
            config,
        };
        server.announce();
        Ok(server)
    }

    fn announce(&self) {
        let store = self.engine.store_info();
        info!(
            target: logs::START,
            address = %format!("http://{}", self.address),
            grpc = %self.grpc_address,
            store = store.kind,
            location = %store.location,
            threads = self.config.network_threads(),
            "dtmd {} is ready",
            env!("CARGO_PKG_VERSION")
        );
        if !store.durable {
            warn!(target: logs::START, store = store.kind, "transactions are lost when this process ends");
        }
    }

    /// Returns where the HTTP interface listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where the gRPC interface listens.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Returns where the test clock listens, if it was asked for.
    pub fn test_control(&self) -> Option<SocketAddr> {
        self.test_control
    }

    /// Returns the engine, for embedding.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Stops: no new requests, running branch calls may end until `ShutdownTimeout`, unfinished
    /// transactions are handed back, the store is closed.
    pub async fn stop(self) {
        info!("stopping");
        let left = self.engine.shutdown(self.config.timeouts.shutdown).await;
        if left > 0 {
            warn!(left, "transactions were still worked on; they go on at the next start");
        }
        let _ = self.shutdown.send(true);
        self.network.join().await;
        if let Some(spans) = &self.spans {
            spans.flush(SPANS_FLUSH_MAX).await;
        }
        info!("stopped");
    }
}

/// Runs a server until `shutdown` is done, then stops it.
///
/// # Errors
///
/// As [`Server::start`].
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let server = Server::start(config, false).await?;
    shutdown.await;
    server.stop().await;
    Ok(())
}

/// Starts the export of spans, if a collector is named.
fn spans(config: &Config) -> anyhow::Result<Option<Arc<Spans>>> {
    let settings = config.tracing.settings(&|name| std::env::var(name).ok());
    let settings = settings.map_err(|text| anyhow::anyhow!("tracing: {text}"))?;
    Ok(settings.map(|settings| {
        info!(target: logs::START, service = settings.service_name, "traces are exported");
        Spans::start(settings)
    }))
}

fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        policy: Policy {
            retry_interval: config.retry.interval,
            retry_interval_max: config.retry.interval_max,
            retry_jitter_percent: config.retry.jitter_percent,
            timeout_to_fail: config.retry.timeout_to_fail,
            request_timeout: config.calls.request_timeout,
            workflow_callback_timeout: config.calls.workflow_callback_timeout,
            lease: config.retry.lease,
            ..Policy::default()
        },
        limits: Limits {
            steps_max: config.limits.steps_max,
            branches_max: config.limits.branches_max,
            payload_max_bytes: config.limits.payload_max_bytes,
            ..Limits::default()
        },
        destinations: DestinationLimits {
            concurrency: config.calls.destination_concurrency,
            // Under a test clock a service that a test has made fail is called all the same.
            breaker_failures: match config.listen.test_control {
                Some(_) => 0,
                None => config.calls.breaker_failures,
            },
            breaker_open: config.calls.breaker_open,
            ..DestinationLimits::default()
        },
        active_max: config.limits.active_max,
        claim_interval: config.retry.trans_cron_interval,
        keep_finished: Some(config.store.retention()),
        test_control: config.listen.test_control.is_some(),
        ..EngineOptions::default()
    }
}

fn inbound_options(config: &Config) -> InboundOptions {
    InboundOptions {
        connections_max: config.limits.connections_max,
        body_max_bytes: config.limits.body_max_bytes,
        head_max_bytes: config.limits.header_max_bytes,
        head_deadline: config.timeouts.header,
        body_deadline: config.timeouts.body,
        idle_deadline: config.timeouts.idle,
        write_deadline: config.timeouts.write,
        drain: config.timeouts.shutdown,
        zone: config.zone,
        ..InboundOptions::default()
    }
}

fn grpc_options(config: &Config) -> GrpcOptions {
    GrpcOptions {
        connections_max: config.limits.connections_max,
        body_max_bytes: config.limits.body_max_bytes,
        drain: config.timeouts.shutdown,
        ..GrpcOptions::default()
    }
}

fn outbound_options(config: &Config) -> OutboundOptions {
    let substring_rule = match config.calls.substring_result {
        true => SubstringRule::Dtm,
        false => SubstringRule::Exact,
    };
    OutboundOptions {
        substring_rule,
        response_max_bytes: config.limits.response_max_bytes,
        ca_file: config.calls.ca_file.clone(),
        ..OutboundOptions::default()
    }
}

/// Where the embedded store of a configuration is, for commands that read it without a server.
pub fn store_directory(config: &Config) -> PathBuf {
    config.store.path.clone()
}
