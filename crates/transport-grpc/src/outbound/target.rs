//! A gRPC URL, taken apart once.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use dtmd_transport::outbound::check_egress;
use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

/// The longest URL that is called, in bytes.
const URL_MAX_BYTES: usize = 8 << 10;

/// `grpc://host:port/Service/Method`, `grpcs://…`, or the first without its scheme, ready for calls.
#[derive(Debug)]
pub(super) struct Target {
    /// What connections are pooled by.
    pub(super) place: Arc<Place>,
    /// The URL of every request.
    pub(super) uri: Uri,
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Whether the connection is encrypted.
    pub(super) tls: bool,
    /// A name in lower case, or an address without brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, self.port).fmt(f),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Target {
    /// Takes a URL apart. `localhost_alias` stands in for a host `localhost` or `127.0.0.1` (spec
    /// 02 §4.2).
    ///
    /// # Errors
    ///
    /// A text that says what is wrong with the URL.
    pub(super) fn parse(url: &str, localhost_alias: Option<&str>) -> Result<Self, String> {
        if url.len() > URL_MAX_BYTES {
            return Err(format!("the URL is longer than {URL_MAX_BYTES} bytes"));
        }
        let (tls, rest) = split_scheme(url)?;
        let Some((spelled, method)) = rest.split_once('/') else { return Err(no_method()) };
        let (host, port) = split_authority(spelled)?;
        let port = match port {
            Some(port) => port,
            None if tls => 443,
            None => return Err("the URL has no port".to_owned()),
        };
        let host = match localhost_alias {
            Some(alias) if matches!(host, "localhost" | "127.0.0.1") => alias,
            _ => host,
        };
        check_method(method)?;
        let place = Place { tls, host: host.to_ascii_lowercase(), port };
        if let Ok(ip) = place.host.parse::<IpAddr>() {
            check_egress(SocketAddr::new(ip, port)).map_err(|refused| refused.to_string())?;
        }
        let scheme = if tls { Scheme::HTTPS } else { Scheme::HTTP };
        let authority = Authority::try_from(spelled).map_err(|_| bad_host())?;
        let path = PathAndQuery::try_from(format!("/{method}")).map_err(|_| no_method())?;
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        Ok(Self { place: Arc::new(place), uri: uri.map_err(|_| no_method())? })
    }
}

/// Returns whether the URL is encrypted, and what follows its scheme.
fn split_scheme(url: &str) -> Result<(bool, &str), String> {
    match url.split_once("://") {
        None => Ok((false, url)),
        Some(("grpc", rest)) => Ok((false, rest)),
        Some(("grpcs", rest)) => Ok((true, rest)),
        Some(_) => Err("the URL does not begin with grpc:// or grpcs://".to_owned()),
    }
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port`; brackets are left out.
fn split_authority(authority: &str) -> Result<(&str, Option<u16>), String> {
    if authority.contains('@') {
        return Err("the URL contains a user name; send credentials in branch_headers".to_owned());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(bad_host)?;
            host.parse::<Ipv6Addr>().map_err(|_| bad_host())?;
            (host, port)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at(end);
            let allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if host.is_empty() || host.len() > 254 || !host.bytes().all(allowed) {
                return Err(bad_host());
            }
            (host, port)
        }
    };
    let Some(digits) = port.strip_prefix(':') else {
        return if port.is_empty() { Ok((host, None)) } else { Err(bad_host()) };
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(port) if is_number && port > 0 => Ok((host, Some(port))),
        _ => Err("the URL's port is not between 1 and 65535".to_owned()),
    }
}

/// Checks `Service/Method`. DTM takes anything here, and retries for ever what no service can be.
fn check_method(method: &str) -> Result<(), String> {
    let is_word = |word: &str| {
        let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%');
        !word.is_empty() && word.bytes().all(allowed)
    };
    match method.split_once('/') {
        Some((service, method)) if is_word(service) && is_word(method) => Ok(()),
        _ => Err(no_method()),
    }
}

fn no_method() -> String {
    "the URL of a gRPC branch is host:port/package.Service/Method, before it grpc:// or grpcs:// \
     if you like"
        .to_owned()
}

fn bad_host() -> String {
    "the URL's host is neither a name nor an address".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_called() {
        let table = [
            ("a:1/s.S/M", "a:1", false, "http://a:1/s.S/M"),
            ("grpc://A.b:1/s.S/M", "a.b:1", false, "http://A.b:1/s.S/M"),
            ("grpcs://a/s.S/M", "a:443", true, "https://a/s.S/M"),
            ("grpcs://a:8443/s.S/M", "a:8443", true, "https://a:8443/s.S/M"),
            ("[::1]:7/S/M", "[::1]:7", false, "http://[::1]:7/S/M"),
            ("localhost:58081/workflow.Workflow/Execute", "localhost:58081", false, ""),
        ];
        for (url, place, tls, uri) in table {
            let target = Target::parse(url, None).unwrap();
            assert_eq!(target.place.to_string(), place, "{url}");
            assert_eq!(target.place.tls, tls, "{url}");
            assert!(uri.is_empty() || target.uri == uri, "{url}: {}", target.uri);
        }
        let aliased = Target::parse("localhost:1/S/M", Some("host.docker.internal")).unwrap();
        assert_eq!(aliased.place.to_string(), "host.docker.internal:1");
        assert_eq!(aliased.uri, "http://localhost:1/S/M");
    }

    #[test]
    fn urls_that_are_refused() {
        let table = [
            ("a:1", "Service/Method"),
            ("a:1/", "Service/Method"),
            ("a:1/M", "Service/Method"),
            ("a:1/S/", "Service/Method"),
            ("a:1/S/M?x", "Service/Method"),
            ("a:1/S/M M", "Service/Method"),
            ("a/S/M", "no port"),
            ("grpc://a/S/M", "no port"),
            ("a:0/S/M", "port"),
            ("a:+1/S/M", "port"),
            ("a:65536/S/M", "port"),
            ("a:x/S/M", "port"),
            (":1/S/M", "host"),
            ("ä:1/S/M", "host"),
            ("[::1/S/M", "host"),
            ("u@a:1/S/M", "user name"),
            ("nacos://a:1/S/M", "grpc://"),
            ("169.254.169.254:80/S/M", "metadata"),
            ("[fe80::1]:80/S/M", "link-local"),
        ];
        for (url, why) in table {
            let text = Target::parse(url, None).unwrap_err();
            assert!(text.contains(why), "{url}: {text}");
        }
    }
}
