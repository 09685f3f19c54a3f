//! What is sent to a service (spec 02 §4.2, §5.2).

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dtmd_engine::BranchCall;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use http_body_util::Full;
use serde_json::value::RawValue;

use super::target::{Target, push_query_value};

/// The most branch headers of one transaction.
pub const BRANCH_HEADERS_MAX: usize = 32;
/// The size of all branch headers of one transaction, names and values, in bytes.
pub const BRANCH_HEADERS_MAX_BYTES: usize = 8 << 10;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("dtmd/", env!("CARGO_PKG_VERSION")));

/// A request as it is handed to a connection.
pub(super) type Outgoing = Request<Full<Bytes>>;

/// Returns the request of an HTTP call.
///
/// # Errors
///
/// A text for people, if the call cannot be written as a request.
pub(super) fn http_request(call: &BranchCall, target: &Target) -> Result<Outgoing, String> {
    let body = call.call.data.clone();
    let method = match body.is_empty() && !call.call.always_post {
        true => Method::GET,
        false => Method::POST,
    };
    let body = if body.is_empty() { Bytes::new() } else { Bytes::from_owner(body) };
    build(call, target, method, path_with_ids(call, target), body)
}

/// Returns the request of a JSON-RPC call.
///
/// # Errors
///
/// A text for people, for instance if the payload is not a JSON object.
pub(super) fn jsonrpc_request(call: &BranchCall, target: &Target) -> Result<Outgoing, String> {
    let body = Bytes::from(jsonrpc_body(call, &target.query_value("method"))?);
    build(call, target, Method::POST, target.path.clone(), body)
}

fn build(
    call: &BranchCall,
    target: &Target,
    method: Method,
    path: String,
    body: Bytes,
) -> Result<Outgoing, String> {
    let path = PathAndQuery::from_maybe_shared(Bytes::from(path))
        .map_err(|_| "the URL's path cannot be sent".to_owned())?;
    let mut headers = HeaderMap::with_capacity(5 + call.headers.len());
    headers.insert(header::HOST, target.host_header.clone());
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::ACCEPT, JSON);
    headers.insert(header::USER_AGENT, AGENT);
    if method == Method::POST {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    add_branch_headers(&mut headers, &call.headers)?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(path);
    *request.headers_mut() = headers;
    Ok(request)
}

/// Returns path and query with what identifies the branch, sorted by name.
fn path_with_ids(call: &BranchCall, target: &Target) -> String {
    let pairs = [
        ("branch_id=", call.call.branch_id.as_str()),
        ("&gid=", call.gid.as_str()),
        ("&op=", call.call.op.as_str()),
        ("&trans_type=", call.trans_type.as_str()),
    ];
    let values: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    let mut path = String::with_capacity(target.path.len() + values + 1);
    path.push_str(&target.path);
    match target.has_query {
        false => path.push('?'),
        true if path.ends_with('?') => {}
        true => path.push('&'),
    }
    for (name, value) in pairs {
        path.push_str(name);
        push_query_value(&mut path, value);
    }
    path
}

fn jsonrpc_body(call: &BranchCall, method: &str) -> Result<Vec<u8>, String> {
    let not_object = "the payload of a JSON-RPC branch is not a JSON object".to_owned();
    let unwritable = |error: serde_json::Error| error.to_string();
    let ids = [
        ("gid", call.gid.as_str()),
        ("trans_type", call.trans_type.as_str()),
        ("branch_id", call.call.branch_id.as_str()),
        ("op", call.call.op.as_str()),
    ]
    .map(|(name, value)| serde_json::value::to_raw_value(value).map(|value| (name, value)));
    // The members' texts are passed on untouched: a number keeps all its digits.
    let mut params: BTreeMap<String, Box<RawValue>> = match call.call.data.trim_ascii() {
        b"" | b"null" => BTreeMap::new(),
        data => serde_json::from_slice(data).map_err(|_| not_object)?,
    };
    for id in ids {
        let (name, value) = id.map_err(unwritable)?;
        params.insert(name.to_owned(), value);
    }
    #[derive(serde::Serialize)]
    struct Envelope<'a> {
        jsonrpc: &'a str,
        id: String,
        method: &'a str,
        params: BTreeMap<String, Box<RawValue>>,
    }
    let envelope = Envelope { jsonrpc: "2.0", id: random_id(), method, params };
    serde_json::to_vec(&envelope).map_err(unwritable)
}

/// Returns an id that no other call of any server is likely to have; nothing rests on it.
fn random_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    format!("{:016x}", hasher.finish())
}

/// Returns why a transaction's branch headers cannot be sent, if they cannot.
///
/// Headers that are never sent ([`is_kept_back`]) do no harm and are left out silently.
pub fn branch_headers_refusal(headers: &BTreeMap<String, String>) -> Option<String> {
    if headers.len() > BRANCH_HEADERS_MAX {
        return Some(format!("more than {BRANCH_HEADERS_MAX} branch headers"));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > BRANCH_HEADERS_MAX_BYTES {
        return Some(format!("branch headers of more than {BRANCH_HEADERS_MAX_BYTES} bytes"));
    }
    headers.iter().find_map(|(name, value)| parse_header(name, value).err())
}

fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        format!("{:?} is not the name of a header", name.escape_debug().to_string())
    })?;
    let value = HeaderValue::from_str(value.trim())
        .or_else(|_| HeaderValue::from_bytes(value.trim().as_bytes()))
        .map_err(|_| format!("the branch header {header} has a control character in its value"))?;
    Ok((header, value))
}

fn add_branch_headers(
    headers: &mut HeaderMap,
    branch_headers: &Arc<BTreeMap<String, String>>,
) -> Result<(), String> {
    if branch_headers.is_empty() {
        return Ok(());
    }
    if let Some(refusal) = branch_headers_refusal(branch_headers) {
        return Err(refusal);
    }
    for (name, value) in branch_headers.iter() {
        let (name, value) = parse_header(name, value)?;
        if !is_kept_back(name.as_str()) {
            headers.insert(name, value);
        }
    }
    Ok(())
}

/// Returns whether a branch header, in lower case, is never sent: it would change where the request
/// goes or how it is framed, or pass for what a proxy or a metadata service asks for.
///
/// `accept-encoding` is among them because an outcome that arrives compressed would not be seen.
fn is_kept_back(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    const PREFIXES: [&str; 4] = ["metadata", "proxy-", "x-aws-ec2-metadata-", "x-forwarded-"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
