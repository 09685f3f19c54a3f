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
    /// Redis; not in this build.
    Redis,
    /// MySQL or MariaDB; not in this build.
    Mysql,
    /// PostgreSQL; not in this build.
    Postgres,
    /// SQL Server; not in this build.
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
        }
    }
}

impl StoreConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let drivers = "boltdb, embedded or memory";
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
            StoreDriver::SqlServer => Vec::new(),
            StoreDriver::Redis => {
                vec![(host, "Redis host not valid"), (port, "Redis port not valid")]
            }
            StoreDriver::Mysql | StoreDriver::Postgres => vec![
                (host, "Db host not valid "),
                (port, "Db port not valid "),
                (user, "Db user not valid "),
                (schema, "Postgres schema not valid"),
            ],
        };
        let driver = self.driver.as_str();
        let text = format!(
            "Store.Driver {driver} is not in this build yet; use embedded or memory instead"
        );
        problems.push(Problem::new("Store.Driver", text));
        for ((key, wrong), text) in checks {
            if wrong {
                problems.push(Problem::new(key, text));
            }
        }
    }
}
