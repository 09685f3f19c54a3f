//! What a store needs to know to be opened.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::SqlError;

/// Which kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// MySQL, MariaDB and what speaks their protocol (TiDB, Galera clusters).
    Mysql,
    /// PostgreSQL and what speaks its protocol (CockroachDB, YugabyteDB).
    Postgres,
}

impl Driver {
    /// Returns the word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Postgres => "postgres",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Mysql => 3306,
            Self::Postgres => 5432,
        }
    }
}

/// Whether and how the connection is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Tls {
    /// Not encrypted.
    #[default]
    Off,
    /// Encrypted, and the server's certificate is checked.
    On {
        /// A file of certificates (PEM) that are trusted beside the system's.
        ca: Option<PathBuf>,
    },
}

/// How a store is opened. [`SqlOptions::new`] has DTM's defaults.
#[derive(Clone, PartialEq, Eq)]
pub struct SqlOptions {
    /// Which database.
    pub driver: Driver,
    /// Its host name or address.
    pub host: String,
    /// Its port; 0 is the driver's usual one.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The user's password; shown nowhere.
    pub password: String,
    /// The database. On MySQL it is made if it does not exist.
    pub database: String,
    /// PostgreSQL's search path; made if it does not exist.
    pub schema: String,
    /// DTM's table of globals; may be qualified (`dtm.trans_global`).
    pub trans_global: String,
    /// DTM's table of branches.
    pub trans_branch_op: String,
    /// DTM's table of keys.
    pub kv: String,
    /// Connections at most; two at least are used.
    pub max_open_conns: usize,
    /// Of these, connections that write, at most: so many commits are on their way at a time.
    pub max_write_conns: usize,
    /// Connections kept while not in use, at most.
    pub max_idle_conns: usize,
    /// How old a connection may become, in minutes; 0 is for ever.
    pub conn_max_life_time: u64,
    /// In which zone `datetime` columns of MySQL are written and read, in seconds east of UTC.
    /// `None` is UTC. Set it where the tables are shared with DTM servers, to their zone
    /// (`TimeZoneOffset`, spec 06 §1). PostgreSQL's columns carry their zone.
    pub time_zone_seconds: Option<i32>,
    /// Whether the connection is encrypted.
    pub tls: Tls,
    /// Whether [`crate::SqlStore::open`] makes what is missing in the schema; otherwise it refuses
    /// and says which statements are missing.
    pub migrate: bool,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one exchange with the database may take: longer than it may wait for a lock (3 s).
    /// Counting, lists and the clean-up have longer.
    pub timeout: Duration,
    /// How long a commit is tried again while the database fails, counted from its begin, before
    /// the store says that it is unavailable.
    pub retry_for: Duration,
    /// For tests: how far this process' clock is taken to be ahead, in microseconds.
    #[doc(hidden)]
    pub clock_ahead_micros: i64,
}

impl SqlOptions {
    /// Returns options with DTM's defaults for a database on this machine.
    pub fn new(driver: Driver) -> Self {
        Self {
            driver,
            host: "127.0.0.1".to_owned(),
            port: 0,
            user: String::new(),
            password: String::new(),
            database: "dtm".to_owned(),
            schema: "public".to_owned(),
            trans_global: "trans_global".to_owned(),
            trans_branch_op: "trans_branch_op".to_owned(),
            kv: "kv".to_owned(),
            max_open_conns: 500,
            max_write_conns: 1,
            max_idle_conns: 500,
            conn_max_life_time: 5,
            time_zone_seconds: None,
            tls: Tls::Off,
            migrate: true,
            connect_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(4),
            retry_for: Duration::from_secs(4),
            clock_ahead_micros: 0,
        }
    }

    /// Returns options from `mysql://user:password@host:port/database` or `postgres://…`.
    ///
    /// # Errors
    ///
    /// [`SqlError::Options`], which does not repeat the URL: it may hold a password.
    pub fn from_url(url: &str) -> Result<Self, SqlError> {
        let bad = |text: &str| SqlError::Options(text.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("the URL has no scheme"))?;
        let driver = match scheme {
            "mysql" | "mariadb" => Driver::Mysql,
            "postgres" | "postgresql" => Driver::Postgres,
            _ => return Err(bad("the URL's scheme must be mysql or postgres")),
        };
        let mut options = Self::new(driver);
        let (rest, _) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = server.rsplit_once('@').unwrap_or(("", server));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (address, ""),
        };
        options.user = unescape(user);
        options.password = unescape(password);
        options.host = host.trim_matches(['[', ']']).to_owned();
        if !port.is_empty() {
            options.port = port.parse().map_err(|_| bad("the URL's port is not a number"))?;
        }
        if !database.is_empty() {
            options.database = unescape(database);
        }
        if options.host.is_empty() {
            return Err(bad("the URL has no host"));
        }
        Ok(options)
    }

    /// Returns the port that is used.
    pub fn port(&self) -> u16 {
        if self.port == 0 { self.driver.default_port() } else { self.port }
    }

    /// Returns how many connections write: one at least, and one is left for reads.
    pub(crate) fn writers(&self) -> usize {
        self.max_write_conns.min(self.max_open_conns.saturating_sub(1)).max(1)
    }

    /// Returns where the database is, without secrets.
    pub fn location(&self) -> String {
        let (driver, host, port) = (self.driver.as_str(), &self.host, self.port());
        format!("{driver}://{}@{host}:{port}/{}", self.user, self.database)
    }

    /// Checks what is put into statements as it is.
    pub(crate) fn validate(&self) -> Result<(), SqlError> {
        let plain = |name: &str| {
            let mut chars = name.chars();
            chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
                && chars.all(|c| c.is_ascii_alphanumeric() || "_$-".contains(c))
        };
        let names = [
            ("the table of globals", &self.trans_global),
            ("the table of branches", &self.trans_branch_op),
            ("the table of keys", &self.kv),
        ];
        for (what, name) in names {
            if name.split('.').count() > 2 || !name.split('.').all(plain) {
                return Err(SqlError::Options(format!(
                    "{what}: '{name}' is not a name; use letters, digits, '_', '$' and '-'"
                )));
            }
        }
        if self.driver == Driver::Postgres && !plain(&self.schema) {
            return Err(SqlError::Options(format!("'{}' is not a schema's name", self.schema)));
        }
        if self.time_zone_seconds.is_some_and(|seconds| seconds.abs() > 14 * 3600) {
            return Err(SqlError::Options("the time zone is more than 14 hours away".to_owned()));
        }
        Ok(())
    }

    /// Seconds east of UTC in which wall-clock columns are written.
    pub(crate) fn zone(&self) -> i64 {
        match self.driver {
            Driver::Mysql => i64::from(self.time_zone_seconds.unwrap_or(0)),
            Driver::Postgres => 0,
        }
    }
}

impl fmt::Debug for SqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlOptions")
            .field("location", &self.location())
            .field("schema", &self.schema)
            .field("tables", &[&self.trans_global, &self.trans_branch_op, &self.kv])
            .field("max_open_conns", &self.max_open_conns)
            .field("max_write_conns", &self.max_write_conns)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Undoes percent-encoding; what is not well-formed stays.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
