//! Calling branches over gRPC (spec 03 §4).
//!
//! The way in:
//!
//! 1. [`GrpcCaller`]: the [`BranchCaller`] of `grpc://`, `grpcs://` and bare
//!    `host:port/Service/Method`. [`Callers`]: picks it or HTTP.
//! 2. `target` and `request`: what a URL and a call become on the wire.
//! 3. `balance` and `connect`: few connections, used by many calls.
//! 4. `outcome`: what a status means. Statuses are read as they come, not through a gRPC library,
//!    which would hide the numbers that are no codes of gRPC's.

mod balance;
mod callers;
mod connect;
mod outcome;
mod request;
mod target;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use dtmd_engine::{Answer, BranchCall, BranchCaller};
use dtmd_protocol::{CallProtocol, Outcome, Scheme};
use dtmd_transport::outbound::OutboundOptions;
use dtmd_transport::socket::Network;
use dtmd_wire::outcome::clean;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime;
use tokio::time::timeout;
use tracing::debug;

pub use callers::Callers;

use balance::{Balancer, Lookup, system_lookup};
use connect::{CallError, Connection, Connector};
use outcome::{decode_message, grpc_outcome};
use request::{Outgoing, request};
use target::{Place, Target};

/// Parsed URLs kept.
const TARGETS_MAX: usize = 1024;
/// Places with connections.
const PLACES_MAX: usize = 1024;
/// `DEADLINE_EXCEEDED`: the service's own clock was quicker than ours.
const DEADLINE_EXCEEDED: i32 = 4;
/// `UNAVAILABLE`: what a proxy answers when the service behind it cannot be reached.
const UNAVAILABLE: i32 = 14;

/// Calls branches over gRPC.
///
/// A place has one connection for each of its addresses and each of our runtimes, however many
/// calls there are.
pub struct GrpcCaller {
    connector: Connector,
    lookup: Lookup,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    targets: HashMap<Arc<str>, Arc<Target>>,
    balancers: HashMap<(Arc<Place>, runtime::Id), Arc<Balancer>>,
}

/// A status as it came.
struct Status {
    number: i32,
    message: Vec<u8>,
}

impl GrpcCaller {
    /// Returns a caller without any connection yet.
    ///
    /// Of the options, those about HTTP's answers have no meaning here.
    pub fn new(options: OutboundOptions) -> Self {
        Self::with_lookup(options, system_lookup())
    }

    /// Returns a caller in a simulation; there is no TLS in it.
    pub fn simulated(options: OutboundOptions, network: Arc<dyn Network>) -> Self {
        let connector = Connector::new(options).over(network);
        Self { connector, lookup: system_lookup(), known: Mutex::default() }
    }

    fn with_lookup(options: OutboundOptions, lookup: Lookup) -> Self {
        Self { connector: Connector::new(options), lookup, known: Mutex::default() }
    }

    /// Reads the certificates that `grpcs` services are verified with.
    ///
    /// # Errors
    ///
    /// A text that names the file, or says that the system has no certificates.
    pub fn check_tls(&self) -> Result<(), String> {
        self.connector.tls_config().map(|_| ())
    }

    fn alias(&self) -> Option<&str> {
        self.connector.options().localhost_alias.as_deref()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the parsed form of a URL.
    ///
    /// # Errors
    ///
    /// What [`Target::parse`] says.
    fn target(&self, url: &str) -> Result<Arc<Target>, String> {
        if let Some(target) = self.lock().targets.get(url) {
            return Ok(target.clone());
        }
        // Apart from the lock: what is parsed comes from outside.
        let target = Arc::new(Target::parse(url, self.alias())?);
        let mut known = self.lock();
        if known.targets.len() >= TARGETS_MAX {
            // URLs that differ with every call fill it; those that repeat are back soon.
            known.targets.clear();
        }
        known.targets.insert(Arc::from(url), target.clone());
        Ok(target)
    }

    /// Returns the connections of a place in this runtime.
    fn balancer(&self, place: &Arc<Place>) -> Result<Arc<Balancer>, CallError> {
        let key = (place.clone(), runtime::Handle::current().id());
        let mut known = self.lock();
        if let Some(balancer) = known.balancers.get(&key) {
            return Ok(balancer.clone());
        }
        if known.balancers.len() >= PLACES_MAX {
            let age_max = self.connector.options().connection_age_max;
            known.balancers.retain(|_, balancer| !balancer.is_idle(age_max));
        }
        if known.balancers.len() >= PLACES_MAX {
            let text = format!("more than {PLACES_MAX} services are called at a time");
            return Err(CallError::declined(text));
        }
        let balancer = Arc::new(Balancer::new(place.clone(), self.lookup.clone()));
        known.balancers.insert(key, balancer.clone());
        Ok(balancer)
    }

    /// Sends a call and returns the status of its answer. `used` is the connection it went by.
    ///
    /// If that turns out to have been closed, or the service says that it goes away, the call is
    /// sent once more on a new one. A second sending is right even where the first may have
    /// arrived: branches are idempotent, and the retry that would come later sends the same.
    async fn unary(
        &self,
        call: &BranchCall,
        used: &mut Option<Connection>,
    ) -> Result<Status, CallError> {
        let target = self.target(&call.call.url).map_err(CallError::declined)?;
        let balancer = self.balancer(&target.place)?;
        let build = || request(call, &target).map_err(CallError::declined);
        let mut outgoing = build()?;
        let mut is_second = false;
        loop {
            let (connection, is_new) = balancer.connection(&self.connector).await?;
            let _active = connection.begin();
            *used = Some(connection.clone());
            let failed = match send(&connection, outgoing).await {
                Ok(response) => return read(&target.place, &connection, response).await,
                Err(failed) => failed,
            };
            if failed.fate.ends_connection() {
                connection.retire();
            }
            let may_repeat = match failed.fate {
                Fate::NotTaken => true,
                Fate::Broken => !is_new || failed.unsent.is_some(),
                Fate::Reset => false,
            };
            if is_second || !may_repeat {
                let text = format!("no answer from {}: {}", target.place, failed.text);
                return Err(CallError::unreachable(text));
            }
            is_second = true;
            outgoing = match failed.unsent {
                Some(unsent) => unsent,
                None => build()?,
            };
        }
    }
}

/// What became of a request that has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The service goes away or has too much to do; it did not look at the request.
    NotTaken,
    /// The connection broke; whether the request arrived is unknown.
    Broken,
    /// The service gave this one request up.
    Reset,
}

