//! Words, numbers and edges: what the other tables pass by. Most of these rows were asked for by a
//! mutant that nobody noticed (`cargo xtask prove mutants`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::step::validate_rows;
use dtmd_protocol::{
    BranchId, BranchStatus, CallProtocol, Context, Gid, GlobalStatus, Input, Invalid, Limits, Mode,
    NewBranch, Op, Options, Outcome, Policy, Refused, Request, RequestKind, Revision, Target,
    Timestamp, TransType, backoff, create, plan, schedule, step,
};

use crate::story::{START, Story, concurrent, new_global, policy, serial};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn revisions_count_and_carry_their_writers_tag() {
    assert_eq!(Revision(6).next(), Revision(7));
    assert_eq!(Revision(1).next_by(9), Revision((1 << 32) | 9));
    assert_eq!(Revision((4 << 32) | 9).next_by(9), Revision((5 << 32) | 9));
    assert_eq!(Revision((4 << 32) | 9).next_by(u32::MAX), Revision((6 << 32) - 1));
    assert_eq!(Revision(17).to_string(), "17");
}

#[test]
fn protocols_have_their_words() {
    let table = [
        ("http", CallProtocol::Http),
        ("json-rpc", CallProtocol::JsonRpc),
        ("grpc", CallProtocol::Grpc),
    ];
    for (word, protocol) in table {
        assert_eq!(protocol.as_str(), word);
        assert_eq!(CallProtocol::parse(word), Some(protocol));
    }
    assert_eq!(CallProtocol::parse(""), Some(CallProtocol::Http));
    assert_eq!(CallProtocol::parse("smtp"), None);
}

#[test]
fn outcomes_and_ops_have_their_words() {
    let text = || Arc::from("x");
    for (outcome, word) in [
        (Outcome::Success, "success"),
        (Outcome::Failure(text()), "failure"),
        (Outcome::Ongoing, "ongoing"),
        (Outcome::Unknown(text()), "unknown"),
        (Outcome::Postponed(START), "postponed"),
    ] {
        assert_eq!(outcome.as_str(), word);
    }
    let words = ["action", "compensate", "try", "confirm", "cancel", "commit", "rollback", "msg"];
    for word in words {
        let op = Op::parse(word);
        assert_eq!((op.label(), op.to_string().as_str()), (word, word));
        assert!(!matches!(op, Op::Named(_)), "{word}");
    }
    // A name is a caller's text: it is no label.
    assert_eq!((Op::parse("mine").label(), Op::parse("mine").as_str()), ("workflow", "mine"));
}

#[test]
fn times_are_added_and_saturate() {
    assert_eq!(START.after(seconds(2)), Timestamp(START.0 + 2_000_000));
    assert_eq!(START.after(Duration::MAX), Timestamp(i64::MAX));
    assert_eq!(Timestamp(5).since(Timestamp(2)), Duration::from_micros(3));
    assert_eq!(Timestamp(2).since(Timestamp(5)), Duration::ZERO);
    for (micros, whole) in [(0, 0), (999_999, 0), (1_000_000, 1), (2_500_000, 2), (-1, -1)] {
        assert_eq!(Timestamp(micros).seconds(), whole, "{micros}");
    }
}

#[test]
fn branch_ids_are_ordered_and_hashed_as_their_texts() {
    let id = |text: &str| BranchId::new(text).unwrap();
    assert!(id("01") < id("02") && id("0101") > id("01"));
    assert_eq!(id("01").partial_cmp(&id("02")), Some(std::cmp::Ordering::Less));
    assert_eq!(BranchId::reserved().as_str(), "00");
    let set: HashSet<BranchId> = [id("01"), BranchId::of_step(0), id("02")].into();
    assert_eq!(set.len(), 2);
    assert!(set.contains("01") && !set.contains("03"));
}

