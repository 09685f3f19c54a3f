//! Saga (spec 01 §4.6).

use std::time::Duration;

use crate::story::{Story, concurrent, new_global};

#[test]
fn actions_are_called_one_after_the_other() {
    let mut saga = Story::saga(3);
    saga.follows(&[
        "begin             | submitted | 01 action",
        "wake              | submitted | 01 action",
        "01 action SUCCESS | submitted | 02 action",
        "02 action SUCCESS | submitted | 03 action",
        "03 action SUCCESS | succeed   | -",
        "wake              | succeed   | -",
    ]);
    assert_eq!(saga.rows(), ["prepared", "succeed"].repeat(3));
}

#[test]
fn a_failed_action_compensates_backwards_starting_with_itself() {
    let mut saga = Story::saga(3);
    saga.follows(&[
        "begin                 | submitted | 01 action",
        "01 action SUCCESS     | submitted | 02 action",
        "02 action FAILURE     | aborting  | 02 compensate",
        "02 compensate SUCCESS | aborting  | 01 compensate",
        "wake                  | aborting  | 01 compensate",
        "01 compensate SUCCESS | failed    | -",
    ]);
    assert_eq!(saga.rows(), ["succeed", "succeed", "succeed", "failed", "prepared", "prepared"]);
    assert_eq!(saga.reason(), "url:http://rm/2 return failed: no money FAILURE");
}

#[test]
fn the_second_of_two_fails() {
    let mut saga = Story::saga(2);
    saga.follows(&[
        "01 action SUCCESS     | submitted | 02 action",
        "02 action FAILURE     | aborting  | 02 compensate",
        "02 compensate SUCCESS | aborting  | 01 compensate",
        "01 compensate SUCCESS | failed    | -",
    ]);
    assert_eq!(saga.rows(), ["succeed", "succeed", "succeed", "failed"]);
}

#[test]
fn a_compensation_is_called_until_it_succeeds() {
    Story::saga(1).follows(&[
        "01 action FAILURE     | aborting | 01 compensate",
        "01 compensate FAILURE | aborting | -",
        "after 20s             | aborting | 01 compensate",
        "01 compensate UNKNOWN | aborting | -",
        "after 39s             | aborting | -",
        "after 1s              | aborting | 01 compensate",
        "01 compensate ONGOING | aborting | -",
        "after 40s             | aborting | 01 compensate",
        "01 compensate SUCCESS | failed   | -",
    ]);
}

#[test]
fn an_unknown_action_is_retried_at_doubled_intervals() {
    let mut saga = Story::saga(1);
    for seconds in [20, 40, 80, 160] {
        saga.follows(&["01 action UNKNOWN | submitted | -"]);
        assert_eq!(saga.wakes_in(), seconds);
        assert_eq!(saga.global.interval, Duration::from_secs(seconds));
        saga.follows(&[&format!("after {seconds}s | submitted | 01 action")]);
    }
    saga.follows(&["01 action SUCCESS | succeed | -"]);
}

#[test]
fn ongoing_waits_for_the_interval_without_growth() {
    let mut saga = Story::saga(1);
    for _ in 0..3 {
        saga.follows(&[
            "01 action ONGOING | submitted | -",
            "after 9s          | submitted | -",
            "after 1s          | submitted | 01 action",
        ]);
    }
}

#[test]
fn a_timeout_also_compensates_the_call_that_may_be_on_its_way() {
    let mut saga =
        Story::saga(2).option(|options| options.timeout_to_fail = Some(Duration::from_secs(15)));
    saga.follows(&[
        "01 action ONGOING     | submitted | -",
        "after 14s             | submitted | 01 action",
        "after 1s              | aborting  | 01 compensate",
        "01 action SUCCESS     | aborting  | 01 compensate",
        "01 compensate SUCCESS | failed    | -",
    ]);
    assert_eq!(saga.rows(), ["succeed", "prepared", "prepared", "prepared"]);
    assert_eq!(saga.reason(), "Timeout after 15 seconds");
}

#[test]
fn without_timeout_to_fail_a_saga_never_times_out() {
    Story::saga(1).follows(&["after 1000000s | submitted | 01 action"]);
}

#[test]
fn the_retry_limit_counts_unknown_outcomes_of_one_action() {
    let mut saga = Story::saga(2).option(|options| options.retry_limit = 2);
    saga.follows(&[
        "01 action UNKNOWN     | submitted | -",
        "after 20s             | submitted | 01 action",
        "01 action SUCCESS     | submitted | 02 action",
        "02 action UNKNOWN     | submitted | -",
        "after 20s             | submitted | 02 action",
        "02 action ONGOING     | submitted | -",
        "after 20s             | submitted | 02 action",
        "02 action UNKNOWN     | submitted | -",
        "after 40s             | submitted | 02 action",
        "02 action UNKNOWN     | aborting  | 02 compensate",
        "02 compensate SUCCESS | aborting  | 01 compensate",
        "01 compensate SUCCESS | failed    | -",
    ]);
    assert_eq!(saga.rows(), ["succeed", "succeed", "succeed", "prepared"]);
    assert_eq!(saga.reason(), "RetryCount is greater than RetryLimit, RetryLimit: 2");
}

#[test]
fn a_concurrent_saga_starts_all_and_compensates_all_at_once() {
    Story::begin(new_global(concurrent(&[], 3), 3), true).follows(&[
        "begin                 | submitted | 01 action, 02 action, 03 action",
        "02 action SUCCESS     | submitted | 01 action, 03 action",
        "03 action FAILURE     | aborting  | 03 compensate, 02 compensate, 01 compensate",
        "02 compensate SUCCESS | aborting  | 03 compensate, 01 compensate",
        "01 compensate SUCCESS | aborting  | 03 compensate",
        "03 compensate SUCCESS | failed    | -",
    ]);
}

