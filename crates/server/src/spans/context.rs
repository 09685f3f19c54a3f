//! W3C Trace Context: `00-<trace id>-<span id>-<flags>`.

use std::fmt::Write as _;

use uuid::Uuid;

/// Where a span is in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpanContext {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
}

impl SpanContext {
    /// Reads a `traceparent`; `None` if it is none, or says that its trace is not recorded.
    pub(super) fn parse_sampled(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_known = version.len() == 2 && version != "ff" && flags.len() == 2;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        let (trace_id, span_id) = (from_hex::<16>(trace)?, from_hex::<8>(span)?);
        let is_one = trace_id != [0; 16] && span_id != [0; 8];
        (is_known && is_one && flags & 1 == 1).then_some(Self { trace_id, span_id })
    }

    /// Returns the `traceparent` of what is below this span.
    pub(super) fn to_header(self) -> String {
        format!("00-{}-{}-01", hex(&self.trace_id), hex(&self.span_id))
    }
}

/// Returns an id that no other trace has.
pub(super) fn new_trace_id() -> [u8; 16] {
    *Uuid::new_v4().as_bytes()
}

/// Returns an id that no other span of the trace has.
pub(super) fn new_span_id() -> [u8; 8] {
    let bytes = *Uuid::new_v4().as_bytes();
    let mut id = [0; 8];
    // The first six and the last two bytes of a UUID hold no fixed bits.
    for (place, byte) in id.iter_mut().zip(bytes[..6].iter().chain(&bytes[14..])) {
        *place = *byte;
    }
    if id == [0; 8] {
        id[0] = 1;
    }
    id
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
