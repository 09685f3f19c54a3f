//! The trait, and the words it speaks.

use std::sync::Arc;

use async_trait::async_trait;
use dtmd_protocol::{Gid, Global, GlobalStatus, Revision, Timestamp, TransType};

use crate::error::{StoreError, WriteError};

/// One conditional change.
#[derive(Debug, Clone)]
pub enum Write {
    /// Stores a new global.
    ///
    /// Fails with [`WriteError::AlreadyExists`] if the gid is taken.
    Create(Arc<Global>),
    /// Replaces a global by a later state of it: the head, changed rows, added rows and the wake-up
    /// together or not at all.
    ///
    /// Holds if the stored revision and epoch are those of `before`; otherwise
    /// [`WriteError::Conflict`]. `after.revision` is `before.revision` plus one or more (several
    /// steps may fold into one write). `before` lets a store write the difference only.
    Update {
        /// What the writer believes is stored.
        before: Arc<Global>,
        /// What is to be stored.
        after: Arc<Global>,
    },
    /// Takes, renews or hands back the right to work on a global. Changes nothing else, and does
    /// not count as a revision.
    Lease(Lease),
    /// Stores or deletes one key (topics).
    ///
    /// `expected` is the stored version: 0 means the key must not exist
    /// ([`WriteError::AlreadyExists`]); otherwise it must match ([`WriteError::Conflict`], or
    /// [`WriteError::NotFound`] if the key is gone). A stored value gets version `expected + 1`.
    Kv {
        /// Category, for instance `topics`.
        cat: String,
        /// Key within it.
        key: String,
        /// The version that must be stored.
        expected: u64,
        /// The new value; `None` deletes.
        value: Option<String>,
        /// When, for the record's times.
        now: Timestamp,
    },
}

/// A change of who works on a global, or until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The global.
    pub gid: Gid,
    /// The stored revision must be this; otherwise [`WriteError::Conflict`].
    pub revision: Revision,
    /// The stored epoch must be this; otherwise [`WriteError::Conflict`].
    pub epoch: u64,
    /// Who works on it from now on.
    pub owner: Arc<str>,
    /// The epoch from now on: `epoch` to renew or hand back, `epoch + 1` to take.
    pub new_epoch: u64,
    /// The wake-up from now on.
    pub wake_at: Timestamp,
}

/// Takes due globals in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who takes them.
    pub owner: Arc<str>,
    /// Due are the unfinished ones whose wake-up is not after this.
    pub due: Timestamp,
    /// Their wake-up from now on: the end of the lease.
    pub until: Timestamp,
    /// How many at most; oldest due first.
    pub limit: usize,
}

/// Which globals to list. All given conditions hold together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListFilter {
    /// In this status.
    pub status: Option<GlobalStatus>,
    /// Of this type.
    pub trans_type: Option<TransType>,
    /// Created at or after.
    pub created_from: Option<Timestamp>,
    /// Created at or before.
    pub created_to: Option<Timestamp>,
    /// Unfinished ones whose wake-up is after this.
    pub wakes_after: Option<Timestamp>,
}

/// One page of a list, newest first.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// The globals.
    pub globals: Vec<Arc<Global>>,
    /// Where to go on; empty when there is no more. Opaque to callers.
    pub next_position: String,
}

/// One stored key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kv {
    /// Category.
    pub cat: String,
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// Counts its changes, from 1.
    pub version: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it changed last.
    pub updated: Timestamp,
}

/// One page of keys, in key order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KvPage {
    /// The keys.
    pub entries: Vec<Kv>,
    /// Where to go on; empty when there is no more. Opaque to callers.
    pub next_position: String,
}

/// What a clean-up of finished globals did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purge {
    /// How many were deleted.
    pub deleted: usize,
    /// Whether more are waiting to be.
    pub more: bool,
}

/// How many globals there are, by type and status. Cheap: kept, not counted.
pub type Totals = Vec<(TransType, GlobalStatus, u64)>;

/// What a store is, for the engine and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// Its kind, for instance `embedded`.
    pub kind: &'static str,
    /// Where it is, without secrets.
    pub location: String,
    /// Whether this process alone uses it. Leases of an exclusive store end with the process: all
    /// unfinished globals are due when it is opened.
    pub exclusive: bool,
    /// Whether what is acknowledged survives the loss of this process and of its machine's power.
    pub durable: bool,
}

