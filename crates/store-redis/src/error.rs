//! What can go wrong with Redis, by what to do about it.

use dtmd_store::{BoxError, StoreError};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a store cannot be opened. Texts hold no password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is wrong; the text says which.
    #[error("Redis settings: {0}")]
    Options(String),
    /// Redis cannot be used.
    #[error("Redis at {location} cannot be used: {advice}")]
    Unusable {
        /// Where, without secrets.
        location: String,
        /// What to do.
        advice: String,
        /// Whether it may be better in a moment.
        is_passing: bool,
        /// What Redis or the system said.
        #[source]
        source: Option<BoxError>,
    },
    /// Another release made the data.
    #[error(
        "the data under this Redis prefix has the layout `{found}`, this release has `{ours}`; \
         use the release that made it, or another prefix"
    )]
    Layout {
        /// The layout found.
        found: String,
        /// The layout of this release.
        ours: String,
    },
    /// The system gives no thread.
    #[error("the thread of the Redis store cannot be started")]
    Thread(#[source] std::io::Error),
}

impl OpenError {
    /// Returns whether it is worth waiting and trying again: Redis could not be reached, or was not
    /// ready yet.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unusable { is_passing: true, .. })
    }
}

/// What an error means for the call that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection or the answer was lost: whether the call was made is unknown.
    Lost,
    /// Redis refused, and made nothing; it will take the call later.
    Later,
    /// As [`Trouble::Later`], and another server may be the master now.
    Moved,
    /// The script is not known there.
    NoScript,
    /// Redis refused, and made nothing: there is no memory.
    Full,
    /// Trying again will not help before a person has done something.
    Never,
}

impl Trouble {
    pub(crate) fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::NoScript => Self::NoScript,
                ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown => Self::Moved,
                ServerErrorKind::BusyLoading
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown => Self::Later,
                _ => Self::Never,
            },
            ErrorKind::Extension => match error.code() {
                Some("OOM") => Self::Full,
                Some("BUSY" | "MISCONF" | "NOREPLICAS") => Self::Later,
                _ => Self::Never,
            },
            ErrorKind::Io
            | ErrorKind::Parse
            | ErrorKind::ClusterConnectionNotFound
            | ErrorKind::MasterNameNotFoundBySentinel
            | ErrorKind::NoValidReplicasFoundBySentinel => Self::Lost,
            _ => Self::Never,
        }
    }
}

/// Returns what a person should do about an error.
pub(crate) fn advice(error: &RedisError) -> &'static str {
    match (error.kind(), error.code()) {
        (_, Some("NOAUTH" | "WRONGPASS")) | (ErrorKind::AuthenticationFailed, _) => {
            "user or password is wrong; check Store.User and Store.Password"
        }
        (_, Some("NOPERM")) => {
            "the user may not do this; allow it all commands on our keys, and scripts"
        }
        (_, Some("OOM")) => "Redis is full; give it memory (maxmemory), or keep less history",
        (_, Some("MISCONF")) => {
            "Redis cannot write its files and so takes no writes; look at its log and its disk"
        }
        (_, Some("NOREPLICAS")) => "too few replicas are connected (min-replicas-to-write)",
        (_, Some("READONLY")) => "this is a replica; give the master's address, or use Sentinel",
        (_, Some("CLUSTERDOWN")) => "the cluster has slots without a master; look at CLUSTER INFO",
        (_, Some("LOADING")) => "Redis is loading its data; wait",
        (_, Some("BUSY")) => "another script keeps Redis busy; SCRIPT KILL ends it",
        (_, Some("MOVED")) => {
            "this is a node of a cluster; give several hosts, separated by commas"
        }
        (_, Some("CROSSSLOT")) => "this is a cluster behind one address; give its nodes as hosts",
        (ErrorKind::Io, _) => "check that it runs, its address, and the network",
        (ErrorKind::ClusterConnectionNotFound, _) => "no node of the cluster can be reached",
        (ErrorKind::MasterNameNotFoundBySentinel, _) => "no Sentinel names a reachable master",
        _ => "look at its log",
    }
}

/// Returns why a store cannot be opened.
pub(crate) fn unusable(location: String, error: RedisError) -> OpenError {
    // Nobody was there, or not ready yet: trying again may help.
    let is_passing = matches!(Trouble::of(&error), Trouble::Lost | Trouble::Later | Trouble::Moved);
    let advice = advice(&error).to_owned();
    OpenError::Unusable { location, advice, is_passing, source: Some(error.into()) }
}

/// Returns the error of a call that reached its end without success.
pub(crate) fn unavailable(doing: &'static str, error: RedisError) -> StoreError {
    let advice = advice(&error);
    let source = Advised { advice, source: error };
    StoreError::Unavailable { doing, source: source.into() }
}

/// Returns the error of a call that made nothing for want of memory.
pub(crate) fn full(doing: &'static str, error: RedisError) -> StoreError {
    let source = Advised { advice: advice(&error), source: error };
    StoreError::Full { doing, source: source.into() }
}

#[derive(Debug, thiserror::Error)]
#[error("{advice}")]
struct Advised {
    advice: &'static str,
    source: RedisError,
}

/// Returns an error for an answer that Redis does not give.
pub(crate) fn unexpected(what: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, what).into()
}

/// Returns an error for a lost connection or answer.
pub(crate) fn timed_out(what: &'static str) -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, what).into()
}
