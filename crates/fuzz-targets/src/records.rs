//! Stored records: whole globals, changes, and lines of an export.

use dtmd_protocol::{Context, Global, Input, Limits, Policy, Timestamp, plan, schedule, step};
use dtmd_store::conformance::sample::saga;
use dtmd_store::record::{self, Delta};
use dtmd_wire::{Zone, response};

use crate::Bytes;
use crate::requests::{NOW, stored_and_shown};

/// One byte that says which form, then the record.
pub(crate) fn record(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    match bytes.below(3) {
        0 => {
            let bytes = bytes.rest();
            let head = record::head(bytes);
            if let Ok(global) = record::decode(bytes) {
                let expected = Some(record::Head::of(&global));
                assert_eq!(head.ok(), expected, "an index would hold something else");
                stored_and_shown(&global);
                used(&global);
            }
        }
        1 => {
            let Ok(delta) = Delta::decode(bytes.rest()) else { return };
            let written = delta.encode(Vec::new()).expect("a change can be written");
            let again = Delta::decode(&written).expect("what was written can be read");
            let before = saga("g");
            let after = delta.apply(&before);
            assert_eq!(after.is_ok(), again.apply(&before).is_ok());
            if let Ok(after) = after {
                stored_and_shown(&after);
                used(&after);
            }
        }
        _ => {
            let Ok(line) = std::str::from_utf8(bytes.rest()) else { return };
            if let Ok(global) = record::from_json(line) {
                stored_and_shown(&global);
                used(&global);
            }
        }
    }
}

/// Whatever a record holds, a server that finds it must live.
fn used(global: &Global) {
    let (policy, limits) = (Policy::default(), Limits::default());
    for now in [NOW, Timestamp::ZERO, Timestamp(i64::MAX / 2)] {
        let cx = Context::at(now);
        let planned = plan(global, &policy, &cx);
        let short = schedule(global, &policy, &cx);
        assert_eq!((short.has_calls, short.wake_at), (!planned.calls.is_empty(), planned.wake_at));
        for input in [Input::Wake, Input::Kick] {
            if let Ok(next) = step(global, &input, &policy, &limits, &cx) {
                let _ = plan(&next, &policy, &cx);
                let _ = response::query(Some(&next), Zone::default());
            }
        }
    }
}
