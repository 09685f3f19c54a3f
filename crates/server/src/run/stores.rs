//! Opening the store that the configuration names.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use dtmd_store::{MemoryStore, Store};
use dtmd_store_embedded::{EmbeddedStore, Options};

use crate::config::{Config, StoreDriver};

/// Opens the store.
///
/// # Errors
///
/// The store's own, which says what to do.
pub(super) fn open(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    match config.store.driver {
        StoreDriver::Memory => Ok(Arc::new(MemoryStore::new())),
        StoreDriver::Embedded => {
            let path = &config.store.path;
            let store = EmbeddedStore::open(path, Options::default())
                .with_context(|| format!("the store in {} cannot be opened", path.display()))?;
            Ok(Arc::new(store))
        }
        other @ (StoreDriver::Redis
        | StoreDriver::Mysql
        | StoreDriver::Postgres
        | StoreDriver::SqlServer) => {
            bail!(
                "Store.Driver {} is not in this build yet; use embedded or memory",
                other.as_str()
            )
        }
    }
}
