//! The server's own JSON-RPC endpoint (spec 02 §5.1).

use dtmd_wire::gid::new_gid;
use dtmd_wire::jsonrpc::{self, Envelope, ErrorKind};

use super::super::api::{Api, Asked};
use super::super::reply::{Problem, Reply, Word};
use super::transactions;

pub(in super::super) async fn serve(api: &Api, asked: &Asked<'_>) -> Reply {
    let envelope = match Envelope::parse(asked.body) {
        Ok(envelope) => envelope,
        Err(bad) => {
            let status = if bad.kind == ErrorKind::Parse { 400 } else { 200 };
            let body = jsonrpc::error(bad.id, bad.kind, &bad.message);
            return Reply::json(body).with_status(status);
        }
    };
    let params = envelope.params();
    let done = match &*envelope.method {
        "newGid" => {
            #[derive(serde::Serialize)]
            struct NewGid<'a> {
                gid: &'a str,
            }
            let gid = new_gid();
            let result = NewGid { gid: gid.as_str() };
            return Reply::json(jsonrpc::success(envelope.id, Some(&result)));
        }
        "submit" => transactions::submit(api, asked, params).await,
        "prepare" => transactions::prepare(api, asked, params).await,
        "abort" => transactions::abort(api, asked, params).await,
        "registerBranch" => transactions::register_branch(api, asked, params).await,
        method => {
            let text = format!("Method not found: {method}");
            return Reply::json(jsonrpc::error(envelope.id, ErrorKind::Method, &text));
        }
    };
    Reply::json(match done {
        Ok(()) => jsonrpc::success(envelope.id, None::<&()>),
        Err(problem) => jsonrpc::error(envelope.id, kind(&problem), &problem.told()),
    })
}

/// JSON-RPC knows FAILURE; everything else, ONGOING included, is one code.
fn kind(problem: &Problem) -> ErrorKind {
    match problem.answer() {
        (_, Word::Failure) => ErrorKind::Failure,
        (_, Word::Ongoing | Word::None | Word::Later) => ErrorKind::Other,
    }
}