#[test]
fn limits_hold_to_the_last_one() {
    let limits = Limits {
        steps_max: 2,
        payload_max_bytes: 4,
        url_max_bytes: 16,
        option_max: seconds(60),
        headers_max: 2,
        headers_max_bytes: 8,
        ..Limits::default()
    };
    let check = |change: &dyn Fn(&mut dtmd_protocol::NewGlobal)| {
        let mut new = new_global(serial(), 1);
        new.query_prepared = "".into();
        new.steps[0].def.compensate = "".into();
        change(&mut new);
        new.validate(&limits)
    };
    let headers = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Arc::new(pairs.collect())
    };
    let url = |length: usize| Arc::from(format!("http://a/{}", "x".repeat(length - 9)));
    // At the limit, and one past it.
    for (length, is_ok) in [(4, true), (5, false)] {
        let is = |result: Result<(), Invalid>| assert_eq!(result.is_ok(), is_ok, "{result:?}");
        is(check(&|new| new.steps[0].payload = vec![b'x'; length].into()));
        is(check(&|new| new.steps[0].def.action = url(length + 12)));
        is(check(&|new| new.steps[0].def.compensate = url(length + 12)));
        is(check(&|new| new.query_prepared = url(length + 12)));
        is(check(&|new| new.steps = vec![new.steps[0].clone(); length - 2]));
        is(check(&|new| new.options.retry_interval = Some(seconds(length as u64 + 56))));
        // Names and values count together: one byte and seven are the limit.
        is(check(&|new| {
            new.options.branch_headers = headers(&[("a", &"y".repeat(length + 3))]);
        }));
        is(check(&|new| {
            let all = [("a", "1"), ("b", "2"), ("c", "3")];
            new.options.branch_headers = headers(&all[..length - 2]);
        }));
        let delay = Mode::Msg { delay: seconds(length as u64 + 56) };
        is(check(&|new| new.mode = delay.clone()));
        let data = Arc::from(vec![0; length]);
        is(check(&|new| {
            new.steps.clear();
            new.mode = Mode::Workflow { name: "w".into(), data: Arc::clone(&data) };
        }));
    }
    // The length of an XA gid, and of what is registered.
    for (length, is_ok) in [(55, true), (56, false)] {
        let mut new = new_global(Mode::Xa, 0);
        new.gid = Gid::new("x".repeat(length)).unwrap();
        assert_eq!(new.validate(&Limits::default()).is_ok(), is_ok);
    }
    for (url_length, data_length, is_ok) in [(16, 4, true), (17, 4, false), (16, 5, false)] {
        let row = NewBranch {
            branch_id: BranchId::of_step(0),
            op: Op::Confirm,
            url: url(url_length),
            data: vec![0; data_length].into(),
            status: BranchStatus::Prepared,
        };
        assert_eq!(validate_rows(&[row], &limits).is_ok(), is_ok, "{url_length} {data_length}");
    }
    let nowhere = NewBranch {
        branch_id: BranchId::of_step(0),
        op: Op::Confirm,
        url: "nacos://x".into(),
        data: Arc::from([]),
        status: BranchStatus::Prepared,
    };
    assert!(matches!(validate_rows(&[nowhere], &limits), Err(Invalid::Scheme { .. })));
}

#[test]
fn a_serial_saga_may_name_the_order_that_it_has() {
    let orders = |concurrent| {
        let mode = Mode::Saga { concurrent, orders: Arc::from([vec![], vec![0], vec![0, 1]]) };
        new_global(mode, 3).validate(&Limits::default())
    };
    assert_eq!((orders(false), orders(true)), (Ok(()), Ok(())));
    // Only a concurrent one may turn the line round.
    let turned = |concurrent| {
        let mode = Mode::Saga { concurrent, orders: Arc::from([vec![1], vec![]]) };
        new_global(mode, 2).validate(&Limits::default())
    };
    assert_eq!(turned(true), Ok(()));
    assert_eq!(turned(false), Err(Invalid::OrderCycle { step: 0 }));
}

