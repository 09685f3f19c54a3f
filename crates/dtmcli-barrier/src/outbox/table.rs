//! The table's making, its statements, and what an operator does with it.

use std::time::Duration;

use super::{Message, table_name};
use crate::db::BarrierDb;
use crate::error::BoxError;
use crate::sql::{Cell, Dialect, Kind, SqlTx, Value};
use crate::table::TableName;

/// Not delivered yet; perhaps claimed.
const PENDING: i64 = 0;
/// Delivered and kept for a while.
const DELIVERED: i64 = 1;
/// Given up after too many attempts, or refused by the sink.
const DEAD: i64 = 2;
/// Rows deleted by one statement.
const PURGE_ROWS_MAX: i64 = 1000;
/// Longest text kept of an error, in characters.
const ERROR_MAX_CHARS: usize = 500;

/// Makes the local message table unless it is there. Run it when deploying.
///
/// # Errors
///
/// The driver's.
pub async fn create_table<D>(db: &D, table: Option<&TableName>) -> Result<(), BoxError>
where
    D: BarrierDb,
    D::Tx: SqlTx,
{
    let mut tx = db.begin().await?;
    for sql in create_statements(tx.dialect(), table) {
        tx.execute(&sql, &[]).await?;
    }
    Ok(D::commit(tx).await?)
}

fn create_statements(dialect: Dialect, table: Option<&TableName>) -> Vec<String> {
    let table = table_name(table);
    let (dot, name) = match table.split_once('.') {
        Some((schema, name)) => (format!("{schema}."), name),
        None => (String::new(), table),
    };
    let columns = |seq: &str, bytes: &str| {
        format!(
            "seq {seq}, gid varchar(36) not null unique, destination varchar(1024) not null, \
             message_key varchar(191) null, payload {bytes} not null, \
             state bigint not null default {PENDING}, attempts bigint not null default 0, \
             owner varchar(64) not null default '', wake_at bigint not null, \
             created_at bigint not null, ended_at bigint null, last_error varchar(2000) null"
        )
    };
    match dialect {
        Dialect::MySql => vec![format!(
            "create table if not exists {table} ({}, key (state, wake_at), \
             key (message_key, state, seq)) engine = innodb default charset = utf8mb4 \
             collate = utf8mb4_bin",
            columns("bigint auto_increment primary key", "longblob")
        )],
        Dialect::Postgres | Dialect::Sqlite => {
            let (seq, bytes, index_dot, on) = if dialect == Dialect::Sqlite {
                // SQLite names the schema before the index, PostgreSQL before the table.
                ("integer primary key autoincrement", "blob", dot.as_str(), name)
            } else {
                ("bigserial primary key", "bytea", "", table)
            };
            vec![
                format!("create table if not exists {table} ({})", columns(seq, bytes)),
                format!(
                    "create index if not exists {index_dot}{name}_wake on {on} (state, wake_at)"
                ),
                format!(
                    "create index if not exists {index_dot}{name}_key \
                     on {on} (message_key, state, seq)"
                ),
            ]
        }
    }
}

/// A row that a relay has claimed.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) seq: i64,
    pub(super) attempts: u32,
    pub(super) message: Message,
}

const MESSAGE_KINDS: [Kind; 6] =
    [Kind::Int, Kind::Int, Kind::Text, Kind::Text, Kind::Text, Kind::Bytes];

fn claimed(row: Vec<Cell>) -> Option<Claimed> {
    let [seq, attempts, gid, destination, key, payload] = <[Cell; 6]>::try_from(row).ok()?;
    Some(Claimed {
        seq: seq.int()?,
        attempts: u32::try_from(attempts.int()?).ok()?,
        message: Message {
            gid: gid.into_text()?,
            destination: destination.into_text()?,
            key: key.into_text(),
            payload: payload.into_bytes()?,
        },
    })
}

