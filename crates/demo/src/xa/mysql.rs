//! XA on MariaDB and MySQL.

use std::time::Duration;

use anyhow::Context as _;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row};

use super::{LocalChange, XA_ACCOUNT_TABLE, XA_BARRIER_TABLE, XaCall, XaError, admission_of};
use crate::bank::Admission;
use crate::bank::barrier::BARRIER_ID;

/// Error number of "unknown xid".
const XAER_NOTA: u16 = 1397;
/// How often an unknown xid is looked at again while the database still lists it as prepared.
const DETACH_ATTEMPTS: u32 = 20;
/// The pause between two looks.
const DETACH_PAUSE: Duration = Duration::from_millis(25);
/// Longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a connection whose statements wait for locks for a second at most.
async fn connect(opts: &Opts) -> Result<Conn, mysql_async::Error> {
    let setup = ["set session innodb_lock_wait_timeout = 1", "set session lock_wait_timeout = 2"];
    let opts = OptsBuilder::from_opts(opts.clone()).setup(setup.to_vec());
    match tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(opts)).await {
        Ok(connected) => connected,
        Err(_) => Err(mysql_async::Error::Other(
            format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()).into(),
        )),
    }
}

pub(super) async fn set_up(opts: &Opts) -> anyhow::Result<()> {
    let mut conn = connect(opts).await.context("cannot connect to the MySQL database")?;
    conn.query_drop(format!(
        "create table if not exists {XA_ACCOUNT_TABLE}(
            bank varchar(64) not null, name varchar(64) not null, balance bigint not null,
            primary key(bank, name)) engine = innodb"
    ))
    .await?;
    conn.query_drop(format!(
        "create table if not exists {XA_BARRIER_TABLE}(
            id bigint primary key auto_increment,
            trans_type varchar(45) default '', gid varchar(128) default '',
            branch_id varchar(128) default '', op varchar(45) default '',
            barrier_id varchar(45) default '', reason varchar(45) default '',
            create_time datetime default now(), update_time datetime default now(),
            key(create_time), key(update_time),
            unique key(gid, branch_id, op, barrier_id)) engine = innodb"
    ))
    .await?;
    conn.disconnect().await?;
    Ok(())
}

pub(super) async fn open_account(
    opts: &Opts,
    bank: &str,
    account: &str,
    balance: i64,
) -> anyhow::Result<()> {
    let mut conn = connect(opts).await?;
    let sql = format!("insert ignore into {XA_ACCOUNT_TABLE} values(?, ?, ?)");
    conn.exec_drop(sql, (bank, account, balance)).await?;
    conn.disconnect().await?;
    Ok(())
}

pub(super) async fn action(
    opts: &Opts,
    xid: &str,
    change: &LocalChange<'_>,
) -> Result<Admission, XaError> {
    let mut conn = connect(opts).await.map_err(XaError::unknown)?;
    conn.query_drop(format!("xa start '{xid}'")).await.map_err(XaError::unknown)?;
    // If this future is dropped, the connection is closed with it and the server rolls back.
    let done = local_phase(&mut conn, change).await;
    let ended = conn.query_drop(format!("xa end '{xid}'")).await.map_err(XaError::unknown);
    let settled = match done.and_then(|admission| ended.map(|()| admission)) {
        Ok(Admission::Run) => conn
            .query_drop(format!("xa prepare '{xid}'"))
            .await
            .map(|()| Admission::Run)
            .map_err(XaError::unknown),
        other => {
            // A rollback that fails is one the end of the connection makes up for.
            let _ = conn.query_drop(format!("xa rollback '{xid}'")).await;
            other
        }
    };
    // The second phase finds the transaction only after this session has let go of it.
    let _ = conn.disconnect().await;
    settled
}

async fn local_phase(conn: &mut Conn, change: &LocalChange<'_>) -> Result<Admission, XaError> {
    if !insert_barrier(conn, change.call, "action").await.map_err(XaError::unknown)? {
        return why_not_new(conn, change.call).await.map_err(XaError::unknown);
    }
    let sql = format!(
        "update {XA_ACCOUNT_TABLE} set balance = balance + ? \
         where bank = ? and name = ? and balance + ? >= 0"
    );
    let values = (change.delta, change.bank, change.account, change.delta);
    conn.exec_drop(sql, values).await.map_err(XaError::unknown)?;
    if conn.affected_rows() == 0 {
        return Err(change.refused());
    }
    change.call.register(change.http).await?;
    Ok(Admission::Run)
}

