//! What is sent to a service (spec 02 §4.2, §5.2).

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};

use dtmd_engine::BranchCall;
use http::header::{HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::target::{Target, push_query_value};

/// The most branch headers of one transaction.
pub const BRANCH_HEADERS_MAX: usize = 32;
/// The size of all branch headers of one transaction, names and values, in bytes.
pub const BRANCH_HEADERS_MAX_BYTES: usize = 8 << 10;

/// What every request says besides its length. A branch header of the same name takes its place.
const STANDING: [(&str, &str); 3] = [
    ("Content-Type", "application/json"),
    ("Accept", "application/json"),
    ("User-Agent", concat!("dtmd/", env!("CARGO_PKG_VERSION"))),
];

/// Returns the end of a request line and the headers that all requests to a host share.
pub(super) fn standing_head(host: &HeaderValue) -> Vec<u8> {
    let mut head = Vec::with_capacity(160);
    push_start(&mut head, host);
    for (name, value) in STANDING {
        push_header(&mut head, name, value.as_bytes());
    }
    head
}

/// Returns an HTTP call as it is sent, head and body.
///
/// # Errors
///
/// A text for people, if the call cannot be written as a request.
pub(super) fn http_request(call: &BranchCall, target: &Target) -> Result<Vec<u8>, String> {
    let body = &call.call.data;
    let is_post = !body.is_empty() || call.call.always_post;
    let ids = ids_of(call);
    // Percent-encoding makes an id three times as long at most, and hardly ever does.
    let ids_bytes: usize = ids.iter().map(|(name, value)| name.len() + value.len() + 1).sum();
    let mut out = with_room_for(call, target, ids_bytes, body.len());
    out.extend_from_slice(if is_post { b"POST " } else { b"GET " });
    push_path_with_ids(&mut out, target, &ids);
    push_head(&mut out, call, target, is_post.then_some(body.len()))?;
    out.extend_from_slice(body);
    Ok(out)
}

/// Returns a JSON-RPC call as it is sent, head and body.
///
/// # Errors
///
/// A text for people, for instance if the payload is not a JSON object.
pub(super) fn jsonrpc_request(call: &BranchCall, target: &Target) -> Result<Vec<u8>, String> {
    let body = jsonrpc_body(call, &target.query_value("method"))?;
    let mut out = with_room_for(call, target, 0, body.len());
    out.extend_from_slice(b"POST ");
    out.extend_from_slice(target.path.as_bytes());
    push_head(&mut out, call, target, Some(body.len()))?;
    out.extend_from_slice(&body);
    Ok(out)
}

/// Returns a JSON message to an operator's URL as it is sent; the connection ends with its answer.
pub(super) fn post_request(
    target: &Target,
    headers: &[(HeaderName, HeaderValue)],
    body: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + body.len());
    out.extend_from_slice(b"POST ");
    out.extend_from_slice(target.path.as_bytes());
    push_start(&mut out, &target.host_header);
    push_header(&mut out, "Content-Type", b"application/json");
    push_header(&mut out, "Connection", b"close");
    for (name, value) in headers {
        push_header(&mut out, name.as_str(), value.as_bytes());
    }
    push_end(&mut out, Some(body.len()));
    out.extend_from_slice(body);
    out
}

/// Returns a buffer that a request fits into, most probably.
fn with_room_for(call: &BranchCall, target: &Target, ids: usize, body: usize) -> Vec<u8> {
    let headers: usize =
        call.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let fixed = target.path.len() + target.standing_head.len() + 48;
    Vec::with_capacity(fixed + ids + headers + body)
}

/// Writes the rest of a request line and all headers.
fn push_head(
    out: &mut Vec<u8>,
    call: &BranchCall,
    target: &Target,
    length: Option<usize>,
) -> Result<(), String> {
    if call.headers.is_empty() {
        out.extend_from_slice(&target.standing_head);
    } else {
        push_start(out, &target.host_header);
        push_own_and_standing(out, &call.headers)?;
    }
    push_end(out, length);
    Ok(())
}

/// Writes the length of a body and the end of a head.
fn push_end(out: &mut Vec<u8>, length: Option<usize>) {
    if let Some(length) = length {
        out.extend_from_slice(b"Content-Length: ");
        push_number(out, length);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn push_start(out: &mut Vec<u8>, host: &HeaderValue) {
    out.extend_from_slice(b" HTTP/1.1\r\n");
    push_header(out, "Host", host.as_bytes());
}

/// Writes a header, its name as Go's client writes it: some services compare names by case, against
/// what DTM sends.
fn push_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let mut begins_word = true;
    for byte in name.bytes() {
        out.push(if begins_word { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() });
        begins_word = byte == b'-';
    }
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn push_number(out: &mut Vec<u8>, mut number: usize) {
    let start = out.len();
    loop {
        let [digit, ..] = (number % 10).to_le_bytes();
        out.push(b'0' + digit);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out[start..].reverse();
}

/// What identifies the branch in a query, sorted by name.
fn ids_of(call: &BranchCall) -> [(&'static str, &str); 4] {
    [
        ("branch_id=", call.call.branch_id.as_str()),
        ("&gid=", call.gid.as_str()),
        ("&op=", call.call.op.as_str()),
        ("&trans_type=", call.trans_type.as_str()),
    ]
}

fn push_path_with_ids(out: &mut Vec<u8>, target: &Target, ids: &[(&str, &str)]) {
    out.extend_from_slice(target.path.as_bytes());
    match target.has_query {
        false => out.push(b'?'),
        true if target.path.ends_with('?') => {}
        true => out.push(b'&'),
    }
    for (name, value) in ids {
        out.extend_from_slice(name.as_bytes());
        push_query_value(out, value);
    }
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

/// Writes a transaction's headers, and the standing ones that they leave in place.
fn push_own_and_standing(
    out: &mut Vec<u8>,
    branch_headers: &BTreeMap<String, String>,
) -> Result<(), String> {
    if let Some(refusal) = branch_headers_refusal(branch_headers) {
        return Err(refusal);
    }
    let mut own: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(branch_headers.len());
    for (name, value) in branch_headers {
        let (name, value) = parse_header(name, value)?;
        if is_kept_back(name.as_str()) {
            continue;
        }
        // Names that differ by case only are one header, and the last one counts.
        own.retain(|(other, _)| *other != name);
        own.push((name, value));
    }
    let is_own = |name: &str| own.iter().any(|(of, _)| of.as_str().eq_ignore_ascii_case(name));
    for (name, value) in STANDING.iter().filter(|(name, _)| !is_own(name)) {
        push_header(out, name, value.as_bytes());
    }
    for (name, value) in &own {
        push_header(out, name.as_str(), value.as_bytes());
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
