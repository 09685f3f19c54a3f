//! What every request passes: who asks, and whether a browser was tricked into asking.

use std::sync::{Arc, LazyLock};

use http::header::{HOST, HeaderMap, ORIGIN};
use http::request::Parts;

/// Who asks. Everybody is anonymous until there are credentials; the namespace will come from them,
/// never from a request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    namespace: Arc<str>,
}

impl Principal {
    /// Returns who has shown no credential.
    pub fn anonymous() -> Self {
        static NAMESPACE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("default"));
        Self { namespace: NAMESPACE.clone() }
    }

    /// Returns the namespace that its transactions live in.
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }
}

/// Lets a request in, as somebody's, or says why not (HTTP 403). Every request passes here,
/// whatever its route.
pub(super) fn admit(head: &Parts) -> Result<Principal, &'static str> {
    let path = head.uri.path();
    let is_api = path.starts_with("/api/") || path.starts_with("/dtmd/");
    if is_api && !is_own_page_or_none(head) {
        return Err(
            "a page of another site may not use this API: its Origin or Sec-Fetch-Site header is \
             not this server's; call it from a service, or from a page that this server serves",
        );
    }
    Ok(Principal::anonymous())
}

/// Returns whether no browser asks, or one on behalf of a page that we served.
pub(super) fn is_own_page_or_none(head: &Parts) -> bool {
    !is_cross_site(&head.headers)
}

/// Returns whether a browser says that another site's page asks. SDKs send neither header.
fn is_cross_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        // Another port of this host is the same site, but not us.
        if site != "same-origin" && site != "none" {
            return true;
        }
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match (authority, host) {
        // The scheme may differ: a proxy in front of us may speak TLS.
        (Some((_, authority)), Some(host)) => !bare(authority).eq_ignore_ascii_case(bare(host)),
        _ => true,
    }
}

/// Returns an authority without its scheme's own port, which one of two spellings may leave out.
fn bare(authority: &str) -> &str {
    authority.strip_suffix(":80").or_else(|| authority.strip_suffix(":443")).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn pages_of_other_sites_are_kept_out_and_everybody_else_is_let_in() {
        // Host, Origin, Sec-Fetch-Site, path, let in.
        let table = [
            ("dtm:36789", "", "", "/api/dtmsvr/submit", true),
            ("dtm:36789", "http://dtm:36789", "", "/api/dtmsvr/submit", true),
            ("DTM:36789", "https://dtm:36789", "same-origin", "/api/dtmsvr/submit", true),
            ("dtm", "http://dtm:80", "", "/api/dtmsvr/submit", true),
            ("dtm:36789", "", "none", "/api/dtmsvr/query", true),
            ("dtm:36789", "http://evil", "", "/api/dtmsvr/submit", false),
            ("dtm:36789", "http://dtm:3000", "", "/api/dtmsvr/submit", false),
            ("dtm:36789", "null", "", "/api/dtmsvr/submit", false),
            ("dtm:36789", "http://dtm:36789.evil", "", "/api/dtmsvr/submit", false),
            ("dtm:36789", "", "cross-site", "/api/dtmsvr/subscribe", false),
            ("dtm:36789", "", "same-site", "/api/dtmsvr/subscribe", false),
            ("dtm:36789", "http://dtm:36789", "cross-site", "/api/dtmsvr/submit", false),
            ("", "http://dtm:36789", "", "/api/json-rpc", false),
            ("dtm:36789", "http://evil", "", "/dtmd/v1/info", false),
            // A link on another site may lead to our page.
            ("dtm:36789", "", "cross-site", "/", true),
        ];
        for (host, origin, site, path, is_in) in table {
            let mut request = Request::post(path);
            for (name, value) in [("host", host), ("origin", origin), ("sec-fetch-site", site)] {
                if !value.is_empty() {
                    request = request.header(name, value);
                }
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(admit(&head).is_ok(), is_in, "{host} {origin} {site} {path}");
        }
    }
}
