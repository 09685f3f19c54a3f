//! What a branch answers when it does not succeed.

use std::error::Error;
use std::fmt;

/// Any error of a driver or of the business, with its chain of sources.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// What a branch answers: `Ok` is `SUCCESS`, the rest is in [`BranchError`].
pub type BranchResult<T = ()> = Result<T, BranchError>;

/// Why a branch did not succeed, by what the transaction manager does next.
///
/// Every other error becomes [`Retry`](Self::Retry) through `?`, because an error that says nothing
/// about the business must not roll a global transaction back. To roll back, say so with
/// [`failure`](Self::failure) or [`OrFailure::or_failure`].
///
/// The type is not a [`std::error::Error`] itself: only so can `?` turn any error into it. Box it
/// (`BoxError::from(error)`) where an error is needed.
#[derive(Debug)]
#[non_exhaustive]
pub enum BranchError {
    /// `FAILURE`: the business says no. A saga compensates, a TCC cancels. Final: never retried.
    Failure(String),
    /// `ONGOING`: work goes on, ask again later. Not counted as an error.
    Ongoing(String),
    /// The outcome is not known or the cause may pass: called again with growing pauses.
    Retry(BoxError),
}

impl BranchError {
    /// The business says no, for this reason.
    pub fn failure(reason: impl Into<String>) -> Self {
        Self::Failure(reason.into())
    }

    /// The work goes on, for this reason.
    pub fn ongoing(reason: impl Into<String>) -> Self {
        Self::Ongoing(reason.into())
    }

    /// To be called again because of `source`: an error, or a text.
    pub fn retry(source: impl Into<BoxError>) -> Self {
        Self::Retry(source.into())
    }

    /// Whether this is [`BranchError::Failure`].
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failure(_))
    }

    /// Whether this is [`BranchError::Ongoing`].
    pub fn is_ongoing(&self) -> bool {
        matches!(self, Self::Ongoing(_))
    }

    /// The word of the protocol: `FAILURE`, `ONGOING`, or nothing when the answer is just an error.
    pub fn word(&self) -> Option<&'static str> {
        match self {
            Self::Failure(_) => Some("FAILURE"),
            Self::Ongoing(_) => Some("ONGOING"),
            Self::Retry(_) => None,
        }
    }

    /// The HTTP status a branch answers with (spec 04 §8): 409, 425 or 500.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Failure(_) => 409,
            Self::Ongoing(_) => 425,
            Self::Retry(_) => 500,
        }
    }
}

impl fmt::Display for BranchError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failure(reason) => write!(out, "FAILURE: {reason}"),
            Self::Ongoing(reason) => write!(out, "ONGOING: {reason}"),
            Self::Retry(source) => write!(out, "to be called again: {source}"),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for BranchError {
    fn from(source: E) -> Self {
        Self::Retry(Box::new(source))
    }
}

impl From<BranchError> for BoxError {
    fn from(error: BranchError) -> Self {
        match error {
            BranchError::Retry(source) => source,
            refused @ (BranchError::Failure(_) | BranchError::Ongoing(_)) => {
                Box::new(Refusal(refused.to_string()))
            }
        }
    }
}

/// A failure or an ongoing answer where a [`std::error::Error`] is needed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

/// Turns an error, a missing value or a condition that does not hold into a
/// [`BranchError::Failure`], so that the global transaction rolls back instead of being retried.
///
/// ```
/// use dtmcli_barrier::{BranchResult, OrFailure as _};
///
/// fn amount(text: &str) -> BranchResult<i64> {
///     let amount = text.parse::<i64>().or_failure("the amount is not a number")?;
///     (amount > 0).or_failure("the amount must be positive")?;
///     Ok(amount)
/// }
/// assert!(amount("ten").unwrap_err().is_failure());
/// assert!(amount("-10").unwrap_err().is_failure());
/// assert_eq!(amount("10").unwrap(), 10);
/// ```
pub trait OrFailure<T> {
    /// Ends the branch with `FAILURE` and this reason unless there is a value.
    ///
    /// # Errors
    ///
    /// [`BranchError::Failure`] with the reason, and with the error's text if there is one.
    fn or_failure(self, reason: impl fmt::Display) -> BranchResult<T>;
}

impl<T, E: fmt::Display> OrFailure<T> for Result<T, E> {
    fn or_failure(self, reason: impl fmt::Display) -> BranchResult<T> {
        self.map_err(|error| BranchError::Failure(format!("{reason}: {error}")))
    }
}

impl<T> OrFailure<T> for Option<T> {
    fn or_failure(self, reason: impl fmt::Display) -> BranchResult<T> {
        self.ok_or_else(|| BranchError::Failure(reason.to_string()))
    }
}

impl OrFailure<()> for bool {
    fn or_failure(self, reason: impl fmt::Display) -> BranchResult {
        self.then_some(()).or_failure(reason)
    }
}

/// The local transaction of this message was committed by an earlier call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("DUPLICATED: this local transaction was committed before")]
pub struct Duplicated;
