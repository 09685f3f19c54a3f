//! Branches as methods of a tonic service: which branch is called, and how it ended.
//!
//! ```
//! use dtmcli::tonic::{OrStatus as _, branch_of};
//! use tonic::{Request, Response, Status};
//! # async fn debit(gid: &str) -> dtmcli::BranchResult { Ok(()) }
//!
//! async fn out(request: Request<()>) -> Result<Response<()>, Status> {
//!     let branch = branch_of(&request)?;
//!     debit(branch.gid()).await.or_status()?; // ABORTED, FAILED_PRECONDITION or INTERNAL
//!     Ok(Response::new(()))
//! }
//! ```
//!
//! [`BranchInterceptor`] does the reading before the method, and refuses what is no branch call.

use ::tonic::service::Interceptor;
use ::tonic::{Code, Request, Status};

use crate::service::{log, message};
use crate::{Branch, BranchError, BranchResult};

/// The branch that a request calls: as the interceptor or the layer found it, else from the
/// metadata `dtm-…`.
///
/// # Errors
///
/// `INVALID_ARGUMENT` if it is no branch call, which the transaction manager does not take for a
/// result of the business.
pub fn branch_of<T>(request: &Request<T>) -> Result<Branch, Status> {
    if let Some(branch) = request.extensions().get::<Branch>() {
        return Ok(branch.clone());
    }
    let pairs = request.metadata().iter().filter_map(|pair| match pair {
        ::tonic::metadata::KeyAndValueRef::Ascii(name, value) => {
            Some((name.as_str(), value.to_str().ok()?))
        }
        ::tonic::metadata::KeyAndValueRef::Binary(..) => None,
    });
    Branch::from_metadata(pairs).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Puts the [`Branch`] into the extensions of each request, for services all of whose methods are
/// branches. Others are refused with `INVALID_ARGUMENT`.
#[derive(Debug, Clone, Copy, Default)]
pub struct BranchInterceptor;

impl Interceptor for BranchInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let branch = branch_of(&request)?;
        request.extensions_mut().insert(branch);
        Ok(request)
    }
}

/// What a gRPC service answers for an error of a branch (spec 03 §2): `ABORTED` for `FAILURE`,
/// `FAILED_PRECONDITION` for `ONGOING`, `INTERNAL` for everything that is to be called again.
#[must_use]
pub fn status(error: &BranchError) -> Status {
    log(error);
    let code = match error {
        BranchError::Failure(_) => Code::Aborted,
        BranchError::Ongoing(_) => Code::FailedPrecondition,
        _ => Code::Internal,
    };
    Status::new(code, message(error))
}

/// What an answer of a branch over gRPC means: the way back from [`status`].
#[must_use]
pub fn branch_error(status: Status) -> BranchError {
    match status.code() {
        // Services older than DTM v1.10 said ABORTED for both.
        Code::Aborted if status.message() == "ONGOING" => BranchError::ongoing("ONGOING"),
        Code::Aborted => BranchError::failure(status.message()),
        Code::FailedPrecondition => BranchError::ongoing(status.message()),
        _ => BranchError::retry(status),
    }
}

/// Turns the result of a branch into that of a method of tonic.
pub trait OrStatus<T> {
    /// The value, or the [`status`] of the error.
    ///
    /// # Errors
    ///
    /// As [`status`] says.
    fn or_status(self) -> Result<T, Status>;
}

impl<T> OrStatus<T> for BranchResult<T> {
    fn or_status(self) -> Result<T, Status> {
        self.map_err(|error| status(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_statuses_and_come_back() {
        let table = [
            (BranchError::failure("no money"), Code::Aborted, "no money FAILURE"),
            (BranchError::ongoing("wait"), Code::FailedPrecondition, "wait ONGOING"),
            (BranchError::retry("disk"), Code::Internal, "to be called again: disk"),
        ];
        for (error, code, text) in table {
            let status = status(&error);
            assert_eq!((status.code(), status.message()), (code, text));
            assert_eq!(branch_error(status).word(), error.word());
        }
        assert!(branch_error(Status::aborted("ONGOING")).is_ongoing());
    }

    #[test]
    fn metadata_name_the_branch() {
        let mut request = Request::new(());
        for (name, value) in [
            ("dtm-gid", "g"),
            ("dtm-trans_type", "tcc"),
            ("dtm-branch_id", "01"),
            ("dtm-op", "try"),
        ] {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        let branch = branch_of(&request).unwrap();
        assert_eq!((branch.gid(), branch.branch_id()), ("g", "01"));
        let other = BranchInterceptor.call(Request::new(()));
        assert_eq!(other.unwrap_err().code(), Code::InvalidArgument);
    }
}
