//! JSON requests, JSON-RPC envelopes, and branches' answers.

use std::sync::Arc;

use dtmd_protocol::{
    Context, Limits, NewGlobal, Outcome, Policy, Timestamp, TransType, create, durability, plan,
    schedule,
};
use dtmd_store::record;
use dtmd_wire::jsonrpc::{self, Envelope};
use dtmd_wire::outcome::TEXT_MAX_BYTES;
use dtmd_wire::{
    RegisterRequest, SubstringRule, TransRequest, Zone, http_outcome, jsonrpc_outcome, response,
};
use serde::de::IgnoredAny;

use crate::Bytes;

/// When everything happens.
pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// A body of every route that takes one.
pub(crate) fn json(bytes: &[u8]) {
    if let Ok(request) = TransRequest::parse(bytes) {
        let _ = (request.gid(), request.trans_type(), request.workflow_end());
        if let Ok(new) = request.clone().into_new_global(Arc::from("default")) {
            let again = request.into_new_global(Arc::from("default"));
            assert_eq!(Ok(&new), again.as_ref(), "the same request asks for the same");
            accepted(&new);
        }
    }
    if let Ok(request) = RegisterRequest::parse(bytes) {
        let _ = (request.gid(), request.trans_type());
        if let Ok(rows) = request.rows() {
            assert!(!rows.is_empty(), "a registration without a row");
            let _ = dtmd_protocol::step::validate_rows(&rows, &Limits::default());
        }
    }
}

/// What holds of a transaction that was understood, if it is within the limits: it can be stored,
/// read back, shown and planned.
pub(crate) fn accepted(new: &NewGlobal) {
    if new.validate(&Limits::default()).is_err() {
        return;
    }
    let (policy, cx) = (Policy::default(), Context::at(NOW));
    for submitted in [false, true] {
        if submitted && new.mode.trans_type() == TransType::Workflow {
            continue;
        }
        let global = create(new, submitted, &[], &policy, &cx);
        let _ = durability(None, &global);
        let planned = plan(&global, &policy, &cx);
        assert_eq!(planned.wake_at.is_some(), !global.status.is_final(), "who wakes it up?");
        let short = schedule(&global, &policy, &cx);
        assert_eq!((short.has_calls, short.wake_at), (!planned.calls.is_empty(), planned.wake_at));
        stored_and_shown(&global);
    }
}

/// Writes a global in all ways, and reads it back.
pub(crate) fn stored_and_shown(global: &dtmd_protocol::Global) {
    let bytes = record::encode(global, Vec::new()).expect("a global can be written");
    let read = record::decode(&bytes).expect("what was written can be read");
    assert_eq!(*global, read, "a record is read as it was written");
    let line = record::to_json(global).expect("a global can be shown");
    let read = record::from_json(&line).expect("what was shown can be read");
    assert_eq!(*global, read, "a line is read as it was written");
    let zone = Zone::default();
    let pages = [
        response::query(Some(global), zone),
        response::prepare_workflow(global, zone),
        response::list(Some([global]), "", zone),
    ];
    for page in pages {
        assert_json(&page);
    }
}

fn assert_json(bytes: &[u8]) {
    let read = serde_json::from_slice::<IgnoredAny>(bytes);
    assert!(read.is_ok(), "not JSON: {}", String::from_utf8_lossy(bytes));
}

/// A JSON-RPC request.
pub(crate) fn json_rpc(bytes: &[u8]) {
    match Envelope::parse(bytes) {
        Ok(envelope) => {
            json(envelope.params());
            assert_json(&jsonrpc::success(envelope.id, None::<&()>));
            let kind = jsonrpc::ErrorKind::Method;
            assert_json(&jsonrpc::error(envelope.id, kind, &envelope.method));
        }
        Err(bad) => assert_json(&jsonrpc::error(bad.id, bad.kind, &bad.message)),
    }
}

/// A service's answer: two bytes of status, then its body.
pub(crate) fn answer(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let statuses = [200, 409, 425, 500, 201, 204, 302, 404, 503, 100, 599, 0];
    let status = statuses[bytes.below(statuses.len())];
    let body = bytes.rest();
    for rule in [SubstringRule::Dtm, SubstringRule::Exact] {
        let http = http_outcome(status, body, rule);
        check_outcome(status, &http, rule);
        let rpc = jsonrpc_outcome(status, body, rule);
        check_outcome(status, &rpc, rule);
        if http != Outcome::Success {
            assert_eq!(http, rpc, "the rules of HTTP come first");
        }
    }
    // What the strict rule takes for a decision, DTM's takes for one too.
    if http_outcome(status, body, SubstringRule::Exact) == Outcome::Ongoing {
        assert_eq!(http_outcome(status, body, SubstringRule::Dtm), Outcome::Ongoing);
    }
}

fn check_outcome(status: u16, outcome: &Outcome, rule: SubstringRule) {
    match outcome {
        Outcome::Success => assert!((200..300).contains(&status), "{status} is no success"),
        Outcome::Failure(text) | Outcome::Unknown(text) => {
            assert!(text.len() <= TEXT_MAX_BYTES + 64, "{} bytes kept", text.len());
            assert!(!text.chars().any(char::is_control), "control characters: {text:?}");
        }
        Outcome::Ongoing => {}
        Outcome::Postponed(_) => panic!("an answer cannot be a call that was not made ({rule:?})"),
    }
}