/// Claims up to `most` rows for `owner` until now + `lease`: the oldest due ones, and of each key
/// only the first that is not delivered.
///
/// Looks in one transaction and claims in the next, by condition: on MySQL a search within the
/// update would lock what it walks over, on SQLite a transaction that read first may not write.
pub(super) async fn claim<D>(
    db: &D,
    table: Option<&TableName>,
    owner: &str,
    most: usize,
    lease: Duration,
) -> Result<Vec<Claimed>, BoxError>
where
    D: BarrierDb,
    D::Tx: SqlTx,
{
    let due = due(db, table, most).await?;
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let table = table_name(table);
    let mut tx = db.begin().await?;
    let now = tx.dialect().now_ms();
    let marks = vec!["?"; due.len()].join(", ");
    let sql = format!(
        "update {table} set owner = ?, attempts = attempts + 1, wake_at = {now} + ? \
         where seq in ({marks}) and state = {PENDING} and wake_at <= {now}"
    );
    let mut values = vec![Value::Text(owner), Value::Int(millis(lease))];
    values.extend(due.into_iter().map(Value::Int));
    tx.execute(&sql, &values).await?;
    let sql = format!(
        "select seq, attempts, gid, destination, message_key, payload from {table} \
         where state = {PENDING} and owner = ? and wake_at > {now} order by seq"
    );
    let rows = tx.query(&sql, &[Value::Text(owner)], &MESSAGE_KINDS).await?;
    D::commit(tx).await?;
    rows.into_iter()
        .map(|row| claimed(row).ok_or_else(|| "a row of the message table is unreadable".into()))
        .collect()
}

async fn due<D>(db: &D, table: Option<&TableName>, most: usize) -> Result<Vec<i64>, BoxError>
where
    D: BarrierDb,
    D::Tx: SqlTx,
{
    let table = table_name(table);
    let mut tx = db.begin().await?;
    let now = tx.dialect().now_ms();
    let sql = format!(
        "select m.seq from {table} m where m.state = {PENDING} and m.wake_at <= {now} \
         and (m.message_key is null or not exists (select 1 from {table} e \
         where e.message_key = m.message_key and e.state = {PENDING} and e.seq < m.seq)) \
         order by m.wake_at, m.seq limit ?"
    );
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = tx.query(&sql, &[Value::Int(most)], &[Kind::Int]).await?;
    D::commit(tx).await?;
    Ok(rows.into_iter().flatten().filter_map(|cell| cell.int()).collect())
}

