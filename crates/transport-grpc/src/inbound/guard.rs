//! What every request passes through: it is counted, timed, and kept from ending the server.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use dtmd_engine::Engine;
use futures_util::FutureExt as _;
use tonic::{Response, Status};
use tracing::{debug, error};

use super::problem::Problem;

/// Runs a handler. `method` is DTM's name for metrics: the same as over HTTP.
///
/// A panic becomes `INTERNAL` with its text (spec 03). It is our bug, never the caller's, and what
/// was asked may or may not have been done.
pub(super) async fn guarded<T>(
    engine: &Engine,
    method: &'static str,
    handler: impl Future<Output = Result<T, Problem>>,
) -> Result<Response<T>, Status> {
    let mut measured = Measured { engine, method, since: Instant::now(), is_ok: false };
    let done = match AssertUnwindSafe(handler).catch_unwind().await {
        Ok(done) => done.map(Response::new).map_err(Status::from),
        Err(panic) => {
            let text = text_of(panic.as_ref());
            error!(method, text, "a request's handler panicked; this is a bug");
            Err(Status::internal(format!("panic: {text}")))
        }
    };
    measured.is_ok = done.is_ok();
    debug!(method, code = done.as_ref().err().map_or(0, |status| status.code() as i32), "request");
    done
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let owned = || panic.downcast_ref::<String>().map(String::as_str);
    panic.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("no text")
}

/// Counts a request when it ends, be it by an answer or a client that hung up.
struct Measured<'a> {
    engine: &'a Engine,
    method: &'static str,
    since: Instant,
    is_ok: bool,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        let elapsed = self.since.elapsed();
        self.engine.metrics().request("grpc", self.method, self.is_ok, elapsed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dtmd_engine::EngineOptions;
    use dtmd_store::MemoryStore;
    use dtmd_transport::outbound::OutboundOptions;
    use tonic::Code;

    use super::*;
    use crate::outbound::Callers;

    #[tokio::test]
    async fn a_panic_is_internal_and_counted_and_ends_nothing() {
        let caller = Arc::new(Callers::new(OutboundOptions::default()));
        let store = Arc::new(MemoryStore::new());
        let engine = Engine::start(store, caller, EngineOptions::default()).unwrap();
        type Handler = fn() -> Result<(), Problem>;
        let table: [(Handler, &str); 2] =
            [(|| panic!("plain"), "plain"), (|| panic!("with {}", 7), "with 7")];
        for (handler, text) in table {
            let status = guarded(&engine, "submit", async { handler() }).await.unwrap_err();
            assert_eq!(status.code(), Code::Internal);
            assert!(status.message().contains(text), "{}", status.message());
        }
        assert!(guarded(&engine, "submit", async { Ok(()) }).await.is_ok());
        let metrics = engine.metrics().encode();
        assert!(metrics.contains("grpc"), "{metrics}");
    }
}
