//! A branch URL, taken apart once.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;

use super::egress::check_egress;
use super::request::standing_head;

/// The longest URL that is called, in bytes.
const URL_MAX_BYTES: usize = 8 << 10;

/// Where a call goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// An address; needs no resolving.
    Address(IpAddr),
    /// A name, in lower case.
    Name(Arc<str>),
}

/// An `http` or `https` URL, ready for calls.
#[derive(Debug)]
pub(super) struct Target {
    /// Whether the connection is encrypted.
    pub(super) tls: bool,
    /// The host to connect to.
    pub(super) host: Host,
    /// The port to connect to.
    pub(super) port: u16,
    /// Scheme, host and port: what connections are pooled by.
    pub(super) destination: Arc<str>,
    /// The `Host` header: as the URL spells it.
    pub(super) host_header: HeaderValue,
    /// What every request to the host begins with, after its path.
    pub(super) standing_head: Vec<u8>,
    /// Path and query as they are sent, percent-encoded where needed, without a fragment.
    pub(super) path: String,
    /// Whether `path` has a query.
    pub(super) has_query: bool,
}

impl Target {
    /// Takes an `http` or `https` URL apart. `localhost_alias` stands in for a host `localhost` or
    /// `127.0.0.1` (spec 02 §4.2).
    ///
    /// # Errors
    ///
    /// A text that says what is wrong with the URL; it does not contain the URL, whose query may be
    /// private.
    pub(super) fn parse(url: &str, localhost_alias: Option<&str>) -> Result<Self, String> {
        if url.len() > URL_MAX_BYTES {
            return Err(format!("the URL is longer than {URL_MAX_BYTES} bytes"));
        }
        if url.chars().any(char::is_control) {
            return Err("the URL contains a control character".to_owned());
        }
        let (tls, rest) = split_scheme(url)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (host, port) = split_authority(authority)?;
        let (host, renamed) = match localhost_alias {
            Some(alias) if matches!(host, "localhost" | "127.0.0.1") => (alias, true),
            _ => (host, false),
        };
        let spelled = host;
        let host = parse_host(host)?;
        let port_or_default = port.unwrap_or(if tls { 443 } else { 80 });
        if let Host::Address(ip) = host {
            check_egress(SocketAddr::new(ip, port_or_default))
                .map_err(|refused| refused.to_string())?;
        }
        let host_header = match port {
            Some(port) if renamed => HeaderValue::try_from(format!("{spelled}:{port}")),
            None if renamed => HeaderValue::try_from(spelled),
            _ => HeaderValue::try_from(authority.trim_end_matches(':')),
        };
        let host_header = host_header.map_err(|_| bad_host())?;
        let (path, has_query) = request_path(rest);
        Ok(Self {
            tls,
            port: port_or_default,
            destination: destination(tls, &host, port_or_default),
            host,
            standing_head: standing_head(&host_header),
            host_header,
            path,
            has_query,
        })
    }

    /// Returns host and port for messages to people.
    pub(super) fn place(&self) -> &str {
        self.destination.split_once("://").map_or(&self.destination, |(_, place)| place)
    }

    /// Returns the decoded value of a query parameter; empty if it is not there.
    pub(super) fn query_value(&self, name: &str) -> String {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .find(|(key, _)| decode(key) == name)
            .map_or_else(String::new, |(_, value)| decode(value))
    }
}

/// Returns whether a URL's scheme is `http` or `https`, in any case.
pub(super) fn is_http(url: &str) -> bool {
    split_scheme(url).is_ok()
}

