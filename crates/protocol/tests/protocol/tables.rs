//! The tables themselves: what has a row, and that nothing else has.

use dtmd_protocol::step::next_status;
use dtmd_protocol::{GlobalStatus, Move, TransType};

const ROWS: &str = "
    saga     prepared  Submit          submitted
    saga     submitted Submit          submitted
    saga     submitted AllDone         succeed
    saga     submitted ActionFailed    aborting
    saga     submitted RetriesSpent    aborting
    saga     submitted TimeOut         aborting
    saga     aborting  AllDone         failed
    tcc      prepared  Submit          submitted
    tcc      submitted Submit          submitted
    tcc      prepared  Abort           aborting
    tcc      aborting  Abort           aborting
    tcc      prepared  TimeOut         aborting
    tcc      submitted AllDone         succeed
    tcc      aborting  AllDone         failed
    xa       prepared  Submit          submitted
    xa       submitted Submit          submitted
    xa       prepared  Abort           aborting
    xa       aborting  Abort           aborting
    xa       prepared  TimeOut         aborting
    xa       submitted AllDone         succeed
    xa       aborting  AllDone         failed
    msg      prepared  Submit          submitted
    msg      submitted Submit          submitted
    msg      prepared  LocalCommitted  submitted
    msg      prepared  LocalRolledBack failed
    msg      prepared  Abort           failed
    msg      submitted AllDone         succeed
    workflow prepared  FinishSucceed   succeed
    workflow succeed   FinishSucceed   succeed
    workflow prepared  FinishFailed    failed
    workflow failed    FinishFailed    failed
";

#[test]
fn every_mode_has_these_rows_and_no_others() {
    let mut expected: Vec<String> =
        ROWS.lines().map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    expected.retain(|row| !row.is_empty());
    for mode in TransType::ALL {
        for status in ["prepared", "submitted", "aborting"] {
            expected.push(format!("{mode} {status} ForceStop failed"));
        }
    }
    let mut actual = Vec::new();
    for mode in TransType::ALL {
        for status in GlobalStatus::ALL {
            for movement in Move::ALL {
                if let Some(next) = next_status(*mode, *status, *movement) {
                    actual.push(format!("{mode} {status} {movement:?} {next}"));
                }
            }
        }
    }
    expected.sort();
    actual.sort();
    assert_eq!(actual, expected);
}

#[test]
fn words_are_the_wires() {
    for status in GlobalStatus::ALL {
        assert_eq!(GlobalStatus::parse(status.as_str()), Some(*status));
    }
    assert_eq!(GlobalStatus::parse("aborted"), None);
    for mode in TransType::ALL {
        assert_eq!(TransType::parse(mode.as_str()), Some(*mode));
    }
    for op in ["action", "compensate", "try", "confirm", "cancel", "commit", "rollback", "msg", "w"]
    {
        assert_eq!(dtmd_protocol::Op::parse(op).as_str(), op);
    }
}
