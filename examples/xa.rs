//! XA: one transaction over a MariaDB and a PostgreSQL, in plain SQL and without compensations.
//!
//! `cargo run -p dtmd-examples --example xa`
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use axum::body::Bytes;
use axum::{Router, extract::State, routing::post};
use dtmcli::axum::{Answer, BranchCall, Done};
use dtmcli::prelude::*;
use dtmcli::xa::XaDb as _;
use dtmd_examples::{PATIENCE, Stage, fresh};
use serde::{Deserialize, Serialize};
use sqlx::{MySqlPool, PgPool};

const ACCOUNTS: &str = "create table account
    (name varchar(32) primary key, balance bigint not null, frozen boolean not null);";

#[derive(Serialize, Deserialize)]
struct Transfer {
    to: String,
    amount: i64,
}

/// One endpoint for the action, the commit and the rollback. Only the action has a body, and only
/// the action runs the closure.
async fn debit(
    BranchCall(branch): BranchCall,
    State((dtm, db)): State<(Client, MySqlPool)>,
    body: Bytes,
) -> Answer {
    dtm.xa_branch(&branch, &db, async |tx| {
        let order: Transfer = serde_json::from_slice(&body)?;
        let sql = "update account set balance = balance - ? where name = 'alice' and balance >= ?";
        let debit = sqlx::query(sql).bind(order.amount).bind(order.amount);
        let done = debit.execute(&mut **tx).await?;
        (done.rows_affected() == 1).or_failure("not enough money")
    })
    .await?;
    Ok(Done)
}

async fn credit(
    BranchCall(branch): BranchCall,
    State((dtm, db)): State<(Client, PgPool)>,
    body: Bytes,
) -> Answer {
    dtm.xa_branch(&branch, &db, async |tx| {
        let order: Transfer = serde_json::from_slice(&body)?;
        let sql = "update account set balance = balance + $1 where name = $2 and not frozen";
        let done = sqlx::query(sql).bind(order.amount).bind(&order.to).execute(&mut **tx).await?;
        (done.rows_affected() == 1).or_failure("the account is frozen")
    })
    .await?;
    Ok(Done)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    let dtm = stage.dtm.clone();
    let (north, south) = (stage.mariadb(ACCOUNTS).await?, stage.postgres(ACCOUNTS).await?);
    sqlx::raw_sql("insert into account values ('alice', 100, false)").execute(&north).await?;
    sqlx::raw_sql("insert into account values ('bob', 0, false), ('carol', 0, true)")
        .execute(&south)
        .await?;
    let router = Router::new().route("/debit", post(debit));
    let payer = stage.serve(router.with_state((dtm.clone(), north.clone()))).await?;
    let router = Router::new().route("/credit", post(credit));
    let payee = stage.serve(router.with_state((dtm.clone(), south.clone()))).await?;

    let run = fresh("xa");
    for (to, amount) in [("bob", 30), ("bob", 500), ("carol", 30)] {
        let order = Transfer { to: to.to_owned(), amount };
        let ended = dtm
            .xa()
            .gid(format!("{run}.{to}.{amount}"))
            .wait_at_most(PATIENCE)
            .run(async |xa| {
                xa.call(XaCall::at(format!("{payer}/debit")).json(&order)).await?;
                // The debit is prepared: its row is locked, and nobody sees the new balance yet.
                xa.call(XaCall::at(format!("{payee}/credit")).json(&order)).await?;
                Ok(())
            })
            .await;
        match ended {
            Ok(()) => println!("{amount} to {to}: committed in both databases"),
            Err(error) => match error.refusal() {
                Some(why) => println!("{amount} to {to}: rolled back, {why}"),
                None => return Err(error.into()),
            },
        }
    }

    let alice: i64 = sqlx::query_scalar("select balance from account").fetch_one(&north).await?;
    let others: Vec<i64> =
        sqlx::query_scalar("select balance from account order by name").fetch_all(&south).await?;
    println!("alice {alice}, bob {}, carol {}", others[0], others[1]);
    anyhow::ensure!(alice == 70 && others == [30, 0], "only the first transfer may count");

    // A branch that stayed prepared would hold its locks until somebody ends it.
    let mut left = north.xa_recover().await.map_err(anyhow::Error::from_boxed)?;
    left.extend(south.xa_recover().await.map_err(anyhow::Error::from_boxed)?);
    left.retain(|xid| xid.starts_with(&run));
    println!("prepared branches left: {}", left.len());
    anyhow::ensure!(left.is_empty(), "no branch may stay prepared: {left:?}");
    stage.end().await
}
