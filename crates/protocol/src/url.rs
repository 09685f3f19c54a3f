//! What a branch URL says about how it is called.

/// How a branch URL is to be called, judged by its scheme alone (spec 02 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme<'a> {
    /// No URL: the call counts as done (spec 07 E10).
    Empty,
    /// `http://` or `https://`.
    Http,
    /// `grpc://`, `grpcs://`, or a bare `host:port/Service/Method`.
    Grpc,
    /// `topic://NAME`: a message's fan-out.
    Topic(&'a str),
    /// Anything else; the scheme's name.
    Other(&'a str),
}

impl<'a> Scheme<'a> {
    /// Returns the scheme of a URL.
    pub fn of(url: &'a str) -> Self {
        if url.is_empty() {
            return Self::Empty;
        }
        match split_scheme(url) {
            Some(("http" | "https", _)) => Self::Http,
            Some(("grpc" | "grpcs", _)) => Self::Grpc,
            Some(("topic", name)) => Self::Topic(name),
            Some((scheme, _)) => Self::Other(scheme),
            None => Self::Grpc,
        }
    }
}

/// Splits a URL at its first `://`.
///
/// Asked a dozen times for each transaction: a search for a text costs more in its preparation than
/// looking at the few colons there are.
pub fn split_scheme(url: &str) -> Option<(&str, &str)> {
    if let Some(rest) = url.strip_prefix("http://") {
        return Some(("http", rest));
    }
    let colons = url.bytes().enumerate().filter(|(_, byte)| *byte == b':');
    let mut ends = colons.filter(|(at, _)| url.as_bytes()[at + 1..].starts_with(b"//"));
    ends.next().map(|(at, _)| (&url[..at], &url[at + 3..]))
}

/// Returns the destination of a URL, scheme and authority: the unit of concurrency limits, circuit
/// breakers and pools.
pub fn destination(url: &str) -> &str {
    let start = split_scheme(url).map_or(0, |(scheme, _)| scheme.len() + 3);
    let ends = |byte: u8| matches!(byte, b'/' | b'?' | b'#');
    let end = url.bytes().skip(start).position(ends).map_or(url.len(), |at| start + at);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_and_destinations() {
        let table = [
            ("", Scheme::Empty, ""),
            ("http://a:1/x?y#z", Scheme::Http, "http://a:1"),
            ("https://a", Scheme::Http, "https://a"),
            ("http://a?b", Scheme::Http, "http://a"),
            ("a:1/Svc/M", Scheme::Grpc, "a:1"),
            ("a:1/Svc/M?u=http://b/", Scheme::Other("a:1/Svc/M?u=http"), "a:1/Svc/M?u=http://b"),
            ("http:/a://b", Scheme::Other("http:/a"), "http:/a://b"),
            ("http:", Scheme::Grpc, "http:"),
            ("://", Scheme::Other(""), "://"),
            ("ü://ö/ä", Scheme::Other("ü"), "ü://ö"),
            ("grpcs://a:1/Svc/M", Scheme::Grpc, "grpcs://a:1"),
            ("topic://t", Scheme::Topic("t"), "topic://t"),
            ("nacos://s/p", Scheme::Other("nacos"), "nacos://s"),
        ];
        for (url, scheme, to) in table {
            assert_eq!(Scheme::of(url), scheme, "{url}");
            assert_eq!(destination(url), to, "{url}");
        }
    }
}
