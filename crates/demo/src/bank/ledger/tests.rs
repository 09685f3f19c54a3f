use std::sync::{Arc, Barrier};

use super::*;

fn branch(trans_type: &str, branch_id: &str, op: &str) -> BranchContext {
    BranchContext {
        trans_type: trans_type.to_owned(),
        gid: "g-1".to_owned(),
        branch_id: branch_id.to_owned(),
        op: op.to_owned(),
    }
}

fn ledger() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&dir.path().join("bank.db")).unwrap();
    ledger.open_account("alice", 100).unwrap();
    (dir, ledger)
}

fn balance(ledger: &Ledger) -> i64 {
    ledger.account("alice").unwrap().balance
}

#[test]
fn a_duplicate_action_changes_nothing() {
    let (_dir, ledger) = ledger();
    let action = branch("saga", "01", "action");
    assert_eq!(ledger.change(&action, Change::Out, "alice", 30).unwrap(), Admission::Run);
    assert_eq!(ledger.change(&action, Change::Out, "alice", 30).unwrap(), Admission::Duplicate);
    assert_eq!(balance(&ledger), 70);
}

#[test]
fn a_compensation_undoes_its_action_once() {
    let (_dir, ledger) = ledger();
    let undo = branch("saga", "01", "compensate");
    ledger.change(&branch("saga", "01", "action"), Change::Out, "alice", 30).unwrap();
    assert_eq!(ledger.change(&undo, Change::OutUndo, "alice", 30).unwrap(), Admission::Run);
    assert_eq!(ledger.change(&undo, Change::OutUndo, "alice", 30).unwrap(), Admission::Duplicate);
    assert_eq!(balance(&ledger), 100);
}

#[test]
fn a_compensation_without_action_is_null_and_blocks_the_late_action() {
    for (trans_type, action, undo) in [("saga", "action", "compensate"), ("tcc", "try", "cancel")] {
        let (_dir, ledger) = ledger();
        let undo = branch(trans_type, "01", undo);
        let late = branch(trans_type, "01", action);
        let null = ledger.change(&undo, Change::OutUndo, "alice", 30).unwrap();
        assert_eq!(null, Admission::NullCompensation);
        assert_eq!(ledger.change(&late, Change::Out, "alice", 30).unwrap(), Admission::Hanging);
        let again = ledger.change(&undo, Change::OutUndo, "alice", 30).unwrap();
        assert_eq!(again, Admission::Duplicate, "a repeated null compensation is a duplicate");
        assert_eq!(balance(&ledger), 100);
    }
}

#[test]
fn a_refused_action_leaves_no_barrier_row() {
    let (_dir, ledger) = ledger();
    let action = branch("saga", "01", "action");
    let refused = ledger.change(&action, Change::Out, "alice", 101).unwrap_err();
    assert!(
        matches!(&refused, LedgerError::Refused(text) if text.contains("has 100")),
        "{refused}"
    );
    let unknown = ledger.change(&action, Change::In, "nobody", 1).unwrap_err();
    assert!(matches!(&unknown, LedgerError::Refused(text) if text.contains("nobody")), "{unknown}");
    // Had the refusal been remembered, this would be a duplicate and the money lost.
    assert_eq!(ledger.change(&action, Change::Out, "alice", 30).unwrap(), Admission::Run);
}

#[test]
fn tcc_freezes_then_moves() {
    let (_dir, ledger) = ledger();
    ledger.change(&branch("tcc", "01", "try"), Change::TryOut, "alice", 80).unwrap();
    let account = ledger.account("alice").unwrap();
    assert_eq!((account.balance, account.frozen), (100, 80));
    let second = ledger.change(&branch("tcc", "02", "try"), Change::TryOut, "alice", 30);
    assert!(matches!(second, Err(LedgerError::Refused(_))), "only 20 are free");
    ledger.change(&branch("tcc", "01", "confirm"), Change::ConfirmOut, "alice", 80).unwrap();
    let account = ledger.account("alice").unwrap();
    assert_eq!((account.balance, account.frozen), (20, 0));
}

