#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

//! The barrier's rule as a table, over a database in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use crate::{BoxError, TableName};

type Rows = BTreeMap<[String; 4], String>;

/// One transaction at a time; commit puts the rows back.
#[derive(Debug, Default)]
struct Memory {
    rows: Arc<Mutex<Rows>>,
    commit: Option<fn() -> CommitError>,
}

struct MemoryTx {
    shared: Arc<Mutex<Rows>>,
    rows: Rows,
    commit: Option<fn() -> CommitError>,
}

fn key(row: BarrierRow<'_>) -> [String; 4] {
    [row.gid, row.branch_id, row.op, row.barrier_id].map(str::to_owned)
}

impl BarrierTx for MemoryTx {
    async fn insert(
        &mut self,
        _table: Option<&TableName>,
        row: BarrierRow<'_>,
    ) -> Result<bool, BoxError> {
        let before = self.rows.len();
        self.rows.entry(key(row)).or_insert_with(|| row.reason.to_owned());
        Ok(self.rows.len() > before)
    }

    async fn reason(
        &mut self,
        _table: Option<&TableName>,
        row: BarrierRow<'_>,
    ) -> Result<Option<String>, BoxError> {
        Ok(self.rows.get(&key(row)).cloned())
    }
}

impl BarrierDb for Memory {
    type Tx = MemoryTx;

    async fn begin(&self) -> Result<MemoryTx, BoxError> {
        let rows = self.rows.lock().unwrap().clone();
        Ok(MemoryTx { shared: Arc::clone(&self.rows), rows, commit: self.commit })
    }

    async fn commit(tx: MemoryTx) -> Result<(), CommitError> {
        match tx.commit {
            Some(error) => Err(error()),
            None => {
                *tx.shared.lock().unwrap() = tx.rows;
                Ok(())
            }
        }
    }

    async fn rollback(_tx: MemoryTx) -> Result<(), BoxError> {
        Ok(())
    }
}

/// Plays calls on one branch and says what each did: `run`, `skip`, or the error's word.
async fn play(trans_type: TransType, ops: &str) -> String {
    let db = Memory::default();
    let mut seen = Vec::new();
    for op in ops.split(' ') {
        let branch = Branch::new(trans_type, "g", "01", op.parse().unwrap()).unwrap();
        seen.push(match branch.barrier_value(&db, async |_tx| Ok(())).await {
            Ok(Some(())) => "run",
            Ok(None) => "skip",
            Err(error) => error.word().unwrap_or("error"),
        });
    }
    seen.join(" ")
}

#[tokio::test]
async fn the_rule_is_dtms() {
    use TransType::{Msg, Saga, Tcc, Workflow};
    for (trans_type, calls, expected) in [
        (Saga, "action action", "run skip"),
        (Saga, "action compensate compensate", "run run skip"),
        (Saga, "compensate action compensate", "skip skip skip"),
        (Tcc, "try confirm confirm", "run run skip"),
        (Tcc, "try cancel try", "run run skip"),
        (Tcc, "cancel try", "skip skip"),
        (Workflow, "rollback action", "skip skip"),
        (Workflow, "action rollback", "run run"),
        (Workflow, "action commit", "run run"),
        (Msg, "msg msg", "run error"),
    ] {
        assert_eq!(play(trans_type, calls).await, expected, "{trans_type} {calls}");
    }
}

#[tokio::test]
async fn a_joined_transaction_is_told_which_case_it_is() {
    let db = Memory::default();
    let branch = |op: Op| Branch::new(TransType::Saga, "g", "01", op).unwrap();
    let mut tx = db.begin().await.unwrap();
    for (op, expected) in [
        (Op::Compensate, Admission::NullCompensation),
        (Op::Action, Admission::Hanging),
        (Op::Compensate, Admission::Duplicate),
    ] {
        assert_eq!(branch(op).barrier_in(&mut tx).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_message_is_committed_or_called_off_never_both() {
    let message = Branch::message("g").unwrap();
    let db = Memory::default();
    assert!(message.query_prepared(&db).await.unwrap_err().is_failure());
    let late = message.at(1).local_transaction(&db, async |_tx| Ok(())).await;
    assert!(matches!(late, LocalOutcome::RolledBack(error) if error.is_failure()));

    let db = Memory::default();
    let done = message.at(1).local_transaction(&db, async |_tx| Ok(7)).await;
    assert!(matches!(done, LocalOutcome::Committed(7)));
    assert!(message.query_prepared(&db).await.is_ok());
    let again = message.at(1).local_transaction(&db, async |_tx| Ok(8)).await;
    assert!(matches!(again, LocalOutcome::AlreadyCommitted));
}

#[tokio::test]
async fn an_unconfirmed_commit_is_told_from_a_refused_one() {
    let run = async |commit: fn() -> CommitError| {
        let db = Memory { commit: Some(commit), ..Memory::default() };
        Branch::message("g").unwrap().local_transaction(&db, async |_tx| Ok(())).await
    };
    let lost = run(|| CommitError::Unknown("connection lost".into())).await;
    assert!(matches!(lost, LocalOutcome::Unknown(BranchError::Retry(_))));
    let refused = run(|| CommitError::RolledBack("deadlock".into())).await;
    assert!(matches!(refused, LocalOutcome::RolledBack(BranchError::Retry(_))));
}

#[tokio::test]
async fn a_business_error_writes_nothing() {
    let db = Memory::default();
    let branch = Branch::new(TransType::Saga, "g", "01", Op::Action).unwrap();
    let answer = branch.at(1).barrier(&db, async |_tx| Err(BranchError::failure("no"))).await;
    assert!(answer.unwrap_err().is_failure());
    assert!(db.rows.lock().unwrap().is_empty());
    // Any other error is one that calls for another try.
    let answer = branch.at(1).barrier(&db, async |_tx| Ok("x".parse::<i32>().map(|_| ())?)).await;
    assert!(matches!(answer, Err(BranchError::Retry(_))));
}

/// Web frameworks and `tokio::spawn` want futures that are `Send`, borrowed captures and all.
#[tokio::test]
async fn the_future_is_send_with_a_closure_that_borrows() {
    let db = Arc::new(Memory::default());
    let request = String::from("transfer");
    let task = tokio::spawn(async move {
        let branch = Branch::new(TransType::Saga, "g", "01", Op::Action).unwrap();
        branch
            .barrier(&*db, async |tx| {
                tokio::task::yield_now().await;
                debit(tx, &request).await
            })
            .await
    });
    assert!(task.await.unwrap().is_ok());
}

async fn debit(tx: &mut MemoryTx, request: &str) -> BranchResult {
    tokio::task::yield_now().await;
    assert!(!tx.rows.is_empty() && !request.is_empty());
    Ok(())
}