/// Inserts the row of op action; tells whether it was inserted.
async fn insert_barrier(
    conn: &mut Conn,
    call: &XaCall,
    reason: &str,
) -> Result<bool, mysql_async::Error> {
    let sql = format!(
        "insert ignore into {XA_BARRIER_TABLE}\
         (trans_type, gid, branch_id, op, barrier_id, reason) values('xa', ?, ?, 'action', ?, ?)"
    );
    conn.exec_drop(sql, (&call.gid, &call.branch_id, BARRIER_ID, reason)).await?;
    Ok(conn.affected_rows() > 0)
}

/// Tells who wrote the row that was there: an earlier action, or a rollback that came first.
async fn why_not_new(conn: &mut Conn, call: &XaCall) -> Result<Admission, mysql_async::Error> {
    let sql = format!(
        "select reason from {XA_BARRIER_TABLE} \
         where gid = ? and branch_id = ? and op = 'action' and barrier_id = ?"
    );
    let values = (&call.gid, &call.branch_id, BARRIER_ID);
    let reason: Option<String> = conn.exec_first(sql, values).await?;
    Ok(admission_of(reason.as_deref()))
}

/// Commits or rolls back by xid.
///
/// "Unknown xid" normally means that it was done before. But the database says the same while the
/// session that prepared the transaction is not gone yet, and then nothing was done: so the list
/// of prepared transactions is asked before it is believed.
pub(super) async fn finish(opts: &Opts, xid: &str, verb: &str) -> Result<(), XaError> {
    let mut conn = connect(opts).await.map_err(XaError::unknown)?;
    for _ in 0..DETACH_ATTEMPTS {
        match conn.query_drop(format!("xa {verb} '{xid}'")).await {
            Ok(()) => break,
            Err(mysql_async::Error::Server(error)) if error.code == XAER_NOTA => {
                let listed = recover(&mut conn).await.map_err(XaError::unknown)?;
                if !listed.iter().any(|prepared| prepared == xid) {
                    break;
                }
                tokio::time::sleep(DETACH_PAUSE).await;
            }
            Err(error) => return Err(XaError::unknown(error)),
        }
    }
    let listed = recover(&mut conn).await.map_err(XaError::unknown)?;
    let _ = conn.disconnect().await;
    if listed.iter().any(|prepared| prepared == xid) {
        let text = format!("{xid} is still held by the session that prepared it");
        return Err(XaError::Unknown(text));
    }
    Ok(())
}

pub(super) async fn block_action(opts: &Opts, call: &XaCall) -> Result<(), XaError> {
    let mut conn = connect(opts).await.map_err(XaError::unknown)?;
    insert_barrier(&mut conn, call, "rollback").await.map_err(XaError::unknown)?;
    let _ = conn.disconnect().await;
    Ok(())
}

pub(super) async fn balance(opts: &Opts, bank: &str, account: &str) -> anyhow::Result<Option<i64>> {
    let mut conn = connect(opts).await?;
    let sql = format!("select balance from {XA_ACCOUNT_TABLE} where bank = ? and name = ?");
    let balance = conn.exec_first(sql, (bank, account)).await?;
    conn.disconnect().await?;
    Ok(balance)
}

pub(super) async fn total(opts: &Opts, bank: &str) -> anyhow::Result<i64> {
    let mut conn = connect(opts).await?;
    let sql = format!(
        "select cast(coalesce(sum(balance), 0) as signed) from {XA_ACCOUNT_TABLE} where bank = ?"
    );
    let total: Option<i64> = conn.exec_first(sql, (bank,)).await?;
    conn.disconnect().await?;
    Ok(total.unwrap_or(0))
}

pub(super) async fn prepared(opts: &Opts) -> anyhow::Result<Vec<String>> {
    let mut conn = connect(opts).await?;
    let xids = recover(&mut conn).await?;
    conn.disconnect().await?;
    Ok(xids)
}

/// The global parts of all prepared xids; the demo uses no branch part.
async fn recover(conn: &mut Conn) -> Result<Vec<String>, mysql_async::Error> {
    let rows: Vec<Row> = conn.query("xa recover").await?;
    let mut xids = Vec::with_capacity(rows.len());
    for mut row in rows {
        let data: Option<Vec<u8>> = row.take("data");
        xids.push(String::from_utf8_lossy(&data.unwrap_or_default()).into_owned());
    }
    Ok(xids)
}

pub(super) async fn drop_tables(opts: &Opts) -> anyhow::Result<()> {
    let mut conn = connect(opts).await?;
    let sql = format!("drop table if exists {XA_ACCOUNT_TABLE}, {XA_BARRIER_TABLE}");
    conn.query_drop(sql).await?;
    conn.disconnect().await?;
    Ok(())
}
