//! Serving DTM's HTTP and JSON-RPC interface (spec 02), and the test clock's.
//!
//! The way in:
//!
//! 1. [`serve`]: one listener on the runtime it is called on; start one per network thread, each
//!    with a listener of its own from [`bind`].
//! 2. `accept` and `connection`: sockets, deadlines and limits; they know nothing of DTM.
//! 3. `api` and `router`: which handler a request is for, and what every request passes through.
//! 4. `handlers`: one file a group of routes. `reply`: what an outcome looks like on the wire.
//!
//! What it must not know: what a transaction is allowed to do (`dtmd-protocol`), how JSON is read
//! and written (`dtmd-wire`).

mod accept;
mod api;
mod bind;
mod connection;
mod guard;
mod handlers;
mod options;
mod query_string;
mod reply;
mod router;
mod spans;
mod test_control;
#[cfg(test)]
mod tests;
mod trace;

use std::sync::Arc;

use dtmd_engine::Engine;
use tokio::sync::watch;

pub use bind::bind;
pub use guard::Principal;
pub use options::InboundOptions;
pub use spans::{EndedRequest, RequestSpan, RequestSpans, SpanHook};
pub use test_control::{ConfigChange, Configure, serve_test_control};
pub use trace::TraceContext;

use crate::socket::Listener;

/// Serves the API on a listener, TCP's or a simulation's, until `shutdown` holds true or its sender
/// is gone.
///
/// Runs on the calling runtime, current-thread or not. At shutdown it stops accepting, closes idle
/// connections and lets running requests end, for [`InboundOptions::drain`] at most.
pub async fn serve<L: Listener>(
    listener: L,
    engine: Engine,
    options: InboundOptions,
    shutdown: watch::Receiver<bool>,
) {
    let limits = options.limits();
    let api = Arc::new(api::Api::new(engine, options));
    accept::run(listener, api, limits, shutdown).await;
}
