//! Opening connections: the check, TCP, TLS, HTTP/2.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dtmd_transport::outbound::{OutboundOptions, check_egress};
use dtmd_transport::socket::Network;
use http_body_util::Full;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::target::Place;

/// The most bytes of an answer's metadata.
const HEAD_MAX_BYTES: u32 = 64 << 10;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallError {
    /// For people.
    pub(super) text: String,
    /// Whether it says something about the service: false if this server declined to try.
    pub(super) unreachable: bool,
}

impl CallError {
    /// The service could not be reached.
    pub(super) fn unreachable(text: String) -> Self {
        Self { text, unreachable: true }
    }

    /// This server did not try.
    pub(super) fn declined(text: String) -> Self {
        Self { text, unreachable: false }
    }
}

/// An open connection; many calls share it. Clones are the same connection.
#[derive(Clone)]
pub(super) struct Connection {
    /// Sends requests into it.
    pub(super) send: SendRequest<Full<Bytes>>,
    usage: Arc<Usage>,
}

/// What the calls on a connection and its task tell each other.
struct Usage {
    opened_at: Instant,
    /// Calls under way.
    active: AtomicUsize,
    /// Milliseconds after `opened_at` when the last call ended.
    used_at: AtomicU64,
    /// Milliseconds after `opened_at` when the service sent something last.
    heard_at: AtomicU64,
    /// Set when no further call may use it.
    retired: AtomicBool,
}

impl Usage {
    fn now(&self) -> u64 {
        u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns for how long no call has used the connection, `None` while one does.
    fn idle_for(&self) -> Option<Duration> {
        if self.active.load(Ordering::Acquire) > 0 {
            return None;
        }
        let since = Duration::from_millis(self.used_at.load(Ordering::Relaxed));
        Some(self.opened_at.elapsed().saturating_sub(since))
    }
}

/// A call under way on a connection, until it is dropped.
pub(super) struct Active(Arc<Usage>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.used_at.store(self.0.now(), Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::Release);
    }
}

impl Connection {
    /// Returns whether another call may use it.
    pub(super) fn is_usable(&self, age_max: Duration) -> bool {
        !self.send.is_closed()
            && !self.usage.retired.load(Ordering::Relaxed)
            && self.usage.opened_at.elapsed() < age_max
    }

    /// Lets no further call use it. It closes when the last one has ended.
    pub(super) fn retire(&self) {
        self.usage.retired.store(true, Ordering::Relaxed);
    }

    /// Notes a call.
    pub(super) fn begin(&self) -> Active {
        self.usage.active.fetch_add(1, Ordering::Acquire);
        Active(self.usage.clone())
    }

    /// Notes that the service sent something.
    pub(super) fn heard(&self) {
        self.usage.heard_at.store(self.usage.now(), Ordering::Relaxed);
    }

    /// Returns whether the service has sent anything in so long.
    pub(super) fn heard_within(&self, time: Duration) -> bool {
        let at = Duration::from_millis(self.usage.heard_at.load(Ordering::Relaxed));
        self.usage.opened_at.elapsed().saturating_sub(at) < time
    }
}

/// Opens connections, a bounded number.
pub(super) struct Connector {
    options: OutboundOptions,
    /// A simulation's network; usually the machine's is used.
    pub(super) network: Option<Arc<dyn Network>>,
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
    open: Arc<AtomicUsize>,
}

impl Connector {
    pub(super) fn new(options: OutboundOptions) -> Self {
        Self { options, network: None, tls: OnceLock::new(), open: Arc::default() }
    }

    /// Has it use a simulation's network.
    pub(super) fn over(self, network: Arc<dyn Network>) -> Self {
        Self { network: Some(network), ..self }
    }

    pub(super) fn options(&self) -> &OutboundOptions {
        &self.options
    }

