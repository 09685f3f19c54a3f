//! Which handler a method and a path are for.

use http::Method;

/// An endpoint (spec 02 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Version,
    NewGid,
    Prepare,
    Submit,
    Abort,
    ForceStop,
    RegisterBranch,
    PrepareWorkflow,
    Query,
    All,
    ResetCronTime,
    ResetNextCronTime,
    Subscribe,
    Unsubscribe,
    DeleteTopic,
    ScanKv,
    QueryKv,
    JsonRpc,
    Metrics,
    Ping,
    Healthz,
    Readyz,
    Attempts,
    Alerts,
    Info,
    Store,
    Root,
    NotFound,
}

impl Route {
    /// How many there are.
    pub(super) const COUNT: usize = Self::NotFound as usize + 1;

    /// Returns its name for metrics and logs: DTM's, so that dashboards go on working.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::NewGid => "newgid",
            Self::Prepare => "prepare",
            Self::Submit => "submit",
            Self::Abort => "abort",
            Self::ForceStop => "forcestop",
            Self::RegisterBranch => "registerbranch",
            Self::PrepareWorkflow => "prepareworkflow",
            Self::Query => "query",
            Self::All => "all",
            Self::ResetCronTime => "resetcrontime",
            Self::ResetNextCronTime => "resetnextcrontime",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::DeleteTopic => "topic",
            Self::ScanKv => "scankv",
            Self::QueryKv => "querykv",
            Self::JsonRpc => "json-rpc",
            Self::Metrics => "metrics",
            Self::Ping => "ping",
            Self::Healthz => "healthz",
            Self::Readyz => "readyz",
            Self::Attempts => "attempts",
            Self::Alerts => "alerts",
            Self::Info => "info",
            Self::Store => "store",
            Self::Root => "root",
            Self::NotFound => "notfound",
        }
    }
}

/// What a method and a path lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A route, with what its path names.
    Route(Route, &'a str),
    /// A route by the same path without its last slash; with this status.
    Redirect(u16, &'a str),
}

/// Returns what a request is for. The text of [`Route::DeleteTopic`] is still encoded.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Found<'a> {
    if let Some((route, name)) = exact(method, path) {
        return Found::Route(route, name);
    }
    match path.strip_suffix('/') {
        Some(shorter) if exact(method, shorter).is_some() => {
            let status = if *method == Method::GET { 301 } else { 307 };
            Found::Redirect(status, shorter)
        }
        _ => Found::Route(Route::NotFound, ""),
    }
}

