//! The local message table: orders are taken while dtmd is not asked, and shipped when it is.
//!
//! `cargo run -p dtmd-examples --example outbox`
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use axum::{Json, Router, extract::State, routing::post};
use dtmcli::axum::{Answer, BranchCall, Done};
use dtmcli::outbox::{self, Doorbell, Message, Relay, RelayOptions};
use dtmd_examples::{PATIENCE, Stage};
use serde::{Deserialize, Serialize};
use sqlx::{MySqlPool, PgPool};
use tokio::sync::oneshot;

const ORDERS: &str = "create table orders (id bigint primary key, customer varchar(32) not null);";
const SHIPMENTS: &str = "create table shipment
    (number bigserial primary key, order_id bigint not null, customer varchar(32) not null);";

#[derive(Serialize, Deserialize)]
struct Order {
    id: i64,
    customer: String,
}

/// Takes an order: its row and its message commit together, in the shop's own database. Nobody
/// else has to be reachable.
async fn take_order(
    db: &MySqlPool,
    warehouse: &str,
    bell: &Doorbell,
    order: &Order,
) -> anyhow::Result<()> {
    let mut tx = db.begin().await?;
    sqlx::query("insert into orders values (?, ?)")
        .bind(order.id)
        .bind(&order.customer)
        .execute(&mut *tx)
        .await?;
    // Messages of one key arrive in this order.
    let message = Message::new(format!("{warehouse}/ship"), serde_json::to_vec(order)?);
    outbox::enqueue(&mut tx, &message.key(&order.customer)).await?;
    tx.commit().await?;
    bell.ring();
    Ok(())
}

async fn ship(
    BranchCall(branch): BranchCall,
    State(db): State<PgPool>,
    Json(order): Json<Order>,
) -> Answer {
    branch
        .barrier(&db, async |tx| {
            let sql = "insert into shipment (order_id, customer) values ($1, $2)";
            sqlx::query(sql).bind(order.id).bind(&order.customer).execute(&mut **tx).await?;
            Ok(())
        })
        .await?;
    Ok(Done)
}

async fn shipped(db: &PgPool, customer: &str) -> anyhow::Result<Vec<i64>> {
    let sql = "select order_id from shipment where customer = $1 order by number";
    Ok(sqlx::query_scalar(sql).bind(customer).fetch_all(db).await?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    let (shop_db, warehouse_db) = (stage.mariadb(ORDERS).await?, stage.postgres(SHIPMENTS).await?);
    outbox::create_table(&shop_db, None).await.map_err(anyhow::Error::from_boxed)?;
    let router = Router::new().route("/ship", post(ship)).with_state(warehouse_db.clone());
    let warehouse = stage.serve(router).await?;
    // The client of dtmd is where the messages go.
    let relay = Relay::new(shop_db.clone(), stage.dtm.clone(), RelayOptions::default());
    let bell = relay.doorbell();

    for id in 1..=6 {
        let customer = if id % 2 == 0 { "bob" } else { "alice" }.to_owned();
        take_order(&shop_db, &warehouse, &bell, &Order { id, customer }).await?;
    }
    let again = Order { id: 6, customer: "mallory".to_owned() };
    let refused = take_order(&shop_db, &warehouse, &bell, &again).await;
    anyhow::ensure!(refused.is_err(), "there is one order 6");
    println!("6 orders taken, shipped {:?}", shipped(&warehouse_db, "alice").await?);

    // Now the relay runs, as a task of the shop; any number of its processes may have one.
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = tokio::spawn(async move { relay.run(async { drop(stopped.await) }).await });
    let all = async {
        while shipped(&warehouse_db, "alice").await?.len() < 3
            || shipped(&warehouse_db, "bob").await?.len() < 3
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, all).await??;
    drop(stop);
    relay.await?;

    let (alice, bob) =
        (shipped(&warehouse_db, "alice").await?, shipped(&warehouse_db, "bob").await?);
    let left: i64 =
        sqlx::query_scalar("select count(*) from dtm_outbox").fetch_one(&shop_db).await?;
    let to_mallory = shipped(&warehouse_db, "mallory").await?;
    println!("shipped to alice {alice:?}, to bob {bob:?}; {left} messages left");
    anyhow::ensure!(alice == [1, 3, 5] && bob == [2, 4, 6], "each once, in the order of its key");
    anyhow::ensure!(left == 0, "what is delivered leaves the table");
    anyhow::ensure!(to_mallory.is_empty(), "an order that was rolled back has no message");
    stage.end().await
}
