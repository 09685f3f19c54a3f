//! The durability class of every change (design.md section 4).

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{Durability, Mode, durability};

use crate::story::{Story, concurrent, new_global, serial};

/// Plays rows `what happens | class`.
fn classes(mut story: Story, rows: &[&str]) {
    assert_eq!(durability(None, &story.global), Durability::Forced, "accepting is forced");
    for row in rows {
        let (event, class) = row.split_once('|').unwrap();
        let before = story.global.clone();
        story.play(event.trim());
        let actual = format!("{:?}", durability(Some(&before), &story.global));
        assert_eq!(class.trim(), actual, "{row}");
    }
}

#[test]
fn a_serial_saga() {
    classes(
        Story::begin(new_global(serial(), 3), true),
        &[
            "wake                  | None",
            "01 action UNKNOWN     | Lazy",
            "01 action SUCCESS     | Forced",
            "02 action ONGOING     | Lazy",
            "02 action FAILURE     | Forced",
            "02 compensate SUCCESS | Lazy",
            "02 compensate SUCCESS | None",
            "01 compensate SUCCESS | Lazy",
        ],
    );
    classes(
        Story::begin(new_global(serial(), 2), true),
        &["01 action SUCCESS | Forced", "02 action SUCCESS | Lazy"],
    );
}

#[test]
fn a_concurrent_saga_forces_only_what_frees_a_follower() {
    classes(
        Story::begin(new_global(concurrent(&[(2, &[0])], 3), 3), true),
        &["02 action SUCCESS | Lazy", "01 action SUCCESS | Forced", "03 action SUCCESS | Lazy"],
    );
}

#[test]
fn a_message() {
    let delay = Duration::ZERO;
    classes(
        Story::begin(new_global(Mode::Msg { delay }, 2), false),
        &["submit | Forced", "01 action SUCCESS | Lazy", "02 action SUCCESS | Lazy"],
    );
    classes(
        Story::begin(new_global(Mode::Msg { delay }, 1), false),
        &["after 35s | None", "query UNKNOWN | Lazy", "query SUCCESS | Forced"],
    );
    classes(Story::begin(new_global(Mode::Msg { delay }, 1), false), &["abort | Forced"]);
}

#[test]
fn tcc_and_workflow() {
    classes(
        Story::begin(new_global(Mode::Tcc, 0), false),
        &[
            "register 01        | Forced",
            "register 01        | None",
            "submit             | Forced",
            "01 confirm FAILURE | Lazy",
            "01 confirm SUCCESS | Lazy",
        ],
    );
    classes(
        Story::begin(new_global(Mode::Tcc, 0), false),
        &["register 01 | Forced", "after 35s | Forced", "01 cancel SUCCESS | Lazy"],
    );
    let mode = Mode::Workflow { name: Arc::from("wf"), data: Arc::from(*b"") };
    classes(
        Story::begin(new_global(mode, 0), false),
        &["register 01 | Forced", "finish succeed | Forced"],
    );
    classes(Story::saga(1), &["force stop | Forced"]);
}
