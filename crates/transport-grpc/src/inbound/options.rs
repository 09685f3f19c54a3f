//! What the gRPC server is told at its start.

use std::time::Duration;

use dtmd_transport::inbound::SpanHook;

/// Settings of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcOptions {
    /// Open connections of this listener. Past it a new one is closed.
    pub connections_max: usize,
    /// Requests under way on one connection; the client waits with more.
    pub streams_max: u32,
    /// Bytes of one message, if more than [`GrpcOptions::MESSAGE_MAX_BYTES`]. Past it the request
    /// is answered `OUT_OF_RANGE`.
    pub body_max_bytes: usize,
    /// Bytes of a request's metadata.
    pub head_max_bytes: u32,
    /// How long a client may take to send its first byte. Then the connection is closed.
    pub hello_deadline: Duration,
    /// How often a quiet client is asked whether it is still there.
    pub keep_alive: Duration,
    /// How long it may take to answer that.
    pub keep_alive_timeout: Duration,
    /// After which age a connection is told to go away, so that clients spread over servers that
    /// have come since.
    pub connection_age_max: Duration,
    /// How long its running requests may then go on.
    pub connection_age_grace: Duration,
    /// How long running requests may go on after shutdown.
    pub drain: Duration,
    /// Who is told of accepted requests, for tracing.
    pub spans: SpanHook,
}

impl GrpcOptions {
    /// What SDKs may send at least: the limit of Go's library, and so DTM's.
    pub const MESSAGE_MAX_BYTES: usize = 4 << 20;

    pub(super) fn message_max_bytes(&self) -> usize {
        self.body_max_bytes.max(Self::MESSAGE_MAX_BYTES)
    }
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            streams_max: 256,
            body_max_bytes: Self::MESSAGE_MAX_BYTES,
            head_max_bytes: 64 << 10,
            hello_deadline: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            keep_alive_timeout: Duration::from_secs(20),
            connection_age_max: Duration::from_secs(1800),
            connection_age_grace: Duration::from_secs(60),
            drain: Duration::from_secs(10),
            spans: SpanHook::default(),
        }
    }
}