    /// Returns how many connections are open.
    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Opens a connection to one address of a place: the only way out of this crate, after the
    /// check. Takes as long as it takes; its caller has a clock.
    ///
    /// # Errors
    ///
    /// [`CallError`]; nothing was sent.
    pub(super) async fn open(
        &self,
        place: &Place,
        address: SocketAddr,
    ) -> Result<Connection, CallError> {
        let permit = OpenPermit::take(&self.open, self.options.connections_max)?;
        check_egress(address).map_err(|refused| CallError::declined(refused.to_string()))?;
        let failed = |why: &dyn std::fmt::Display| {
            CallError::unreachable(format!("connect to {place}: {why}"))
        };
        if let Some(network) = &self.network {
            if place.tls {
                return Err(CallError::declined("no TLS in a simulation".to_owned()));
            }
            let stream = network.connect(address).await.map_err(|error| failed(&error.kind()))?;
            return self.shake_hands(place, stream, permit).await;
        }
        let tcp = TcpStream::connect(address).await.map_err(|error| failed(&error.kind()))?;
        // Requests are small and written at once; waiting to fill a segment only delays them.
        let _ = tcp.set_nodelay(true);
        if !place.tls {
            return self.shake_hands(place, tcp, permit).await;
        }
        let config = self.tls_config().map_err(CallError::declined)?;
        let name = match place.host.parse::<IpAddr>() {
            Ok(ip) => ServerName::IpAddress(ip.into()),
            Err(_) => ServerName::try_from(place.host.trim_end_matches('.').to_owned())
                .map_err(|error| failed(&error))?,
        };
        let tls = TlsConnector::from(config).connect(name, tcp).await;
        let tls = tls.map_err(|error| failed(&format_args!("TLS: {error}")))?;
        self.shake_hands(place, tls, permit).await
    }

    async fn shake_hands<T>(
        &self,
        place: &Place,
        io: T,
        permit: OpenPermit,
    ) -> Result<Connection, CallError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // No pings: Go's services take more than one in five minutes for an attack, and hang up.
        // A connection that has gone silent is found by the calls on it, and retired.
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_header_list_size(HEAD_MAX_BYTES);
        let shaken = builder.handshake::<_, Full<Bytes>>(TokioIo::new(io)).await;
        let (send, driver) = shaken.map_err(|error| {
            CallError::unreachable(format!("connect to {place}: no HTTP/2: {error}"))
        })?;
        let usage = Arc::new(Usage {
            opened_at: Instant::now(),
            active: AtomicUsize::new(0),
            used_at: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
            retired: AtomicBool::new(false),
        });
        tokio::spawn(drive(driver, usage.clone(), self.options.idle_timeout, permit));
        Ok(Connection { send, usage })
    }

    /// Returns what TLS connections are made with; reads the certificates when first called.
    ///
    /// # Errors
    ///
    /// A text for people, the same each time: certificates are read once.
    pub(super) fn tls_config(&self) -> Result<Arc<ClientConfig>, String> {
        self.tls.get_or_init(|| load_tls_config(self.options.ca_file.as_deref())).clone()
    }
}

/// Runs a connection until it closes or has been idle for too long.
///
/// It ends by itself: it is held by a pool, which has bounds, and by calls, which have timeouts.
async fn drive(
    driver: impl Future<Output = Result<(), hyper::Error>>,
    usage: Arc<Usage>,
    idle_timeout: Duration,
    permit: OpenPermit,
) {
    let mut driver = pin!(driver);
    let mut alarm = pin!(sleep(idle_timeout));
    loop {
        // Both branches only poll what is pinned outside, so neither loses anything.
        tokio::select! {
            biased;
            _ = &mut driver => break,
            () = &mut alarm => {}
        }
        // The alarm is set anew when it rings, not with every call.
        let left = match usage.idle_for() {
            Some(idle_for) if idle_for >= idle_timeout => break,
            Some(idle_for) => idle_timeout - idle_for,
            None => idle_timeout,
        };
        // Never sooner than the clocks can tell apart, or the task would spin.
        alarm.as_mut().reset(Instant::now() + left.max(Duration::from_millis(1)));
    }
    usage.retired.store(true, Ordering::Relaxed);
    drop(permit);
}

/// Counts one open connection until it is dropped.
struct OpenPermit(Arc<AtomicUsize>);

impl OpenPermit {
    fn take(open: &Arc<AtomicUsize>, limit: usize) -> Result<Self, CallError> {
        let permit = Self(open.clone());
        if open.fetch_add(1, Ordering::Relaxed) < limit {
            return Ok(permit);
        }
        // Dropping the permit takes the count back.
        Err(CallError::declined(format!("too many connections to services, the limit is {limit}")))
    }
}

impl Drop for OpenPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn load_tls_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let unreadable = |why: &dyn std::fmt::Display| {
            format!("the certificates in {} cannot be used: {why}", path.display())
        };
        let found = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?;
        let before = roots.len();
        for certificate in found {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            roots.add(certificate).map_err(|error| unreadable(&error))?;
        }
        if roots.len() == before {
            return Err(unreadable(&"the file has none"));
        }
    }
    if roots.is_empty() {
        return Err("grpcs cannot be called: this system trusts no certificates; install its \
                    ca-certificates or name a file of them"
            .to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
