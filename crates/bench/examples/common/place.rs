//! Where a server that is measured keeps its transactions.

use anyhow::Result;
use dtmd_local_servers::{DatabaseOptions, Mariadb, Postgres, Redis, RedisOptions};

/// A private store that forces every commit to disk, and the configuration that names it.
pub(crate) struct Place {
    /// `Store: …`, as both dtmd and DTM take it.
    pub(crate) yaml: String,
    _server: Option<Box<dyn std::any::Any>>,
}

impl Place {
    /// Starts a store of DTM's driver.
    pub(crate) async fn start(driver: &str) -> Result<Self> {
        let forced = DatabaseOptions { fsync: true };
        let at = |port: u16, rest: &str| {
            format!("Store: {{Driver: {driver}, Host: 127.0.0.1, Port: {port}{rest}}}\n")
        };
        let (yaml, server): (_, Option<Box<dyn std::any::Any>>) = match driver {
            "mysql" => {
                let server = Mariadb::start(forced).await?;
                // DTM's scripts know this name only.
                server.make_database("dtm").await?;
                (at(server.port(), ", User: root, Db: dtm"), Some(Box::new(server)))
            }
            "postgres" => {
                let server = Postgres::start(forced).await?;
                let rest = ", User: postgres, Db: postgres";
                (at(server.port(), rest), Some(Box::new(server)))
            }
            "redis" => {
                let server = Redis::start(RedisOptions::default()).await?;
                (at(server.port(), ""), Some(Box::new(server)))
            }
            embedded => (format!("Store: {{Driver: {embedded}}}\n"), None),
        };
        Ok(Self { yaml, _server: server })
    }
}
