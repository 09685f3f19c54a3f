//! Opening connections: resolve, check, TCP, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::connection::{Connection, Stream};
use super::egress::check_egress;
use super::options::OutboundOptions;
use super::resolve::{ResolveError, Resolver};
use super::target::{Host, Target};
use crate::socket::Network;

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

/// Opens connections, a bounded number.
pub(super) struct Connector {
    resolver: Resolver,
    /// A simulation's network; usually the machine's is used.
    network: Option<Arc<dyn Network>>,
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
    open: Arc<AtomicUsize>,
}

impl Connector {
    /// Returns a connector that resolves by `resolver`.
    pub(super) fn new(resolver: Resolver) -> Self {
        Self { resolver, network: None, tls: OnceLock::new(), open: Arc::default() }
    }

    /// Has it use a simulation's network.
    pub(super) fn over(self, network: Arc<dyn Network>) -> Self {
        Self { network: Some(network), ..self }
    }

    /// Opens a connection to where a URL points.
    ///
    /// # Errors
    ///
    /// [`CallError`]; nothing was sent.
    pub(super) async fn connect(
        &self,
        target: &Target,
        options: &OutboundOptions,
    ) -> Result<Connection, CallError> {
        let permit = OpenPermit::take(&self.open, options.connections_max)?;
        let limit = options.connect_timeout;
        match timeout(limit, self.open(target, options, permit)).await {
            Ok(opened) => opened,
            Err(_) => Err(CallError::unreachable(format!(
                "connect to {}: no connection within {} ms",
                target.place(),
                limit.as_millis()
            ))),
        }
    }

    async fn open(
        &self,
        target: &Target,
        options: &OutboundOptions,
        permit: OpenPermit,
    ) -> Result<Connection, CallError> {
        let stream = self.open_plain(target, options).await?;
        let tcp = match stream {
            Stream::Tcp(tcp) if target.tls => tcp,
            plain if !target.tls => return Ok(Connection::new(plain, permit)),
            _ => return Err(CallError::declined("no TLS in a simulation".to_owned())),
        };
        let failed = |why: &dyn std::fmt::Display| {
            CallError::unreachable(format!("TLS with {}: {why}", target.place()))
        };
        let config = self.tls_config(options).map_err(CallError::declined)?;
        let name = match &target.host {
            Host::Address(ip) => ServerName::IpAddress((*ip).into()),
            Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|error| failed(&error))?,
        };
        let tls = TlsConnector::from(config).connect(name, tcp).await;
        let tls = tls.map_err(|error| failed(&error))?;
        Ok(Connection::new(Stream::Tls(Box::new(tls)), permit))
    }

    async fn open_plain(
        &self,
        target: &Target,
        options: &OutboundOptions,
    ) -> Result<Stream, CallError> {
        let name = match &target.host {
            Host::Address(ip) => return self.connect_checked(*ip, target.port).await,
            Host::Name(name) => name,
        };
        let addresses =
            self.resolver.resolve(name, target.port).await.map_err(|why| match why {
                ResolveError::Failed(text) => CallError::unreachable(text),
                ResolveError::Refused(text) => CallError::declined(text),
            })?;
        // One address that does not answer must not use up the time of the next.
        let share = options.connect_timeout / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        let mut last = None;
        for address in addresses.iter() {
            match timeout(share, self.connect_checked(address.ip(), address.port())).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {}
            }
        }
        Err(last.unwrap_or_else(|| {
            CallError::unreachable(format!(
                "connect to {}: no connection within {} ms",
                target.place(),
                options.connect_timeout.as_millis()
            ))
        }))
    }

    /// Connects to an address: the only place where this crate does, after the check.
    async fn connect_checked(&self, ip: IpAddr, port: u16) -> Result<Stream, CallError> {
        let address = SocketAddr::new(ip, port);
        check_egress(address).map_err(|refused| CallError::declined(refused.to_string()))?;
        let failed = |error: io::Error| {
            CallError::unreachable(format!("connect to {address}: {}", words_of(&error)))
        };
        if let Some(network) = &self.network {
            return network.connect(address).await.map(Stream::Simulated).map_err(failed);
        }
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        // Requests are small and written at once; waiting to fill a segment only delays them.
        let _ = stream.set_nodelay(true);
        Ok(Stream::Tcp(stream))
    }

    /// Returns what TLS connections are made with; reads the certificates when first called.
    ///
    /// # Errors
    ///
    /// A text for people, the same each time: certificates are read once.
    pub(super) fn tls_config(
        &self,
        options: &OutboundOptions,
    ) -> Result<Arc<ClientConfig>, String> {
        self.tls.get_or_init(|| load_tls_config(options.ca_file.as_deref())).clone()
    }

    /// Returns how many connections are open.
    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// Returns an I/O error without its number, which means nothing to most readers.
pub(super) fn words_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other => error.to_string(),
        kind => match kind.to_string() {
            words if words.contains("uncategorized") => error.to_string(),
            words => words,
        },
    }
}

/// Counts one open connection until it is dropped.
pub(super) struct OpenPermit(Arc<AtomicUsize>);

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
        let before = roots.len();
        let found = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?;
        for certificate in found {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            roots.add(certificate).map_err(|error| unreadable(&error))?;
        }
        if roots.len() == before {
            return Err(unreadable(&"the file has none"));
        }
    }
    if roots.is_empty() {
        return Err("https cannot be called: this system trusts no certificates; install its \
                    ca-certificates or name a file of them"
            .to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
