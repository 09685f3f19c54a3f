//! What makes a TCC or an XA that its caller leaves end soon: by an error, by a panic, or by being
//! dropped in the middle (spec 04 §3, §10).

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::{debug, warn};

use crate::BranchResult;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::request::{Operation, TransRequest};
use crate::transaction::GlobalStatus;

/// The longest reason that is sent with an abort.
const REASON_MAX_CHARS: usize = 500;

/// Prepares, runs the business, and submits or aborts by its outcome.
///
/// From the prepare until the business's end an abort follows whatever ends this future. From the
/// submit on nothing is aborted from here: then the server has the last word.
pub(crate) async fn decide<T>(
    client: &Client,
    request: &TransRequest,
    wait: Option<Duration>,
    business: impl Future<Output = BranchResult<T>>,
) -> Result<T> {
    let mut guard = AbortOnDrop::new(client, request);
    if let Err(error) = client.call(Operation::Prepare, request).await {
        // Nothing was done under it; if it is there after all, its timeout ends it.
        guard.disarm();
        return Err(error);
    }
    match catch_panic(business).await {
        Ok(Ok(value)) => {
            guard.disarm();
            let mut submit = request.clone();
            submit.options.wait_result = wait.is_some();
            match client.submit(&submit, wait).await? {
                GlobalStatus::Failed => {
                    Err(Error::RolledBack { gid: request.gid.clone(), reason: String::new() })
                }
                _ => Ok(value),
            }
        }
        Ok(Err(cause)) => {
            abort(client, request, &cause.to_string()).await;
            guard.disarm();
            if let Some(at_most) = wait {
                wait_until_undone(client, &request.gid, at_most).await;
            }
            Err(Error::Aborted { gid: request.gid.clone(), cause })
        }
        Err(panic) => {
            abort(client, request, &format!("panic: {}", panic_text(&*panic))).await;
            guard.disarm();
            std::panic::resume_unwind(panic)
        }
    }
}

/// Aborts. If that fails the server's timeout does the same a little later, so it is no error.
pub(crate) async fn abort(client: &Client, request: &TransRequest, reason: &str) {
    let request = abort_request(request, reason);
    match client.call(Operation::Abort, &request).await {
        Ok(()) => debug!(gid = request.gid, reason, "aborted"),
        Err(error) => warn!(
            gid = request.gid,
            %error,
            "the abort was not confirmed; the timeout of the transaction will do it"
        ),
    }
}

/// Waits for the end of what was aborted. That it is not seen changes nothing: it is rolled back.
async fn wait_until_undone(client: &Client, gid: &str, at_most: Duration) {
    if let Err(error) = client.wait(gid, at_most).await {
        debug!(gid, %error, "aborted, but its branches are not known to be undone");
    }
}

fn abort_request(request: &TransRequest, reason: &str) -> TransRequest {
    let mut abort = request.clone();
    abort.options.wait_result = false;
    abort.rollback_reason = reason.chars().take(REASON_MAX_CHARS).collect();
    abort
}

/// Aborts in the background if it is dropped while it is armed.
struct AbortOnDrop {
    armed: Option<(Client, TransRequest)>,
    runtime: Option<Handle>,
}

impl AbortOnDrop {
    fn new(client: &Client, request: &TransRequest) -> Self {
        Self { armed: Some((client.clone(), request.clone())), runtime: Handle::try_current().ok() }
    }

    fn disarm(&mut self) {
        self.armed = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        let (Some((client, request)), Some(runtime)) = (self.armed.take(), &self.runtime) else {
            return;
        };
        // The task ends by itself: a call has a timeout and is not repeated for ever. On a runtime
        // that is being shut down it does not run; then the server's timeout aborts.
        runtime.spawn(async move {
            abort(&client, &request, "the application gave it up: its future was dropped").await;
        });
    }
}

/// Runs a future to its end, or to its panic.
///
/// The future is not touched again after a panic, and what it borrowed is seen again only by
/// whoever receives the same panic, which goes on from here.
async fn catch_panic<T>(
    future: impl Future<Output = T>,
) -> std::result::Result<T, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    std::future::poll_fn(move |context| {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}
