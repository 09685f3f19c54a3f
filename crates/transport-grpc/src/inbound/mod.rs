//! Serving DTM's gRPC interface (spec 03).
//!
//! The way in:
//!
//! 1. [`serve`]: one listener on the runtime it is called on; start one per network thread, each
//!    with a listener of its own from `dtmd_transport::inbound::bind`.
//! 2. `convert`: messages to and from what the engine speaks.
//! 3. `dtm`, `admin`, `health`: one service each.
//! 4. `problem`: which status a caller is told. `guard`: what every request passes through;
//!    `bodies`: what is not read while memory is short.

mod admin;
mod bodies;
mod convert;
mod dtm;
mod guard;
mod health;
mod options;
mod problem;
mod reading;
mod sockets;

use dtmd_engine::Engine;
use dtmd_transport::socket::Listener;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server as reflection;
use tower_layer::{Identity, Stack};
use tracing::{error, info};

use crate::proto::DESCRIPTORS;
use crate::proto::admin::admin_server::AdminServer;
use crate::proto::dtmgimp::dtm_server::DtmServer;

use bodies::BodiesLayer;

pub use options::GrpcOptions;
pub use problem::Problem;
pub use reading::{read_registration, read_transaction};

/// Metadata of a request: deliver the branches of a message at once, as the option `concurrent`
/// does over HTTP (spec 07 D38). `1` or `true`.
pub const CONCURRENT: &str = "dtm-concurrent";

/// Serves DTM's interface, the operators', health and reflection on a listener until `shutdown`
/// holds true or its sender is gone.
///
/// Runs on the calling runtime, current-thread or not. At shutdown connections are told to go away,
/// and running requests may end, for [`GrpcOptions::drain`] at most.
pub async fn serve<L: Listener>(
    listener: L,
    engine: Engine,
    options: GrpcOptions,
    shutdown: watch::Receiver<bool>,
) {
    let router = match router(engine, &options, &shutdown) {
        Ok(router) => router,
        Err(error) => return error!(%error, "gRPC is not served; this is a bug"),
    };
    let incoming = sockets::incoming(listener, options.connections_max, options.hello_deadline);
    let serving = router.serve_with_incoming_shutdown(incoming, stopped(shutdown.clone()));
    let cut_off = async {
        stopped(shutdown).await;
        sleep(options.drain).await;
    };
    // Neither arm is used again after the other has ended.
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            error!(%error, "gRPC is not served any more");
        },
        () = cut_off => info!("gRPC requests are cut off; their work goes on"),
    }
}

fn router(
    engine: Engine,
    options: &GrpcOptions,
    shutdown: &watch::Receiver<bool>,
) -> Result<Router<Stack<BodiesLayer, Identity>>, reflection::Error> {
    let described = || {
        reflection::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let max = options.message_max_bytes();
    let dtm = DtmServer::new(dtm::Dtm::new(engine.clone(), options.spans.clone()))
        .max_decoding_message_size(max)
        .max_encoding_message_size(usize::MAX);
    let admin = AdminServer::new(admin::Admin::new(engine.clone()))
        .max_decoding_message_size(max)
        .max_encoding_message_size(usize::MAX);
    let health = HealthServer::new(health::Health::new(engine.clone(), shutdown.clone()));
    let mut server = Server::builder()
        .layer(BodiesLayer(engine))
        .max_connection_age(options.connection_age_max)
        .max_connection_age_grace(options.connection_age_grace)
        .max_concurrent_streams(options.streams_max)
        .http2_keepalive_interval(Some(options.keep_alive))
        .http2_keepalive_timeout(Some(options.keep_alive_timeout))
        .http2_max_header_list_size(options.head_max_bytes);
    Ok(server
        .add_service(dtm)
        .add_service(admin)
        .add_service(health)
        .add_service(described().build_v1()?)
        .add_service(described().build_v1alpha()?))
}

/// Waits for the shutdown. Who has lost the sender cannot ask for anything else.
async fn stopped(mut shutdown: watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}