#[test]
fn the_base_interval_is_the_shorter_of_the_two_unless_it_is_set() {
    let policy = Policy { retry_interval: seconds(10), ..policy() };
    for (interval, timeout, base) in [
        (None, None, 10),
        (None, Some(9), 9),
        (None, Some(10), 10),
        (None, Some(11), 10),
        (Some(30), Some(9), 30),
    ] {
        let mut new = new_global(Mode::Tcc, 0);
        new.options.retry_interval = interval.map(seconds);
        new.options.timeout_to_fail = timeout.map(seconds);
        let global = create(&new, false, &[], &policy, &Context::at(START));
        assert_eq!(global.base_interval(&policy), seconds(base), "{interval:?} {timeout:?}");
    }
}

#[test]
fn a_call_has_its_own_timeout_or_the_policys() {
    let of = |option: Option<u64>| {
        let story = Story::saga(1).option(|options| options.request_timeout = option.map(seconds));
        plan(&story.global, &story.policy, &story.cx()).calls[0].timeout
    };
    assert_eq!((of(None), of(Some(8))), (policy().request_timeout, seconds(8)));
}

#[test]
fn a_row_is_found_by_its_id_and_its_op() {
    let story = Story::saga(2);
    let (first, second) = (BranchId::of_step(0), BranchId::of_step(1));
    let url = |id, op| story.global.branch(id, &op).map(|row| &*row.url);
    assert_eq!(url(&first, Op::Action), Some("http://rm/1"));
    assert_eq!(url(&second, Op::Action), Some("http://rm/2"));
    assert_eq!(url(&second, Op::Compensate), Some("http://rm/2/undo"));
    assert_eq!(url(&first, Op::Confirm), None);
    assert_eq!(url(&BranchId::of_step(2), Op::Action), None);
}

#[test]
fn a_submit_fills_what_the_prepare_left_open_and_nothing_else() {
    let later = Options {
        wait_result: true,
        concurrent: true,
        retry_limit: 5,
        retry_count: 6,
        ..Options::default()
    };
    let mut open = Options::default();
    open.fill_from(&later);
    assert_eq!(open, later);
    let mut set = Options { retry_limit: 1, retry_count: 2, wait_result: true, ..later.clone() };
    set.fill_from(&Options { retry_limit: 9, retry_count: 9, ..Options::default() });
    assert_eq!((set.retry_limit, set.retry_count), (1, 2));
    assert!(set.wait_result && set.concurrent, "what was asked for stays asked for");
    let mut nothing = Options::default();
    nothing.fill_from(&Options::default());
    assert_eq!(nothing, Options::default());
}

#[test]
fn requests_know_their_kind_and_refusals_name_it() {
    let trans_type = TransType::Saga;
    let (reason, result): (Arc<str>, Arc<str>) = ("".into(), "".into());
    let new = Arc::new(new_global(serial(), 1));
    let table = [
        (Request::Prepare, RequestKind::Prepare, "cannot prepare. FAILURE"),
        (Request::PrepareWorkflow, RequestKind::PrepareWorkflow, "cannot prepare. FAILURE"),
        (Request::Submit(new), RequestKind::Submit, "cannot sumbmit. FAILURE"),
        (
            Request::Abort { trans_type: None, reason: reason.clone() },
            RequestKind::Abort,
            "trans type: 'saga' current status 'succeed', cannot abort. FAILURE",
        ),
        (Request::ForceStop, RequestKind::ForceStop, "status: succeed. error: FAILURE"),
        (
            Request::Register { trans_type, rows: Vec::new() },
            RequestKind::Register,
            "no trans with gid: g status: prepared found FAILURE",
        ),
        (
            Request::FinishWorkflow { succeed: true, reason, result },
            RequestKind::FinishWorkflow,
            "storage: NotFound",
        ),
        (Request::RetryNow, RequestKind::RetryNow, "cannot retry. FAILURE"),
    ];
    for (request, kind, text) in table {
        assert_eq!(request.kind(), kind);
        let gid = Gid::new("g").unwrap();
        let status = GlobalStatus::Succeed;
        let told = Refused::Status { gid, request: kind, trans_type, status }.to_string();
        assert!(told.contains(text), "{kind:?}: {told}");
    }
    for (refused, text) in [
        (
            Refused::OtherContent { gid: Gid::new("g").unwrap(), what: "steps" },
            "gid g is taken by a transaction with other steps; use a new gid. FAILURE",
        ),
        (
            Refused::OtherBranch { branch_id: BranchId::of_step(0), op: Op::Confirm },
            "branch 01 confirm is registered with other content. FAILURE",
        ),
        (
            Refused::OtherType {
                gid: Gid::new("g").unwrap(),
                stored: TransType::Tcc,
                named: TransType::Xa,
            },
            "gid g is a tcc, not a xa. FAILURE",
        ),
        (Refused::TooManyBranches { max: 4 }, "may have 4 branch rows at most. FAILURE"),
    ] {
        assert!(refused.to_string().contains(text), "{refused}");
    }
}

