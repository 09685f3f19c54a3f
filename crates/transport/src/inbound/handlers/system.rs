//! What is asked of the server itself.

use dtmd_wire::response;

use super::super::api::Api;
use super::super::reply::Reply;

pub(in super::super) fn version(api: &Api) -> Reply {
    Reply::json(response::version(&api.options.version))
}

pub(in super::super) fn new_gid() -> Reply {
    Reply::json(response::new_gid(&dtmd_wire::gid::new_gid()))
}

pub(in super::super) fn ping() -> Reply {
    Reply::json(br#"{"msg":"pong"}"#.to_vec())
}

/// Whether the process lives: restart it if this does not answer.
pub(in super::super) fn healthz() -> Reply {
    Reply::text(200, "ok")
}

/// Whether transactions can be accepted: send them elsewhere if not.
pub(in super::super) async fn readyz(api: &Api) -> Reply {
    match api.engine.ready().await {
        Ok(()) => Reply::text(200, "ok"),
        Err(error) => Reply::text(503, error.to_string()),
    }
}

pub(in super::super) async fn metrics(api: &Api) -> Reply {
    api.engine.refresh_metrics().await;
    let text = api.engine.metrics().encode();
    let is_open_metrics = text.ends_with("# EOF\n");
    let content_type = match is_open_metrics {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    Reply::of_type(content_type, text)
}

/// What a person sees who opens the server's address.
pub(in super::super) fn root(api: &Api) -> Reply {
    let version = &api.options.version;
    Reply::text(
        200,
        format!(
            "dtmd {version}: a distributed transaction manager that speaks DTM's protocol.\n\n\
             API                 /api/dtmsvr/ (HTTP), /api/json-rpc (JSON-RPC)\n\
             transactions        /api/dtmsvr/all\n\
             one of them         /api/dtmsvr/query?gid=<gid>\n\
             its last calls      /dtmd/v1/transactions/<gid>/attempts\n\
             metrics             /api/metrics\n\
             health, readiness   /healthz, /readyz\n"
        ),
    )
}