impl Fate {
    fn of(error: &hyper::Error) -> Self {
        match error.source().and_then(|source| source.downcast_ref::<h2::Error>()) {
            Some(h2) if h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM) => {
                Self::NotTaken
            }
            Some(h2) if h2.is_go_away() => Self::NotTaken,
            Some(h2) if h2.is_reset() => Self::Reset,
            _ => Self::Broken,
        }
    }

    fn ends_connection(self) -> bool {
        self != Self::Reset
    }
}

struct Failed {
    fate: Fate,
    unsent: Option<Outgoing>,
    text: String,
}

async fn send(connection: &Connection, outgoing: Outgoing) -> Result<Response<Incoming>, Failed> {
    let sent = connection.send.clone().try_send_request(outgoing).await;
    sent.map_err(|mut failed| {
        let unsent = failed.take_message();
        let error = failed.into_error();
        Failed { fate: Fate::of(&error), unsent, text: words_of(&error) }
    })
}

fn words_of(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// Reads an answer to its status. The reply itself has no meaning (spec 03 §4), whatever its size.
async fn read(
    place: &Place,
    connection: &Connection,
    response: Response<Incoming>,
) -> Result<Status, CallError> {
    connection.heard();
    let (head, mut body) = response.into_parts();
    if let Some(status) = status_of(&head.headers) {
        return Ok(status);
    }
    let is_grpc = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if head.status != StatusCode::OK || !is_grpc {
        let text = format!("{place} does not speak gRPC: HTTP status {}", head.status.as_u16());
        // What a proxy says when the service behind it is away.
        let is_away = matches!(head.status.as_u16(), 502..=504);
        return Err(if is_away { CallError::unreachable(text) } else { CallError::declined(text) });
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let text = format!("the answer from {place} broke off: {}", words_of(&error));
            CallError::unreachable(text)
        })?;
        connection.heard();
        if let Some(status) = frame.trailers_ref().and_then(status_of) {
            return Ok(status);
        }
    }
    Err(CallError::unreachable(format!("the answer from {place} has no status")))
}

fn status_of(headers: &HeaderMap) -> Option<Status> {
    let number = headers.get("grpc-status")?.to_str().ok();
    // What is not a number says nothing: unknown, as in other implementations.
    let number = number.and_then(|number| number.trim().parse().ok()).unwrap_or(2);
    let message = headers.get("grpc-message").map_or(b"".as_slice(), HeaderValue::as_bytes);
    Some(Status { number, message: decode_message(message) })
}

#[async_trait]
impl BranchCaller for GrpcCaller {
    async fn call(&self, call: &BranchCall) -> Answer {
        if call.call.url.is_empty() {
            return Answer { outcome: Outcome::Success, unreachable: false };
        }
        let limit = call.call.timeout;
        let mut used = None;
        let answer = match timeout(limit, self.unary(call, &mut used)).await {
            Ok(Ok(Status { number, message })) => Answer {
                outcome: grpc_outcome(number, &message),
                unreachable: matches!(number, DEADLINE_EXCEEDED | UNAVAILABLE),
            },
            Ok(Err(failed)) => unanswered(failed.text, failed.unreachable),
            Err(_) => {
                // If the whole connection has been silent, the next call had better try another.
                if let Some(used) = used.filter(|used| !used.heard_within(limit)) {
                    used.retire();
                }
                unanswered(format!("no answer within {} ms", limit.as_millis()), true)
            }
        };
        debug!(
            gid = %call.gid,
            branch_id = %call.call.branch_id,
            op = call.call.op.as_str(),
            destination = dtmd_protocol::url::destination(&call.call.url),
            outcome = answer.outcome.as_str(),
            unreachable = answer.unreachable,
            "called a branch"
        );
        answer
    }

    fn cannot_call(&self, url: &str, _: CallProtocol) -> Option<String> {
        match Scheme::of(url) {
            Scheme::Empty => None,
            Scheme::Topic(_) => Some("a topic can only be an action of a message".to_owned()),
            // The cache: most transactions name URLs that others have named.
            _ => match self.target(url) {
                Ok(target) if target.place.tls => self.check_tls().err(),
                Ok(_) => None,
                Err(text) => Some(text),
            },
        }
    }
}

fn unanswered(text: String, unreachable: bool) -> Answer {
    Answer { outcome: Outcome::Unknown(Arc::from(clean(text.as_bytes()))), unreachable }
}
