//! What can go wrong, by what the caller does next.

use std::time::Duration;

use dtmcli_barrier::{BoxError, BranchError};

/// Why a call of the SDK did not do what was asked.
///
/// Three questions decide what comes next, and each has a method: [`is_retryable`](Self::is_retryable)
/// (the same call with the same gid may do better), [`is_rolled_back`](Self::is_rolled_back) (it is
/// certain that nothing stays), [`is_unknown`](Self::is_unknown) (it may or may not have happened:
/// wait or query before you conclude).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing was sent: what was asked for cannot be. Mend the call.
    #[error("{0}")]
    Invalid(String),
    /// The server said `FAILURE`: final for this request. A gid used before, a global transaction
    /// that is not prepared any more, a missing permission.
    #[error("{what} was refused: {reason}")]
    Failure {
        /// What was asked.
        what: &'static str,
        /// The server's text.
        reason: String,
    },
    /// The global transaction was rolled back: its status is `failed`.
    #[error("the global transaction {gid} was rolled back: {reason}")]
    RolledBack {
        /// The global transaction.
        gid: String,
        /// Why, as the server tells it.
        reason: String,
    },
    /// The caller's own code failed and the global transaction was aborted because of it.
    #[error("the global transaction {gid} was aborted: {cause}")]
    Aborted {
        /// The global transaction.
        gid: String,
        /// What the caller's code, or a branch that it called, answered.
        cause: BranchError,
    },
    /// The global transaction is not final yet. It goes on without the caller: **not** rolled back.
    #[error("the global transaction {gid} is not final after {} ms (last seen: {last})", waited.as_millis())]
    Unfinished {
        /// The global transaction.
        gid: String,
        /// How long was waited.
        waited: Duration,
        /// The status, or the error, that was seen last.
        last: String,
    },
    /// `ONGOING`: the work goes on; ask again.
    #[error("{what} goes on: {text}")]
    Ongoing {
        /// What was asked.
        what: &'static str,
        /// The server's text.
        text: String,
    },
    /// Nobody accepts connections there. Nothing was sent.
    #[error("{what}: no connection to {to}")]
    Connect {
        /// What was asked.
        what: &'static str,
        /// The address.
        to: String,
        /// What the system said.
        source: BoxError,
    },
    /// The request was sent and no answer came: it may or may not have been handled.
    #[error("{what}: no answer from {to}")]
    Unanswered {
        /// What was asked.
        what: &'static str,
        /// The address.
        to: String,
        /// What happened to the answer.
        source: BoxError,
    },
    /// The answer is an error that says nothing about the transaction, or cannot be read.
    #[error("{what}: {status}: {text}")]
    Unexpected {
        /// What was asked.
        what: &'static str,
        /// The HTTP status or the gRPC code, as a number.
        status: u16,
        /// The answer's text.
        text: String,
    },
    /// Whether the local transaction of a message was committed is not known. The server will ask
    /// query-prepared and act by its answer: do not do it again under another gid.
    #[error(
        "the local transaction of the message {gid} may or may not have been committed: {cause}"
    )]
    Unclear {
        /// The global transaction.
        gid: String,
        /// What the database, or the query, answered.
        cause: BranchError,
    },
    /// A workflow stopped at a step whose outcome is not known. The server has it resumed; to
    /// execute it again, with the same gid, is right as well.
    #[error("the workflow {gid} stopped, and will be resumed: {cause}")]
    Suspended {
        /// The global transaction.
        gid: String,
        /// What the step answered.
        cause: BranchError,
    },
    /// This server, or this transport, cannot do that.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl Error {
    /// Whether the same call, with the same gid, may succeed later. `false` asks for a decision:
    /// mend the call, give up, or (see [`is_unknown`](Self::is_unknown)) find out first.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Ongoing { .. }
            | Self::Connect { .. }
            | Self::Unanswered { .. }
            | Self::Suspended { .. } => true,
            // 4xx of HTTP, and the codes of gRPC that say the request itself is at fault.
            Self::Unexpected { status, .. } => {
                !matches!(status, 400..=408 | 410..=424 | 426..=428 | 3 | 5 | 7 | 12 | 16)
            }
            Self::Invalid(_)
            | Self::Failure { .. }
            | Self::RolledBack { .. }
            | Self::Aborted { .. }
            | Self::Unfinished { .. }
            | Self::Unclear { .. }
            | Self::Unsupported(_) => false,
        }
    }

    /// Whether it is certain that the global transaction has no lasting effect, now or as soon as
    /// its branches are undone.
    #[must_use]
    pub fn is_rolled_back(&self) -> bool {
        matches!(self, Self::RolledBack { .. } | Self::Aborted { .. })
    }

    /// Whether what was asked may have happened or may yet happen.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(
            self,
            Self::Unfinished { .. }
                | Self::Ongoing { .. }
                | Self::Unanswered { .. }
                | Self::Unexpected { .. }
                | Self::Unclear { .. }
                | Self::Suspended { .. }
        )
    }

    /// The global transaction that this is about, if it says so: to [wait](crate::Client::wait) for
    /// its end, or to ask for it.
    #[must_use]
    pub fn gid(&self) -> Option<&str> {
        match self {
            Self::RolledBack { gid, .. }
            | Self::Aborted { gid, .. }
            | Self::Unfinished { gid, .. }
            | Self::Unclear { gid, .. }
            | Self::Suspended { gid, .. } => Some(gid),
            Self::Invalid(_)
            | Self::Failure { .. }
            | Self::Ongoing { .. }
            | Self::Connect { .. }
            | Self::Unanswered { .. }
            | Self::Unexpected { .. }
            | Self::Unsupported(_) => None,
        }
    }

    /// Why the business said no, in its own words and without the server's around them: something
    /// to tell the user. `None` if this is not about a refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::RolledBack { reason, .. }
            | Self::Aborted { cause: BranchError::Failure(reason), .. } => Some(own_words(reason)),
            _ => None,
        }
    }

    /// What a branch answers when this error ended it: a refusal stays a refusal, everything else
    /// is retried. `?` in a branch makes **every** error a retry; use
    /// `.map_err(Error::into_branch_error)?` where a refusal must roll the outer transaction back.
    #[must_use]
    pub fn into_branch_error(self) -> BranchError {
        match self {
            Self::Failure { reason, .. } | Self::RolledBack { reason, .. } => {
                BranchError::Failure(reason)
            }
            Self::Aborted { cause: BranchError::Failure(reason), .. } => {
                BranchError::Failure(reason)
            }
            Self::Ongoing { text, .. } => BranchError::Ongoing(text),
            Self::Suspended { cause: BranchError::Ongoing(text), .. } => BranchError::Ongoing(text),
            Self::Unfinished { .. } => BranchError::Ongoing(self.to_string()),
            other => BranchError::retry(other),
        }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }
}

