//! Where the spans of accepted requests go, if anybody wants them. The transports tell; what becomes
//! of it is the server's business.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use dtmd_protocol::{Gid, Options};

use super::trace::TraceContext;

/// A request that has been answered, or whose caller hung up.
#[derive(Debug)]
pub struct EndedRequest<'a> {
    /// What was asked, by DTM's name for metrics.
    pub name: &'static str,
    /// `http` or `grpc`.
    pub protocol: &'static str,
    /// The trace that the caller said; empty if none.
    pub caller: &'a TraceContext,
    /// The request's own span, as [`RequestSpans::begin`] made it.
    pub own: &'a TraceContext,
    /// The transaction it was about, if it was understood that far.
    pub gid: Option<&'a Gid>,
    /// When it came.
    pub began: SystemTime,
    /// Whether it was done.
    pub is_ok: bool,
}

/// Makes spans of requests. Called on the network's threads: it must not block.
pub trait RequestSpans: Send + Sync {
    /// Returns the context of a span for a request: in the caller's trace, or in a new one if the
    /// caller says none and `is_root` allows it. `None` if this request is not traced.
    fn begin(&self, caller: &TraceContext, is_root: bool) -> Option<TraceContext>;

    /// Takes the span of a request that has ended.
    fn ended(&self, request: EndedRequest<'_>);
}

/// The one who makes spans, or nobody: then a request costs one look at an option.
#[derive(Clone, Default)]
pub struct SpanHook(Option<Arc<dyn RequestSpans>>);

impl SpanHook {
    /// Returns a hook that tells `spans`.
    pub fn new(spans: Arc<dyn RequestSpans>) -> Self {
        Self(Some(spans))
    }

    /// Begins the span of a request. `is_root`: whether it may begin a trace of its own, because it
    /// may bring a new transaction.
    pub fn begin(
        &self,
        protocol: &'static str,
        name: &'static str,
        is_root: bool,
        caller: TraceContext,
    ) -> RequestSpan {
        let own = self.0.as_ref().and_then(|spans| spans.begin(&caller, is_root));
        let open = self.0.as_ref().zip(own).map(|(spans, own)| {
            let (gid, began) = (OnceLock::new(), SystemTime::now());
            Box::new(Open { spans: spans.clone(), protocol, name, own, gid, began })
        });
        RequestSpan { caller, open }
    }
}

impl fmt::Debug for SpanHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpanHook").field(&self.0.is_some()).finish()
    }
}

impl PartialEq for SpanHook {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for SpanHook {}

/// A request under way. Dropping it without [`RequestSpan::end`] tells that its caller hung up.
#[derive(Debug)]
pub struct RequestSpan {
    caller: TraceContext,
    open: Option<Box<Open>>,
}

struct Open {
    spans: Arc<dyn RequestSpans>,
    protocol: &'static str,
    name: &'static str,
    own: TraceContext,
    gid: OnceLock<Gid>,
    began: SystemTime,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("name", &self.name).field("own", &self.own).finish()
    }
}

impl RequestSpan {
    /// A request of which nobody is told; its transaction joins the caller's trace all the same.
    pub fn untold(caller: TraceContext) -> Self {
        Self { caller, open: None }
    }

    /// Notes which transaction the request is about.
    pub fn is_about(&self, gid: &Gid) {
        if let Some(open) = &self.open {
            let _ = open.gid.set(gid.clone());
        }
    }

    /// Stores the request's span, or else the caller's, with a transaction, so that every branch
    /// call joins the trace.
    pub fn attach(&self, options: &mut Options, limits: &dtmd_protocol::Limits) {
        let trace = self.open.as_ref().map_or(&self.caller, |open| &open.own);
        trace.clone().attach(options, limits);
    }

    /// Ends it.
    pub fn end(mut self, is_ok: bool) {
        self.tell(is_ok);
    }

    fn tell(&mut self, is_ok: bool) {
        let Some(open) = self.open.take() else { return };
        open.spans.ended(EndedRequest {
            name: open.name,
            protocol: open.protocol,
            caller: &self.caller,
            own: &open.own,
            gid: open.gid.get(),
            began: open.began,
            is_ok,
        });
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        self.tell(false);
    }
}
