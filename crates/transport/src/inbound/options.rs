//! What the HTTP server is told at its start.

use std::time::Duration;

use dtmd_wire::Zone;

use super::connection::ConnectionLimits;
use super::spans::SpanHook;

/// Settings of one listener. Every deadline is kept to within an eighth of the shortest one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundOptions {
    /// The server's version, as `/api/dtmsvr/version` tells it.
    pub version: String,
    /// The zone in which times are shown.
    pub zone: Zone,
    /// Open connections of this listener. Past it a new one is told 503 and closed.
    pub connections_max: usize,
    /// Bytes of one request's body. Past it the request is answered 413.
    pub body_max_bytes: usize,
    /// Bytes of one request's line and headers. Past it, or past 100 headers, the request is
    /// answered 431.
    pub head_max_bytes: usize,
    /// From a request's first byte to the end of its headers. Then the connection is closed, as at
    /// each of the following.
    pub head_deadline: Duration,
    /// From the end of a request's headers to the end of its body.
    pub body_deadline: Duration,
    /// Without a request. Longer than the 90 s after which Go's clients close idle connections, so
    /// that the client closes first and no request meets a connection that is just being closed.
    pub idle_deadline: Duration,
    /// Without the client taking any byte of an answer.
    pub write_deadline: Duration,
    /// How long running requests may go on after shutdown.
    pub drain: Duration,
    /// Who is told of accepted requests, for tracing.
    pub spans: SpanHook,
}

impl Default for InboundOptions {
    fn default() -> Self {
        Self {
            version: format!("v{}", env!("CARGO_PKG_VERSION")),
            zone: Zone::UTC,
            connections_max: 10_000,
            body_max_bytes: 1024 * 1024,
            head_max_bytes: 16 * 1024,
            head_deadline: Duration::from_secs(10),
            body_deadline: Duration::from_secs(30),
            idle_deadline: Duration::from_secs(120),
            write_deadline: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            spans: SpanHook::default(),
        }
    }
}

impl InboundOptions {
    pub(super) fn limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connections_max: self.connections_max,
            body_max_bytes: self.body_max_bytes,
            head_max_bytes: self.head_max_bytes,
            head: self.head_deadline,
            body: self.body_deadline,
            idle: self.idle_deadline,
            write: self.write_deadline,
            drain: self.drain,
        }
    }
}