#[test]
fn tcc_cancel_frees() {
    let (_dir, ledger) = ledger();
    ledger.change(&branch("tcc", "01", "try"), Change::TryOut, "alice", 80).unwrap();
    ledger.change(&branch("tcc", "02", "try"), Change::TryIn, "alice", 5).unwrap();
    ledger.change(&branch("tcc", "01", "cancel"), Change::CancelOut, "alice", 80).unwrap();
    ledger.change(&branch("tcc", "02", "cancel"), Change::CancelIn, "alice", 5).unwrap();
    let totals = ledger.totals().unwrap();
    assert_eq!(totals, Totals { total: 100, frozen: 0, incoming: 0, accounts: 1 });
}

#[test]
fn a_confirm_without_try_is_an_error_not_a_silent_debit() {
    let (_dir, ledger) = ledger();
    let confirm = branch("tcc", "01", "confirm");
    let outcome = ledger.change(&confirm, Change::ConfirmOut, "alice", 80);
    assert!(matches!(outcome, Err(LedgerError::Database(_))), "frozen must not become negative");
    assert_eq!(balance(&ledger), 100);
}

#[test]
fn query_prepared_after_the_local_transaction_says_committed() {
    let (_dir, ledger) = ledger();
    let local = branch("msg", "00", "msg");
    assert_eq!(ledger.change(&local, Change::Out, "alice", 30).unwrap(), Admission::Run);
    assert_eq!(ledger.query_prepared("g-1").unwrap(), LocalOutcome::Committed);
    assert_eq!(ledger.query_prepared("g-1").unwrap(), LocalOutcome::Committed);
    let again = ledger.change(&local, Change::Out, "alice", 30);
    assert!(matches!(again, Err(LedgerError::Duplicated(_))));
    assert_eq!(balance(&ledger), 70);
}

#[test]
fn query_prepared_first_keeps_the_local_transaction_out() {
    let (_dir, ledger) = ledger();
    assert_eq!(ledger.query_prepared("g-1").unwrap(), LocalOutcome::RolledBack);
    let late = ledger.change(&branch("msg", "00", "msg"), Change::Out, "alice", 30);
    assert!(matches!(late, Err(LedgerError::Duplicated(_))));
    assert_eq!(ledger.query_prepared("g-1").unwrap(), LocalOutcome::RolledBack);
    assert_eq!(balance(&ledger), 100);
}

/// Two connections to one file race an action against its compensation. Whoever wins, the money is
/// where it was, and the pair of admissions is one of the two allowed ones.
#[test]
fn concurrent_action_and_compensation_agree() {
    let (dir, ledger) = ledger();
    let other = Arc::new(Ledger::open(&dir.path().join("bank.db")).unwrap());
    let mut seen = [0_u32; 2];
    for round in 0..40 {
        let start = Arc::new(Barrier::new(2));
        let mut action = branch("saga", "01", "action");
        action.gid = format!("race-{round}");
        let undo = BranchContext { op: "compensate".to_owned(), ..action.clone() };
        let racer = std::thread::spawn({
            let (other, start) = (Arc::clone(&other), Arc::clone(&start));
            move || {
                start.wait();
                other.change(&undo, Change::OutUndo, "alice", 30).unwrap()
            }
        });
        start.wait();
        let acted = ledger.change(&action, Change::Out, "alice", 30).unwrap();
        let undone = racer.join().unwrap();
        match (acted, undone) {
            (Admission::Run, Admission::Run) => seen[0] += 1,
            (Admission::Hanging, Admission::NullCompensation) => seen[1] += 1,
            other => panic!("round {round}: {other:?}"),
        }
        assert_eq!(balance(&ledger), 100, "round {round}");
    }
    assert_eq!(seen.iter().sum::<u32>(), 40);
}

#[test]
fn a_file_opened_again_has_what_was_committed() {
    let (dir, ledger) = ledger();
    let action = branch("saga", "01", "action");
    ledger.change(&action, Change::Out, "alice", 30).unwrap();
    drop(ledger);
    let again = Ledger::open(&dir.path().join("bank.db")).unwrap();
    again.open_account("alice", 100).unwrap();
    assert_eq!(balance(&again), 70);
    assert_eq!(again.change(&action, Change::Out, "alice", 30).unwrap(), Admission::Duplicate);
}
