//! Names to addresses, each checked before anything connects to it.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use super::egress::check_egress;
use crate::socket::Network;

/// Names remembered at once.
const NAMES_MAX: usize = 1024;
/// Lookups under way at once: each occupies a thread, however long the resolver takes.
const LOOKUPS_MAX: usize = 32;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Asks for a name's addresses; blocks, if it is the system that is asked.
pub(super) type Lookup = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

type Addresses = Arc<[SocketAddr]>;

/// Resolves names, remembers the answers briefly, and asks once for callers that come together.
pub(super) struct Resolver {
    lookup: Lookup,
    /// It does not, and may be called where it is needed.
    answers_at_once: bool,
    keep: Duration,
    names: Mutex<HashMap<(Arc<str>, u16), Remembered>>,
    permits: Arc<Semaphore>,
}

#[derive(Clone)]
struct Remembered {
    since: Instant,
    addresses: Arc<OnceCell<Addresses>>,
}

impl Resolver {
    /// Returns a resolver that asks the system and remembers for `keep`.
    pub(super) fn new(keep: Duration) -> Self {
        let lookup = |host: &str, port: u16| Ok((host, port).to_socket_addrs()?.collect());
        Self::with_lookup(keep, Arc::new(lookup))
    }

    /// Returns a resolver that asks `lookup`.
    pub(super) fn with_lookup(keep: Duration, lookup: Lookup) -> Self {
        let permits = Arc::new(Semaphore::new(LOOKUPS_MAX));
        Self { lookup, answers_at_once: false, keep, names: Mutex::default(), permits }
    }

    /// Returns a resolver that asks a simulation.
    pub(super) fn simulated(keep: Duration, network: Arc<dyn Network>) -> Self {
        let lookup = move |host: &str, port: u16| network.lookup(host, port);
        Self { answers_at_once: true, ..Self::with_lookup(keep, Arc::new(lookup)) }
    }

    /// Returns the addresses of a name that may be called, at least one.
    ///
    /// A name some of whose addresses are refused keeps the others: nothing is connected to but an
    /// address that was checked.
    ///
    /// # Errors
    ///
    /// A text for people: the name has no address, or none that may be called.
    pub(super) async fn resolve(
        &self,
        host: &Arc<str>,
        port: u16,
    ) -> Result<Addresses, ResolveError> {
        let cell = self.remembered(host, port);
        // Whoever is first asks, the others wait; a failure is not remembered.
        cell.get_or_try_init(|| self.ask(host.clone(), port)).await.cloned()
    }

    fn remembered(&self, host: &Arc<str>, port: u16) -> Arc<OnceCell<Addresses>> {
        let now = Instant::now();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host.clone(), port);
        if let Some(known) = names.get(&key)
            && now.duration_since(known.since) < self.keep
        {
            return known.addresses.clone();
        }
        if names.len() >= NAMES_MAX {
            names.retain(|_, known| now.duration_since(known.since) < self.keep);
        }
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        let fresh = Remembered { since: now, addresses: Arc::default() };
        names.insert(key, fresh.clone());
        fresh.addresses
    }

    async fn ask(&self, host: Arc<str>, port: u16) -> Result<Addresses, ResolveError> {
        let closed = |_| ResolveError::Failed(format!("resolve {host}: the server is stopping"));
        let permit = self.permits.clone().acquire_owned().await.map_err(closed)?;
        if self.answers_at_once {
            let found = (self.lookup)(&host, port);
            let found = found.map_err(|_| no_such(&host))?;
            return check_addresses(&host, &found);
        }
        let lookup = self.lookup.clone();
        let name = host.clone();
        let asked = tokio::task::spawn_blocking(move || {
            // Held until the system answers, also when the caller has given up waiting.
            let _permit = permit;
            lookup(&name, port)
        });
        let found = match asked.await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => return Err(no_such(&host)),
            Err(_) => {
                return Err(ResolveError::Failed(format!("resolve {host}: the lookup broke off")));
            }
        };
        check_addresses(&host, &found)
    }
}

/// Why a name has no address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ResolveError {
    /// The name has no address now.
    Failed(String),
    /// It has, but none that may be called.
    Refused(String),
}

fn no_such(host: &str) -> ResolveError {
    ResolveError::Failed(format!("resolve {host}: no such host"))
}

fn check_addresses(host: &str, found: &[SocketAddr]) -> Result<Addresses, ResolveError> {
    let mut allowed = Vec::new();
    let mut refused = None;
    for &address in found.iter().take(ADDRESSES_MAX) {
        match check_egress(address) {
            Ok(()) => allowed.push(address),
            Err(why) => refused = Some(why),
        }
    }
    match refused {
        Some(why) if allowed.is_empty() => {
            Err(ResolveError::Refused(format!("resolve {host}: {why}")))
        }
        _ if allowed.is_empty() => Err(ResolveError::Failed(format!("resolve {host}: no address"))),
        _ => Ok(Arc::from(allowed)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn scripted(answers: Vec<Vec<&'static str>>) -> (Lookup, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let lookup = move |_: &str, port: u16| {
            let turn = counter.fetch_add(1, Ordering::SeqCst);
            let answer = answers.get(turn).or(answers.last()).cloned().unwrap_or_default();
            Ok(answer.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
        };
        (Arc::new(lookup), asked)
    }

    #[tokio::test]
    async fn every_address_is_checked_and_only_allowed_ones_are_kept() {
        let (lookup, _) = scripted(vec![vec!["fe80::1", "169.254.169.254", "127.0.0.1"]]);
        let resolver = Resolver::with_lookup(Duration::from_secs(60), lookup);
        let found = resolver.resolve(&Arc::from("a.test"), 80).await.unwrap();
        assert_eq!(&*found, &["127.0.0.1:80".parse().unwrap()]);

        let (lookup, _) = scripted(vec![vec!["::ffff:169.254.169.254"]]);
        let resolver = Resolver::with_lookup(Duration::from_secs(60), lookup);
        let error = resolver.resolve(&Arc::from("a.test"), 80).await.unwrap_err();
        assert!(
            matches!(&error, ResolveError::Refused(why) if why.contains("metadata")),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_name_that_changes_to_metadata_is_refused_then() {
        let (lookup, asked) = scripted(vec![vec!["8.8.8.8"], vec!["169.254.169.254"]]);
        let resolver = Resolver::with_lookup(Duration::ZERO, lookup);
        let name = Arc::from("rebind.test");
        assert!(resolver.resolve(&name, 80).await.is_ok());
        assert!(matches!(resolver.resolve(&name, 80).await, Err(ResolveError::Refused(_))));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn callers_together_ask_once_and_failures_are_not_remembered() {
        let (lookup, asked) = scripted(vec![vec![], vec!["127.0.0.1"]]);
        let resolver = Resolver::with_lookup(Duration::from_secs(60), lookup);
        let name = Arc::from("a.test");
        assert!(matches!(resolver.resolve(&name, 80).await, Err(ResolveError::Failed(_))));
        let all =
            futures_util::future::join_all((0..50).map(|_| resolver.resolve(&name, 80))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn names_are_bounded() {
        let (lookup, _) = scripted(vec![vec!["127.0.0.1"]]);
        let resolver = Resolver::with_lookup(Duration::from_secs(60), lookup);
        for port in 1..=(NAMES_MAX as u16 + 10) {
            resolver.remembered(&Arc::from("a.test"), port);
        }
        assert!(resolver.names.lock().unwrap().len() <= NAMES_MAX);
    }
}
