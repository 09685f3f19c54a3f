//! Messages that are not read while memory is short.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dtmd_engine::Engine;
use http::Request;
use hyper::body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::problem::Problem;

/// Has every request's body looked after.
#[derive(Clone)]
pub(super) struct Bodies<S> {
    engine: Engine,
    inner: S,
}

/// Makes a [`Bodies`].
#[derive(Clone)]
pub(super) struct BodiesLayer(pub(super) Engine);

impl<S> Layer<S> for BodiesLayer {
    type Service = Bodies<S>;

    fn layer(&self, inner: S) -> Bodies<S> {
        Bodies { engine: self.0.clone(), inner }
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Bodies<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let engine = self.engine.clone();
        self.inner.call(request.map(|body| Body::new(Read { engine, body, length: 0 })))
    }
}

/// A body that breaks off when it is large and memory is short.
struct Read {
    engine: Engine,
    body: Body,
    length: usize,
}

impl hyper::body::Body for Read {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.length = self.length.saturating_add(data.len());
            if let Err(error) = self.engine.admit_body(self.length) {
                return Poll::Ready(Some(Err(Problem::from(error).into())));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
