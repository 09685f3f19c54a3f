//! One request and its answer, on a kept connection or a new one.

use std::sync::Arc;

use dtmd_engine::{Answer, BranchCall};
use dtmd_protocol::Outcome;
use dtmd_wire::{http_outcome, jsonrpc_outcome};
use tokio::time::timeout;

use super::answer::{Answered, Reader};
use super::connect::{CallError, words_of};
use super::connection::{Connection, Failed, FailedWhy};
use super::pool;
use super::target::Target;
use super::{HttpCaller, Style, unknown};

/// One call, ready to be sent.
pub(super) struct Exchange {
    pub(super) style: Style,
    pub(super) target: Arc<Target>,
    /// Head and body.
    pub(super) request: Vec<u8>,
}

/// What a proxy answers when the service behind it cannot be reached, and a service that cannot take
/// any more.
const NOBODY_THERE: [u16; 3] = [502, 503, 504];

/// How far a call had come when its time was up.
#[derive(Clone, Copy)]
enum Phase {
    Connecting,
    Waiting,
    Reading,
}

impl HttpCaller {
    /// Sends a request and returns what its answer means, within the call's timeout.
    pub(super) async fn exchange(&self, call: &BranchCall, exchange: Exchange) -> Answer {
        let Exchange { style, target, request } = exchange;
        let limit = call.call.timeout;
        let mut phase = Phase::Connecting;
        let send = self.send(&target, &request, &mut phase);
        let failed = match timeout(limit, send).await {
            Ok(Ok(answer)) => {
                let outcome = self.judge(&answer, style);
                let unreachable =
                    matches!(outcome, Outcome::Unknown(_)) && NOBODY_THERE.contains(&answer.status);
                return Answer { outcome, unreachable };
            }
            Ok(Err(failed)) => failed,
            Err(_) => {
                let (place, ms) = (target.place(), limit.as_millis());
                let text = match phase {
                    Phase::Connecting => {
                        format!("connect to {place}: no connection within {ms} ms")
                    }
                    Phase::Waiting => format!("no answer within {ms} ms from {place}"),
                    Phase::Reading => format!("no complete answer within {ms} ms from {place}"),
                };
                CallError::unreachable(text)
            }
        };
        Answer { outcome: unknown(failed.text), unreachable: failed.unreachable }
    }

    /// Returns what an answer means.
    ///
    /// A redirect is never followed (spec 07 D18): it would lead past what was checked at submit,
    /// and turn a POST into a GET. A body longer than the limit is judged by the part that was read.
    fn judge(&self, answer: &Answered, style: Style) -> Outcome {
        let Answered { status, body, .. } = answer;
        if matches!(status, 301 | 302 | 303 | 307 | 308) {
            return unknown(format!(
                "HTTP status {status}: redirects are not followed, give the final URL"
            ));
        }
        let rule = self.options.substring_rule;
        match style {
            Style::JsonRpc => jsonrpc_outcome(*status, body, rule),
            _ => http_outcome(*status, body, rule),
        }
    }

    /// Sends on a kept connection; if that turns out to have been closed, once more on a new one.
    ///
    /// A second sending is right even where the first may have arrived: branches are idempotent,
    /// and the retry that would come later sends the same.
    async fn send(
        &self,
        target: &Arc<Target>,
        request: &[u8],
        phase: &mut Phase,
    ) -> Result<Answered, CallError> {
        if let Some(kept) = pool::check_out(&self.pool, &target.destination, &self.options) {
            match self.send_on(kept, target, request, phase).await {
                Err(failed) if failed.is_stale() => {}
                sent => return sent.map_err(|failed| broken(target, failed)),
            }
        }
        *phase = Phase::Connecting;
        // Boxed because it is rare and large, TLS included: every call's future would carry it.
        let fresh = Box::pin(self.connector.connect(target, &self.options)).await?;
        let sent = self.send_on(fresh, target, request, phase).await;
        sent.map_err(|failed| broken(target, failed))
    }

    async fn send_on(
        &self,
        mut connection: Connection,
        target: &Arc<Target>,
        request: &[u8],
        phase: &mut Phase,
    ) -> Result<Answered, Failed> {
        *phase = Phase::Waiting;
        let reader = Reader::new(self.options.response_max_bytes);
        let answer = connection.exchange(request, reader, || *phase = Phase::Reading).await?;
        if answer.is_kept_alive {
            pool::check_in(&self.pool, &target.destination, connection, &self.options);
        }
        Ok(answer)
    }
}

/// Returns why a connection gave no answer.
pub(super) fn broken(target: &Target, failed: Failed) -> CallError {
    let what = if failed.in_body { "the answer broke off" } else { "no answer" };
    let why = match failed.why {
        FailedWhy::Closed => "the connection was closed".to_owned(),
        FailedWhy::Io(error) => words_of(&error),
        FailedWhy::NotHttp(why) => format!("what it sent is not HTTP ({why})"),
    };
    CallError::unreachable(format!("{what} from {}: {why}", target.place()))
}
