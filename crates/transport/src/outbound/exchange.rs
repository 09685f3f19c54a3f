//! One request and its answer, on a kept connection or a new one.

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dtmd_engine::{Answer, BranchCall};
use dtmd_protocol::Outcome;
use dtmd_wire::{http_outcome, jsonrpc_outcome};
use http::response::Parts;
use http::{Response, StatusCode, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::connect::{CallError, words_of};
use super::pool::{self, Connection};
use super::request::Outgoing;
use super::target::Target;
use super::{HttpCaller, Style, unknown};

/// One call, ready to be sent.
pub(super) struct Exchange {
    pub(super) style: Style,
    pub(super) target: Arc<Target>,
    pub(super) request: Outgoing,
}

/// What an answer is judged by: its head, and its body up to the limit.
struct Read {
    head: Parts,
    body: Bytes,
}

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
        let send = self.send(call, style, &target, request, &mut phase);
        let failed = match timeout(limit, send).await {
            Ok(Ok(read)) => {
                return Answer { outcome: self.judge(&read, style), unreachable: false };
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
    fn judge(&self, read: &Read, style: Style) -> Outcome {
        let status = read.head.status;
        let is_redirect = matches!(
            status,
            StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT
        );
        if is_redirect {
            return unknown(format!(
                "HTTP status {}: redirects are not followed, give the final URL",
                status.as_u16()
            ));
        }
        let rule = self.options.substring_rule;
        match style {
            Style::JsonRpc => jsonrpc_outcome(status.as_u16(), &read.body, rule),
            _ => http_outcome(status.as_u16(), &read.body, rule),
        }
    }

    /// Sends on a kept connection; if that turns out to have been closed, once more on a new one.
    ///
    /// A second sending is right even where the first may have arrived: branches are idempotent,
    /// and the retry that would come later sends the same.
    async fn send(
        &self,
        call: &BranchCall,
        style: Style,
        target: &Arc<Target>,
        mut request: Outgoing,
        phase: &mut Phase,
    ) -> Result<Read, CallError> {
        while let Some(mut kept) = pool::check_out(&self.pool, &target.destination, &self.options) {
            if kept.send.ready().await.is_err() {
                // Closed while it lay here; nothing was sent, so the next one may be tried.
                continue;
            }
            *phase = Phase::Waiting;
            match kept.send.send_request(request).await {
                Ok(response) => return self.read(target, kept, response, phase).await,
                Err(error) if is_stale(&error) => {
                    let again = style.request(call, target);
                    request = again.map_err(CallError::declined)?;
                    break;
                }
                Err(error) => return Err(broken(target, &error, "no answer")),
            }
        }
        *phase = Phase::Connecting;
        // Boxed because it is rare and large, TLS included: every call's future would carry it.
        let mut fresh = Box::pin(self.connector.connect(target, &self.options)).await?;
        *phase = Phase::Waiting;
        match fresh.send.send_request(request).await {
            Ok(response) => self.read(target, fresh, response, phase).await,
            Err(error) => Err(broken(target, &error, "no answer")),
        }
    }

    async fn read(
        &self,
        target: &Arc<Target>,
        connection: Connection,
        response: Response<Incoming>,
        phase: &mut Phase,
    ) -> Result<Read, CallError> {
        *phase = Phase::Reading;
        let (head, mut body) = response.into_parts();
        let read = read_body(&mut body, self.options.response_max_bytes).await;
        let (body, is_complete) =
            read.map_err(|error| broken(target, &error, "the answer broke off"))?;
        if is_complete && is_kept_alive(&head) {
            pool::check_in(&self.pool, &target.destination, connection, &self.options);
        }
        Ok(Read { head, body })
    }
}

/// Reads a body up to a limit; returns whether that was all of it.
async fn read_body(body: &mut Incoming, limit: usize) -> Result<(Bytes, bool), hyper::Error> {
    let mut all = Bytes::new();
    // Nearly every body is one piece, which is then not copied.
    let mut pieces: Vec<u8> = Vec::new();
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        let Ok(mut piece) = frame?.into_data() else { continue };
        let read = all.len() + pieces.len();
        let is_too_long = piece.len() > limit - read;
        piece.truncate(limit - read);
        if read == 0 {
            all = piece;
        } else {
            if pieces.is_empty() {
                pieces = std::mem::take(&mut all).into();
            }
            pieces.extend_from_slice(&piece);
        }
        if is_too_long {
            let all = if pieces.is_empty() { all } else { Bytes::from(pieces) };
            return Ok((all, false));
        }
    }
    Ok((if pieces.is_empty() { all } else { Bytes::from(pieces) }, true))
}

/// Returns whether the service will take another request on the connection.
fn is_kept_alive(head: &Parts) -> bool {
    let closes =
        |value: &str| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close"));
    head.version == Version::HTTP_11
        && !head.status.is_informational()
        && !head
            .headers
            .get_all(header::CONNECTION)
            .iter()
            .any(|value| value.to_str().is_ok_and(closes))
}

/// Returns whether a kept connection failed as one does that the service had closed.
fn is_stale(error: &hyper::Error) -> bool {
    error.is_canceled() || error.is_closed() || error.is_incomplete_message() || {
        let kind = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        kind.is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::NotConnected
                    | io::ErrorKind::UnexpectedEof
            )
        })
    }
}

fn broken(target: &Target, error: &hyper::Error, what: &str) -> CallError {
    let why = match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(error) => words_of(error),
        None if error.is_incomplete_message() => "the connection was closed".to_owned(),
        None if error.is_parse() => format!("what it sent is not HTTP ({error})"),
        None => error.to_string(),
    };
    CallError::unreachable(format!("{what} from {}: {why}", target.place()))
}
