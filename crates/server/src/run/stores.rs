//! Opening the store that the configuration names.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use dtmd_store::{MemoryStore, Store};
use dtmd_store_embedded::{EmbeddedStore, Options};
use dtmd_store_redis::{Mode, OpenError, RedisOptions, RedisStore};
use dtmd_store_sql::{Driver, SqlError, SqlOptions, SqlStore, Tls};
use tracing::{info, warn};

use crate::config::{Config, StoreConfig, StoreDriver};
use crate::logs;

/// How often a database that cannot be reached is tried again while the server starts.
const OPEN_AGAIN: Duration = Duration::from_secs(3);

/// Opens the store. One that cannot be reached yet is waited for, as DTM does; a wrong password or
/// a missing database is an error at once.
///
/// # Errors
///
/// The store's own, which says what to do.
pub(super) async fn open(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let shared = !matches!(config.store.driver, StoreDriver::Memory | StoreDriver::Embedded);
    if shared {
        // A database that does not answer takes seconds to be given up.
        let StoreConfig { host, port, .. } = &config.store;
        info!(target: logs::START, %host, port, "opening the store, {}", config.store.driver.as_str());
    }
    loop {
        match open_once(config).await {
            Err(error) if is_passing(&error) => {
                let seconds = OPEN_AGAIN.as_secs();
                warn!("waiting for the store: {error:#}; trying again in {seconds} s");
                tokio::time::sleep(OPEN_AGAIN).await;
            }
            opened => return opened,
        }
    }
}

async fn open_once(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let store = &config.store;
    Ok(match store.driver {
        StoreDriver::Memory => Arc::new(MemoryStore::new()),
        StoreDriver::Embedded => {
            let path = &store.path;
            let opened = EmbeddedStore::open(path, Options::default())
                .with_context(|| format!("the store in {} cannot be opened", path.display()))?;
            Arc::new(opened)
        }
        StoreDriver::Mysql | StoreDriver::Postgres => {
            Arc::new(SqlStore::open(sql_options(config)?).await?)
        }
        StoreDriver::Redis => Arc::new(RedisStore::open(redis_options(store)?).await?),
        StoreDriver::SqlServer => bail!("Store.Driver sqlserver is not supported"),
    })
}

/// Whether nobody has answered yet, so that it may be better in a moment.
fn is_passing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<SqlError>().is_some_and(SqlError::is_passing)
        || error.downcast_ref::<OpenError>().is_some_and(OpenError::is_passing)
}

/// Returns how the SQL database of the configuration is opened.
///
/// # Errors
///
/// The configuration names no SQL database.
pub(crate) fn sql_options(config: &Config) -> anyhow::Result<SqlOptions> {
    let store = &config.store;
    let driver = match store.driver {
        StoreDriver::Mysql => Driver::Mysql,
        StoreDriver::Postgres => Driver::Postgres,
        other => bail!("Store.Driver is {}, not mysql or postgres", other.as_str()),
    };
    let offset = config.zone.offset_seconds();
    Ok(SqlOptions {
        host: store.host.clone(),
        port: store.port,
        user: store.user.clone(),
        password: store.password.reveal().to_owned(),
        database: store.db.clone(),
        schema: store.schema.clone(),
        max_open_conns: store.max_open_conns,
        max_write_conns: store.max_write_conns,
        max_idle_conns: store.max_idle_conns,
        conn_max_life_time: store.conn_max_life_time.as_secs().div_ceil(60),
        time_zone_seconds: (offset != 0).then_some(offset),
        tls: if store.tls { Tls::On { ca: store.tls_ca_file.clone() } } else { Tls::Off },
        ..SqlOptions::new(driver)
    })
}

/// Returns how the Redis of the configuration is opened.
///
/// # Errors
///
/// The hosts are no addresses.
fn redis_options(store: &StoreConfig) -> anyhow::Result<RedisOptions> {
    let mode = Mode::parse(&store.host, store.port, &store.sentinel_master)?;
    Ok(RedisOptions {
        user: store.user.clone(),
        password: store.password.reveal().to_owned(),
        // DTM's default is a name, which means the first database.
        db: store.db.parse().unwrap_or(0),
        tls: store.tls,
        tls_ca_file: store.tls_ca_file.clone(),
        prefix: store.redis_prefix.clone(),
        wait_replicas: store.redis_wait_replicas,
        // Whoever opens it here tries again, and says each time what it waits for.
        open_for: Duration::ZERO,
        ..RedisOptions::new(mode)
    })
}
