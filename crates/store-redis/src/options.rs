//! Where Redis is, and how it is used.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::{
    ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion,
    RedisConnectionInfo, TlsCertificates,
};

use crate::error::OpenError;

/// The port of Redis, where none is given.
const REDIS_PORT: u16 = 6379;
/// The port of a Sentinel, where none is given.
const SENTINEL_PORT: u16 = 26_379;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Node {
    fn parse(text: &str, default_port: u16) -> Result<Self, OpenError> {
        let text = text.trim();
        let wrong = || OpenError::Options(format!("`{text}` is not host:port"));
        // An IPv6 address is in brackets when a port follows it.
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            (host, port.strip_prefix(':'))
        } else {
            match text.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (text, None),
            }
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None => default_port,
        };
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How Redis is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// One server, or something that looks like one.
    Single(Node),
    /// A master that Sentinels watch; after a failover they name another.
    Sentinel {
        /// The master's name at the Sentinels.
        master: String,
        /// The Sentinels; one that answers is enough.
        nodes: Vec<Node>,
    },
    /// A Redis Cluster.
    Cluster(Vec<Node>),
}

impl Mode {
    /// Returns the mode that DTM's `Host` and `Port` mean: one host is a server; several
    /// `host:port`, separated by commas, are a cluster (spec 05 §3). A master's name makes them
    /// Sentinels instead, an addition of ours.
    ///
    /// # Errors
    ///
    /// [`OpenError::Options`], naming what is not a host and port.
    pub fn parse(host: &str, port: u16, sentinel_master: &str) -> Result<Self, OpenError> {
        let several = host.contains(',');
        let default_port = match port {
            0 if !sentinel_master.is_empty() => SENTINEL_PORT,
            0 => REDIS_PORT,
            port => port,
        };
        let parts = host.split(',').map(str::trim).filter(|part| !part.is_empty());
        let nodes: Vec<Node> =
            parts.map(|part| Node::parse(part, default_port)).collect::<Result<_, _>>()?;
        if !sentinel_master.is_empty() && !nodes.is_empty() {
            return Ok(Self::Sentinel { master: sentinel_master.to_owned(), nodes });
        }
        match nodes.as_slice() {
            [] => Err(OpenError::Options("there is no host".to_owned())),
            [node] if !several => Ok(Self::Single(node.clone())),
            _ => Ok(Self::Cluster(nodes)),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join =
            |nodes: &[Node]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Single(node) => write!(f, "{node}"),
            Self::Sentinel { master, nodes } => write!(f, "{master} at {}", join(nodes)),
            Self::Cluster(nodes) => write!(f, "cluster {}", join(nodes)),
        }
    }
}

/// How the store reaches Redis, and what it waits for. `Debug` shows no password.
#[derive(Clone)]
pub struct RedisOptions {
    /// Where it is.
    pub mode: Mode,
    /// The user; empty is Redis's default user.
    pub user: String,
    /// The user's password; empty is none.
    pub password: String,
    /// The user at the Sentinels; empty is none.
    pub sentinel_user: String,
    /// The password at the Sentinels; empty is none.
    pub sentinel_password: String,
    /// The number of the database; a cluster has 0 only.
    pub db: i64,
    /// Speak TLS, with Sentinels too.
    pub tls: bool,
    /// The authorities to trust, in PEM, instead of the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// Our certificate and its key, in PEM, where Redis asks for one.
    pub tls_client: Option<(PathBuf, PathBuf)>,
    /// How our keys begin. Installations that share one Redis need different ones. Braces are left
    /// out: the hash tag is ours to choose.
    pub prefix: String,
    /// How long connecting may take, once.
    pub connect_timeout: Duration,
    /// How long an answer may take, once.
    pub response_timeout: Duration,
    /// How long a call is repeated while Redis cannot be reached, loads, fails over or moves
    /// slots. Then the call fails, and the server stops accepting until Redis answers again.
    pub retry_for: Duration,
    /// How long [`crate::RedisStore::open`] waits for a Redis that is not there yet.
    pub open_for: Duration,
    /// So many replicas must have a change before it is acknowledged; 0 does not wait. A change
    /// that too few replicas have in time is not acknowledged, and its outcome is unknown.
    pub wait_replicas: usize,
    /// A change must be in the synced append-only file, of the master and of `wait_replicas`
    /// replicas, before it is acknowledged. From Redis 7.2 (`WAITAOF`); refused on earlier ones.
    pub wait_aof: bool,
    /// How long to wait for replicas or files.
    pub wait_timeout: Duration,
    /// Added to this machine's clock. For tests of machines whose clocks differ.
    #[doc(hidden)]
    pub clock_shift_ms: i64,
}

