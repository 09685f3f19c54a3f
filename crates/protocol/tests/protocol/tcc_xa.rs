//! TCC and XA (spec 01 §4.1, §4.2).

use std::time::Duration;

use dtmd_protocol::{Mode, Refused, plan};

use crate::story::{Story, new_global};

fn tcc() -> Story {
    Story::begin(new_global(Mode::Tcc, 0), false)
}

fn xa() -> Story {
    Story::begin(new_global(Mode::Xa, 0), false)
}

#[test]
fn tcc_confirms_the_last_registered_first() {
    tcc().follows(&[
        "register 01        | prepared  | -",
        "register 02        | prepared  | -",
        "submit             | submitted | 02 confirm",
        "submit             | submitted | 02 confirm",
        "register 03 refused| submitted | 02 confirm",
        "abort refused      | submitted | 02 confirm",
        "02 confirm SUCCESS | submitted | 01 confirm",
        "01 confirm FAILURE | submitted | -",
        "after 20s          | submitted | 01 confirm",
        "01 confirm SUCCESS | succeed   | -",
        "submit refused     | succeed   | -",
    ]);
}

#[test]
fn tcc_cancels_the_last_registered_first() {
    let mut tcc = tcc();
    tcc.follows(&[
        "register 01       | prepared | -",
        "register 0101     | prepared | -",
        "abort             | aborting | 0101 cancel",
        "abort             | aborting | 0101 cancel",
        "submit refused    | aborting | 0101 cancel",
        "0101 cancel ONGOING | aborting | -",
        "after 10s         | aborting | 0101 cancel",
        "0101 cancel SUCCESS | aborting | 01 cancel",
        "01 cancel SUCCESS | failed   | -",
        "abort refused     | failed   | -",
    ]);
    assert_eq!(tcc.reason(), "the application said so");
}

#[test]
fn xa_calls_the_first_registered_first() {
    xa().follows(&[
        "register 01       | prepared  | -",
        "register 02       | prepared  | -",
        "submit            | submitted | 01 commit",
        "01 commit SUCCESS | submitted | 02 commit",
        "02 commit UNKNOWN | submitted | -",
        "after 20s         | submitted | 02 commit",
        "02 commit SUCCESS | succeed   | -",
    ]);
    xa().follows(&[
        "register 01         | prepared | -",
        "register 02         | prepared | -",
        "abort               | aborting | 01 rollback",
        "01 rollback SUCCESS | aborting | 02 rollback",
        "02 rollback SUCCESS | failed   | -",
    ]);
}

#[test]
fn xa_is_always_posted() {
    let mut xa = xa();
    xa.follows(&["register 01 | prepared | -", "submit | submitted | 01 commit"]);
    assert!(plan(&xa.global, &xa.policy, &xa.cx()).calls[0].always_post);
}

#[test]
fn an_undecided_one_is_rolled_back_at_its_timeout() {
    for (mut story, op) in [(tcc(), "cancel"), (xa(), "rollback")] {
        story.follows(&["register 01 | prepared | -"]);
        let timeout = story.global.created.after(Duration::from_secs(35));
        assert_eq!(story.global.wake_at, timeout, "it is looked at when it times out");
        story.follows(&[
            "after 34s           | prepared | -",
            &format!("after 1s       | aborting | 01 {op}"),
            &format!("register 02 refused | aborting | 01 {op}"),
            &format!("submit refused | aborting | 01 {op}"),
            &format!("01 {op} SUCCESS| failed   | -"),
        ]);
        assert_eq!(story.reason(), "Timeout after 35 seconds", "the time in force (D44)");
    }
    let mut short = tcc().option(|options| options.timeout_to_fail = Some(Duration::from_secs(3)));
    short.follows(&["after 2s | prepared | -", "after 1s | failed | -"]);
    assert_eq!(short.reason(), "Timeout after 3 seconds");
}

#[test]
fn a_transaction_without_branches_ends_at_once() {
    tcc().follows(&["submit | succeed | -"]);
    tcc().follows(&["abort | failed | -"]);
    xa().follows(&["submit | succeed | -"]);
}

#[test]
fn registering_again_is_success_and_registering_otherwise_is_refused() {
    let mut tcc = tcc();
    tcc.follows(&["register 01 | prepared | -", "register 01 | prepared | -"]);
    assert_eq!(tcc.rows(), ["prepared", "prepared"]);
    tcc.global.branches[0].url = "http://elsewhere".into();
    tcc.follows(&["register 01 refused | prepared | -"]);
}

#[test]
fn a_registration_must_name_the_stored_type() {
    let story = tcc();
    let input = dtmd_protocol::Input::Request(dtmd_protocol::Request::Register {
        trans_type: dtmd_protocol::TransType::Xa,
        rows: Vec::new(),
    });
    let refused =
        dtmd_protocol::step(&story.global, &input, &story.policy, &story.limits, &story.cx());
    assert!(matches!(refused, Err(Refused::OtherType { .. })));
}

#[test]
fn the_number_of_branches_is_limited() {
    let mut tcc = tcc();
    tcc.limits.branches_max = 4;
    tcc.follows(&[
        "register 01         | prepared | -",
        "register 02         | prepared | -",
        "register 03 refused | prepared | -",
    ]);
}

#[test]
fn branches_without_a_url_count_as_done() {
    // The one that would be called first has none.
    for (mut story, empty, other) in [(tcc(), "02", "01 confirm"), (xa(), "01", "02 commit")] {
        story.follows(&["register 01 | prepared | -", "register 02 | prepared | -"]);
        for row in &mut story.global.branches {
            if row.branch_id.as_str() == empty {
                row.url = "".into();
            }
        }
        story.follows(&[
            &format!("submit         | submitted | {other}"),
            &format!("{other} SUCCESS | succeed  | -"),
        ]);
    }
}
