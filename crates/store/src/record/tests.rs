#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{
    Branch, BranchId, BranchStatus, CallProtocol, Gid, Global, GlobalStatus, Mode, Op, Options,
    Retry, Revision, StepDef, Timestamp,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::payload::{from_base64, to_base64};
use super::{Delta, FORMAT_VERSION, RecordError, decode, encode, from_json, to_json};
use crate::conformance::sample::{all, full, later, row, saga};

/// `full("fixture")` as version 1 wrote it. Must stay readable in every release.
const FIXTURE_V1: &str = include_str!("../../tests/fixtures/global-v1.hex");
/// The change from `saga("fixture")` to `full("fixture")`, as version 1 wrote it.
const FIXTURE_DELTA_V1: &str = include_str!("../../tests/fixtures/delta-v1.hex");

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn between(before: &Global, after: &Global) -> Vec<u8> {
    Delta::between(before, after).encode(Vec::new()).unwrap()
}

#[test]
fn version_1_stays_readable_and_is_what_is_written() {
    let (global, delta) = (hex(FIXTURE_V1), hex(FIXTURE_DELTA_V1));
    assert_eq!(decode(&global).unwrap(), full("fixture"));
    let applied = Delta::decode(&delta).unwrap().apply(&saga("fixture")).unwrap();
    assert_eq!(applied, full("fixture"));
    // As long as it is the version that is written. Then a difference here is a changed format.
    assert_eq!(FORMAT_VERSION, 1);
    assert_eq!(encode(&full("fixture"), Vec::new()).unwrap(), global);
    assert_eq!(between(&saga("fixture"), &full("fixture")), delta);
}

#[test]
fn every_sample_is_read_back_from_bytes_and_from_json() {
    for global in all("s") {
        let bytes = encode(&global, vec![9]).unwrap();
        assert_eq!(bytes[0], 9, "it is appended");
        assert_eq!(decode(&bytes[1..]).unwrap(), global);
        let json = to_json(&global).unwrap();
        assert!(!json.contains('\n'), "one line");
        assert_eq!(from_json(&json).unwrap(), global);
    }
}

