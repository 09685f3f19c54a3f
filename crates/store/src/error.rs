//! Why a store did not do what was asked, by what the caller does next.

use dtmd_protocol::Gid;

/// The source of an error, whatever the driver.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why one write of a batch was not made. Its neighbours are not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The gid or key is taken. Load what is there and decide again.
    #[error("{0} already exists")]
    AlreadyExists(String),
    /// What is stored is not what the writer believed. Reload and decide again.
    #[error("{0} has been changed by another writer")]
    Conflict(String),
    /// There is nothing to change.
    #[error("{0} does not exist")]
    NotFound(String),
}

/// Why a call failed as a whole.
///
/// `Display` never repeats the source; log the whole chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store did not answer: a read may be repeated; the outcome of a write is unknown, and
    /// the caller must reload before it acts on it.
    #[error("the store is unavailable while {doing}")]
    Unavailable {
        /// What was attempted.
        doing: &'static str,
        /// The driver's error.
        source: BoxError,
    },
    /// The store has no room. Nothing of the batch was written; free some and the store goes on.
    #[error("the store is full while {doing}")]
    Full {
        /// What was attempted.
        doing: &'static str,
        /// The driver's error.
        source: BoxError,
    },
    /// A stored record cannot be read back. An operator has to look.
    #[error("the stored record of {gid} is unreadable")]
    Corrupt {
        /// Whose.
        gid: Gid,
        /// Why.
        source: BoxError,
    },
}
