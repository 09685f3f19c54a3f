//! What is sent to a service (spec 03 §3–4).

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use dtmd_engine::BranchCall;
use dtmd_protocol::TransType;
use dtmd_protocol::plan::Target as Whom;
use dtmd_transport::outbound::branch_headers_refusal;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Version};
use http_body_util::Full;
use prost::Message as _;

use super::target::Target;
use crate::proto::workflow::WorkflowData;

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("dtmd/", env!("CARGO_PKG_VERSION")));

/// A request as it is handed to a connection.
pub(super) type Outgoing = Request<Full<Bytes>>;

/// Returns the request of a call.
///
/// # Errors
///
/// A text for people, if the call cannot be written as a request.
pub(super) fn request(call: &BranchCall, target: &Target) -> Result<Outgoing, String> {
    let mut request = Request::new(Full::new(body(call)?));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = target.uri.clone();
    *request.headers_mut() = headers(call)?;
    Ok(request)
}

/// Returns the message: the stored payload as it is; a workflow's input is wrapped, as DTM does.
fn body(call: &BranchCall) -> Result<Bytes, String> {
    let data = &call.call.data;
    let is_callback = call.trans_type == TransType::Workflow && call.call.target == Whom::Query;
    let wrapped =
        is_callback.then(|| WorkflowData { data: Bytes::from_owner(data.clone()) }.encode_to_vec());
    let message = wrapped.as_deref().unwrap_or(data);
    let length = u32::try_from(message.len()).map_err(|_| "the payload is too long".to_owned())?;
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    body.put_u8(0);
    body.put_u32(length);
    body.put_slice(message);
    Ok(body.freeze())
}

fn headers(call: &BranchCall) -> Result<HeaderMap, String> {
    const GID: HeaderName = HeaderName::from_static("dtm-gid");
    const TRANS_TYPE: HeaderName = HeaderName::from_static("dtm-trans_type");
    const BRANCH_ID: HeaderName = HeaderName::from_static("dtm-branch_id");
    const OP: HeaderName = HeaderName::from_static("dtm-op");
    const DTM: HeaderName = HeaderName::from_static("dtm-dtm");
    const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

    let mut headers = HeaderMap::with_capacity(9 + call.headers.len());
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(TE, TRAILERS);
    headers.insert(USER_AGENT, AGENT);
    headers.insert(TIMEOUT, timeout_value(call.call.timeout));
    let mut gid = value("gid", call.gid.as_str())?;
    // Not a secret, but never the same again: a header table full of gids would be searched for
    // every call, and what is worth keeping in it pushed out.
    gid.set_sensitive(true);
    headers.insert(GID, gid);
    headers.insert(TRANS_TYPE, HeaderValue::from_static(call.trans_type.as_str()));
    headers.insert(BRANCH_ID, value("branch_id", call.call.branch_id.as_str())?);
    headers.insert(OP, value("op", call.call.op.as_str())?);
    headers.insert(DTM, HeaderValue::from_static(""));
    add_branch_headers(&mut headers, call)?;
    Ok(headers)
}

fn value(name: &str, text: &str) -> Result<HeaderValue, String> {
    // Letters outside of ASCII go as they are: Go's, Java's and our own services read them.
    let value = HeaderValue::from_bytes(text.as_bytes());
    value.map_err(|_| format!("{name} has a control character"))
}

/// Returns a deadline in the largest unit that loses nothing: eight digits are allowed.
fn timeout_value(timeout: Duration) -> HeaderValue {
    let text = match timeout.as_millis() {
        millis @ ..100_000_000 => format!("{}m", millis.max(1)),
        millis => format!("{}S", (millis / 1000).min(99_999_999)),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("3S"))
}

/// Adds the transaction's own headers. What the server sets itself stays: receivers take the first
/// of several values (spec 03 §3).
fn add_branch_headers(headers: &mut HeaderMap, call: &BranchCall) -> Result<(), String> {
    if call.headers.is_empty() {
        return Ok(());
    }
    if let Some(refusal) = branch_headers_refusal(&call.headers) {
        return Err(refusal);
    }
    for (name, text) in call.headers.iter() {
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        if !is_kept_back(header.as_str()) && !headers.contains_key(&header) {
            headers.insert(header, value(name, text.trim())?);
        }
    }
    Ok(())
}

/// Returns whether a header, in lower case, is never sent: HTTP/2 forbids it, or it would change
/// how the call is framed or pass for what a proxy says.
fn is_kept_back(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    const PREFIXES: [&str; 3] = ["grpc-", "proxy-", "x-forwarded-"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines() {
        let table = [
            (Duration::from_micros(1), "1m"),
            (Duration::from_millis(250), "250m"),
            (Duration::from_secs(99_999), "99999000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(u64::MAX), "99999999S"),
        ];
        for (timeout, text) in table {
            assert_eq!(timeout_value(timeout), text);
        }
    }
}
