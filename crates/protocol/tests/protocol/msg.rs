//! Two-phase message (spec 01 §4.3).

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{Context, Mode, Options, create};

use crate::story::{START, Story, new_global, policy};

fn msg(steps: usize) -> Story {
    Story::begin(new_global(Mode::Msg { delay: Duration::ZERO }, steps), false)
}

#[test]
fn deliveries_follow_the_submit_one_after_the_other() {
    let mut msg = msg(2);
    msg.follows(&[
        "begin             | prepared  | -",
        "prepare           | prepared  | -",
        "submit            | submitted | 01 action",
        "submit            | submitted | 01 action",
        "01 action SUCCESS | submitted | 02 action",
        "02 action FAILURE | submitted | -",
        "after 20s         | submitted | 02 action",
        "02 action ONGOING | submitted | -",
        "after 20s         | submitted | 02 action",
        "02 action UNKNOWN | submitted | -",
        "abort refused     | submitted | -",
        "after 40s         | submitted | 02 action",
        "02 action SUCCESS | succeed   | -",
        "submit refused    | succeed   | -",
    ]);
}

#[test]
fn concurrent_deliveries_do_not_wait_for_one_another() {
    msg(3).option(|options| options.concurrent = true).follows(&[
        "submit            | submitted | 01 action, 02 action, 03 action",
        "01 action UNKNOWN | submitted | 02 action, 03 action",
        "03 action SUCCESS | submitted | 02 action",
        "02 action SUCCESS | submitted | -",
        "after 20s         | submitted | 01 action",
        "01 action SUCCESS | succeed   | -",
    ]);
}

#[test]
fn the_local_transaction_decides_what_was_not_submitted() {
    msg(1).follows(&[
        "after 34s         | prepared  | -",
        "after 1s          | prepared  | 00 msg",
        "query UNKNOWN     | prepared  | -",
        "after 20s         | prepared  | 00 msg",
        "query ONGOING     | prepared  | -",
        "after 10s         | prepared  | 00 msg",
        "query SUCCESS     | submitted | 01 action",
        "query FAILURE     | submitted | 01 action",
        "01 action SUCCESS | succeed   | -",
    ]);
    msg(1).follows(&[
        "after 35s         | prepared | 00 msg",
        "query FAILURE     | failed   | -",
        "query SUCCESS     | failed   | -",
        "submit refused    | failed   | -",
    ]);
}

#[test]
fn a_submit_may_come_while_the_question_is_under_way() {
    msg(1).follows(&[
        "after 35s         | prepared  | 00 msg",
        "submit            | submitted | 01 action",
        "query FAILURE     | submitted | 01 action",
        "01 action SUCCESS | succeed   | -",
    ]);
}

#[test]
fn a_submit_after_the_answer_must_say_the_same() {
    // Found by simulation: whatever was submitted then was acknowledged.
    let mut other = msg(1);
    other.follows(&["after 35s     | prepared  | 00 msg", "query SUCCESS | submitted | 01 action"]);
    other.new.steps[0].payload = Arc::from(*b"other");
    other.follows(&["submit refused | submitted | 01 action"]);
    msg(1).follows(&[
        "after 35s     | prepared  | 00 msg",
        "query SUCCESS | submitted | 01 action",
        "submit        | submitted | 01 action",
    ]);
}

#[test]
fn an_aborted_message_is_gone() {
    msg(1).follows(&[
        "abort           | failed | -",
        "abort refused   | failed | -",
        "prepare refused | failed | -",
    ]);
}

#[test]
fn without_a_query_url_the_timeout_submits_as_in_dtm() {
    let mut new = new_global(Mode::Msg { delay: Duration::ZERO }, 1);
    new.query_prepared = "".into();
    Story::begin(new, false)
        .follows(&["after 34s | prepared  | -", "after 1s  | submitted | 01 action"]);
}

#[test]
fn a_delayed_message_waits_from_its_acceptance() {
    let new = new_global(Mode::Msg { delay: Duration::from_secs(30) }, 1);
    let mut msg = Story::begin(new, false);
    msg.follows(&["after 10s | prepared  | -", "submit    | submitted | -"]);
    assert_eq!(msg.wakes_in(), 20);
    msg.follows(&["after 19s | submitted | -", "after 1s | submitted | 01 action"]);
}

#[test]
fn a_submit_merges_what_only_it_carries() {
    // DTM's SDKs send the delay with the submit only (D28).
    let mut msg = msg(1);
    let mut later = msg.new.clone();
    later.mode = Mode::Msg { delay: Duration::from_secs(9) };
    later.custom_data = Arc::from("{\"delay\":9}");
    later.options = Options {
        retry_interval: Some(Duration::from_secs(3)),
        request_timeout: Some(Duration::from_secs(1)),
        ..Options::default()
    };
    msg.new = later;
    msg.follows(&["submit | submitted | -", "after 9s | submitted | 01 action"]);
    assert_eq!(msg.global.options.retry_interval, Some(Duration::from_secs(3)));
    assert_eq!(&*msg.global.custom_data, "{\"delay\":9}");
    assert_eq!(msg.global.created, START, "the submit does not move the acceptance");
}

#[test]
fn a_submit_of_other_content_is_refused() {
    let mut other = msg(1);
    other.new.steps[0].payload = Arc::from(*b"other");
    other.follows(&["submit refused | prepared | -"]);
    let mut repeated = msg(1);
    repeated.follows(&["submit | submitted | 01 action"]);
    repeated.new.content = 8;
    repeated.follows(&["submit refused | submitted | 01 action"]);
}

#[test]
fn a_topic_fans_out_to_its_subscribers() {
    let mut new = new_global(Mode::Msg { delay: Duration::ZERO }, 3);
    new.steps[0].def.action = "topic://many".into();
    new.steps[2].def.action = "topic://one".into();
    let urls = |names: &[&str]| Some(names.iter().map(|name| Arc::from(*name)).collect());
    let subscribers = [urls(&["http://a", "http://b"]), None, urls(&["http://c"])];
    let global = create(&new, true, &subscribers, &policy(), &Context::at(START));
    let rows: Vec<_> =
        global.branches.iter().map(|row| (row.branch_id.as_str(), &*row.url)).collect();
    assert_eq!(
        rows,
        [("01-01", "http://a"), ("01-02", "http://b"), ("02", "http://rm/2"), ("03", "http://c"),]
    );
    // A repeated submit compares payloads across the fan-out.
    let mut prepared = Story::begin(new.clone(), false);
    prepared.global = create(&new, false, &subscribers, &policy(), &Context::at(START));
    prepared.follows(&["submit | submitted | 01-01 action"]);
}
