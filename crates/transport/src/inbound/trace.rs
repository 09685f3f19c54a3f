//! The caller's trace (W3C Trace Context): taken from its request, stored with the transaction and
//! handed to every branch call, so that a retry hours later joins the same trace.
//!
//! It is stored among the transaction's branch headers, where SDKs put it that do this themselves;
//! what they put there is left alone.

use std::sync::Arc;

use dtmd_protocol::{Limits, Options};
use http::header::HeaderMap;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";
/// Bytes of `00-<trace id>-<parent id>-<flags>`.
const PARENT_BYTES: usize = 55;
/// Bytes of a `tracestate` that are passed on; the standard asks for no more.
const STATE_MAX_BYTES: usize = 512;

/// The trace that a request belongs to, if it says one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceContext {
    parent: Option<String>,
    state: Option<String>,
}

impl TraceContext {
    /// Reads a request's headers. What is not as the standard has it counts as absent.
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(header) = headers.get(PARENT) else { return Self::default() };
        let mut all = headers.get_all(PARENT).iter();
        let is_one = all.next().is_some() && all.next().is_none();
        let parent = header.to_str().ok().filter(|text| is_one && is_parent(text));
        let Some(parent) = parent else { return Self::default() };
        let state = headers.get(STATE).and_then(|state| state.to_str().ok()).map(str::trim);
        let state = state.filter(|state| !state.is_empty() && state.len() <= STATE_MAX_BYTES);
        Self { parent: Some(parent.to_owned()), state: state.map(str::to_owned) }
    }

    /// Returns a context of these texts, which are as the standard has them.
    pub fn new(parent: String, state: Option<String>) -> Self {
        Self { parent: Some(parent), state }
    }

    /// Returns the `traceparent`, if there is one.
    pub fn parent(&self) -> Option<&str> {
        self.parent.as_deref()
    }

    /// Returns the `tracestate`, if there is one.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Puts the trace among a transaction's branch headers, unless the transaction has one already
    /// or its headers would exceed the limits.
    pub fn attach(self, options: &mut Options, limits: &Limits) {
        let Some(parent) = self.parent else { return };
        let is_trace =
            |name: &str| name.eq_ignore_ascii_case(PARENT) || name.eq_ignore_ascii_case(STATE);
        let headers = &options.branch_headers;
        if headers.keys().any(|name| is_trace(name)) {
            return;
        }
        let added = [(PARENT, Some(parent)), (STATE, self.state)];
        let added: Vec<(&str, String)> =
            added.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let before: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let more: usize = added.iter().map(|(name, value)| name.len() + value.len()).sum();
        let fits = headers.len() + added.len() <= limits.headers_max
            && before + more <= limits.headers_max_bytes;
        if fits {
            let headers = Arc::make_mut(&mut options.branch_headers);
            headers.extend(added.into_iter().map(|(name, value)| (name.to_owned(), value)));
        }
    }
}

/// Returns whether a text is a `traceparent`. Later versions may add to its end.
fn is_parent(text: &str) -> bool {
    let Some(head) = text.get(..PARENT_BYTES) else { return false };
    let parts: Vec<&str> = head.split('-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { return false };
    let is_hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let is_zero = |part: &str| part.bytes().all(|b| b == b'0');
    let tail = &text[PARENT_BYTES..];
    let ends_well = if *version == "00" { tail.is_empty() } else { is_tail(tail) };
    is_hex(version, 2)
        && *version != "ff"
        && is_hex(trace, 32)
        && !is_zero(trace)
        && is_hex(parent, 16)
        && !is_zero(parent)
        && is_hex(flags, 2)
        && ends_well
}

/// Returns whether what a later version adds is a sane length of visible text.
fn is_tail(tail: &str) -> bool {
    let is_visible = tail.bytes().all(|b| b.is_ascii_graphic());
    tail.is_empty() || (tail.starts_with('-') && tail.len() <= STATE_MAX_BYTES && is_visible)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(parent: &str, state: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(PARENT, parent.parse().unwrap());
        headers.insert(STATE, state.parse().unwrap());
        headers
    }

    #[test]
    fn only_what_the_standard_has_is_taken() {
        let bad = [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
        ];
        for parent in bad {
            assert_eq!(TraceContext::of(&headers(parent, "a=b")), TraceContext::default());
        }
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        for parent in [TRACE, later] {
            assert_eq!(TraceContext::of(&headers(parent, "")).parent.as_deref(), Some(parent));
        }
        let mut twice = headers(TRACE, "a=b");
        twice.append(PARENT, TRACE.parse().unwrap());
        assert_eq!(TraceContext::of(&twice), TraceContext::default());
        let long = TraceContext::of(&headers(TRACE, &"x".repeat(513)));
        assert_eq!((long.parent.is_some(), long.state), (true, None));
    }

    #[test]
    fn it_is_attached_once_and_within_the_limits() {
        let trace = TraceContext::of(&headers(TRACE, "a=b"));
        let mut options = Options::default();
        trace.clone().attach(&mut options, &Limits::default());
        let shown: Vec<_> = options.branch_headers.iter().collect();
        assert_eq!(shown.len(), 2);
        assert_eq!(options.branch_headers[PARENT], TRACE);
        let own = "00-11111111111111111111111111111111-2222222222222222-01";
        let mut options = Options::default();
        Arc::make_mut(&mut options.branch_headers).insert("Traceparent".into(), own.into());
        trace.clone().attach(&mut options, &Limits::default());
        assert_eq!(options.branch_headers.len(), 1, "the caller's own stays");
        let mut options = Options::default();
        trace.attach(&mut options, &Limits { headers_max: 1, ..Limits::default() });
        assert!(options.branch_headers.is_empty());
    }
}