impl RedisOptions {
    /// Returns options for a mode, everything else as it is best for most.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            user: String::new(),
            password: String::new(),
            sentinel_user: String::new(),
            sentinel_password: String::new(),
            db: 0,
            tls: false,
            tls_ca_file: None,
            tls_client: None,
            prefix: "dtmd".to_owned(),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
            retry_for: Duration::from_secs(4),
            open_for: Duration::from_secs(4),
            wait_replicas: 0,
            wait_aof: false,
            wait_timeout: Duration::from_secs(1),
            clock_shift_ms: 0,
        }
    }

    /// Returns options for a URL: `redis://[user][:password@]host[:port][/db]`, `rediss://` for
    /// TLS. Several URLs, separated by commas, are the nodes of a cluster.
    ///
    /// # Errors
    ///
    /// [`OpenError::Options`]; the URL is not in it, for it may hold a password.
    pub fn from_url(url: &str) -> Result<Self, OpenError> {
        let (mut nodes, mut first) = (Vec::new(), None);
        for part in url.split(',') {
            let wrong = |why: String| OpenError::Options(format!("the Redis URL {why}"));
            let info = part.trim().into_connection_info();
            let info = info.map_err(|error| {
                // The category only: the detail may repeat the URL.
                wrong(format!("is not valid: {}", error.category()))
            })?;
            let (host, port, tls) = match info.addr() {
                ConnectionAddr::Tcp(host, port) => (host.clone(), *port, false),
                ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port, true),
                _ => return Err(wrong("has no host".to_owned())),
            };
            nodes.push(Node { host, port });
            first.get_or_insert((info, tls));
        }
        let Some((info, tls)) = first else {
            return Err(OpenError::Options("there is no Redis URL".to_owned()));
        };
        let mode = match nodes.as_slice() {
            [node] => Mode::Single(node.clone()),
            _ => Mode::Cluster(nodes),
        };
        let settings = info.redis_settings();
        Ok(Self {
            user: settings.username().unwrap_or_default().to_owned(),
            password: settings.password().unwrap_or_default().to_owned(),
            db: settings.db(),
            tls,
            ..Self::new(mode)
        })
    }

    /// Checks what the types cannot say.
    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        let wrong = |text: &str| Err(OpenError::Options(text.to_owned()));
        if matches!(self.mode, Mode::Cluster(_)) && self.db != 0 {
            return wrong("a Redis Cluster has database 0 only; leave the database at 0");
        }
        if self.db < 0 {
            return wrong("the database must be a number from 0");
        }
        if self.password.is_empty() && !self.user.is_empty() {
            return wrong("a Redis user needs a password");
        }
        Ok(())
    }

    /// Returns how a node of Redis is reached.
    pub(crate) fn connection_to(&self, node: &Node) -> Result<ConnectionInfo, OpenError> {
        self.connection(node, &self.user, &self.password, self.db)
    }

    /// Returns how a Sentinel is reached.
    pub(crate) fn connection_to_sentinel(&self, node: &Node) -> Result<ConnectionInfo, OpenError> {
        self.connection(node, &self.sentinel_user, &self.sentinel_password, 0)
    }

    fn connection(
        &self,
        node: &Node,
        user: &str,
        password: &str,
        db: i64,
    ) -> Result<ConnectionInfo, OpenError> {
        let mut settings = RedisConnectionInfo::default()
            .set_db(db)
            .set_skip_set_lib_name()
            .set_protocol(ProtocolVersion::RESP2);
        if !user.is_empty() {
            settings = settings.set_username(user);
        }
        if !password.is_empty() {
            settings = settings.set_password(password);
        }
        let addr = if self.tls {
            ConnectionAddr::TcpTls {
                host: node.host.clone(),
                port: node.port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(node.host.clone(), node.port)
        };
        let info = addr.into_connection_info();
        let info = info.map_err(|error| OpenError::Options(error.category().to_owned()))?;
        Ok(info.set_redis_settings(settings))
    }

    /// Returns the certificates to trust and to show.
    pub(crate) fn certificates(&self) -> Result<TlsCertificates, OpenError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| {
                OpenError::Options(format!("cannot read {}: {error}", path.display()))
            })
        };
        let client_tls = match &self.tls_client {
            Some((cert, key)) => {
                Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? })
            }
            None => None,
        };
        let root_cert = self.tls_ca_file.as_ref().map(read).transpose()?;
        Ok(TlsCertificates { client_tls, root_cert })
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("mode", &self.mode)
            .field("db", &self.db)
            .field("tls", &self.tls)
            .field("prefix", &self.prefix)
            .field("wait_replicas", &self.wait_replicas)
            .field("wait_aof", &self.wait_aof)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> Node {
        Node { host: host.to_owned(), port }
    }

    #[test]
    fn a_host_is_a_server_and_several_are_a_cluster() {
        let parse = |host, port, master| Mode::parse(host, port, master).unwrap();
        assert_eq!(parse("r", 7000, ""), Mode::Single(node("r", 7000)));
        assert_eq!(parse("r", 0, ""), Mode::Single(node("r", 6379)));
        assert_eq!(parse("::1", 0, ""), Mode::Single(node("::1", 6379)));
        let nodes = vec![node("a", 1), node("b", 2), node("::1", 3)];
        assert_eq!(parse("a:1, b:2,[::1]:3", 6379, ""), Mode::Cluster(nodes.clone()));
        assert_eq!(parse("a:1,", 0, ""), Mode::Cluster(vec![node("a", 1)]));
        let sentinel = Mode::Sentinel { master: "m".to_owned(), nodes };
        assert_eq!(parse("a:1,b:2,[::1]:3", 0, "m"), sentinel);
        assert_eq!(sentinel.to_string(), "m at a:1,b:2,[::1]:3");
        for wrong in ["", ",", "a:x", ":1", "[::1", "a:99999"] {
            assert!(Mode::parse(wrong, 0, "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_url_is_taken_apart_and_its_password_never_shown() {
        let options = RedisOptions::from_url("redis://me:s3cret@host:7001/5").unwrap();
        assert_eq!(options.mode, Mode::Single(node("host", 7001)));
        assert_eq!((&*options.user, &*options.password, options.db), ("me", "s3cret", 5));
        assert!(!format!("{options:?}").contains("s3cret"));
        let tls = RedisOptions::from_url("rediss://host").unwrap();
        assert!(tls.tls);
        let cluster = RedisOptions::from_url("redis://:p@a:1/,redis://b:2/").unwrap();
        assert_eq!(cluster.mode, Mode::Cluster(vec![node("a", 1), node("b", 2)]));
        for wrong in ["", "http://:s3cret@x", "redis://:s3cret@host:x", "s3cret"] {
            let error = RedisOptions::from_url(wrong).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
