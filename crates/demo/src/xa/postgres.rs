//! XA on PostgreSQL: prepared transactions, which need `max_prepared_transactions` above 0.

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::{LocalChange, XA_ACCOUNT_TABLE, XA_BARRIER_TABLE, XaCall, XaError, admission_of};
use crate::bank::Admission;
use crate::bank::barrier::BARRIER_ID;

/// Longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client whose connection ends with it: an open transaction is rolled back then.
struct Connected {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Opens a connection whose statements wait for locks for a second at most.
async fn connect(config: &Config) -> Result<Connected, Error> {
    let mut config = config.clone();
    config.connect_timeout(CONNECT_TIMEOUT);
    let (client, connection) = config.connect(NoTls).await?;
    let driver = tokio::spawn(async move {
        // Its error is also the error of every call on the client.
        let _ = connection.await;
    });
    let connected = Connected { client, driver };
    let setup = "set lock_timeout = '1s'; set client_min_messages = warning";
    connected.client.batch_execute(setup).await?;
    Ok(connected)
}

pub(super) async fn set_up(config: &Config) -> anyhow::Result<()> {
    let db = connect(config).await.context("cannot connect to the PostgreSQL database")?;
    let row = db.client.query_one("show max_prepared_transactions", &[]).await?;
    anyhow::ensure!(
        row.try_get::<_, &str>(0)? != "0",
        "PostgreSQL has max_prepared_transactions = 0; XA needs it above 0"
    );
    // Two banks may set up at the same time, and "if not exists" is not safe against itself.
    let sql = format!(
        "begin; select pg_advisory_xact_lock(7236);
         create table if not exists {XA_ACCOUNT_TABLE}(
            bank varchar(64) not null, name varchar(64) not null, balance bigint not null,
            primary key(bank, name));
         create table if not exists {XA_BARRIER_TABLE}(
            id bigserial primary key,
            trans_type varchar(45) default '', gid varchar(128) default '',
            branch_id varchar(128) default '', op varchar(45) default '',
            barrier_id varchar(45) default '', reason varchar(45) default '',
            create_time timestamp(0) with time zone default null,
            update_time timestamp(0) with time zone default null,
            constraint uniq_barrier unique(gid, branch_id, op, barrier_id));
         commit"
    );
    db.client.batch_execute(&sql).await?;
    Ok(())
}

pub(super) async fn open_account(
    config: &Config,
    bank: &str,
    account: &str,
    balance: i64,
) -> anyhow::Result<()> {
    let db = connect(config).await?;
    let sql = format!("insert into {XA_ACCOUNT_TABLE} values($1, $2, $3) on conflict do nothing");
    db.client.execute(&sql, &[&bank, &account, &balance]).await?;
    Ok(())
}

pub(super) async fn action(
    config: &Config,
    xid: &str,
    change: &LocalChange<'_>,
) -> Result<Admission, XaError> {
    let db = connect(config).await.map_err(XaError::unknown)?;
    db.client.batch_execute("begin").await.map_err(XaError::unknown)?;
    // If this future is dropped, the connection is closed with it and the server rolls back.
    match local_phase(&db, change).await {
        Ok(Admission::Run) => {
            let sql = format!("prepare transaction '{xid}'");
            db.client.batch_execute(&sql).await.map_err(unknown)?;
            Ok(Admission::Run)
        }
        other => {
            // A rollback that fails is one the end of the connection makes up for.
            let _ = db.client.batch_execute("rollback").await;
            other
        }
    }
}

async fn local_phase(db: &Connected, change: &LocalChange<'_>) -> Result<Admission, XaError> {
    if !insert_barrier(db, change.call, "action").await.map_err(unknown)? {
        return why_not_new(db, change.call).await.map_err(unknown);
    }
    let sql = format!(
        "update {XA_ACCOUNT_TABLE} set balance = balance + $1 \
         where bank = $2 and name = $3 and balance + $1 >= 0"
    );
    let changed = db
        .client
        .execute(&sql, &[&change.delta, &change.bank, &change.account])
        .await
        .map_err(unknown)?;
    if changed == 0 {
        return Err(change.refused());
    }
    change.call.register(change.http).await?;
    Ok(Admission::Run)
}

/// Inserts the row of op action; tells whether it was inserted.
async fn insert_barrier(db: &Connected, call: &XaCall, reason: &str) -> Result<bool, Error> {
    let sql = format!(
        "insert into {XA_BARRIER_TABLE}(trans_type, gid, branch_id, op, barrier_id, reason) \
         values('xa', $1, $2, 'action', $3, $4) on conflict on constraint uniq_barrier do nothing"
    );
    let row: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&call.gid, &call.branch_id, &BARRIER_ID, &reason];
    Ok(db.client.execute(&sql, &row).await? > 0)
}

/// Tells who wrote the row that was there: an earlier action, or a rollback that came first.
async fn why_not_new(db: &Connected, call: &XaCall) -> Result<Admission, Error> {
    let sql = format!(
        "select reason from {XA_BARRIER_TABLE} \
         where gid = $1 and branch_id = $2 and op = 'action' and barrier_id = $3"
    );
    let row = db.client.query_opt(&sql, &[&call.gid, &call.branch_id, &BARRIER_ID]).await?;
    let reason: Option<String> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(admission_of(reason.as_deref()))
}

/// Commits or rolls back by xid; one that does not exist was done before.
pub(super) async fn finish(config: &Config, xid: &str, verb: &str) -> Result<(), XaError> {
    let db = connect(config).await.map_err(XaError::unknown)?;
    match db.client.batch_execute(&format!("{verb} prepared '{xid}'")).await {
        Ok(()) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(()),
        Err(error) => Err(unknown(error)),
    }
}

pub(super) async fn block_action(config: &Config, call: &XaCall) -> Result<(), XaError> {
    let db = connect(config).await.map_err(XaError::unknown)?;
    insert_barrier(&db, call, "rollback").await.map_err(unknown)?;
    Ok(())
}

pub(super) async fn balance(
    config: &Config,
    bank: &str,
    account: &str,
) -> anyhow::Result<Option<i64>> {
    let db = connect(config).await?;
    let sql = format!("select balance from {XA_ACCOUNT_TABLE} where bank = $1 and name = $2");
    let row = db.client.query_opt(&sql, &[&bank, &account]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

pub(super) async fn total(config: &Config, bank: &str) -> anyhow::Result<i64> {
    let db = connect(config).await?;
    let sql =
        format!("select coalesce(sum(balance), 0)::bigint from {XA_ACCOUNT_TABLE} where bank = $1");
    Ok(db.client.query_one(&sql, &[&bank]).await?.try_get(0)?)
}

pub(super) async fn prepared(config: &Config) -> anyhow::Result<Vec<String>> {
    let db = connect(config).await?;
    let sql = "select gid from pg_prepared_xacts where database = current_database()";
    let rows = db.client.query(sql, &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) async fn drop_tables(config: &Config) -> anyhow::Result<()> {
    let db = connect(config).await?;
    let sql = format!("drop table if exists {XA_ACCOUNT_TABLE}, {XA_BARRIER_TABLE}");
    db.client.batch_execute(&sql).await?;
    Ok(())
}

/// The database's own words; the driver's error alone says only "db error".
fn unknown(error: Error) -> XaError {
    match error.as_db_error() {
        Some(db) => XaError::Unknown(format!("{} ({})", db.message(), db.code().code())),
        None => XaError::unknown(error),
    }
}
