//! Messages to and from what the engine speaks. What the parts mean is decided in `dtmd-wire`.

use std::sync::Arc;

use bytes::Bytes;
use dtmd_protocol::{Branch, Global, NewBranch, Timestamp};
use dtmd_wire::request::Number;
use dtmd_wire::{RegisterRequest, RequestError, TransRequest};

use crate::proto::admin;
use crate::proto::dtmgimp::{
    DtmBranchRequest, DtmProgress, DtmProgressesReply, DtmRequest, DtmTransaction,
};

/// Returns a request as `dtmd-wire` knows it from JSON. The protocol is always gRPC (spec 03 §1.2).
///
/// # Errors
///
/// `Undecodable` if `Steps` is not the JSON of a list.
pub(super) fn trans_request(
    request: &mut DtmRequest,
    concurrent: bool,
) -> Result<TransRequest<'_>, RequestError> {
    let options = request.trans_options.take().unwrap_or_default();
    Ok(TransRequest {
        gid: request.gid.as_str().into(),
        trans_type: request.trans_type.as_str().into(),
        steps: TransRequest::parse_steps(&request.steps)?,
        payloads: request.bin_payloads.iter().map(|payload| payload.as_ref().into()).collect(),
        query_prepared: request.query_prepared.as_str().into(),
        protocol: "grpc".into(),
        custom_data: request.customed_data.as_str().into(),
        rollback_reason: request.rollback_reason.as_str().into(),
        req_extra: std::mem::take(&mut request.req_extra),
        wait_result: options.wait_result,
        concurrent: concurrent || options.concurrent,
        timeout_to_fail: Number::Whole(options.timeout_to_fail),
        timeout_to_fail_ms: Number::Whole(options.timeout_to_fail_ms),
        request_timeout: Number::Whole(options.request_timeout),
        request_timeout_ms: Number::Whole(options.request_timeout_ms),
        retry_interval: Number::Whole(options.retry_interval),
        retry_interval_ms: Number::Whole(options.retry_interval_ms),
        retry_limit: Number::Whole(options.retry_limit),
        retry_count: Number::default(),
        branch_headers: options.branch_headers,
    })
}

/// Returns a registration as `dtmd-wire` knows it, without its payload.
pub(super) fn register_request(request: &DtmBranchRequest) -> RegisterRequest<'_> {
    let data = |name| request.data.get(name).map_or("", String::as_str).into();
    RegisterRequest {
        gid: request.gid.as_str().into(),
        trans_type: request.trans_type.as_str().into(),
        branch_id: request.branch_id.as_str().into(),
        data: "".into(),
        confirm: data("confirm"),
        cancel: data("cancel"),
        url: data("url"),
        op: data("op"),
        status: data("status"),
    }
}

/// Gives the rows of a registration their payload, which need not be text.
pub(super) fn with_payload(mut rows: Vec<NewBranch>, payload: &[u8]) -> Vec<NewBranch> {
    let payload: Arc<[u8]> = Arc::from(payload);
    for row in &mut rows {
        row.data = payload.clone();
    }
    rows
}

/// Returns a workflow as it stands. Unlike DTM's answer it has the result (spec 07 D10).
pub(super) fn progresses(global: &Global) -> DtmProgressesReply {
    let progress = |row: &Branch| DtmProgress {
        status: row.status.as_str().to_owned(),
        bin_data: Bytes::from_owner(row.data.clone()),
        branch_id: row.branch_id.as_str().to_owned(),
        op: row.op.as_str().to_owned(),
    };
    DtmProgressesReply {
        transaction: Some(DtmTransaction {
            gid: global.gid.as_str().to_owned(),
            status: global.status.as_str().to_owned(),
            rollback_reason: global.rollback_reason.as_ref().to_owned(),
            result: global.result.as_ref().to_owned(),
        }),
        progresses: global.branches.iter().map(progress).collect(),
    }
}

/// Returns a transaction as operators see it, with its branches or without.
pub(super) fn transaction(global: &Global, with_branches: bool) -> admin::Transaction {
    let branches = if with_branches { global.branches.as_slice() } else { &[] };
    admin::Transaction {
        gid: global.gid.as_str().to_owned(),
        trans_type: global.trans_type().as_str().to_owned(),
        status: global.status.as_str().to_owned(),
        protocol: global.protocol.as_str().to_owned(),
        query_prepared: global.query_prepared.as_ref().to_owned(),
        custom_data: global.custom_data.as_ref().to_owned(),
        rollback_reason: global.rollback_reason.as_ref().to_owned(),
        result: global.result.as_ref().to_owned(),
        created_ms: millis(Some(global.created)),
        updated_ms: millis(Some(global.updated)),
        finished_ms: millis(global.finished),
        rolled_back_ms: millis(global.rolled_back),
        wake_at_ms: millis(Some(global.wake_at)),
        owner: global.owner.as_ref().to_owned(),
        branches: branches.iter().map(branch).collect(),
    }
}

fn branch(row: &Branch) -> admin::Branch {
    admin::Branch {
        branch_id: row.branch_id.as_str().to_owned(),
        op: row.op.as_str().to_owned(),
        status: row.status.as_str().to_owned(),
        url: row.url.as_ref().to_owned(),
        data: Bytes::from_owner(row.data.clone()),
        created_ms: millis(Some(row.created)),
        updated_ms: millis(Some(row.updated)),
        finished_ms: millis(row.finished),
        attempts: row.retry.attempts,
    }
}

/// Returns a time in milliseconds since 1970; 0 for none.
fn millis(time: Option<Timestamp>) -> i64 {
    time.map_or(0, |time| time.0 / 1000)
}
