//! What an operator may choose about calling services.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dtmd_wire::SubstringRule;

/// Settings and bounds of [`HttpCaller`](super::HttpCaller).
#[derive(Debug, Clone)]
pub struct OutboundOptions {
    /// How an answer with status 200 is searched for an outcome (spec 02 §4.3).
    pub substring_rule: SubstringRule,
    /// How long making a connection may take: resolving, TCP and TLS together. The call's own
    /// timeout ends it earlier.
    pub connect_timeout: Duration,
    /// How much of an answer's body is read. What is beyond does not count, and the connection is
    /// closed.
    pub response_max_bytes: usize,
    /// After how long without use a connection is closed.
    pub idle_timeout: Duration,
    /// After which age a connection is not used again, so that changes of DNS arrive.
    pub connection_age_max: Duration,
    /// Idle connections kept for one destination, by each thread.
    pub idle_per_destination_max: usize,
    /// Idle connections kept in all, by each thread.
    pub idle_max: usize,
    /// Open connections in all, busy and idle. Calls beyond it are answered unknown at once.
    pub connections_max: usize,
    /// For how long a resolved name is used for further connections.
    pub resolve_cache: Duration,
    /// What the hosts `localhost` and `127.0.0.1` are called instead: `host.docker.internal` where
    /// this server runs in a container and the services beside it (spec 02 §4.2).
    pub localhost_alias: Option<Arc<str>>,
    /// A PEM file of certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for OutboundOptions {
    fn default() -> Self {
        Self {
            substring_rule: SubstringRule::Dtm,
            connect_timeout: Duration::from_secs(3),
            response_max_bytes: 64 << 10,
            idle_timeout: Duration::from_secs(30),
            connection_age_max: Duration::from_secs(300),
            idle_per_destination_max: 64,
            idle_max: 512,
            connections_max: 4096,
            resolve_cache: Duration::from_secs(5),
            localhost_alias: None,
            ca_file: None,
        }
    }
}

impl OutboundOptions {
    /// Returns the options with what DTM reads from the environment: a non-empty `IS_DOCKER` calls
    /// `localhost` by the name of the container's host.
    #[must_use]
    pub fn with_environment(mut self) -> Self {
        if std::env::var_os("IS_DOCKER").is_some_and(|value| !value.is_empty()) {
            self.localhost_alias = Some(Arc::from("host.docker.internal"));
        }
        self
    }
}
