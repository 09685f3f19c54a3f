//! A TCC: money is frozen and a piece is reserved first; then both are used, or both are released.
//!
//! `cargo run -p dtmd-examples --example freeze_and_pay`
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use axum::{Json, Router, extract::State, routing::post};
use dtmcli::Op;
use dtmcli::axum::{Answer, BranchCall, Done};
use dtmcli::prelude::*;
use dtmd_examples::{PATIENCE, Stage};
use serde::{Deserialize, Serialize};
use sqlx::{MySqlPool, PgPool};

const BANK: &str = "
    create table account (name varchar(32) primary key, balance bigint not null, frozen bigint not null);
    insert into account values ('alice', 100, 0);";
const SHOP: &str = "
    create table shelf (item varchar(32) primary key, pieces bigint not null, reserved bigint not null);
    insert into shelf values ('lamp', 5, 0), ('sofa', 0, 0);";

#[derive(Serialize, Deserialize)]
struct Purchase {
    buyer: String,
    item: String,
    price: i64,
}

/// Try freezes, so that nobody else can spend it; confirm takes it, cancel gives it back. Only try
/// may refuse: it has seen to it that the other two can always be done.
async fn money(
    BranchCall(branch): BranchCall,
    State(db): State<PgPool>,
    Json(purchase): Json<Purchase>,
) -> Answer {
    let sql = match branch.op() {
        Op::Try => {
            "update account set frozen = frozen + $1 where name = $2 and balance - frozen >= $1"
        }
        Op::Confirm => {
            "update account set balance = balance - $1, frozen = frozen - $1 where name = $2"
        }
        _ => "update account set frozen = frozen - $1 where name = $2",
    };
    branch
        .barrier(&db, async |tx| {
            let change = sqlx::query(sql).bind(purchase.price).bind(&purchase.buyer);
            let done = change.execute(&mut **tx).await?;
            (done.rows_affected() == 1).or_failure("not enough money")
        })
        .await?;
    Ok(Done)
}

async fn piece(
    BranchCall(branch): BranchCall,
    State(db): State<MySqlPool>,
    Json(purchase): Json<Purchase>,
) -> Answer {
    let sql = match branch.op() {
        Op::Try => "update shelf set reserved = reserved + 1 where item = ? and pieces > reserved",
        Op::Confirm => {
            "update shelf set pieces = pieces - 1, reserved = reserved - 1 where item = ?"
        }
        _ => "update shelf set reserved = reserved - 1 where item = ?",
    };
    branch
        .barrier(&db, async |tx| {
            let done = sqlx::query(sql).bind(&purchase.item).execute(&mut **tx).await?;
            (done.rows_affected() == 1).or_failure("sold out")
        })
        .await?;
    Ok(Done)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    let dtm = stage.dtm.clone();
    let (bank_db, shop_db) = (stage.postgres(BANK).await?, stage.mariadb(SHOP).await?);
    let router = Router::new().route("/money", post(money)).with_state(bank_db.clone());
    let bank = stage.serve(router).await?;
    let router = Router::new().route("/piece", post(piece)).with_state(shop_db.clone());
    let shop = stage.serve(router).await?;

    for (item, price, highest) in [("lamp", 60, 80), ("sofa", 30, 80), ("lamp", 40, 35)] {
        let purchase = Purchase { buyer: "alice".to_owned(), item: item.to_owned(), price };
        let at = |url: String| Try::at(&url).confirm(&url).cancel(&url).json(&purchase);
        let ended = dtm
            .tcc()
            .wait_at_most(PATIENCE)
            .run(async |tcc| {
                tcc.branch(at(format!("{bank}/money"))).await?;
                tcc.branch(at(format!("{shop}/piece"))).await?;
                // Any error from here cancels as well, and so does a panic or a dropped future.
                (price <= highest).or_failure("too dear")
            })
            .await;
        match ended {
            Ok(()) => println!("{item} for {price}: bought"),
            Err(error) => match error.refusal() {
                Some(why) => println!("{item} for {price}: cancelled, {why}"),
                None => return Err(error.into()),
            },
        }
    }

    let money: (i64, i64) =
        sqlx::query_as("select balance, frozen from account").fetch_one(&bank_db).await?;
    let lamps: (i64, i64) =
        sqlx::query_as("select pieces, reserved from shelf where item = 'lamp'")
            .fetch_one(&shop_db)
            .await?;
    println!("alice has {}, {} frozen; lamps: {}, {} reserved", money.0, money.1, lamps.0, lamps.1);
    anyhow::ensure!(money == (40, 0), "one purchase is paid and nothing stays frozen");
    anyhow::ensure!(lamps == (4, 0), "one lamp is sold and none stays reserved");
    stage.end().await
}