/// The message that a branch put into its answer, out of a text that quotes the answer.
fn own_words(reason: &str) -> String {
    let quoted =
        reason.find('{').zip(reason.rfind('}')).and_then(|(from, to)| reason.get(from..=to));
    let words = match quoted {
        Some(body) if body != crate::outcome::text(body.as_bytes()) => {
            crate::outcome::text(body.as_bytes())
        }
        _ => reason.to_owned(),
    };
    words.trim().trim_start_matches("FAILURE:").trim_end_matches("FAILURE").trim().to_owned()
}

/// The result of most calls of the SDK.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    fn unexpected(status: u16) -> Error {
        Error::Unexpected { what: "submit", status, text: "boom".to_owned() }
    }

    #[test]
    fn an_error_says_whether_to_retry() {
        let source = || BoxError::from("reset");
        let to = || "http://s".to_owned();
        let gid = || "g".to_owned();
        let table = [
            (Error::invalid("no gid"), false, false),
            (Error::Failure { what: "submit", reason: "x FAILURE".to_owned() }, false, false),
            (Error::RolledBack { gid: gid(), reason: gid() }, false, false),
            (Error::Aborted { gid: gid(), cause: BranchError::failure("no") }, false, false),
            (
                Error::Unfinished { gid: gid(), waited: Duration::from_secs(1), last: gid() },
                false,
                true,
            ),
            (Error::Ongoing { what: "submit", text: gid() }, true, true),
            (Error::Connect { what: "submit", to: to(), source: source() }, true, false),
            (Error::Unanswered { what: "submit", to: to(), source: source() }, true, true),
            (unexpected(500), true, true),
            (unexpected(503), true, true),
            (unexpected(401), false, true),
            (unexpected(404), false, true),
            (Error::Unclear { gid: gid(), cause: BranchError::retry("lost") }, false, true),
            (Error::Suspended { gid: gid(), cause: BranchError::retry("x") }, true, true),
            (Error::Unsupported("query over gRPC"), false, false),
        ];
        for (error, retryable, unknown) in table {
            assert_eq!((error.is_retryable(), error.is_unknown()), (retryable, unknown), "{error}");
        }
    }

    #[test]
    fn an_error_knows_its_global_transaction() {
        let aborted = Error::Aborted { gid: "g".to_owned(), cause: BranchError::failure("no") };
        assert_eq!(aborted.gid(), Some("g"));
        assert_eq!(unexpected(500).gid(), None);
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_business() {
        let table = [
            (
                "url:http://s/out return failed: \
                 {\"dtm_result\":\"FAILURE\",\"message\":\"no money FAILURE\"} FAILURE",
                "no money",
            ),
            ("no money FAILURE", "no money"),
            ("FAILURE: no money", "no money"),
            ("a {brace} in it", "a {brace} in it"),
            ("}{", "}{"),
            ("Timeout after 30 seconds", "Timeout after 30 seconds"),
            ("FAILURE", ""),
        ];
        for (reason, words) in table {
            let error = Error::RolledBack { gid: "g".to_owned(), reason: reason.to_owned() };
            assert_eq!(error.refusal().as_deref(), Some(words), "{reason}");
        }
        let aborted = |cause| Error::Aborted { gid: "g".to_owned(), cause };
        assert_eq!(aborted(BranchError::failure("no")).refusal().as_deref(), Some("no"));
        assert_eq!(aborted(BranchError::retry("lost")).refusal(), None);
    }

    #[test]
    fn a_refusal_stays_one_in_a_branch() {
        let refused = Error::Failure { what: "submit", reason: "no FAILURE".to_owned() };
        assert!(refused.into_branch_error().is_failure());
        let aborted = Error::Aborted { gid: "g".to_owned(), cause: BranchError::failure("no") };
        assert!(aborted.into_branch_error().is_failure());
        assert!(matches!(unexpected(500).into_branch_error(), BranchError::Retry(_)));
        let ongoing = Error::Ongoing { what: "submit", text: "later".to_owned() };
        assert!(ongoing.into_branch_error().is_ongoing());
    }
}
