//! Where global transactions live: the [`Store`] trait, the memory store, and the suite that every
//! store must pass.
//!
//! The way in:
//!
//! 1. [`Store`]: what a store promises.
//! 2. [`Write`]: the conditional changes a batch is made of.
//! 3. [`MemoryStore`]: the whole promise in its simplest form.
//! 4. [`conformance`]: the promise as tests.
//!
//! A store holds no protocol rules: it keeps what it is told, under the guarantees of the trait. It
//! must not know the engine, or any other store.

pub mod conformance;
mod error;
mod memory;
pub mod record;
mod store;
pub mod wall;

pub use error::{BoxError, StoreError, WriteError};
pub use memory::MemoryStore;
pub use store::{
    Check, Claim, Health, Kv, KvPage, Lease, ListFilter, ListPage, Oldest, Purge, Store, StoreInfo,
    Totals, Write,
};
