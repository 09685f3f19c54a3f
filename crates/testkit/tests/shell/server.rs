//! A server's host: all of a server but its process.

use std::sync::Arc;
use std::time::Duration;

use dtmd_engine::{DestinationLimits, Engine, EngineOptions, Environment};
use dtmd_protocol::Policy;
use dtmd_transport::inbound::{self, InboundOptions};
use dtmd_transport::outbound::OutboundOptions;
use dtmd_transport_grpc::inbound::{self as grpc, GrpcOptions};
use dtmd_transport_grpc::outbound::Callers;
use tokio::sync::watch;

use crate::net::{SimListener, SimNetwork};
use crate::store::SimStore;
use crate::world::{DTM_GRPC_PORT, DTM_PORT, World};

/// Runs a server from its start to its end.
pub(crate) async fn server(world: Arc<World>, number: usize) -> turmoil::Result {
    let chance = &world.chance;
    let network = Arc::new(SimNetwork(chance.clone()));
    let caller = Arc::new(Callers::simulated(outbound_options(), network));
    let options = engine_options(Environment::Simulation(world.clock(number)));
    let engine = Engine::start(Arc::new(SimStore(world.clone())), caller, options)?;
    engine.register_runtime(true);
    let (stop, stopped) = watch::channel(false);
    world.stops.lock().unwrap()[number] = Some(stop);
    let http = SimListener::bind(DTM_PORT, chance.clone()).await?;
    let grpc = SimListener::bind(DTM_GRPC_PORT, chance.clone()).await?;
    tokio::join!(
        inbound::serve(http, engine.clone(), inbound_options(), stopped.clone()),
        grpc::serve(grpc, engine.clone(), grpc_options(), stopped),
    );
    engine.shutdown(Duration::from_secs(2)).await;
    Ok(())
}

fn engine_options(environment: Environment) -> EngineOptions {
    EngineOptions {
        policy: Policy {
            retry_interval: Duration::from_millis(400),
            retry_interval_max: Duration::from_secs(2),
            timeout_to_fail: Duration::from_secs(4),
            request_timeout: Duration::from_millis(1500),
            lease: Duration::from_secs(3),
            ..Policy::default()
        },
        destinations: DestinationLimits {
            breaker_failures: 4,
            breaker_open: Duration::from_millis(500),
            breaker_open_max: Duration::from_secs(2),
            ..DestinationLimits::default()
        },
        claim_interval: Duration::from_millis(500),
        wait_max: Duration::from_secs(5),
        environment,
        ..EngineOptions::default()
    }
}

fn outbound_options() -> OutboundOptions {
    OutboundOptions {
        connect_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(3),
        connection_age_max: Duration::from_secs(8),
        resolve_cache: Duration::from_secs(1),
        ..OutboundOptions::default()
    }
}

fn inbound_options() -> InboundOptions {
    InboundOptions {
        head_deadline: Duration::from_secs(2),
        body_deadline: Duration::from_secs(2),
        idle_deadline: Duration::from_secs(10),
        write_deadline: Duration::from_secs(4),
        drain: Duration::from_secs(1),
        ..InboundOptions::default()
    }
}

fn grpc_options() -> GrpcOptions {
    GrpcOptions {
        hello_deadline: Duration::from_secs(2),
        keep_alive: Duration::from_secs(3),
        keep_alive_timeout: Duration::from_secs(2),
        connection_age_max: Duration::from_secs(8),
        connection_age_grace: Duration::from_secs(2),
        drain: Duration::from_secs(1),
        ..GrpcOptions::default()
    }
}