#[test]
fn json_shows_text_as_text_and_bytes_as_base64() {
    let mut global = saga("a");
    global.branches[0].data = Arc::from(&b"{\"a\":1}"[..]);
    global.branches[1].data = Arc::from(&[0xff, 0xfe][..]);
    let json = to_json(&global).unwrap();
    assert!(json.contains(r#""data":{"text":"{\"a\":1}"}"#), "{json}");
    assert!(json.contains(r#""data":{"base64":"//4="}"#), "{json}");
    assert!(json.contains(r#""status":"submitted""#), "{json}");
}

#[test]
fn broken_bytes_are_refused_and_never_panic() {
    let bytes = encode(&full("a"), Vec::new()).unwrap();
    let delta = between(&saga("a"), &full("a"));
    assert!(matches!(decode(&[]), Err(RecordError::Empty)));
    assert!(matches!(decode(&[2, 0]), Err(RecordError::NewerVersion { found: 2 })));
    assert!(matches!(Delta::decode(&[0]), Err(RecordError::NewerVersion { found: 0 })));
    for length in 1..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "cut to {length}");
    }
    for length in 1..delta.len() {
        assert!(Delta::decode(&delta[..length]).is_err(), "cut to {length}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(decode(&longer), Err(RecordError::Invalid { member: "length" })));
    for at in 1..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0xff;
        let _ = (decode(&flipped), super::head(&flipped));
    }
}

#[test]
fn a_change_follows_one_revision_only() {
    let first = saga("a");
    let second = later(&first, |global| global.branches.push(row("02", Op::Action)));
    let delta = between(&first, &second);
    let refused = Delta::decode(&delta).unwrap().apply(&second);
    assert!(matches!(refused, Err(RecordError::WrongBase { expected: 1, found: 2 })));
    let mut other = first.clone();
    other.branches.clear();
    let changed = later(&first, |global| global.branches[1].updated = Timestamp(7));
    let delta = between(&first, &changed);
    let refused = Delta::decode(&delta).unwrap().apply(&other);
    assert!(matches!(refused, Err(RecordError::Invalid { member: "row index" })));
}

#[test]
fn a_small_change_is_small() {
    let before = full("a");
    let after = later(&before, |global| {
        global.branches[1].status = BranchStatus::Failed;
        global.branches[1].updated = Timestamp(1_700_000_001_000_000);
        global.updated = Timestamp(1_700_000_001_000_000);
        global.wake_at = Timestamp(1_700_000_011_000_000);
    });
    let length = between(&before, &after).len();
    assert!(length < 60, "{length} bytes");
}

#[test]
fn a_restated_lease_is_in_the_change() {
    let mut stored = saga("a");
    (stored.owner, stored.epoch) = ("me".into(), 7);
    let after = later(&stored, |global| global.updated = Timestamp(1));
    let mut delta = Delta::between(&stored, &after);
    delta.restate_lease(&after);
    let bytes = delta.encode(Vec::new()).unwrap();
    // On the log, the lease was never written.
    assert_eq!(Delta::decode(&bytes).unwrap().apply(&saga("a")).unwrap(), after);
}

#[test]
fn base64_is_that_of_the_standard() {
    let table = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ];
    for (plain, encoded) in table {
        assert_eq!(to_base64(plain.as_bytes()), encoded);
        assert_eq!(from_base64(encoded).unwrap(), plain.as_bytes());
    }
    for bad in ["Z", "Zg", "Zg=", "Z===", "Zm9v!mFy", "é==="] {
        assert_eq!(from_base64(bad), None, "{bad}");
    }
}

fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![Just(""), Just("a"), Just("http://a/b?c"), Just("\"é\\\n🦀")].prop_map(Arc::from)
}

fn bytes() -> impl Strategy<Value = Arc<[u8]>> {
    vec(any::<u8>(), 0..20).prop_map(Arc::from)
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp)
}

fn retry() -> impl Strategy<Value = Retry> {
    (any::<u32>(), time()).prop_map(|(attempts, next_at)| Retry { attempts, next_at })
}

fn op() -> impl Strategy<Value = Op> {
    let words: &'static [&'static str] =
        &["action", "compensate", "try", "confirm", "cancel", "commit", "rollback", "msg", "ä", ""];
    prop::sample::select(words).prop_map(Op::parse)
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        (any::<bool>(), vec(vec(0..9usize, 0..3), 0..3))
            .prop_map(|(concurrent, orders)| Mode::Saga { concurrent, orders: orders.into() }),
        Just(Mode::Tcc),
        Just(Mode::Xa),
        any::<Duration>().prop_map(|delay| Mode::Msg { delay }),
        (text(), bytes()).prop_map(|(name, data)| Mode::Workflow { name, data }),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    let times = (option::of(any::<Duration>()), option::of(any::<Duration>()), any::<bool>());
    let headers = btree_map("[a-z]{1,3}", "[a-zé ]{0,3}", 0..3);
    (times, any::<u32>(), any::<u32>(), any::<bool>(), headers).prop_map(
        |((one, two, wait_result), retry_limit, retry_count, concurrent, headers)| Options {
            wait_result,
            timeout_to_fail: one,
            request_timeout: two,
            retry_interval: one,
            retry_limit,
            retry_count,
            concurrent,
            branch_headers: Arc::new(headers),
        },
    )
}

prop_compose! {
    fn branch()(
        id in "[0-9]{1,4}", op in op(), url in text(), data in bytes(),
        status in prop::sample::select(BranchStatus::ALL), retry in retry(),
        created in time(), updated in time(), finished in option::of(time()),
    ) -> Branch {
        let branch_id = BranchId::new(id).unwrap();
        Branch { branch_id, op, url, data, status, retry, created, updated, finished }
    }
}

prop_compose! {
    fn head()(
        texts in [text(), text(), text(), text(), text(), text()],
        mode in mode(), options in options(),
        status in prop::sample::select(GlobalStatus::ALL),
        protocol in prop::sample::select(
            &[CallProtocol::Http, CallProtocol::JsonRpc, CallProtocol::Grpc][..]
        ),
        content in any::<u128>(),
        times in [time(), time(), time(), time()],
        ends in [option::of(time()), option::of(time())],
        query in retry(), interval in any::<Duration>(),
        epoch in any::<u64>(), revision in any::<u64>(),
    ) -> Global {
        let [namespace, query_prepared, custom_data, rollback_reason, result, owner] = texts;
        let [created, updated, wake_at, _] = times;
        let [finished, rolled_back] = ends;
        let (epoch, revision) = (epoch, Revision(revision));
        Global {
            gid: Gid::new("the-gid").unwrap(), namespace, mode, status, protocol, query_prepared,
            custom_data, options, steps: Arc::from([]), content, branches: Vec::new(), created,
            updated, finished, rolled_back, rollback_reason, result, query, wake_at, interval,
            owner, epoch, revision,
        }
    }
}

prop_compose! {
    fn global()(
        mut global in head(), branches in vec(branch(), 0..5),
        steps in vec((text(), text()), 0..3),
    ) -> Global {
        global.branches = branches;
        let steps = steps.into_iter();
        global.steps = steps.map(|(action, compensate)| StepDef { action, compensate }).collect();
        global
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(global in global()) {
        let bytes = encode(&global, Vec::new()).unwrap();
        prop_assert_eq!(&decode(&bytes).unwrap(), &global);
        let by_library = super::write(&super::v1::GlobalV1::from(&global), Vec::new()).unwrap();
        prop_assert_eq!(super::head(&bytes).unwrap(), super::Head::of(&global));
        prop_assert_eq!(bytes, by_library, "the bytes are the format");
        prop_assert_eq!(&from_json(&to_json(&global).unwrap()).unwrap(), &global);
    }

    #[test]
    fn a_change_leads_from_one_state_to_the_other(before in global(), after in global()) {
        let bytes = between(&before, &after);
        let applied = Delta::decode(&bytes).unwrap().apply(&before).unwrap();
        prop_assert_eq!(applied, after);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(mut bytes in vec(any::<u8>(), 0..300)) {
        bytes.insert(0, 1);
        let _ = (decode(&bytes), super::head(&bytes));
        if let Ok(delta) = Delta::decode(&bytes) {
            let _ = delta.apply(&saga("a"));
        }
    }
}
