//! Calling branches over HTTP/1.1, plainly and as JSON-RPC (spec 02 §4–5).
//!
//! The way in:
//!
//! 1. [`HttpCaller`]: the [`BranchCaller`] of `http` and `https` URLs; picks the style of a call.
//! 2. `target` and `request`: what a URL and a call become on the wire.
//! 3. `connection` and `answer`: one exchange over a socket; bytes read as an answer.
//! 4. `pool` and `connect`: keep-alive connections per thread; `egress` decides where they may lead.
//!
//! What an answer means is decided in `dtmd-wire`; here is decided whether there was one.
//!
//! Where it differs from DTM on purpose (spec 07 D18, D43): redirects are not followed, no cookies
//! are kept, answers are read up to a limit, addresses are checked.

mod answer;
mod connect;
mod connection;
mod egress;
mod exchange;
mod options;
mod pool;
mod post;
mod request;
mod resolve;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use dtmd_engine::{Answer, BranchCall, BranchCaller};
use dtmd_protocol::url::destination;
use dtmd_protocol::{CallProtocol, Outcome, Scheme};
use tracing::debug;

pub use egress::{EgressRefused, check_egress};
pub use options::OutboundOptions;
pub use request::{BRANCH_HEADERS_MAX, BRANCH_HEADERS_MAX_BYTES, branch_headers_refusal};

use connect::Connector;
use exchange::Exchange;
use pool::PoolKey;
use request::{http_request, jsonrpc_request};
use resolve::Resolver;
use target::Target;

use crate::socket::Network;

/// Calls `http` and `https` branches.
///
/// Connections are kept per thread: a runtime per core, as the server has, never shares one.
pub struct HttpCaller {
    options: OutboundOptions,
    connector: Connector,
    pool: Arc<PoolKey>,
}

/// How a branch is called (spec 02 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// There is nothing to call: done.
    Nothing,
    Http,
    JsonRpc,
}

impl HttpCaller {
    /// Returns a caller without any connection yet.
    pub fn new(options: OutboundOptions) -> Self {
        let resolver = Resolver::new(options.resolve_cache);
        Self::with_resolver(options, resolver)
    }

    /// Returns a caller in a simulation; there is no TLS in it.
    pub fn simulated(options: OutboundOptions, network: Arc<dyn Network>) -> Self {
        let resolver = Resolver::simulated(options.resolve_cache, network.clone());
        let connector = Connector::new(resolver).over(network);
        Self { options, connector, pool: Arc::new(PoolKey) }
    }

    fn with_resolver(options: OutboundOptions, resolver: Resolver) -> Self {
        Self { options, connector: Connector::new(resolver), pool: Arc::new(PoolKey) }
    }

    /// Reads the certificates that `https` services are verified with.
    ///
    /// Done at the first `https` call otherwise; a server that starts wants to know earlier.
    ///
    /// # Errors
    ///
    /// A text that names the file, or says that the system has no certificates.
    pub fn check_tls(&self) -> Result<(), String> {
        self.connector.tls_config(&self.options).map(|_| ())
    }

    fn alias(&self) -> Option<&str> {
        self.options.localhost_alias.as_deref()
    }

    /// Returns how a call is made and where it goes; `None` if there is nothing to call.
    fn prepare(&self, call: &BranchCall) -> Result<Option<Exchange>, String> {
        let style = style_of(&call.call.url, call.call.protocol)?;
        if style == Style::Nothing {
            return Ok(None);
        }
        let target = pool::target(&self.pool, &call.call.url, self.alias())?;
        let request = style.request(call, &target)?;
        Ok(Some(Exchange { style, target, request }))
    }
}

impl Style {
    fn request(self, call: &BranchCall, target: &Target) -> Result<Vec<u8>, String> {
        match self {
            Self::JsonRpc => jsonrpc_request(call, target),
            Self::Http | Self::Nothing => http_request(call, target),
        }
    }
}

/// Decides how a URL is called.
///
/// # Errors
///
/// Why it is not, for people.
fn style_of(url: &str, protocol: CallProtocol) -> Result<Style, String> {
    if url.is_empty() {
        return Ok(Style::Nothing);
    }
    if target::is_http(url) {
        return Ok(match protocol == CallProtocol::JsonRpc && url.contains("method") {
            true => Style::JsonRpc,
            false => Style::Http,
        });
    }
    let place = place_of(url);
    Err(match Scheme::of(url) {
        Scheme::Topic(_) => "a topic can only be an action of a message".to_owned(),
        Scheme::Other(scheme) => format!(
            "URLs of the scheme {:?} cannot be called, only http:// and https://",
            scheme.chars().take(32).collect::<String>()
        ),
        Scheme::Grpc if protocol == CallProtocol::Http && !url.starts_with("grpc") => {
            "the URL does not begin with http:// or https://".to_owned()
        }
        _ => format!("gRPC branches are not in this build yet: {place}"),
    })
}

#[async_trait]
impl BranchCaller for HttpCaller {
    async fn call(&self, call: &BranchCall) -> Answer {
        let answer = match self.prepare(call) {
            Ok(None) => Answer { outcome: Outcome::Success, unreachable: false },
            Ok(Some(exchange)) => self.exchange(call, exchange).await,
            Err(text) => Answer { outcome: unknown(text), unreachable: false },
        };
        debug!(
            gid = %call.gid,
            branch_id = %call.call.branch_id,
            op = call.call.op.as_str(),
            destination = place_of(&call.call.url),
            outcome = answer.outcome.as_str(),
            unreachable = answer.unreachable,
            "called a branch"
        );
        answer
    }

    fn cannot_call(&self, url: &str, protocol: CallProtocol) -> Option<String> {
        match style_of(url, protocol) {
            Ok(Style::Nothing) => None,
            // The thread's cache: most transactions name URLs that others have named.
            Ok(_) => match pool::target(&self.pool, url, self.alias()) {
                Ok(target) if target.tls => self.check_tls().err(),
                Ok(_) => None,
                Err(text) => Some(text),
            },
            Err(text) => Some(text),
        }
    }
}

/// Returns a URL's scheme, host and port for people: without a user name, path or query.
fn place_of(url: &str) -> &str {
    let place = destination(url);
    place.rsplit_once('@').map_or(place, |(_, place)| place)
}

fn unknown(text: String) -> Outcome {
    Outcome::Unknown(Arc::from(text))
}
