//! The caller of branches with what this server adds to it: a span for every attempt, and the
//! operator's choice of how workflows are called back.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use dtmd_engine::{Answer, BranchCall, BranchCaller};
use dtmd_protocol::plan::Target;
use dtmd_protocol::{CallProtocol, Outcome, TransType, url};

use super::context::new_span_id;
use super::{Kind, Span, SpanContext, Spans, Value};

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";
/// Bytes of an error's text that a span has.
const ERROR_MAX_BYTES: usize = 256;

/// What the operator chose about calls beyond the transports' own options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CallRules {
    /// Call a workflow without input back by GET, as DTM does (spec 07 D43).
    pub(crate) workflow_callback_get: bool,
}

/// Calls branches through another caller.
pub(crate) struct Calling<C> {
    inner: Arc<C>,
    rules: CallRules,
    spans: Option<Arc<Spans>>,
}

impl<C: BranchCaller> Calling<C> {
    pub(crate) fn new(inner: Arc<C>, rules: CallRules, spans: Option<Arc<Spans>>) -> Self {
        Self { inner, rules, spans }
    }

    /// Returns whether a call is the callback of a workflow that the rule is about.
    fn is_by_get(&self, call: &BranchCall) -> bool {
        self.rules.workflow_callback_get
            && call.trans_type == TransType::Workflow
            && call.call.target == Target::Query
            && call.call.always_post
    }

    /// Makes a call that is traced, or made otherwise than it was planned.
    async fn call_changed(&self, spans: Option<&Spans>, call: &BranchCall) -> Answer {
        let mut changed = None;
        if self.is_by_get(call) {
            let mut by_get = call.clone();
            by_get.call.always_post = false;
            changed = Some(by_get);
        }
        let call = changed.as_ref().unwrap_or(call);
        match spans {
            Some(spans) => self.call_traced(spans, call).await,
            None => self.inner.call(call).await,
        }
    }

    /// Makes a call as a span of the trace that its transaction carries. The service gets that
    /// span, not the caller's, as its parent.
    async fn call_traced(&self, spans: &Spans, call: &BranchCall) -> Answer {
        let header = |wanted: &str| {
            let found = call.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(name, value)| (name.as_str(), value.as_str()))
        };
        let parent = header(PARENT);
        let Some((name, parent)) = parent
            .and_then(|(name, value)| Some((name, SpanContext::parse_sampled(value.trim())?)))
        else {
            return self.inner.call(call).await;
        };
        let context = SpanContext { span_id: new_span_id(), ..parent };
        let mut headers = BTreeMap::clone(&call.headers);
        headers.insert(name.to_owned(), context.to_header());
        let traced = BranchCall { headers: Arc::new(headers), ..call.clone() };
        let began = SystemTime::now();
        let answer = self.inner.call(&traced).await;
        spans.add(Span {
            context,
            parent: Some(parent.span_id),
            state: header(STATE).map(|(_, state)| state.to_owned()),
            name: format!("{} {}", call.trans_type.as_str(), call.call.op.as_str()),
            kind: Kind::Client,
            began,
            ended: SystemTime::now(),
            attributes: attributes(call, &answer),
            error: error_of(&answer.outcome),
        });
        answer
    }
}

fn attributes(call: &BranchCall, answer: &Answer) -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    vec![
        ("dtmd.gid", text(call.gid.as_str())),
        ("dtmd.trans_type", text(call.trans_type.as_str())),
        ("dtmd.branch_id", text(call.call.branch_id.as_str())),
        ("dtmd.op", text(call.call.op.as_str())),
        ("dtmd.attempt", Value::Number(i64::from(call.call.attempt))),
        ("dtmd.outcome", text(answer.outcome.as_str())),
        ("dtmd.destination", text(url::destination(&call.call.url))),
    ]
}

/// Returns what made an attempt fail. A branch that is still busy has not.
fn error_of(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Failure(text) | Outcome::Unknown(text) => {
            let mut end = text.len().min(ERROR_MAX_BYTES);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            Some(text[..end].to_owned())
        }
        Outcome::Success | Outcome::Ongoing | Outcome::Postponed(_) => None,
    }
}

impl<C: BranchCaller> BranchCaller for Calling<C> {
    // Not an `async fn`: a call that is passed on as it is needs no box of this layer's own.
    fn call<'s, 'c, 'f>(
        &'s self,
        call: &'c BranchCall,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'f>>
    where
        's: 'f,
        'c: 'f,
        Self: 'f,
    {
        match &self.spans {
            None if !self.is_by_get(call) => self.inner.call(call),
            spans => Box::pin(self.call_changed(spans.as_deref(), call)),
        }
    }

    fn cannot_call(&self, url: &str, protocol: CallProtocol) -> Option<String> {
        self.inner.cannot_call(url, protocol)
    }
}
