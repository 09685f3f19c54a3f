//! The barrier on SQLite (spec 04 §6.1–6.3): the guard that makes a branch idempotent, answers a
//! compensation whose action never ran, and keeps an action out that comes after its compensation.
//!
//! Every function works inside a transaction of the caller, so the barrier's rows and the business
//! change are committed together or not at all.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

/// The barrier table's SQL; the columns are those of spec 04 §6.1.
pub const BARRIER_TABLE: &str = "create table if not exists barrier(
    id integer primary key autoincrement,
    trans_type varchar(45) not null default '',
    gid varchar(128) not null default '',
    branch_id varchar(128) not null default '',
    op varchar(45) not null default '',
    barrier_id varchar(45) not null default '',
    reason varchar(45) not null default '',
    create_time datetime not null default current_timestamp,
    update_time datetime not null default current_timestamp,
    constraint uniq_barrier unique(gid, branch_id, op, barrier_id))";

/// The barrier id of the first (here: the only) guarded transaction of a branch call.
pub const BARRIER_ID: &str = "01";

/// Which branch a call belongs to, as the server's query parameters tell (spec 02 §4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchContext {
    /// `saga`, `tcc`, `msg` or `xa`.
    pub trans_type: String,
    /// The global transaction's id.
    pub gid: String,
    /// The branch id, `00` for a message's local transaction.
    pub branch_id: String,
    /// What is asked of the branch.
    pub op: String,
}

/// A call does not say which branch it belongs to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the query parameter {missing} is missing: gid, trans_type, branch_id and op are needed")]
pub struct BranchContextError {
    /// The first parameter that is missing or empty.
    pub missing: &'static str,
}

impl BranchContext {
    /// Reads the four parameters; all must be there and not empty. LF, CR and `;` are removed
    /// from the values (spec 04 §6).
    ///
    /// # Errors
    /// Names the first parameter that is missing.
    pub fn from_query(pairs: &BTreeMap<String, String>) -> Result<Self, BranchContextError> {
        let read = |name: &'static str| {
            let value: String = pairs
                .get(name)
                .map(|value| value.chars().filter(|c| !matches!(c, '\n' | '\r' | ';')).collect())
                .unwrap_or_default();
            if value.is_empty() { Err(BranchContextError { missing: name }) } else { Ok(value) }
        };
        Ok(Self {
            gid: read("gid")?,
            trans_type: read("trans_type")?,
            branch_id: read("branch_id")?,
            op: read("op")?,
        })
    }

    /// The op that `op` undoes, if it undoes one (spec 04 §6.2).
    #[must_use]
    pub fn origin_op(&self) -> Option<&'static str> {
        origin_op(&self.op)
    }
}

/// The op that `op` undoes: cancel→try, compensate→action, rollback→action (spec 04 §6.2).
#[must_use]
pub fn origin_op(op: &str) -> Option<&'static str> {
    match op {
        "cancel" => Some("try"),
        "compensate" | "rollback" => Some("action"),
        _ => None,
    }
}

/// What the barrier says about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// The business change is to be made.
    Run,
    /// The same op was done before: nothing is to be done, the answer is success.
    Duplicate,
    /// An undo whose origin op never ran: nothing is to be undone, the answer is success.
    NullCompensation,
    /// An origin op that arrives after its undo: it must not run any more.
    Hanging,
}

impl Admission {
    /// The word used in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Duplicate => "duplicate",
            Self::NullCompensation => "null-compensation",
            Self::Hanging => "hanging",
        }
    }
}

/// What a message's local transaction came to, as the barrier row tells (spec 04 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalOutcome {
    /// The local transaction committed: the message counts.
    Committed,
    /// It did not, and from now on it cannot.
    RolledBack,
}

/// Decides in the caller's transaction what is to be done with a call (spec 04 §6.2, steps 1–6).
///
/// The caller commits the transaction whatever the admission is, and makes its change only on
/// [`Admission::Run`]. For op `msg` a [`Admission::Duplicate`] or [`Admission::Hanging`] is an
/// error of the caller's (DUPLICATED): it must roll back.
///
/// # Errors
/// The database's error; the caller must roll back.
pub fn admit(tx: &Transaction<'_>, branch: &BranchContext) -> rusqlite::Result<Admission> {
    let origin_is_new = match branch.origin_op() {
        Some(origin) => insert(tx, branch, origin, &branch.op)?,
        None => false,
    };
    let op_is_new = insert(tx, branch, &branch.op, &branch.op)?;
    if origin_is_new {
        // A second null compensation cannot come here: its origin row exists by then.
        return Ok(Admission::NullCompensation);
    }
    if op_is_new {
        return Ok(Admission::Run);
    }
    // The row's reason tells who wrote it: the op itself, or the undo that came before it.
    match reason(tx, branch, &branch.op)? {
        Some(reason) if reason != branch.op => Ok(Admission::Hanging),
        _ => Ok(Admission::Duplicate),
    }
}

/// Answers query-prepared (spec 04 §6.3): writes the row that keeps the local transaction from
/// committing later, unless the local transaction's own row is there already.
///
/// # Errors
/// The database's error: nothing is decided, the server must ask again.
pub fn query_prepared(connection: &Connection, gid: &str) -> rusqlite::Result<LocalOutcome> {
    let branch = BranchContext {
        trans_type: "msg".to_owned(),
        gid: gid.to_owned(),
        branch_id: "00".to_owned(),
        op: "msg".to_owned(),
    };
    insert(connection, &branch, "msg", "rollback")?;
    match reason(connection, &branch, "msg")?.as_deref() {
        Some("rollback") => Ok(LocalOutcome::RolledBack),
        Some(_) => Ok(LocalOutcome::Committed),
        None => Err(rusqlite::Error::QueryReturnedNoRows),
    }
}

/// Inserts a row unless it is there; tells whether it was inserted.
fn insert(
    connection: &Connection,
    branch: &BranchContext,
    op: &str,
    reason: &str,
) -> rusqlite::Result<bool> {
    let sql = "insert into barrier(trans_type, gid, branch_id, op, barrier_id, reason) \
               values(?1, ?2, ?3, ?4, ?5, ?6) \
               on conflict(gid, branch_id, op, barrier_id) do nothing";
    let row = params![branch.trans_type, branch.gid, branch.branch_id, op, BARRIER_ID, reason];
    Ok(connection.prepare_cached(sql)?.execute(row)? > 0)
}

fn reason(
    connection: &Connection,
    branch: &BranchContext,
    op: &str,
) -> rusqlite::Result<Option<String>> {
    let sql = "select reason from barrier \
               where gid = ?1 and branch_id = ?2 and op = ?3 and barrier_id = ?4";
    connection
        .prepare_cached(sql)?
        .query_row(params![branch.gid, branch.branch_id, op, BARRIER_ID], |row| row.get(0))
        .optional()
}