fn exact<'a>(method: &Method, path: &'a str) -> Option<(Route, &'a str)> {
    let route = match (method.as_str(), path) {
        ("POST", "/api/dtmsvr/submit") => Route::Submit,
        ("POST", "/api/dtmsvr/prepare") => Route::Prepare,
        ("POST", "/api/dtmsvr/registerBranch") => Route::RegisterBranch,
        ("POST", "/api/dtmsvr/abort") => Route::Abort,
        ("GET", "/api/dtmsvr/newGid") => Route::NewGid,
        ("GET", "/api/dtmsvr/query") => Route::Query,
        ("POST", "/api/dtmsvr/prepareWorkflow") => Route::PrepareWorkflow,
        ("POST", "/api/json-rpc") => Route::JsonRpc,
        ("POST", "/api/dtmsvr/forceStop") => Route::ForceStop,
        // Node's and PHP's SDKs use these (spec 07 E5).
        ("POST", "/api/dtmsvr/registerXaBranch" | "/api/dtmsvr/registerTccBranch") => {
            Route::RegisterBranch
        }
        ("GET", "/api/dtmsvr/version") => Route::Version,
        ("GET", "/api/dtmsvr/all") => Route::All,
        ("GET", "/api/dtmsvr/resetCronTime") => Route::ResetCronTime,
        ("POST", "/api/dtmsvr/resetNextCronTime") => Route::ResetNextCronTime,
        ("GET", "/api/dtmsvr/subscribe") => Route::Subscribe,
        ("GET", "/api/dtmsvr/unsubscribe") => Route::Unsubscribe,
        ("GET", "/api/dtmsvr/scanKV") => Route::ScanKv,
        ("GET", "/api/dtmsvr/queryKV") => Route::QueryKv,
        ("GET", "/api/metrics") => Route::Metrics,
        (_, "/api/ping") => Route::Ping,
        ("GET" | "HEAD", "/healthz") => Route::Healthz,
        ("GET" | "HEAD", "/readyz") => Route::Readyz,
        ("GET", "/dtmd/v1/alerts") => Route::Alerts,
        ("GET", "/dtmd/v1/info") => Route::Info,
        ("GET", "/dtmd/v1/store") => Route::Store,
        ("GET", path) if path.starts_with("/dtmd/v1/transactions/") => {
            let rest = path.strip_prefix("/dtmd/v1/transactions/")?;
            let gid = rest.strip_suffix("/attempts")?;
            let is_segment = !gid.is_empty() && !gid.contains('/');
            return is_segment.then_some((Route::Attempts, gid));
        }
        ("GET", "/") => Route::Root,
        ("DELETE", path) => {
            let topic = path.strip_prefix("/api/dtmsvr/topic/")?;
            let is_segment = !topic.is_empty() && !topic.contains('/');
            return is_segment.then_some((Route::DeleteTopic, topic));
        }
        _ => return None,
    };
    Some((route, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(name: &str) -> Method {
        name.parse().unwrap()
    }

    #[test]
    fn every_endpoint_has_its_method_and_path() {
        let table = [
            ("GET", "/api/dtmsvr/version", Route::Version),
            ("GET", "/api/dtmsvr/newGid", Route::NewGid),
            ("POST", "/api/dtmsvr/prepare", Route::Prepare),
            ("POST", "/api/dtmsvr/submit", Route::Submit),
            ("POST", "/api/dtmsvr/abort", Route::Abort),
            ("POST", "/api/dtmsvr/forceStop", Route::ForceStop),
            ("POST", "/api/dtmsvr/registerBranch", Route::RegisterBranch),
            ("POST", "/api/dtmsvr/registerXaBranch", Route::RegisterBranch),
            ("POST", "/api/dtmsvr/registerTccBranch", Route::RegisterBranch),
            ("POST", "/api/dtmsvr/prepareWorkflow", Route::PrepareWorkflow),
            ("GET", "/api/dtmsvr/query", Route::Query),
            ("GET", "/api/dtmsvr/all", Route::All),
            ("GET", "/api/dtmsvr/resetCronTime", Route::ResetCronTime),
            ("POST", "/api/dtmsvr/resetNextCronTime", Route::ResetNextCronTime),
            ("GET", "/api/dtmsvr/subscribe", Route::Subscribe),
            ("GET", "/api/dtmsvr/unsubscribe", Route::Unsubscribe),
            ("GET", "/api/dtmsvr/scanKV", Route::ScanKv),
            ("GET", "/api/dtmsvr/queryKV", Route::QueryKv),
            ("POST", "/api/json-rpc", Route::JsonRpc),
            ("GET", "/api/metrics", Route::Metrics),
            ("GET", "/dtmd/v1/alerts", Route::Alerts),
            ("GET", "/dtmd/v1/info", Route::Info),
            ("GET", "/dtmd/v1/store", Route::Store),
            ("GET", "/healthz", Route::Healthz),
            ("GET", "/readyz", Route::Readyz),
            ("GET", "/", Route::Root),
        ];
        for (name, path, route) in table {
            assert_eq!(find(&method(name), path), Found::Route(route, ""), "{name} {path}");
            for other in ["GET", "POST", "PUT", "DELETE", "PATCH"].iter().filter(|m| **m != name) {
                let found = find(&method(other), path);
                assert_eq!(found, Found::Route(Route::NotFound, ""), "{other} {path}");
            }
        }
        for name in ["GET", "POST", "HEAD", "PUT"] {
            assert_eq!(find(&method(name), "/api/ping"), Found::Route(Route::Ping, ""));
        }
    }

    #[test]
    fn topics_are_one_segment() {
        let table = [
            ("/api/dtmsvr/topic/t", Found::Route(Route::DeleteTopic, "t")),
            ("/api/dtmsvr/topic/a%2Fb", Found::Route(Route::DeleteTopic, "a%2Fb")),
            ("/api/dtmsvr/topic/t/", Found::Redirect(307, "/api/dtmsvr/topic/t")),
            ("/api/dtmsvr/topic/", Found::Route(Route::NotFound, "")),
            ("/api/dtmsvr/topic/a/b", Found::Route(Route::NotFound, "")),
        ];
        for (path, found) in table {
            assert_eq!(find(&Method::DELETE, path), found, "{path}");
        }
    }

    #[test]
    fn gids_are_one_segment() {
        let table = [
            ("/dtmd/v1/transactions/g/attempts", Found::Route(Route::Attempts, "g")),
            ("/dtmd/v1/transactions/a%2Fb/attempts", Found::Route(Route::Attempts, "a%2Fb")),
            ("/dtmd/v1/transactions//attempts", Found::Route(Route::NotFound, "")),
            ("/dtmd/v1/transactions/a/b/attempts", Found::Route(Route::NotFound, "")),
            ("/dtmd/v1/transactions/g", Found::Route(Route::NotFound, "")),
        ];
        for (path, found) in table {
            assert_eq!(find(&Method::GET, path), found, "{path}");
        }
    }

    #[test]
    fn a_slash_too_many_redirects_and_nothing_else_does() {
        let table = [
            ("GET", "/api/dtmsvr/query/", Found::Redirect(301, "/api/dtmsvr/query")),
            ("POST", "/api/dtmsvr/submit/", Found::Redirect(307, "/api/dtmsvr/submit")),
            ("PUT", "/api/ping/", Found::Redirect(307, "/api/ping")),
            ("POST", "/api/dtmsvr/query/", Found::Route(Route::NotFound, "")),
            ("GET", "/api/dtmsvr/query//", Found::Route(Route::NotFound, "")),
            ("GET", "//", Found::Redirect(301, "/")),
            ("GET", "/api/dtmsvr/Query", Found::Route(Route::NotFound, "")),
            ("GET", "//evil.example/", Found::Route(Route::NotFound, "")),
            ("GET", "*", Found::Route(Route::NotFound, "")),
            ("GET", "", Found::Route(Route::NotFound, "")),
        ];
        for (name, path, found) in table {
            assert_eq!(find(&method(name), path), found, "{name} {path}");
        }
    }
}