/// How a claimed row goes on.
#[derive(Debug)]
pub(super) enum Fate<'a> {
    Delivered { keep: bool },
    Again { after: Duration, error: &'a str },
    Dead { error: &'a str },
}

/// Writes what became of a claimed row, unless the claim was lost meanwhile. Returns whether it
/// was still ours.
pub(super) async fn settle<D>(
    db: &D,
    table: Option<&TableName>,
    owner: &str,
    seq: i64,
    fate: &Fate<'_>,
) -> Result<bool, BoxError>
where
    D: BarrierDb,
    D::Tx: SqlTx,
{
    let table = table_name(table);
    let mut tx = db.begin().await?;
    let now = tx.dialect().now_ms();
    let ours = format!("where seq = ? and owner = ? and state = {PENDING}");
    let ids = [Value::Int(seq), Value::Text(owner)];
    let rows = match fate {
        Fate::Delivered { keep: false } => {
            tx.execute(&format!("delete from {table} {ours}"), &ids).await?
        }
        Fate::Delivered { keep: true } => {
            let set = format!("state = {DELIVERED}, owner = '', ended_at = {now}");
            tx.execute(&format!("update {table} set {set} {ours}"), &ids).await?
        }
        Fate::Again { after, error } => {
            let set = format!("owner = '', wake_at = {now} + ?, last_error = ?");
            let error = cut(error);
            let values = [Value::Int(millis(*after)), Value::Text(&error), ids[0], ids[1]];
            tx.execute(&format!("update {table} set {set} {ours}"), &values).await?
        }
        Fate::Dead { error } => {
            let set = format!("state = {DEAD}, owner = '', ended_at = {now}, last_error = ?");
            let error = cut(error);
            let values = [Value::Text(&error), ids[0], ids[1]];
            tx.execute(&format!("update {table} set {set} {ours}"), &values).await?
        }
    };
    D::commit(tx).await?;
    Ok(rows > 0)
}

/// A text of bounded length, without the character that PostgreSQL cannot store.
fn cut(error: &str) -> String {
    error.chars().filter(|&c| c != '\0').take(ERROR_MAX_CHARS).collect()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message.
    pub message: Message,
    /// How often it was tried.
    pub attempts: u32,
    /// What the last attempt said.
    pub last_error: Option<String>,
}

/// The oldest dead letters, at most `most`.
///
/// # Errors
///
/// The driver's, or a row that cannot be read.
pub async fn dead_letters<D>(
    db: &D,
    table: Option<&TableName>,
    most: u32,
) -> Result<Vec<DeadLetter>, BoxError>
where
    D: BarrierDb,
    D::Tx: SqlTx,
{
    let sql = format!(
        "select seq, attempts, gid, destination, message_key, payload, last_error from {} \
         where state = {DEAD} order by seq limit ?",
        table_name(table)
    );
    let mut kinds = MESSAGE_KINDS.to_vec();
    kinds.push(Kind::Text);
    let mut tx = db.begin().await?;
    let rows = tx.query(&sql, &[Value::Int(i64::from(most))], &kinds).await?;
    D::commit(tx).await?;
    rows.into_iter()
        .map(|mut row| {
            let last_error = row.pop().and_then(Cell::into_text);
            let dead = claimed(row).ok_or("a row of the message table is unreadable")?;
            Ok(DeadLetter { message: dead.message, attempts: dead.attempts, last_error })
        })
        .collect()
}

/// Makes a dead letter pending again, with all its attempts before it. Returns whether there was
/// one. Messages behind it that have its key may have been delivered meanwhile.
///
/// # Errors
///
/// The driver's.
pub async fn requeue<D>(db: &D, table: Option<&TableName>, gid: &str) -> Result<bool, BoxError>
where
    D: BarrierDb,
    D::Tx: SqlTx,
{
    let mut tx = db.begin().await?;
    let now = tx.dialect().now_ms();
    let sql = format!(
        "update {} set state = {PENDING}, attempts = 0, owner = '', wake_at = {now}, \
         ended_at = null where gid = ? and state = {DEAD}",
        table_name(table)
    );
    let rows = tx.execute(&sql, &[Value::Text(gid)]).await?;
    D::commit(tx).await?;
    Ok(rows > 0)
}

/// Deletes up to a thousand rows that were delivered longer ago than this, and returns how many:
/// call again while it returns a thousand. Pending rows and dead letters are never deleted.
///
/// Any age is safe: the gid makes a second delivery harmless at the receiver, not this row.
///
/// # Errors
///
/// The driver's.
pub async fn purge_delivered<D>(
    db: &D,
    table: Option<&TableName>,
    older_than: Duration,
) -> Result<u64, BoxError>
where
    D: BarrierDb,
    D::Tx: SqlTx,
{
    let table = table_name(table);
    let mut tx = db.begin().await?;
    let old = format!("state = {DELIVERED} and ended_at <= {} - ?", tx.dialect().now_ms());
    let sql = match tx.dialect() {
        Dialect::MySql => format!("delete from {table} where {old} limit ?"),
        Dialect::Postgres | Dialect::Sqlite => {
            format!(
                "delete from {table} where seq in (select seq from {table} where {old} limit ?)"
            )
        }
    };
    let values = [Value::Int(millis(older_than)), Value::Int(PURGE_ROWS_MAX)];
    let rows = tx.execute(&sql, &values).await?;
    D::commit(tx).await?;
    Ok(rows)
}
