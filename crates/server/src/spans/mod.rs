//! Traces: spans of accepted requests and of branch calls, exported by OTLP.
//!
//! A transaction carries its trace as the header `traceparent` among its branch headers, so every
//! call joins it, also a retry hours and restarts later. `context` reads and makes such headers,
//! `calls` wraps the caller of branches, `export` sends what has gathered to a collector, `otlp` is
//! the form it has there. Transactions never wait for any of this: past the queue's bound spans are
//! dropped and counted.

mod calls;
mod context;
mod export;
mod otlp;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dtmd_transport::inbound::{EndedRequest, RequestSpans, TraceContext};
use tokio::sync::{mpsc, oneshot};

use crate::config::ExportSettings;
pub(crate) use calls::{CallRules, Calling};
use context::{SpanContext, new_span_id, new_trace_id};

/// Spans that wait to be sent.
const QUEUE_MAX: usize = 16_384;

/// A span that has ended.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    context: SpanContext,
    parent: Option<[u8; 8]>,
    state: Option<String>,
    name: String,
    kind: Kind,
    began: SystemTime,
    ended: SystemTime,
    attributes: Vec<(&'static str, Value)>,
    /// What went wrong; none if nothing did.
    error: Option<String>,
}

/// Which side of a call a span is; OTLP's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server = 2,
    Client = 3,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(String),
    Number(i64),
}

/// Takes spans and has them sent.
pub(crate) struct Spans {
    queue: mpsc::Sender<Span>,
    flush: mpsc::Sender<oneshot::Sender<()>>,
    dropped: Arc<AtomicU64>,
    sample_percent: u8,
}

impl Spans {
    /// Starts the task that sends, on the runtime this is called on.
    pub(crate) fn start(settings: ExportSettings) -> Arc<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let (flush, flushes) = mpsc::channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let sample_percent = settings.sample_percent;
        // It ends when this handle and all that tell it are gone.
        tokio::spawn(export::run(settings, waiting, flushes, dropped.clone()));
        Arc::new(Self { queue, flush, dropped, sample_percent })
    }

    fn add(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends what has gathered, within `limit`.
    pub(crate) async fn flush(&self, limit: Duration) {
        let (done, is_done) = oneshot::channel();
        let flushed = async {
            if self.flush.send(done).await.is_ok() {
                let _ = is_done.await;
            }
        };
        let _ = tokio::time::timeout(limit, flushed).await;
    }

    fn is_sampled(&self, trace_id: [u8; 16]) -> bool {
        u64::from(trace_id[15]) * 100 < u64::from(self.sample_percent) * 256
    }
}

impl RequestSpans for Spans {
    fn begin(&self, caller: &TraceContext, is_root: bool) -> Option<TraceContext> {
        let Some(parent) = caller.parent() else {
            let trace_id = new_trace_id();
            let own = SpanContext { trace_id, span_id: new_span_id() };
            let is_begun = is_root && self.is_sampled(trace_id);
            return is_begun.then(|| TraceContext::new(own.to_header(), None));
        };
        // Who is not recorded over there is not recorded here: half a trace helps nobody.
        let parent = SpanContext::parse_sampled(parent)?;
        let own = SpanContext { span_id: new_span_id(), ..parent };
        Some(TraceContext::new(own.to_header(), caller.state().map(str::to_owned)))
    }

    fn ended(&self, request: EndedRequest<'_>) {
        let Some(context) = request.own.parent().and_then(SpanContext::parse_sampled) else {
            return;
        };
        let parent = request.caller.parent().and_then(SpanContext::parse_sampled);
        let mut attributes = vec![
            ("rpc.system", Value::Text(request.protocol.to_owned())),
            ("rpc.method", Value::Text(request.name.to_owned())),
        ];
        if let Some(gid) = request.gid {
            attributes.push(("dtmd.gid", Value::Text(gid.as_str().to_owned())));
        }
        self.add(Span {
            context,
            parent: parent.map(|parent| parent.span_id),
            state: request.caller.state().map(str::to_owned),
            name: format!("dtm {}", request.name),
            kind: Kind::Server,
            began: request.began,
            ended: SystemTime::now(),
            attributes,
            error: (!request.is_ok).then(|| "refused, or not done yet".to_owned()),
        });
    }
}