fn split_scheme(url: &str) -> Result<(bool, &str), String> {
    let (scheme, rest) = dtmd_protocol::url::split_scheme(url).unwrap_or(("", url));
    if scheme.eq_ignore_ascii_case("http") {
        return Ok((false, rest));
    }
    if scheme.eq_ignore_ascii_case("https") {
        return Ok((true, rest));
    }
    Err("the URL does not begin with http:// or https://".to_owned())
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port`; the host keeps its brackets.
fn split_authority(authority: &str) -> Result<(&str, Option<u16>), String> {
    if authority.contains('@') {
        return Err("the URL contains a user name; send credentials in branch_headers".to_owned());
    }
    let host_end = match authority.starts_with('[') {
        true => authority.find(']').ok_or_else(bad_host)? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_end);
    if host.is_empty() {
        return Err("the URL has no host".to_owned());
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        Some("") => Ok((host, None)),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
            Ok(port) if port > 0 => Ok((host, Some(port))),
            _ => Err("the URL's port is not between 1 and 65535".to_owned()),
        },
        _ => Err("the URL's port is not a number".to_owned()),
    }
}

fn bad_host() -> String {
    "the URL's host is neither a name nor an address".to_owned()
}

fn parse_host(host: &str) -> Result<Host, String> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or_else(bad_host)?;
        let ip: Ipv6Addr = inner.parse().map_err(|_| bad_host())?;
        return Ok(Host::Address(IpAddr::V6(ip)));
    }
    // Letters of other scripts must come in their encoded form: some of them are folded to digits
    // and dots on the way to an address.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.len() > 254 || !host.bytes().all(allowed) {
        return Err(bad_host());
    }
    let bare = host.strip_suffix('.').unwrap_or(host);
    if bare.split('.').any(str::is_empty) {
        return Err(bad_host());
    }
    let last = bare.rsplit('.').next().unwrap_or(bare);
    if part_of_address(last).is_some() || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return loose_v4(bare).map(|ip| Host::Address(IpAddr::V4(ip))).ok_or_else(bad_host);
    }
    Ok(Host::Name(Arc::from(host.to_ascii_lowercase())))
}

/// Reads one part of an IPv4 address as C libraries do: decimal, octal or hexadecimal.
fn part_of_address(part: &str) -> Option<u32> {
    let (digits, radix) = match part.as_bytes() {
        [b'0', b'x' | b'X'] => return Some(0),
        [b'0', b'x' | b'X', ..] => (&part[2..], 16),
        [b'0', _, ..] => (&part[1..], 8),
        _ => (part, 10),
    };
    // `from_str_radix` takes a sign, an address does not.
    match digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => u32::from_str_radix(digits, radix).ok(),
        false => None,
    }
}

/// Reads an IPv4 address in any spelling that some resolver takes for one: `127.1`, `0x7f000001`,
/// `2130706433`, `0177.0.0.1`.
fn loose_v4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.').map(part_of_address);
    let mut address: u32 = 0;
    let mut bytes_left = 4_u32;
    while let Some(part) = parts.next() {
        let part = part?;
        let is_last = parts.clone().next().is_none();
        let limit = if is_last { (1_u64 << (8 * bytes_left)) - 1 } else { 0xff };
        if u64::from(part) > limit || (bytes_left == 1 && !is_last) {
            return None;
        }
        bytes_left -= 1;
        address |= if is_last { part } else { part << (8 * bytes_left) };
    }
    Some(Ipv4Addr::from(address))
}

fn destination(tls: bool, host: &Host, port: u16) -> Arc<str> {
    let scheme = if tls { "https" } else { "http" };
    Arc::from(match host {
        Host::Address(ip) => format!("{scheme}://{}", SocketAddr::new(*ip, port)),
        Host::Name(name) => format!("{scheme}://{name}:{port}"),
    })
}

/// Returns path and query as they are sent, and whether there is a query.
fn request_path(rest: &str) -> (String, bool) {
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let mut path = String::with_capacity(rest.len() + 8);
    if !rest.starts_with('/') {
        path.push('/');
    }
    let mut has_query = false;
    for byte in rest.bytes() {
        has_query |= byte == b'?';
        // What a request line cannot carry is encoded, as DTM does; what is encoded already stays.
        match byte {
            0x21..=0x7e
                if !matches!(
                    byte,
                    b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
                ) =>
            {
                path.push(char::from(byte));
            }
            _ => push_encoded(&mut path, byte),
        }
    }
    (path, has_query)
}

fn push_encoded(text: &mut String, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(text, "%{byte:02X}");
}

/// Appends a query value, percent-encoded.
pub(super) fn push_query_value(out: &mut Vec<u8>, value: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let digit = |bits: u8| DIGITS[usize::from(bits & 0xf)];
    let mut rest = value.as_bytes();
    loop {
        let plain = rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { return };
        out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
        rest = &rest[plain + 1..];
    }
}

/// Decodes a piece of a query; what is not valid percent-encoding stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let value = hex.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match (byte, value.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 3;
                continue;
            }
            (b'+', _) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
