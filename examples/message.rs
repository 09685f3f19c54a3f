//! A two-phase message: points follow a payment, exactly if the payment commits, whoever dies.
//!
//! `cargo run -p dtmd-examples --example message`
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::time::Duration;

use anyhow::Context as _;
use axum::routing::{any, post};
use axum::{Json, Router, extract::State};
use dtmcli::Msg;
use dtmcli::axum::{Answer, BranchCall, Done};
use dtmcli::barrier::LocalOutcome;
use dtmcli::prelude::*;
use dtmd_examples::{PATIENCE, Stage, fresh};
use sqlx::{MySqlPool, PgConnection, PgPool};

const WALLET: &str = "
    create table wallet (name varchar(32) primary key, balance bigint not null);
    insert into wallet values ('alice', 100);";
const POINTS: &str = "
    create table points (name varchar(32) primary key, points bigint not null);
    insert into points values ('alice', 0);";
/// How long dtmd waits for a submit before it asks: longer than a local transaction may take.
/// 35 s unless told.
const ASK_AFTER: Duration = Duration::from_secs(4);

/// The local transaction. It knows nothing of the message.
async fn pay(tx: &mut PgConnection, amount: i64) -> BranchResult {
    let sql = "update wallet set balance = balance - $1 where name = 'alice' and balance >= $1";
    let done = sqlx::query(sql).bind(amount).execute(tx).await?;
    (done.rows_affected() == 1).or_failure("not enough money")
}

/// Answers dtmd's question whether the payment was committed. If it was not, it never will be.
async fn query_prepared(BranchCall(branch): BranchCall, State(db): State<PgPool>) -> Answer {
    branch.query_prepared(&db).await?;
    Ok(Done)
}

/// Another service, another database. It cannot refuse: it is called until it has succeeded.
async fn add_points(
    BranchCall(branch): BranchCall,
    State(db): State<MySqlPool>,
    Json(points): Json<i64>,
) -> Answer {
    branch
        .barrier(&db, async |tx| {
            let sql = "update points set points = points + ? where name = 'alice'";
            sqlx::query(sql).bind(points).execute(&mut **tx).await?;
            Ok(())
        })
        .await?;
    Ok(Done)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    let dtm = stage.dtm.clone();
    let (wallet, points) = (stage.postgres(WALLET).await?, stage.mariadb(POINTS).await?);
    let router = Router::new().route("/points", post(add_points)).with_state(points.clone());
    let club = stage.serve(router).await?;
    let router = Router::new().route("/query-prepared", any(query_prepared));
    let shop = stage.serve(router.with_state(wallet.clone())).await?;
    let ask = format!("{shop}/query-prepared");
    let message = |gid: &str, amount: i64| -> Msg {
        let points = Delivery::at(format!("{club}/points")).json(&amount);
        dtm.msg().gid(gid).deliver(points)
    };

    // As it is meant: the points follow as soon as the payment is committed.
    let gid = fresh("paid");
    message(&gid, 30).commit_with(&wallet, &ask, async |tx| pay(tx, 30).await).await?;
    println!("paid 30: {}", dtm.wait(&gid, PATIENCE).await?.status);

    // The local transaction refuses: there is no message.
    let gid = fresh("refused");
    let refused = message(&gid, 500).commit_with(&wallet, &ask, async |tx| pay(tx, 500).await);
    let why = refused.await.err().and_then(|error| error.refusal());
    println!("paid 500: refused, {}", why.context("a payment that is refused is aborted")?);

    // The process dies after the commit, before the submit. dtmd asks and delivers.
    let gid = fresh("died-after");
    let prepared = message(&gid, 20).timeout_to_fail(ASK_AFTER).prepare(&ask).await?;
    let ended = prepared.branch()?.local_transaction(&wallet, async |tx| pay(tx, 20).await).await;
    anyhow::ensure!(matches!(ended, LocalOutcome::Committed(())), "the payment is committed");
    drop(prepared); // neither submitted nor aborted
    println!("paid 20 and died: {}", dtm.wait(&gid, PATIENCE).await?.status);

    // The process dies before the commit. dtmd asks, and a commit that comes late is kept out.
    let gid = fresh("died-before");
    let prepared = message(&gid, 10).timeout_to_fail(ASK_AFTER).prepare(&ask).await?;
    println!("died before 10: {}", dtm.wait(&gid, PATIENCE).await?.status);
    let late = prepared.branch()?.local_transaction(&wallet, async |tx| pay(tx, 10).await).await;
    anyhow::ensure!(matches!(late, LocalOutcome::RolledBack(_)), "a late payment is kept out");

    let balance: i64 = sqlx::query_scalar("select balance from wallet").fetch_one(&wallet).await?;
    let points: i64 = sqlx::query_scalar("select points from points").fetch_one(&points).await?;
    println!("alice has {balance} and {points} points");
    anyhow::ensure!((balance, points) == (50, 50), "each payment has its points, and only once");
    stage.end().await
}
