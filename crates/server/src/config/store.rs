//! Where transactions are kept.

use std::path::PathBuf;
use std::time::Duration;

use super::error::Problem;
use super::secret::Secret;
use super::settings::Reader;

/// Which store keeps the transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreDriver {
    /// The segmented log on this machine's disk; DTM's `boltdb` means it too.
    #[default]
    Embedded,
    /// Nothing outlives the process.
    Memory,
    /// Redis: one server, Sentinel or Cluster.
    Redis,
    /// MySQL or MariaDB.
    Mysql,
    /// PostgreSQL.
    Postgres,
    /// SQL Server; refused.
    SqlServer,
}

impl StoreDriver {
    /// Returns the driver of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "boltdb" | "embedded" => Some(Self::Embedded),
            "memory" => Some(Self::Memory),
            "redis" => Some(Self::Redis),
            "mysql" => Some(Self::Mysql),
            "postgres" => Some(Self::Postgres),
            "sqlserver" => Some(Self::SqlServer),
            _ => None,
        }
    }

    /// Returns the driver's name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Mysql => "mysql",
            Self::Postgres => "postgres",
            Self::SqlServer => "sqlserver",
        }
    }
}

/// The store and its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Which store. Since 0.1.0.
    pub driver: StoreDriver,
    /// The embedded store's directory. Since 0.1.0.
    pub path: PathBuf,
    /// DTM's expiry of all data. Ours never expires unfinished work, so this has no effect.
    /// Since 0.1.0.
    pub data_expire: Duration,
    /// How long a finished transaction is kept. Since 0.1.0.
    pub finished_data_expire: Duration,
    /// The database server, for stores that have one. Since 0.1.0.
    pub host: String,
    /// Its port; 0 is none. Since 0.1.0.
    pub port: u16,
    /// Its user. Since 0.1.0.
    pub user: String,
    /// The user's password. Since 0.1.0.
    pub password: Secret,
    /// The database. Since 0.1.0.
    pub db: String,
    /// PostgreSQL's search path. Since 0.1.0.
    pub schema: String,
    /// Connections to an SQL database, at most. Since 0.1.0.
    pub max_open_conns: usize,
    /// SQL connections that write, at most. Since 0.1.0.
    pub max_write_conns: usize,
    /// Idle connections kept, at most. Since 0.1.0.
    pub max_idle_conns: usize,
    /// The age at which an SQL connection is replaced. Since 0.1.0.
    pub conn_max_life_time: Duration,
    /// Whether to speak TLS with the database. Since 0.1.0.
    pub tls: bool,
    /// More authorities for the database's certificate. Since 0.1.0.
    pub tls_ca_file: Option<PathBuf>,
    /// The master's name at the Sentinels. Since 0.1.0.
    pub sentinel_master: String,
    /// How Redis keys begin. Since 0.1.0.
    pub redis_prefix: String,
    /// Redis replicas that must have a change before it is acknowledged. Since 0.1.0.
    pub redis_wait_replicas: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            driver: StoreDriver::Embedded,
            path: PathBuf::from("./dtmd-data"),
            data_expire: Duration::from_secs(604_800),
            finished_data_expire: Duration::from_secs(86_400),
            host: String::new(),
            port: 0,
            user: String::new(),
            password: Secret::default(),
            db: "dtm".into(),
            schema: "public".into(),
            max_open_conns: 500,
            max_write_conns: 1,
            max_idle_conns: 500,
            conn_max_life_time: Duration::from_secs(300),
            tls: false,
            tls_ca_file: None,
            sentinel_master: String::new(),
            redis_prefix: "{a}".into(),
            redis_wait_replicas: 0,
        }
    }
}

impl StoreConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let drivers = "boltdb, embedded, memory, mysql, postgres or redis";
        Self {
            driver: reader.parsed("Store.Driver", drivers, StoreDriver::parse),
            path: PathBuf::from(reader.text("Store.Path")),
            data_expire: reader.duration("Store.DataExpire"),
            finished_data_expire: reader.duration("Store.FinishedDataExpire"),
            host: reader.text("Store.Host").into(),
            port: reader.integer("Store.Port"),
            user: reader.text("Store.User").into(),
            password: Secret::new(reader.text("Store.Password")),
            db: reader.text("Store.Db").into(),
            schema: reader.text("Store.Schema").into(),
            max_open_conns: reader.integer("Store.MaxOpenConns"),
            max_write_conns: reader.parsed("Store.MaxWriteConns", "a number from 1 to 64", few),
            max_idle_conns: reader.integer("Store.MaxIdleConns"),
            conn_max_life_time: reader.duration("Store.ConnMaxLifeTime"),
            tls: reader.parsed("Store.Tls", "off or on", on_or_off),
            tls_ca_file: Some(reader.text("Store.TlsCaFile"))
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            sentinel_master: reader.text("Store.SentinelMaster").into(),
            redis_prefix: reader.text("Store.RedisPrefix").into(),
            redis_wait_replicas: reader.integer("Store.RedisWaitReplicas"),
        }
    }

    /// Returns how long finished transactions are kept.
    pub fn retention(&self) -> Duration {
        self.finished_data_expire
    }

    /// Checks what the types cannot say. DTM's texts are kept, trailing blanks included
    /// (spec 06 §1), because people search for them.
    pub(super) fn validate(&self, problems: &mut Vec<Problem>) {
        let host = ("Store.Host", self.host.is_empty());
        let port = ("Store.Port", self.port == 0);
        let user = ("Store.User", self.user.is_empty());
        let schema = ("Store.Schema", self.schema.is_empty());
        let checks = match self.driver {
            StoreDriver::Embedded if self.path.as_os_str().is_empty() => {
                problems.push(Problem::new("Store.Path", "Store.Path should name a directory"));
                return;
            }
            StoreDriver::Embedded | StoreDriver::Memory => return,
            StoreDriver::SqlServer => {
                let text = "Store.Driver sqlserver is not supported; move to mysql or postgres";
                problems.push(Problem::new("Store.Driver", text));
                return;
            }
            StoreDriver::Redis => {
                // A list of nodes names their ports; DTM wants the key all the same.
                let port = ("Store.Port", self.port == 0 && !self.host.contains(':'));
                vec![(host, "Redis host not valid"), (port, "Redis port not valid")]
            }
            StoreDriver::Mysql | StoreDriver::Postgres => vec![
                (host, "Db host not valid "),
                (port, "Db port not valid "),
                (user, "Db user not valid "),
                (schema, "Postgres schema not valid"),
            ],
        };
        for ((key, wrong), text) in checks {
            if wrong {
                problems.push(Problem::new(key, text));
            }
        }
    }
}

fn on_or_off(word: &str) -> Option<bool> {
    match word {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// Each of them is a thread.
fn few(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number| (1..=64).contains(number))
}
