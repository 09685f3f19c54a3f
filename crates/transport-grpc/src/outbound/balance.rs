//! The connections to one place: one for each of its addresses, used in turn.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dtmd_transport::outbound::check_egress;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::connect::{CallError, Connection, Connector};
use super::target::Place;

/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 8;
/// For how long an address that could not be reached is tried last.
const SHUN: Duration = Duration::from_secs(1);

/// Asks the system for a name's addresses; blocks.
pub(super) type Lookup = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Returns a look-up that asks the system.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|host: &str, port: u16| Ok((host, port).to_socket_addrs()?.collect()))
}

/// One place, as seen from one runtime: a connection's task lives in the runtime that opened it.
pub(super) struct Balancer {
    place: Arc<Place>,
    lookup: Lookup,
    turn: AtomicUsize,
    known: Mutex<Known>,
}

struct Known {
    since: Instant,
    addresses: Arc<OnceCell<Arc<[SocketAddr]>>>,
    slots: Vec<Slot>,
}

/// One address. Calls that come together wait for one connection.
struct Slot {
    address: SocketAddr,
    connection: Arc<OnceCell<Connection>>,
    failed_at: Option<Instant>,
}

impl Balancer {
    pub(super) fn new(place: Arc<Place>, lookup: Lookup) -> Self {
        let known = Known { since: Instant::now(), addresses: Arc::default(), slots: Vec::new() };
        Self { place, lookup, turn: AtomicUsize::new(0), known: Mutex::new(known) }
    }

    /// Returns a connection to the address whose turn it is, and whether it is new. An address that
    /// cannot be reached is passed over.
    ///
    /// # Errors
    ///
    /// [`CallError`] if no address can be reached; nothing was sent.
    pub(super) async fn connection(
        &self,
        connector: &Connector,
    ) -> Result<(Connection, bool), CallError> {
        let limit = connector.options().connect_timeout;
        let addresses = match timeout(limit, self.addresses(connector)).await {
            Ok(addresses) => addresses?,
            Err(_) => return Err(self.too_slow(limit)),
        };
        // One address that does not answer must not use up the time of the next.
        let share = limit / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        let mut last = None;
        for address in self.in_turn(&addresses) {
            let (cell, is_open) = self.slot(address, connector.options().connection_age_max);
            let open = cell.get_or_try_init(|| connector.open(&self.place, address));
            match timeout(share, open).await {
                Ok(Ok(connection)) => return Ok((connection.clone(), !is_open)),
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(self.too_slow(limit)),
            }
            self.shun(address);
        }
        Err(last.unwrap_or_else(|| self.too_slow(limit)))
    }

    /// Returns whether no connection is open.
    pub(super) fn is_idle(&self, age_max: Duration) -> bool {
        let known = self.lock();
        known.slots.iter().all(|slot| match slot.connection.get() {
            Some(connection) => !connection.is_usable(age_max),
            // Somebody may be opening it.
            None => Arc::strong_count(&slot.connection) == 1,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn too_slow(&self, limit: Duration) -> CallError {
        let (place, ms) = (&self.place, limit.as_millis());
        CallError::unreachable(format!("connect to {place}: no connection within {ms} ms"))
    }

    /// Returns the addresses of the place that may be called, at least one; asks again when the
    /// answer is old.
    async fn addresses(&self, connector: &Connector) -> Result<Arc<[SocketAddr]>, CallError> {
        let cell = {
            let mut known = self.lock();
            let keep = connector.options().resolve_cache;
            if known.addresses.initialized() && known.since.elapsed() >= keep {
                known.since = Instant::now();
                known.addresses = Arc::default();
            }
            known.addresses.clone()
        };
        if let Some(addresses) = cell.get() {
            return Ok(addresses.clone());
        }
        // Whoever is first asks, the others wait; a failure is not remembered.
        let addresses = cell.get_or_try_init(|| self.ask(connector)).await?.clone();
        self.lock().slots.retain(|slot| addresses.contains(&slot.address));
        Ok(addresses)
    }

    async fn ask(&self, connector: &Connector) -> Result<Arc<[SocketAddr]>, CallError> {
        let (lookup, place) = (self.lookup.clone(), self.place.clone());
        let asked = match &connector.network {
            Some(network) => Ok(network.lookup(&place.host, place.port)),
            None => tokio::task::spawn_blocking(move || lookup(&place.host, place.port)).await,
        };
        let host = &self.place.host;
        let found = match asked {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => {
                return Err(CallError::unreachable(format!("resolve {host}: no such host")));
            }
        };
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in found.into_iter().take(ADDRESSES_MAX) {
            match check_egress(address) {
                Ok(()) if allowed.contains(&address) => {}
                Ok(()) => allowed.push(address),
                Err(why) => refused = Some(why),
            }
        }
        match refused {
            Some(why) if allowed.is_empty() => {
                Err(CallError::declined(format!("resolve {host}: {why}")))
            }
            _ if allowed.is_empty() => {
                Err(CallError::unreachable(format!("resolve {host}: no address")))
            }
            _ => Ok(Arc::from(allowed)),
        }
    }

    /// Returns the addresses in the order to try them, those that failed just now last.
    fn in_turn(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut order = addresses.to_vec();
        if order.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % order.len();
            order.rotate_left(turn);
            let known = self.lock();
            let is_shunned = |address: &SocketAddr| {
                let slot = known.slots.iter().find(|slot| slot.address == *address);
                slot.and_then(|slot| slot.failed_at).is_some_and(|at| at.elapsed() < SHUN)
            };
            order.sort_by_cached_key(is_shunned);
        }
        order
    }

    /// Returns the place of an address's connection, and whether there is one that can be used.
    fn slot(&self, address: SocketAddr, age_max: Duration) -> (Arc<OnceCell<Connection>>, bool) {
        let mut known = self.lock();
        let at = known.slots.iter().position(|slot| slot.address == address);
        let at = at.unwrap_or_else(|| {
            known.slots.push(Slot { address, connection: Arc::default(), failed_at: None });
            known.slots.len() - 1
        });
        let slot = &mut known.slots[at];
        let is_open = slot.connection.get().map(|connection| connection.is_usable(age_max));
        if is_open == Some(false) {
            slot.connection = Arc::default();
        }
        (slot.connection.clone(), is_open == Some(true))
    }

    fn shun(&self, address: SocketAddr) {
        let mut known = self.lock();
        if let Some(slot) = known.slots.iter_mut().find(|slot| slot.address == address) {
            slot.failed_at = Some(Instant::now());
        }
    }
}