#[test]
fn the_number_of_rows_counts_old_and_new_ones_up_to_the_limit() {
    // A tcc's registration has two rows.
    for (max, accepted) in [(1, 0), (2, 1), (3, 1), (4, 2), (6, 3)] {
        let mut tcc = Story::begin(new_global(Mode::Tcc, 0), false);
        tcc.limits.branches_max = max;
        let refusals = ["01", "02", "03"].map(|id| tcc.input(tcc.registration(id)));
        let expected: Vec<bool> = (0..3).map(|nth| nth >= accepted).collect();
        assert_eq!(refusals.to_vec(), expected, "{max}");
    }
}

#[test]
fn a_registration_of_the_same_id_must_say_the_same() {
    for change in ["url", "data"] {
        let mut tcc = Story::begin(new_global(Mode::Tcc, 0), false);
        tcc.play("register 01");
        match change {
            "url" => tcc.global.branches[0].url = "http://other".into(),
            _ => tcc.global.branches[0].data = Arc::from(*b"other"),
        }
        tcc.follows(&["register 01 refused | prepared | -"]);
    }
}

#[test]
fn what_is_recorded_as_done_has_an_end_and_what_waits_has_none() {
    let mode = Mode::Workflow { name: "w".into(), data: Arc::from([]) };
    let mut workflow = Story::begin(new_global(mode, 0), false);
    workflow.play("register 01");
    assert_eq!(workflow.global.branches[0].finished, Some(START));
    let mut tcc = Story::begin(new_global(Mode::Tcc, 0), false);
    tcc.play("register 01");
    assert_eq!(tcc.global.branches[0].finished, None);
    tcc.follows(&["submit | submitted | 01 confirm"]);
    tcc.play("01 confirm UNKNOWN");
    let confirm = tcc.row("01", "confirm");
    assert_eq!(tcc.global.branches[confirm].finished, None);
    tcc.play("after 20s");
    tcc.play("01 confirm SUCCESS");
    assert_eq!(tcc.global.branches[confirm].finished, Some(tcc.now));
    assert_eq!(tcc.global.branches[confirm].updated, tcc.now);
    assert_eq!((tcc.global.finished, tcc.global.rolled_back), (Some(tcc.now), None));
}

#[test]
fn rows_that_are_passed_over_have_an_end_too() {
    let mut new = new_global(serial(), 1);
    new.steps[0].def.action = "".into();
    let saga = Story::begin(new, true);
    assert_eq!(saga.global.status, GlobalStatus::Succeed);
    let row = &saga.global.branches[1];
    assert_eq!((row.status, row.finished), (BranchStatus::Succeed, Some(START)));
}

#[test]
fn a_reason_is_cut_where_a_character_ends() {
    for (max, kept) in [(4, "aüü"[..3].to_owned()), (5, "aüü".to_owned()), (100, "aüü!".into())]
    {
        let mut tcc = Story::begin(new_global(Mode::Tcc, 0), false);
        tcc.policy.reason_max_bytes = max;
        let reason: Arc<str> = "aüü!".into();
        let trans_type = Some(TransType::Tcc);
        assert!(!tcc.input(Input::Request(Request::Abort { trans_type, reason })));
        assert_eq!(tcc.reason(), kept, "{max}");
    }
    let mut tcc = Story::begin(new_global(Mode::Tcc, 0), false);
    tcc.global.rollback_reason = "before".into();
    let trans_type = Some(TransType::Tcc);
    tcc.input(Input::Request(Request::Abort { trans_type, reason: "".into() }));
    assert_eq!(tcc.reason(), "before", "no reason says nothing");
}

