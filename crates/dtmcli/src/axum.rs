//! Branches as handlers of axum: [`BranchCall`] tells which branch is called, [`Answer`] says how
//! it ended.
//!
//! ```
//! use axum::{Json, Router, extract::State, routing::post};
//! use dtmcli::axum::{Answer, BranchCall, Done};
//! use dtmcli::{BranchError, BranchResult};
//! # #[derive(Clone)]
//! # struct Bank;
//! # impl Bank { async fn debit(&self, gid: &str, amount: i64) -> BranchResult { Ok(()) } }
//!
//! async fn out(
//!     BranchCall(branch): BranchCall,
//!     State(bank): State<Bank>,
//!     Json(amount): Json<i64>,
//! ) -> Answer {
//!     if amount <= 0 {
//!         return Err(BranchError::failure("the amount must be positive").into());
//!     }
//!     bank.debit(branch.gid(), amount).await?; // any error of it: called again later
//!     Ok(Done)
//! }
//!
//! let app: Router = Router::new().route("/out", post(out)).with_state(Bank);
//! ```
//!
//! A `?` on any error is a retry; only [`BranchError::Failure`] rolls back.

use ::axum::extract::FromRequestParts;
use ::axum::http::request::Parts;
use ::axum::http::{StatusCode, header};
use ::axum::response::{IntoResponse, Response};

use crate::barrier::ParseError;
use crate::service::{SUCCESS_BODY, http_answer, log};
use crate::{Branch, BranchError};

/// The branch that this request calls: from the layer of [`crate::tower`] if there is one, else
/// from the query string, else from the headers `dtm-…`.
///
/// A request that is no branch call is answered with 400, which the transaction manager does not
/// take for a result of the business.
#[derive(Debug, Clone)]
pub struct BranchCall(pub Branch);

impl<S: Sync> FromRequestParts<S> for BranchCall {
    type Rejection = NotABranchCall;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NotABranchCall> {
        if let Some(branch) = parts.extensions.get::<Branch>() {
            return Ok(Self(branch.clone()));
        }
        match crate::incoming::branch(&parts.uri, &parts.headers) {
            Ok(branch) => Ok(Self(branch)),
            Err(error) => Err(NotABranchCall(error)),
        }
    }
}

/// A request that was not made as the call of a branch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotABranchCall(#[source] pub ParseError);

impl IntoResponse for NotABranchCall {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "message": self.0.to_string() });
        json(StatusCode::BAD_REQUEST, body.to_string())
    }
}

/// What a handler of a branch returns: a value that axum can answer with, 200, or a
/// [`BranchError`] by way of [`Refusal`].
pub type Answer<T = Done> = Result<T, Refusal>;

/// Success with nothing more to say: 200 with `{"dtm_result":"SUCCESS"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done;

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        json(StatusCode::OK, SUCCESS_BODY.to_owned())
    }
}

/// A [`BranchError`] as an answer of axum: 409, 425 or 500, with the JSON that every SDK and
/// server of DTM reads. Whatever can be a [`BranchError`] can be this, by `?`.
#[derive(Debug)]
pub struct Refusal(pub BranchError);

impl<E: Into<BranchError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        log(&self.0);
        let (status, body) = http_answer(&self.0);
        json(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body)
    }
}

/// The headers that [`BranchLayer::forward`](crate::tower::BranchLayer::forward) kept; none
/// without the layer.
#[cfg(feature = "tower")]
impl<S: Sync> FromRequestParts<S> for crate::tower::Forwarded {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
