//! A saga: money leaves a bank on MariaDB and arrives at a bank on PostgreSQL, or nothing changes.
//!
//! `cargo run -p dtmd-examples --example transfer`
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use axum::{Json, Router, extract::State, routing::post};
use dtmcli::axum::{Answer, BranchCall, Done};
use dtmcli::prelude::*;
use dtmd_examples::Stage;
use serde::{Deserialize, Serialize};
use sqlx::{MySqlPool, PgPool};

const ACCOUNTS: &str = "create table account
    (name varchar(32) primary key, balance bigint not null, frozen boolean not null);";

#[derive(Serialize, Deserialize)]
struct Transfer {
    from: String,
    to: String,
    amount: i64,
}

// The bank that pays, on MariaDB.

async fn debit(
    BranchCall(branch): BranchCall,
    State(db): State<MySqlPool>,
    Json(order): Json<Transfer>,
) -> Answer {
    let sql = "update account set balance = balance - ? where name = ? and balance >= ?";
    branch
        .barrier(&db, async |tx| {
            let debit = sqlx::query(sql).bind(order.amount).bind(&order.from).bind(order.amount);
            let done = debit.execute(&mut **tx).await?; // any error: called again
            (done.rows_affected() == 1).or_failure("not enough money") // a refusal: rolled back
        })
        .await?;
    Ok(Done)
}

async fn undo_debit(
    BranchCall(branch): BranchCall,
    State(db): State<MySqlPool>,
    Json(order): Json<Transfer>,
) -> Answer {
    let sql = "update account set balance = balance + ? where name = ?";
    branch
        .barrier(&db, async |tx| {
            sqlx::query(sql).bind(order.amount).bind(&order.from).execute(&mut **tx).await?;
            Ok(())
        })
        .await?;
    Ok(Done)
}

// The bank that is paid, on PostgreSQL.

async fn credit(
    BranchCall(branch): BranchCall,
    State(db): State<PgPool>,
    Json(order): Json<Transfer>,
) -> Answer {
    let sql = "update account set balance = balance + $1 where name = $2 and not frozen";
    branch
        .barrier(&db, async |tx| {
            let credit = sqlx::query(sql).bind(order.amount).bind(&order.to);
            let done = credit.execute(&mut **tx).await?;
            (done.rows_affected() == 1).or_failure("the account is frozen")
        })
        .await?;
    Ok(Done)
}

async fn undo_credit(
    BranchCall(branch): BranchCall,
    State(db): State<PgPool>,
    Json(order): Json<Transfer>,
) -> Answer {
    let sql = "update account set balance = balance - $1 where name = $2";
    branch
        .barrier(&db, async |tx| {
            sqlx::query(sql).bind(order.amount).bind(&order.to).execute(&mut **tx).await?;
            Ok(())
        })
        .await?;
    Ok(Done)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    let dtm = stage.dtm.clone();
    let north = stage.mariadb(ACCOUNTS).await?;
    let south = stage.postgres(ACCOUNTS).await?;
    sqlx::raw_sql("insert into account values ('alice', 100, false)").execute(&north).await?;
    sqlx::raw_sql("insert into account values ('bob', 0, false), ('carol', 0, true)")
        .execute(&south)
        .await?;
    let router = Router::new().route("/debit", post(debit)).route("/debit-undo", post(undo_debit));
    let payer = stage.serve(router.with_state(north.clone())).await?;
    let router =
        Router::new().route("/credit", post(credit)).route("/credit-undo", post(undo_credit));
    let payee = stage.serve(router.with_state(south.clone())).await?;

    for (to, amount) in [("bob", 30), ("bob", 500), ("carol", 30)] {
        let order = Transfer { from: "alice".to_owned(), to: to.to_owned(), amount };
        let out = Step::at(format!("{payer}/debit")).compensate(format!("{payer}/debit-undo"));
        let into = Step::at(format!("{payee}/credit")).compensate(format!("{payee}/credit-undo"));
        let saga = dtm.saga().step(out.json(&order)).step(into.json(&order));
        match saga.submit().wait().await {
            Ok(_) => println!("{amount} from alice to {to}: done"),
            Err(error) => match error.refusal() {
                Some(why) => println!("{amount} from alice to {to}: rolled back, {why}"),
                None => return Err(error.into()),
            },
        }
    }

    let alice: Vec<i64> =
        sqlx::query_scalar("select balance from account").fetch_all(&north).await?;
    let others: Vec<i64> =
        sqlx::query_scalar("select balance from account order by name").fetch_all(&south).await?;
    println!("alice {}, bob {}, carol {}", alice[0], others[0], others[1]);
    anyhow::ensure!(alice == [70] && others == [30, 0], "only the first transfer may count");
    stage.end().await
}