#[test]
fn who_may_abort_what() {
    let all = [Mode::Tcc, Mode::Xa, Mode::Msg { delay: Duration::ZERO }, serial()];
    for mode in all {
        for named in [None, Some(TransType::Saga), Some(TransType::Tcc), Some(TransType::Xa)] {
            let mut story = Story::begin(new_global(mode.clone(), 0), false);
            let stored = story.global.trans_type();
            let refused = story
                .input(Input::Request(Request::Abort { trans_type: named, reason: "r".into() }));
            let is_named = matches!(named, Some(TransType::Tcc | TransType::Xa));
            // A message is aborted whatever is named, a saga never is.
            let may = match stored {
                TransType::Msg => true,
                TransType::Saga | TransType::Workflow => false,
                TransType::Tcc | TransType::Xa => is_named,
            };
            assert_eq!(refused, !may, "{stored} named {named:?}");
        }
    }
}

#[test]
fn a_workflow_is_prepared_again_and_others_are_not_prepared_as_one() {
    let mode = Mode::Workflow { name: "w".into(), data: Arc::from([]) };
    let mut workflow = Story::begin(new_global(mode, 0), false);
    workflow.play("after 9s");
    assert!(!workflow.input(Input::Request(Request::PrepareWorkflow)));
    // The application runs it again: the callback waits for another interval.
    assert_eq!(workflow.global.query.next_at, workflow.now.after(seconds(10)));
    workflow.play("finish succeed");
    assert!(!workflow.input(Input::Request(Request::PrepareWorkflow)), "it may be read");
    let mut tcc = Story::begin(new_global(Mode::Tcc, 0), false);
    assert!(tcc.input(Input::Request(Request::PrepareWorkflow)));
}

#[test]
fn an_end_without_a_result_keeps_the_one_there_is() {
    let mode = Mode::Workflow { name: "w".into(), data: Arc::from([]) };
    let mut workflow = Story::begin(new_global(mode, 0), false);
    workflow.play("finish succeed");
    let (reason, result): (Arc<str>, Arc<str>) = ("".into(), "".into());
    workflow.input(Input::Request(Request::FinishWorkflow { succeed: true, reason, result }));
    assert_eq!(&*workflow.global.result, "cmVzdWx0");
}

#[test]
fn a_submit_takes_over_content_mode_and_data_only_from_the_first() {
    let mut msg = Story::begin(new_global(Mode::Msg { delay: Duration::ZERO }, 1), false);
    assert_eq!(msg.global.content, 0);
    msg.play("submit");
    assert_eq!(msg.global.content, 7);
    // A prepare with data of its own keeps them.
    let mut new = new_global(Mode::Msg { delay: seconds(5) }, 1);
    new.custom_data = "mine".into();
    let mut msg = Story::begin(new.clone(), false);
    msg.new.custom_data = "other".into();
    msg.new.mode = Mode::Msg { delay: seconds(50) };
    msg.play("submit");
    assert_eq!((&*msg.global.custom_data, &msg.global.mode), ("mine", &new.mode));
    // One without, and a submit without, keep the mode.
    let mut msg = Story::begin(new_global(Mode::Msg { delay: seconds(5) }, 1), false);
    msg.new.mode = Mode::Msg { delay: seconds(50) };
    msg.play("submit");
    assert_eq!(msg.global.mode, Mode::Msg { delay: seconds(5) });
}

