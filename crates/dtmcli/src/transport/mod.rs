//! How the server and the branches are reached.

#[cfg(feature = "grpc")]
pub(crate) mod grpc;
#[cfg(feature = "grpc")]
pub(crate) mod grpc_server;
#[cfg(feature = "http")]
pub(crate) mod http;
#[cfg(any(feature = "grpc", feature = "tonic-server"))]
pub(crate) mod messages;
#[cfg(feature = "http")]
pub(crate) mod query;
#[cfg(feature = "http")]
pub(crate) mod server;
mod tls;

use std::time::Duration;

use dtmcli_barrier::BoxError;

use crate::BranchError;
use crate::error::Error;

pub(crate) use tls::Tls;

/// How long a connection may take to be there.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The URL cannot be called; nothing was sent.
    Url(String),
    /// There is no connection; nothing was sent.
    Connect(BoxError),
    /// It was sent and there is no answer.
    Broken(BoxError),
}

impl CallError {
    pub(crate) fn timeout(after: Duration) -> Self {
        Self::Broken(format!("nothing within {} ms", after.as_millis()).into())
    }

    /// As the error of a call of the server.
    pub(crate) fn into_error(self, what: &'static str, to: &str) -> Error {
        let to = to.to_owned();
        match self {
            Self::Url(url) => Error::Invalid(format!("this cannot be called: {url}")),
            Self::Connect(source) => Error::Connect { what, to, source },
            Self::Broken(source) => Error::Unanswered { what, to, source },
        }
    }

    /// As the error of a call of a branch: whatever it was, it says nothing about the business.
    pub(crate) fn into_branch_error(self, url: &str) -> BranchError {
        match self {
            Self::Url(url) => BranchError::retry(format!("this cannot be called: {url}")),
            Self::Connect(source) => {
                BranchError::retry(NoAnswer(format!("no connection to {url}"), source))
            }
            Self::Broken(source) => {
                BranchError::retry(NoAnswer(format!("no answer from {url}"), source))
            }
        }
    }
}

/// A branch that was not reached, with the cause as its source.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoAnswer(String, #[source] BoxError);
