//! A database of a test: barrier rows in memory, and commits that can be lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dtmcli::barrier::{BarrierRow, BoxError, CommitError, TableName};
use dtmcli::{BarrierDb, BarrierTx};

type Key = (String, String, String, String);

/// What becomes of the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Commit {
    #[default]
    Confirmed,
    /// It is done and nobody hears of it.
    DoneButLost,
    /// It is not done and nobody hears of it.
    LostBefore,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Database {
    rows: Arc<Mutex<BTreeMap<Key, String>>>,
    pub(crate) next: Arc<Mutex<Commit>>,
    pub(crate) commits: Arc<Mutex<usize>>,
}

#[derive(Debug)]
pub(crate) struct Tx {
    database: Database,
    inserted: BTreeMap<Key, String>,
}

fn key(row: BarrierRow<'_>) -> Key {
    let text = str::to_owned;
    (text(row.gid), text(row.branch_id), text(row.op), text(row.barrier_id))
}

impl BarrierTx for Tx {
    async fn insert(
        &mut self,
        _: Option<&TableName>,
        row: BarrierRow<'_>,
    ) -> Result<bool, BoxError> {
        let there = self.database.rows.lock().unwrap().contains_key(&key(row));
        if there || self.inserted.contains_key(&key(row)) {
            return Ok(false);
        }
        self.inserted.insert(key(row), row.reason.to_owned());
        Ok(true)
    }

    async fn reason(
        &mut self,
        _: Option<&TableName>,
        row: BarrierRow<'_>,
    ) -> Result<Option<String>, BoxError> {
        let committed = self.database.rows.lock().unwrap().get(&key(row)).cloned();
        Ok(committed.or_else(|| self.inserted.get(&key(row)).cloned()))
    }
}

impl BarrierDb for Database {
    type Tx = Tx;

    async fn begin(&self) -> Result<Tx, BoxError> {
        Ok(Tx { database: self.clone(), inserted: BTreeMap::new() })
    }

    async fn commit(tx: Tx) -> Result<(), CommitError> {
        let fate = std::mem::take(&mut *tx.database.next.lock().unwrap());
        if fate != Commit::LostBefore {
            tx.database.rows.lock().unwrap().extend(tx.inserted);
            *tx.database.commits.lock().unwrap() += 1;
        }
        match fate {
            Commit::Confirmed => Ok(()),
            _ => Err(CommitError::Unknown("the connection broke".into())),
        }
    }

    async fn rollback(_: Tx) -> Result<(), BoxError> {
        Ok(())
    }
}
