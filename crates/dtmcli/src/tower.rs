//! A layer around a service: it reads which branch is called, opens a span for the call, and keeps
//! the headers that calls from within are to carry on.
//!
//! ```
//! use axum::{Router, routing::post};
//! use dtmcli::tower::BranchLayer;
//!
//! let app: Router = Router::new()
//!     .route("/out", post(|| async {}))
//!     .layer(BranchLayer::new().forward("traceparent").forward("x-tenant"));
//! ```
//!
//! It works for every service of HTTP requests: axum's and tonic's alike, for metadata of gRPC are
//! headers. Requests that are no branch calls pass unchanged.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderName, Request};
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument as _;
use tracing::instrument::Instrumented;

/// Puts the [`Branch`](crate::Branch) and [`Forwarded`] into the extensions of each request that
/// calls a branch, and opens a span `branch` with `gid`, `trans_type`, `branch_id` and `op`.
#[derive(Debug, Clone, Default)]
pub struct BranchLayer {
    forward: Arc<[HeaderName]>,
}

impl BranchLayer {
    /// A layer that forwards no headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps this header of the calls, for [`Tcc::with_headers`](crate::Tcc::with_headers) and the
    /// service's own calls. A name that is none is passed over.
    #[must_use]
    pub fn forward(self, name: &str) -> Self {
        let name = name.parse().ok();
        Self { forward: self.forward.iter().cloned().chain(name).collect() }
    }
}

impl<S> Layer<S> for BranchLayer {
    type Service = BranchService<S>;

    fn layer(&self, inner: S) -> BranchService<S> {
        BranchService { inner, forward: self.forward.clone() }
    }
}

/// The headers of a branch call that are to be carried on. With the feature `axum` it is an
/// extractor; anywhere else it is in the request's extensions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    headers: Vec<(String, String)>,
}

impl IntoIterator for Forwarded {
    type Item = (String, String);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.headers.into_iter()
    }
}

/// What [`BranchLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct BranchService<S> {
    inner: S,
    forward: Arc<[HeaderName]>,
}

impl<S, B> Service<Request<B>> for BranchService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Ok(branch) = crate::incoming::branch(request.uri(), request.headers()) else {
            return self.inner.call(request).instrument(tracing::Span::none());
        };
        let span = tracing::info_span!(
            "branch",
            gid = branch.gid(),
            trans_type = branch.trans_type().as_str(),
            branch_id = branch.branch_id(),
            op = branch.op().as_str(),
        );
        let kept = self.forward.iter().filter_map(|name| {
            let value = request.headers().get(name)?.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        });
        let forwarded = Forwarded { headers: kept.collect() };
        request.extensions_mut().insert(branch);
        request.extensions_mut().insert(forwarded);
        let future = span.in_scope(|| self.inner.call(request));
        future.instrument(span)
    }
}
