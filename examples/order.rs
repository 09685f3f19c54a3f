//! A concurrent saga: an order, its stock and its coupon at once, and the payment after all three.
//!
//! `cargo run -p dtmd-examples --example order`
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use axum::{Json, Router, extract::State, routing::post};
use dtmcli::Op;
use dtmcli::axum::{Answer, BranchCall, Done};
use dtmcli::prelude::*;
use dtmd_examples::{Stage, fresh};
use serde::{Deserialize, Serialize};
use sqlx::{MySqlPool, PgPool};

const SHOP: &str = "
    create table orders (id varchar(64) primary key, item varchar(32) not null, state varchar(16) not null);
    create table stock (item varchar(32) primary key, pieces bigint not null);
    insert into stock values ('lamp', 5), ('sofa', 0);";
const COUPONS: &str = "
    create table coupon (code varchar(32) primary key, used_by varchar(64));
    insert into coupon values ('WELCOME', null), ('SPRING', null);";

#[derive(Serialize, Deserialize)]
struct Order {
    id: String,
    item: String,
    coupon: String,
}

/// Whether this call undoes what the action did: one endpoint serves both.
fn undoes(branch: &Branch) -> bool {
    branch.op() == &Op::Compensate
}

async fn order(
    BranchCall(branch): BranchCall,
    State(db): State<MySqlPool>,
    Json(order): Json<Order>,
) -> Answer {
    branch
        .barrier(&db, async |tx| {
            let change = match undoes(&branch) {
                false => sqlx::query("insert into orders (item, id, state) values (?, ?, 'new')")
                    .bind(&order.item),
                true => sqlx::query("update orders set state = 'cancelled' where id = ?"),
            };
            change.bind(&order.id).execute(&mut **tx).await?;
            Ok(())
        })
        .await?;
    Ok(Done)
}

async fn stock(
    BranchCall(branch): BranchCall,
    State(db): State<MySqlPool>,
    Json(order): Json<Order>,
) -> Answer {
    let sql = match undoes(&branch) {
        false => "update stock set pieces = pieces - 1 where item = ? and pieces > 0",
        true => "update stock set pieces = pieces + 1 where item = ?",
    };
    branch
        .barrier(&db, async |tx| {
            let done = sqlx::query(sql).bind(&order.item).execute(&mut **tx).await?;
            (done.rows_affected() == 1).or_failure("out of stock")
        })
        .await?;
    Ok(Done)
}

async fn coupon(
    BranchCall(branch): BranchCall,
    State(db): State<PgPool>,
    Json(order): Json<Order>,
) -> Answer {
    let sql = match undoes(&branch) {
        false => "update coupon set used_by = $1 where code = $2 and used_by is null",
        true => "update coupon set used_by = null where used_by = $1 and code = $2",
    };
    branch
        .barrier(&db, async |tx| {
            let change = sqlx::query(sql).bind(&order.id).bind(&order.coupon);
            let done = change.execute(&mut **tx).await?;
            (done.rows_affected() == 1).or_failure("the coupon has been used")
        })
        .await?;
    Ok(Done)
}

/// The last step has no compensation: nothing comes after it that could fail.
async fn pay(
    BranchCall(branch): BranchCall,
    State(db): State<MySqlPool>,
    Json(order): Json<Order>,
) -> Answer {
    branch
        .barrier(&db, async |tx| {
            let sql = "update orders set state = 'paid' where id = ? and state = 'new'";
            let done = sqlx::query(sql).bind(&order.id).execute(&mut **tx).await?;
            (done.rows_affected() == 1).or_failure("there is no such order")
        })
        .await?;
    Ok(Done)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    let (shop_db, coupon_db) = (stage.mariadb(SHOP).await?, stage.postgres(COUPONS).await?);
    let router = Router::new().route("/order", post(order)).route("/stock", post(stock));
    let router = router.route("/pay", post(pay)).with_state(shop_db.clone());
    let shop = stage.serve(router).await?;
    let router = Router::new().route("/coupon", post(coupon)).with_state(coupon_db.clone());
    let coupons = stage.serve(router).await?;

    for (item, coupon) in [("lamp", "WELCOME"), ("lamp", "WELCOME"), ("sofa", "SPRING")] {
        let text = str::to_owned;
        let order = Order { id: fresh("order"), item: text(item), coupon: text(coupon) };
        let both = |url: String| Step::at(&url).compensate(&url).json(&order);
        let saga = stage.dtm.saga().gid(&order.id);
        let ended = saga
            .step(both(format!("{shop}/order")))
            .step(both(format!("{shop}/stock")))
            .step(both(format!("{coupons}/coupon")))
            .step(Step::at(format!("{shop}/pay")).json(&order).after([0, 1, 2]))
            .submit()
            .wait()
            .await;
        match ended {
            Ok(_) => println!("{item} with {coupon}: paid"),
            Err(error) => match error.refusal() {
                Some(why) => println!("{item} with {coupon}: rolled back, {why}"),
                None => return Err(error.into()),
            },
        }
    }

    let states = "select state from orders where state != 'cancelled'";
    let states: Vec<String> = sqlx::query_scalar(states).fetch_all(&shop_db).await?;
    let pieces = "select pieces from stock order by item";
    let pieces: Vec<i64> = sqlx::query_scalar(pieces).fetch_all(&shop_db).await?;
    let used = "select code from coupon where used_by is not null";
    let used: Vec<String> = sqlx::query_scalar(used).fetch_all(&coupon_db).await?;
    println!("orders {states:?}, lamps {}, sofas {}, used {used:?}", pieces[0], pieces[1]);
    anyhow::ensure!(states == ["paid"], "one order is paid, the others are cancelled or not there");
    anyhow::ensure!(pieces == [4, 0], "what was not sold is back in stock");
    anyhow::ensure!(used == ["WELCOME"], "the coupon of an order that failed may be used again");
    stage.end().await
}