#[test]
fn a_submit_without_steps_takes_the_prepared_ones_and_another_count_is_refused() {
    let prepared = || Story::begin(new_global(Mode::Msg { delay: Duration::ZERO }, 2), false);
    let mut msg = prepared();
    msg.new.steps.clear();
    msg.follows(&["submit | submitted | 01 action"]);
    for steps in [1, 3] {
        let mut msg = prepared();
        msg.new.steps = new_global(Mode::Msg { delay: Duration::ZERO }, steps).steps;
        msg.follows(&["submit refused | prepared | -"]);
    }
    for other in 0..2 {
        let mut msg = prepared();
        msg.new.steps[other].def.action = "http://other".into();
        msg.follows(&["submit refused | prepared | -"]);
        let mut msg = prepared();
        msg.new.steps[other].payload = Arc::from(*b"other");
        msg.follows(&["submit refused | prepared | -"]);
    }
}

#[test]
fn the_wake_up_of_what_rests_is_its_schedule_and_of_what_is_worked_on_a_lease() {
    let mut saga = Story::saga(1);
    let lease = saga.policy.lease.max(saga.global.base_interval(&saga.policy));
    assert_eq!(saga.global.wake_at, START.after(lease));
    let planned = schedule(&saga.global, &saga.policy, &saga.cx());
    assert!(planned.has_calls);
    saga.play("01 action UNKNOWN");
    assert_eq!(saga.global.wake_at, START.after(seconds(20)));
    assert!(!schedule(&saga.global, &saga.policy, &saga.cx()).has_calls);
    // A look that changes nothing writes nothing, and a lease does not move by itself.
    let mut idle = Story::saga(1);
    let before = idle.global.clone();
    idle.play("after 5s");
    assert_eq!(idle.global, before);
}

#[test]
fn a_prepared_saga_is_looked_at_now_and_then() {
    let mut saga = Story::begin(new_global(serial(), 1), false);
    assert_eq!(saga.global.wake_at, START.after(policy().retry_interval_max));
    assert_eq!(saga.wakes_in(), 3600);
    saga.play("after 3599s");
    assert_eq!(saga.wakes_in(), 1);
    saga.play("after 1s");
    assert_eq!(saga.wakes_in(), 3600);
}

#[test]
fn a_retry_time_is_kept_to_the_microsecond() {
    let mut saga = Story::saga(1);
    saga.play("01 action UNKNOWN");
    let due = saga.global.branches[1].retry.next_at;
    let calls = |at| plan(&saga.global, &saga.policy, &Context::at(at)).calls.len();
    assert_eq!((calls(Timestamp(due.0 - 1)), calls(due), calls(Timestamp(due.0 + 1))), (0, 1, 1));
    let mut msg = Story::begin(new_global(Mode::Msg { delay: Duration::ZERO }, 1), false);
    msg.play("after 35s");
    msg.play("query UNKNOWN");
    let due = msg.global.query.next_at;
    let calls = |at| plan(&msg.global, &msg.policy, &Context::at(at)).calls.len();
    assert_eq!((calls(Timestamp(due.0 - 1)), calls(due), calls(Timestamp(due.0 + 1))), (0, 1, 1));
}

#[test]
fn timeouts_and_delays_are_kept_to_the_microsecond() {
    let cx = |micros: u64| Context::at(START.after(Duration::from_micros(micros)));
    let look = |story: &Story, micros| {
        let global =
            step(&story.global, &Input::Wake, &story.policy, &story.limits, &cx(micros)).unwrap();
        let calls = plan(&global, &story.policy, &cx(micros)).calls.len();
        (global.status.as_str(), calls)
    };
    const LIMIT: u64 = 35_000_000;
    let mut tcc = Story::begin(new_global(Mode::Tcc, 0), false);
    tcc.play("register 01");
    assert_eq!(look(&tcc, LIMIT - 1), ("prepared", 0));
    assert_eq!(look(&tcc, LIMIT), ("aborting", 1));
    let saga = Story::saga(1).option(|options| options.timeout_to_fail = Some(seconds(35)));
    assert_eq!(look(&saga, LIMIT - 1), ("submitted", 1));
    assert_eq!(look(&saga, LIMIT), ("aborting", 1));
    let msg = Story::begin(new_global(Mode::Msg { delay: seconds(35) }, 1), false);
    assert_eq!(look(&msg, LIMIT - 1), ("prepared", 0));
    assert_eq!(look(&msg, LIMIT), ("prepared", 1));
    let mut delayed = Story::begin(new_global(Mode::Msg { delay: seconds(35) }, 1), false);
    delayed.play("submit");
    assert_eq!(look(&delayed, LIMIT - 1), ("submitted", 0));
    assert_eq!(look(&delayed, LIMIT), ("submitted", 1));
    let mut unasked = new_global(Mode::Msg { delay: Duration::ZERO }, 1);
    unasked.query_prepared = "".into();
    let unasked = Story::begin(unasked, false);
    assert_eq!(look(&unasked, LIMIT - 1), ("prepared", 0));
    assert_eq!(look(&unasked, LIMIT), ("submitted", 1));
}

