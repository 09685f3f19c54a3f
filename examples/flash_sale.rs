//! A flash sale: the stock is a number in Redis, the orders are rows in PostgreSQL, and there are as
//! many orders as pieces sold, although some buyers' processes die in the middle.
//!
//! `cargo run -p dtmd-examples --example flash_sale`
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::time::Duration;

use axum::routing::{any, post};
use axum::{Json, Router, extract::State};
use dtmcli::Error;
use dtmcli::axum::{Answer, BranchCall, Done};
use dtmcli::prelude::*;
use dtmd_examples::{PATIENCE, Stage, fresh};
use redis::AsyncCommands as _;
use redis::aio::ConnectionManager;
use sqlx::PgPool;
use tokio::task::JoinSet;

const ORDERS: &str = "create table orders (gid varchar(64) primary key, buyer bigint not null);";
const STOCK: i64 = 50;
const BUYERS: i64 = 200;
/// Every so many buyers one dies after the stock is taken and before it has said so.
const DIES: i64 = 10;
/// How long Redis remembers who was served: longer than any call may come late.
const REMEMBERED: Duration = Duration::from_secs(7 * 86_400);

#[derive(Clone)]
struct Sale {
    dtm: Client,
    redis: ConnectionManager,
    stock: String,
    orders: String,
    ask: String,
}

impl Sale {
    /// Takes a piece, and has an order made exactly if there was one. The taking is one script in
    /// Redis: it looks, takes and remembers the gid, or does nothing.
    async fn buy(&self, gid: &str, buyer: i64) -> dtmcli::Result<()> {
        let order = Delivery::at(&self.orders).json(&buyer);
        let message = self.dtm.msg().gid(gid).deliver(order);
        if buyer % DIES == 0 {
            let asked_soon = message.timeout_to_fail(Duration::from_secs(1));
            let prepared = asked_soon.prepare(&self.ask).await?;
            let _ = self.take(&prepared.branch()?).await;
            return Ok(()); // Dead: the message is neither submitted nor aborted.
        }
        message.commit_by(&self.ask, async |branch| self.take(branch).await).await?;
        Ok(())
    }

    async fn take(&self, branch: &Branch) -> BranchResult {
        let mut redis = self.redis.clone();
        branch.redis_adjust(&mut redis, &self.stock, -1, REMEMBERED).await.map(drop)
    }
}

/// Answers dtmd's question whether the buyer got a piece. If not, the gid never will.
async fn query_prepared(
    BranchCall(branch): BranchCall,
    State(mut redis): State<ConnectionManager>,
) -> Answer {
    branch.redis_query_prepared(&mut redis, REMEMBERED).await?;
    Ok(Done)
}

async fn order(
    BranchCall(branch): BranchCall,
    State(db): State<PgPool>,
    Json(buyer): Json<i64>,
) -> Answer {
    branch
        .barrier(&db, async |tx| {
            let order = sqlx::query("insert into orders values ($1, $2)").bind(branch.gid());
            order.bind(buyer).execute(&mut **tx).await?;
            Ok(())
        })
        .await?;
    Ok(Done)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    let dtm = stage.dtm.clone();
    let db = stage.postgres(ORDERS).await?;
    let (mut redis, prefix) = stage.redis().await?;
    let router = Router::new().route("/order", post(order)).with_state(db.clone());
    let orders = format!("{}/order", stage.serve(router).await?);
    let router = Router::new().route("/query-prepared", any(query_prepared));
    let ask = format!("{}/query-prepared", stage.serve(router.with_state(redis.clone())).await?);
    let stock = format!("{prefix}stock");
    let () = redis.set(&stock, STOCK).await?;
    let sale = Sale { dtm: dtm.clone(), redis: redis.clone(), stock: stock.clone(), orders, ask };

    let mut buyers = JoinSet::new();
    for buyer in 0..BUYERS {
        let (sale, gid) = (sale.clone(), fresh("sale"));
        buyers.spawn(async move {
            let ended = sale.buy(&gid, buyer).await;
            (gid, ended)
        });
    }
    let (mut gids, mut refused) = (Vec::new(), 0);
    while let Some(buyer) = buyers.join_next().await {
        let (gid, ended) = buyer?;
        match ended {
            Ok(()) => gids.push(gid),
            Err(Error::Aborted { .. }) => refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    let dead = BUYERS / DIES;
    println!(
        "{BUYERS} buyers: {} were told yes, {refused} no, {dead} died",
        gids.len() as i64 - dead
    );
    for gid in &gids {
        dtm.wait(gid, PATIENCE).await?;
    }

    let left: i64 = redis.get(&stock).await?;
    let orders: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(&db).await?;
    let twice =
        "select count(*) from (select buyer from orders group by buyer having count(*) > 1) b";
    let twice: i64 = sqlx::query_scalar(twice).fetch_one(&db).await?;
    println!("stock {left}, sold {}, orders {orders}, doubled {twice}", STOCK - left);
    anyhow::ensure!(left == 0, "{BUYERS} buyers empty a stock of {STOCK}, and not below zero");
    anyhow::ensure!(orders == STOCK - left && twice == 0, "each piece sold has its one order");
    stage.end().await
}
