//! The bank's branches over gRPC: the service `dtmd.demo.Bank`, a method for each endpoint.
//!
//! `POST /try-out` is the method `TryOut`; the message is the body of the HTTP call as it is, the
//! branch is named by the metadata of spec 03 §3. XA branches are HTTP only.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::Service;
use super::calls::is_branch_path;
use crate::grpc::server::{GrpcCall, GrpcReply, GrpcService};
use crate::grpc::status;
use crate::serve::Reply;

/// The bank's gRPC service, as it stands in URLs: `ADDRESS:PORT/dtmd.demo.Bank/TryOut`.
pub const BANK_SERVICE: &str = "/dtmd.demo.Bank";

/// Returns the method of an endpoint: `/try-out` is `/dtmd.demo.Bank/TryOut`.
#[must_use]
pub fn grpc_method(path: &str) -> String {
    let words = path.trim_start_matches('/').split('-').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        format!("{}{rest}", first.to_ascii_uppercase())
    });
    format!("{BANK_SERVICE}/{}", words.collect::<String>())
}

/// Returns the endpoint of a method.
fn path_of(method: &str) -> Option<String> {
    let name = method.strip_prefix(BANK_SERVICE)?.strip_prefix('/')?;
    let mut path = String::from("/");
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            path.push('-');
        }
        path.push(letter.to_ascii_lowercase());
    }
    // The way back must be the same, or `tryout` would be a method too.
    let is_branch = is_branch_path(&path) && !path.starts_with("/xa-");
    let is_known = is_branch || path == "/query-prepared";
    (is_known && grpc_method(&path) == method).then_some(path)
}

impl GrpcService for Service {
    async fn call(&self, call: GrpcCall) -> GrpcReply {
        let Some(path) = path_of(&call.path) else {
            let text = format!("the bank has no method {}", call.path);
            return GrpcReply::Status(status::UNIMPLEMENTED, text);
        };
        let pairs = branch_of(&call.metadata);
        to_grpc(self.branch_call(&path, &pairs, &call.message).await)
    }
}

/// Returns what the metadata tell as the query parameters of an HTTP call would.
fn branch_of(metadata: &HeaderMap) -> BTreeMap<String, String> {
    let read = |name: &str| {
        let value = metadata.get(format!("dtm-{name}"))?;
        Some((name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
    };
    ["gid", "trans_type", "branch_id", "op", "dtm"].into_iter().filter_map(read).collect()
}

/// Returns the status that means what the HTTP answer means (spec 03 §2).
fn to_grpc(reply: Reply) -> GrpcReply {
    let (http, body) = match reply {
        Reply::Json(http, body) => (http, body),
        Reply::Drop => return GrpcReply::Drop,
    };
    let text = body["error"].as_str().map_or_else(|| word(&body), str::to_owned);
    match http {
        StatusCode::OK => GrpcReply::Message(Bytes::new()),
        StatusCode::CONFLICT => GrpcReply::Status(status::ABORTED, text),
        StatusCode::TOO_EARLY => GrpcReply::Status(status::FAILED_PRECONDITION, text),
        StatusCode::BAD_REQUEST => GrpcReply::Status(status::INVALID_ARGUMENT, text),
        _ => GrpcReply::Status(status::INTERNAL, text),
    }
}

fn word(body: &Value) -> String {
    body["dtm_result"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_and_methods_are_the_same_things() {
        for (path, method) in
            [("/out", "Out"), ("/try-out", "TryOut"), ("/query-prepared", "QueryPrepared")]
        {
            let method = format!("{BANK_SERVICE}/{method}");
            assert_eq!(grpc_method(path), method);
            assert_eq!(path_of(&method).as_deref(), Some(path));
        }
        for other in ["/dtmd.demo.Bank/tryOut", "/dtmd.demo.Bank/XaOut", "/other/Out", "Out"] {
            assert_eq!(path_of(other), None, "{other}");
        }
    }

    #[test]
    fn answers_mean_the_same_over_both() {
        let json =
            |http, text: &str| to_grpc(Reply::Json(http, serde_json::json!({"error": text})));
        assert_eq!(json(StatusCode::OK, ""), GrpcReply::Message(Bytes::new()));
        assert_eq!(json(StatusCode::CONFLICT, "no"), GrpcReply::Status(10, "no".to_owned()));
        assert!(matches!(json(StatusCode::TOO_EARLY, ""), GrpcReply::Status(9, _)));
        assert!(matches!(json(StatusCode::BAD_GATEWAY, ""), GrpcReply::Status(13, _)));
        assert_eq!(to_grpc(Reply::Drop), GrpcReply::Drop);
    }
}