/// How something about a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Good,
    /// It works, and may lose what was acknowledged, or be slow, or surprise.
    Warning,
    /// It does not work.
    Bad,
}

impl Health {
    /// Returns the word for it: `good`, `warning` or `bad`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What, in a word or two: `durability`.
    pub name: &'static str,
    /// How it is.
    pub health: Health,
    /// What was found, and what to do about it; without secrets.
    pub text: String,
}

/// What has waited longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Oldest {
    /// When the oldest unfinished global was accepted; none if all are finished.
    pub created: Option<Timestamp>,
    /// The earliest wake-up of an unfinished one.
    pub due: Option<Timestamp>,
}

/// The durable home of global transactions.
///
/// `commit`, `claim_due`, `purge` and `reset` are called by the engine's committer, and may block
/// its thread: by one thread at a time, or by as many as [`Store::writers`] says. The reads are
/// called from any thread, at any time, and must not wait for a flush.
#[async_trait]
pub trait Store: Send + Sync {
    /// Makes a batch of changes durable, in their order; one result for each.
    ///
    /// # Atomicity
    ///
    /// Each write is made whole or not at all; the batch is not a transaction, a refused write does
    /// not affect its neighbours. A later write of the batch sees the earlier ones. After `Ok` every
    /// write that holds `Ok` survives the loss of this process (see [`StoreInfo::durable`]).
    ///
    /// # Errors
    ///
    /// - [`StoreError::Full`]: nothing of the batch was written.
    /// - [`StoreError::Unavailable`]: the outcome of every write of the batch is unknown. The caller
    ///   acknowledges none and reloads before it acts.
    async fn commit(&self, batch: &[Write]) -> Result<Vec<Result<(), WriteError>>, StoreError>;

    /// Makes one change at once, if this store never waits for a device, a network or another
    /// thread: then it is called instead of [`Store::commit`], by any thread, at any time. A store
    /// returns always `Some` or always `None`.
    fn commit_at_once(&self, write: &Write) -> Option<Result<(), WriteError>> {
        let _ = write;
        None
    }

    /// Returns how many batches may be on their way at a time, with claims beside them. No two of
    /// these batches hold writes of one global. Where commits wait for a network and another
    /// process, more of them wait together.
    fn writers(&self) -> usize {
        1
    }

    /// Returns a global, with everything that was committed before the call.
    async fn load(&self, gid: &Gid) -> Result<Option<Arc<Global>>, StoreError>;

    /// Takes due, unfinished globals: sets owner, wake-up and epoch + 1, and returns them so.
    ///
    /// Of two callers at one time, each global goes to one.
    async fn claim_due(&self, claim: &Claim) -> Result<Vec<Arc<Global>>, StoreError>;

    /// Returns a page of globals, newest first, by keyset: a position stays valid while globals
    /// come and go. An unknown position is an empty page.
    async fn list(
        &self,
        filter: &ListFilter,
        position: &str,
        limit: usize,
    ) -> Result<ListPage, StoreError>;

    /// Returns one key.
    async fn load_kv(&self, cat: &str, key: &str) -> Result<Option<Kv>, StoreError>;

    /// Returns a page of a category's keys, in key order.
    async fn list_kv(&self, cat: &str, position: &str, limit: usize) -> Result<KvPage, StoreError>;

    /// Returns how many globals there are.
    async fn totals(&self) -> Result<Totals, StoreError>;

    /// Returns what has waited longest. Cheap, for gauges; a store that cannot tell says nothing.
    async fn oldest(&self) -> Result<Oldest, StoreError> {
        Ok(Oldest::default())
    }

    /// Looks at everything an operator should know: reachability, schema, clocks, persistence. May
    /// take seconds. A store with nothing to tell says nothing.
    async fn examine(&self) -> Vec<Check> {
        Vec::new()
    }

    /// Deletes globals that ended before a time, at most `limit`. Never an unfinished one.
    async fn purge(&self, ended_before: Timestamp, limit: usize) -> Result<Purge, StoreError>;

    /// Answers if the store can be reached and written to.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Empties the store. For tests and for `dtmd serve --reset`.
    async fn reset(&self) -> Result<(), StoreError>;

    /// Returns what it is.
    fn info(&self) -> StoreInfo;
}