#[test]
fn a_message_without_targets_waits_for_its_delay_too() {
    let mut msg = Story::begin(new_global(Mode::Msg { delay: seconds(9) }, 0), true);
    msg.follows(&["after 8s | submitted | -", "after 1s | succeed | -"]);
    let mut empty = new_global(Mode::Msg { delay: seconds(9) }, 2);
    empty.steps[0].def.action = "".into();
    Story::begin(empty, true).follows(&[
        "after 8s          | submitted | -",
        "after 1s          | submitted | 02 action",
        "02 action SUCCESS | succeed   | -",
    ]);
}

#[test]
fn a_topic_without_subscribers_has_no_rows_and_still_compares() {
    let mut new = new_global(Mode::Msg { delay: Duration::ZERO }, 2);
    new.steps[0].def.action = "topic://nobody".into();
    let subscribers = [Some(Vec::new()), None];
    let mut msg = Story::begin(new.clone(), false);
    msg.global = create(&new, false, &subscribers, &policy(), &Context::at(START));
    assert_eq!(msg.rows().len(), 1);
    msg.follows(&["submit | submitted | 02 action"]);
}

#[test]
fn payloads_are_compared_in_the_rows_of_their_own_step() {
    // Ids that begin alike: 1 of ten steps, and the rows of a fan-out.
    let mut new = new_global(Mode::Msg { delay: Duration::ZERO }, 101);
    for (nth, step) in new.steps.iter_mut().enumerate() {
        step.payload = format!("{nth}").into_bytes().into();
    }
    new.steps[9].def.action = "topic://ten".into();
    let mut subscribers = vec![None; 101];
    subscribers[9] = Some(vec![Arc::from("http://a"), Arc::from("http://b")]);
    let prepared = || {
        let mut story = Story::begin(new.clone(), false);
        story.global = create(&new, false, &subscribers, &policy(), &Context::at(START));
        story
    };
    assert!(!prepared().input(Input::Request(Request::Submit(Arc::new(new.clone())))));
    for other in [0, 8, 9, 10, 99, 100] {
        let mut later = new.clone();
        later.steps[other].payload = Arc::from(*b"other");
        let refused = prepared().input(Input::Request(Request::Submit(Arc::new(later))));
        assert!(refused, "step {other}");
    }
}

#[test]
fn answers_that_concern_nobody_change_nothing() {
    let mut saga = Story::saga(2);
    let before = saga.global.clone();
    for target in [Target::Query, Target::Branch(0), Target::Branch(4), Target::Branch(usize::MAX)]
    {
        saga.input(Input::Reply { target, outcome: Outcome::Success });
        assert_eq!(saga.global, before, "{target:?}");
    }
    // A workflow's record is the application's: no answer of a branch belongs to it.
    let mode = Mode::Workflow { name: "w".into(), data: Arc::from([]) };
    let mut workflow = Story::begin(new_global(mode, 0), false);
    workflow.play("register 01");
    let before = workflow.global.clone();
    workflow.input(Input::Reply { target: Target::Branch(0), outcome: Outcome::Ongoing });
    assert_eq!(workflow.global, before);
}

