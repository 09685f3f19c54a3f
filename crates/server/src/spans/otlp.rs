//! OTLP's form of spans: the JSON encoding of `ExportTraceServiceRequest`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use super::context::hex;
use super::{Span, Value};

/// A status that says that something went wrong.
const ERROR: u8 = 2;

/// Writes requests to a collector.
pub(super) struct Encoder {
    resource: Json,
}

impl Encoder {
    /// Returns an encoder for a service of this name and these further attributes.
    pub(super) fn new(service_name: &str, resource: &[(String, String)]) -> Self {
        let own = [("service.name", service_name), ("service.version", env!("CARGO_PKG_VERSION"))];
        let more = resource.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let more = more.filter(|(name, _)| own.iter().all(|(known, _)| known != name));
        let attributes: Vec<Json> = own.into_iter().chain(more).map(text_attribute).collect();
        Self { resource: json!({ "attributes": attributes }) }
    }

    /// Returns the body of one request.
    pub(super) fn encode(&self, spans: &[Span]) -> Vec<u8> {
        let spans: Vec<Json> = spans.iter().map(span).collect();
        let scope = json!({ "name": "dtmd", "version": env!("CARGO_PKG_VERSION") });
        let request = json!({ "resourceSpans": [{
            "resource": self.resource,
            "scopeSpans": [{ "scope": scope, "spans": spans }],
        }]});
        request.to_string().into_bytes()
    }
}

fn text_attribute((name, text): (&str, &str)) -> Json {
    json!({ "key": name, "value": { "stringValue": text } })
}

fn span(span: &Span) -> Json {
    let attributes: Vec<Json> = span
        .attributes
        .iter()
        .map(|(name, value)| match value {
            Value::Text(text) => text_attribute((name, text)),
            // 64-bit numbers are text in OTLP's JSON.
            Value::Number(number) => {
                json!({ "key": name, "value": { "intValue": number.to_string() } })
            }
        })
        .collect();
    let mut json = json!({
        "traceId": hex(&span.context.trace_id),
        "spanId": hex(&span.context.span_id),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": nanos(span.began),
        "endTimeUnixNano": nanos(span.ended.max(span.began)),
        "attributes": attributes,
        "status": {},
    });
    if let Some(parent) = span.parent {
        json["parentSpanId"] = json!(hex(&parent));
    }
    if let Some(state) = &span.state {
        json["traceState"] = json!(state);
    }
    if let Some(error) = &span.error {
        json["status"] = json!({ "code": ERROR, "message": error });
    }
    json
}

fn nanos(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}
