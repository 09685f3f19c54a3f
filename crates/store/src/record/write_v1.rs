//! Version 1 written straight from a global, without its form in `v1.rs` in between: a global is
//! written whole twice in its life, and this is a third of the work.
//!
//! The bytes are those that `GlobalV1` has through the library, which the tests compare: numbers are
//! varints, signed ones zigzag, texts and lists have their length first, variants their index.

use std::time::Duration;

use dtmd_protocol::{
    Branch, BranchStatus, CallProtocol, Global, GlobalStatus, Mode, Op, Options, Retry, StepDef,
    Timestamp,
};

/// Appends a global.
pub(super) fn global(out: &mut Vec<u8>, global: &Global) {
    // Taken apart, so that a new member is not forgotten here.
    let Global {
        gid,
        namespace,
        mode,
        status,
        protocol,
        query_prepared,
        custom_data,
        options,
        steps,
        content,
        branches,
        created,
        updated,
        finished,
        rolled_back,
        rollback_reason,
        result,
        query,
        wake_at,
        interval,
        owner,
        epoch,
        revision,
    } = global;
    push_text(out, gid.as_str());
    push_text(out, namespace);
    push_mode(out, mode);
    out.push(status_index(*status));
    out.push(protocol_index(*protocol));
    push_text(out, query_prepared);
    push_text(out, custom_data);
    push_options(out, options);
    push_length(out, steps.len());
    for StepDef { action, compensate } in steps.iter() {
        push_text(out, action);
        push_text(out, compensate);
    }
    push_wide(out, *content);
    push_length(out, branches.len());
    for row in branches {
        push_row(out, row);
    }
    push_time(out, *created);
    push_time(out, *updated);
    push_optional(out, *finished, push_time);
    push_optional(out, *rolled_back, push_time);
    push_text(out, rollback_reason);
    push_text(out, result);
    push_retry(out, *query);
    push_time(out, *wake_at);
    push_duration(out, *interval);
    push_text(out, owner);
    push_number(out, *epoch);
    push_number(out, revision.0);
}

fn push_mode(out: &mut Vec<u8>, mode: &Mode) {
    match mode {
        Mode::Saga { concurrent, orders } => {
            out.extend_from_slice(&[0, u8::from(*concurrent)]);
            push_length(out, orders.len());
            for before in orders.iter() {
                push_length(out, before.len());
                before.iter().for_each(|step| push_length(out, *step));
            }
        }
        Mode::Tcc => out.push(1),
        Mode::Xa => out.push(2),
        Mode::Msg { delay } => {
            out.push(3);
            push_duration(out, *delay);
        }
        Mode::Workflow { name, data } => {
            out.push(4);
            push_text(out, name);
            push_bytes(out, data);
        }
    }
}

fn push_options(out: &mut Vec<u8>, options: &Options) {
    let Options {
        wait_result,
        timeout_to_fail,
        request_timeout,
        retry_interval,
        retry_limit,
        retry_count,
        concurrent,
        branch_headers,
    } = options;
    out.push(u8::from(*wait_result));
    push_optional(out, *timeout_to_fail, push_duration);
    push_optional(out, *request_timeout, push_duration);
    push_optional(out, *retry_interval, push_duration);
    push_number(out, u64::from(*retry_limit));
    push_number(out, u64::from(*retry_count));
    out.push(u8::from(*concurrent));
    push_length(out, branch_headers.len());
    for (name, value) in branch_headers.iter() {
        push_text(out, name);
        push_text(out, value);
    }
}

fn push_row(out: &mut Vec<u8>, row: &Branch) {
    let Branch { branch_id, op, url, data, status, retry, created, updated, finished } = row;
    push_text(out, branch_id.as_str());
    push_op(out, op);
    push_text(out, url);
    push_bytes(out, data);
    out.push(match status {
        BranchStatus::Prepared => 0,
        BranchStatus::Succeed => 1,
        BranchStatus::Failed => 2,
    });
    push_retry(out, *retry);
    push_time(out, *created);
    push_time(out, *updated);
    push_optional(out, *finished, push_time);
}

fn push_op(out: &mut Vec<u8>, op: &Op) {
    out.push(match op {
        Op::Action => 0,
        Op::Compensate => 1,
        Op::Try => 2,
        Op::Confirm => 3,
        Op::Cancel => 4,
        Op::Commit => 5,
        Op::Rollback => 6,
        Op::Msg => 7,
        Op::Named(_) => 8,
    });
    if let Op::Named(name) = op {
        push_text(out, name);
    }
}

fn status_index(status: GlobalStatus) -> u8 {
    match status {
        GlobalStatus::Prepared => 0,
        GlobalStatus::Submitted => 1,
        GlobalStatus::Aborting => 2,
        GlobalStatus::Succeed => 3,
        GlobalStatus::Failed => 4,
    }
}

fn protocol_index(protocol: CallProtocol) -> u8 {
    match protocol {
        CallProtocol::Http => 0,
        CallProtocol::JsonRpc => 1,
        CallProtocol::Grpc => 2,
    }
}

fn push_retry(out: &mut Vec<u8>, retry: Retry) {
    push_number(out, u64::from(retry.attempts));
    push_time(out, retry.next_at);
}

fn push_optional<T>(out: &mut Vec<u8>, value: Option<T>, push: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        push(out, value);
    }
}

fn push_duration(out: &mut Vec<u8>, duration: Duration) {
    push_number(out, duration.as_secs());
    push_number(out, u64::from(duration.subsec_nanos()));
}

fn push_time(out: &mut Vec<u8>, time: Timestamp) {
    let zigzag = (time.0 << 1) ^ (time.0 >> 63);
    push_number(out, zigzag.cast_unsigned());
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_bytes(out, text.as_bytes());
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    push_number(out, length as u64);
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        let [low, ..] = number.to_le_bytes();
        out.push(low | 0x80);
        number >>= 7;
    }
    let [low, ..] = number.to_le_bytes();
    out.push(low);
}

fn push_wide(out: &mut Vec<u8>, mut number: u128) {
    while number > 0x7f {
        let [low, ..] = number.to_le_bytes();
        out.push(low | 0x80);
        number >>= 7;
    }
    let [low, ..] = number.to_le_bytes();
    out.push(low);
}