#[test]
fn a_postponed_call_is_no_attempt() {
    let until = START.after(seconds(7));
    let postponed = || Outcome::Postponed(until);
    let mut saga = Story::saga(1).option(|options| options.retry_limit = 1);
    for _ in 0..3 {
        saga.input(Input::Reply { target: Target::Branch(1), outcome: postponed() });
        let retry = saga.global.branches[1].retry;
        assert_eq!((retry.attempts, retry.next_at), (0, until));
        assert_eq!(saga.global.status, GlobalStatus::Submitted);
    }
    let mut msg = Story::begin(new_global(Mode::Msg { delay: Duration::ZERO }, 1), false);
    msg.input(Input::Reply { target: Target::Query, outcome: postponed() });
    assert_eq!((msg.global.query.attempts, msg.global.query.next_at), (0, until));
    let mode = Mode::Workflow { name: "w".into(), data: Arc::from([]) };
    let mut workflow = Story::begin(new_global(mode, 0), false);
    workflow.input(Input::Reply { target: Target::Query, outcome: postponed() });
    assert_eq!((workflow.global.query.attempts, workflow.global.query.next_at), (0, until));
}

#[test]
fn retry_now_makes_due_what_waits_and_leaves_the_rest() {
    let mut saga = Story::begin(new_global(concurrent(&[], 2), 2), true);
    saga.play("01 action UNKNOWN");
    saga.play("02 action SUCCESS");
    let done = saga.global.branches[3].clone();
    saga.follows(&["retry now | submitted | 01 action"]);
    assert_eq!(saga.global.branches[3], done);
    assert_eq!(saga.global.branches[1].retry.attempts, 1, "it is still the second attempt");
    saga.play("01 action SUCCESS");
    saga.play("after 7s");
    let before = saga.global.clone();
    saga.play("retry now");
    assert_eq!(saga.global.wake_at, saga.now, "shown, and nothing else");
    assert_eq!((saga.global.status, &saga.global.branches), (before.status, &before.branches));
}

#[test]
fn the_deviation_differs_by_gid_row_and_attempt() {
    let policy = Policy { retry_jitter_percent: 50, ..Policy::default() };
    let wait = |gid: &str, row: usize, attempts: u32| {
        let mut new = new_global(serial(), 2);
        new.gid = Gid::new(gid).unwrap();
        let global = create(&new, true, &[], &policy, &Context::at(START));
        let retry = dtmd_protocol::Retry { attempts, next_at: Timestamp::ZERO };
        let after = backoff::after_unknown(&global, row, retry, &policy, START);
        let base = seconds(10 << (attempts + 1)).as_secs_f64();
        (after.next_at.since(START).as_secs_f64() / base * 100.0).round() as u32
    };
    let waits: HashSet<u32> = (0..200).map(|nth| wait(&format!("g{nth}"), 1, 0)).collect();
    assert!(waits.len() > 60 && waits.iter().all(|wait| (50..=150).contains(wait)), "{waits:?}");
    let rows: HashSet<u32> = (0..20).map(|row| wait("g", row, 0)).collect();
    let attempts: HashSet<u32> = (0..7).map(|attempts| wait("g", 1, attempts)).collect();
    assert!(rows.len() > 8 && attempts.len() > 3, "{rows:?} {attempts:?}");
    assert_eq!(wait("g", 1, 3), wait("g", 1, 3));
}

#[test]
fn a_wait_without_end_stays_a_long_one() {
    let policy = Policy { retry_interval_max: Duration::MAX, ..policy() };
    let mut new = new_global(serial(), 1);
    new.options.retry_interval = Some(Duration::MAX);
    let global = create(&new, true, &[], &policy, &Context::at(START));
    let retry = dtmd_protocol::Retry::default();
    let after = backoff::after_unknown(&global, 1, retry, &policy, START);
    assert!(after.next_at.since(START) > seconds(1000 * 365 * 24 * 3600));
}
