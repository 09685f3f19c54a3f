//! The server's side of workflows (spec 01 §4.5).

use std::sync::Arc;

use dtmd_protocol::{Mode, plan};

use crate::story::{Story, new_global};

fn workflow() -> Story {
    let mode = Mode::Workflow { name: Arc::from("wf"), data: Arc::from(*b"in") };
    Story::begin(new_global(mode, 0), false)
}

#[test]
fn a_quiet_workflow_is_called_back_less_and_less_often() {
    let mut workflow = workflow();
    workflow.follows(&[
        "begin         | prepared | -",
        "after 10s     | prepared | 00 wf",
        "query SUCCESS | prepared | -",
        "after 20s     | prepared | 00 wf",
        "query UNKNOWN | prepared | -",
        "after 39s     | prepared | -",
        "after 1s      | prepared | 00 wf",
    ]);
    let call = &plan(&workflow.global, &workflow.policy, &workflow.cx()).calls[0];
    assert_eq!(&*call.data, b"in");
    assert!(call.always_post);
    assert_eq!(call.timeout, workflow.policy.workflow_callback_timeout);
}

#[test]
fn progress_keeps_the_callback_away() {
    let mut workflow = workflow();
    workflow.follows(&[
        "after 9s    | prepared | -",
        "register 01 | prepared | -",
        "after 9s    | prepared | -",
        "register 02 | prepared | -",
        "register 02 | prepared | -",
        "after 9s    | prepared | -",
        "after 1s    | prepared | 00 wf",
    ]);
    assert_eq!(workflow.rows(), ["succeed", "succeed"]);
}

#[test]
fn the_application_ends_it() {
    let mut done = workflow();
    done.follows(&[
        "finish succeed        | succeed | -",
        "finish succeed        | succeed | -",
        "finish failed refused | succeed | -",
        "register 01 refused   | succeed | -",
        "query SUCCESS         | succeed | -",
    ]);
    assert_eq!(&*done.global.result, "cmVzdWx0");
    let mut failed = workflow();
    failed.follows(&[
        "finish failed          | failed | -",
        "finish failed          | failed | -",
        "finish succeed refused | failed | -",
        "abort refused          | failed | -",
        "submit refused         | failed | -",
    ]);
    assert_eq!(failed.reason(), "no money");
}