#[test]
fn orders_hold_forward_and_back() {
    // 03 and 04 after 01; 04 also after 02.
    let mode = concurrent(&[(2, &[0]), (3, &[0, 1])], 4);
    Story::begin(new_global(mode, 4), true).follows(&[
        "begin                 | submitted | 01 action, 02 action",
        "01 action SUCCESS     | submitted | 02 action, 03 action",
        "02 action SUCCESS     | submitted | 03 action, 04 action",
        "03 action SUCCESS     | submitted | 04 action",
        "04 action FAILURE     | aborting  | 04 compensate, 03 compensate",
        "03 compensate SUCCESS | aborting  | 04 compensate",
        "04 compensate SUCCESS | aborting  | 02 compensate, 01 compensate",
        "01 compensate SUCCESS | aborting  | 02 compensate",
        "02 compensate SUCCESS | failed    | -",
    ]);
}

#[test]
fn an_ordered_step_that_never_ran_is_not_compensated() {
    let mut saga = Story::begin(new_global(concurrent(&[(1, &[0])], 2), 2), true);
    saga.follows(&[
        "begin                 | submitted | 01 action",
        "01 action FAILURE     | aborting  | 01 compensate",
        "01 compensate SUCCESS | failed    | -",
    ]);
    assert_eq!(saga.rows(), ["succeed", "failed", "prepared", "prepared"]);
}

#[test]
fn orders_hold_in_a_serial_saga_too() {
    let mode = dtmd_protocol::Mode::Saga {
        concurrent: false,
        orders: std::sync::Arc::from(vec![vec![], vec![], vec![0]]),
    };
    Story::begin(new_global(mode, 3), true).follows(&[
        "01 action SUCCESS     | submitted | 02 action",
        "02 action SUCCESS     | submitted | 03 action",
        "03 action FAILURE     | aborting  | 03 compensate",
        "03 compensate SUCCESS | aborting  | 02 compensate",
    ]);
}

#[test]
fn steps_without_a_url_count_as_done() {
    let mut new = new_global(crate::story::serial(), 3);
    new.steps[1].def.action = "".into();
    new.steps[0].def.compensate = "".into();
    Story::begin(new, true).follows(&[
        "begin                 | submitted | 01 action",
        "01 action SUCCESS     | submitted | 03 action",
        "03 action FAILURE     | aborting  | 03 compensate",
        "03 compensate SUCCESS | aborting  | 02 compensate",
        "02 compensate SUCCESS | failed    | -",
    ]);
    let mut new = new_global(crate::story::serial(), 1);
    new.steps[0].def.action = "".into();
    Story::begin(new, true).follows(&["begin | succeed | -"]);
}

#[test]
fn a_prepared_saga_waits_for_its_submit() {
    Story::begin(new_global(crate::story::serial(), 1), false).follows(&[
        "begin             | prepared  | -",
        "after 100000s     | prepared  | -",
        "abort refused     | prepared  | -",
        "submit            | submitted | 01 action",
        "submit            | submitted | 01 action",
        "prepare refused   | submitted | 01 action",
        "abort refused     | submitted | 01 action",
        "01 action SUCCESS | succeed   | -",
        "submit refused    | succeed   | -",
    ]);
}

#[test]
fn a_failure_found_in_the_store_aborts_without_its_text() {
    let mut saga = Story::saga(2);
    let row = saga.row("01", "action");
    saga.global.branches[row].status = dtmd_protocol::BranchStatus::Failed;
    saga.follows(&["wake | aborting | 01 compensate"]);
    assert_eq!(saga.reason(), "fail message lost");
}

#[test]
fn late_and_repeated_answers_change_nothing() {
    let mut saga = Story::saga(2);
    saga.follows(&[
        "01 action SUCCESS     | submitted | 02 action",
        "01 action FAILURE     | submitted | 02 action",
        "01 action UNKNOWN     | submitted | 02 action",
        "02 action FAILURE     | aborting  | 02 compensate",
        "02 action SUCCESS     | aborting  | 02 compensate",
        "02 compensate SUCCESS | aborting  | 01 compensate",
        "02 compensate UNKNOWN | aborting  | 01 compensate",
        "01 compensate SUCCESS | failed    | -",
        "01 compensate UNKNOWN | failed    | -",
        "02 action SUCCESS     | failed    | -",
    ]);
    assert_eq!(saga.rows(), ["succeed", "succeed", "succeed", "failed"]);
}

#[test]
fn an_operator_can_stop_or_hurry_it() {
    Story::saga(2).follows(&[
        "01 action UNKNOWN  | submitted | -",
        "retry now          | submitted | 01 action",
        "01 action UNKNOWN  | submitted | -",
        "kick               | submitted | 01 action",
        "force stop         | failed    | -",
        "force stop refused | failed    | -",
        "retry now          | failed    | -",
    ]);
}

#[test]
fn the_reason_keeps_one_word_and_is_cut_to_its_length() {
    let mut saga = Story::saga(1);
    saga.policy.reason_max_bytes = 40;
    let outcome = dtmd_protocol::Outcome::Failure("ü".repeat(100).into());
    let target = dtmd_protocol::Target::Branch(1);
    saga.input(dtmd_protocol::Input::Reply { target, outcome });
    assert_eq!(saga.reason(), "url:http://rm/1 return failed: üüüü");

    let mut saga = Story::saga(1);
    let outcome = dtmd_protocol::Outcome::Failure("stock is empty FAILURE".into());
    saga.input(dtmd_protocol::Input::Reply { target, outcome });
    assert_eq!(saga.reason(), "url:http://rm/1 return failed: stock is empty FAILURE");
}
