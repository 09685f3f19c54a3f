//! A cache that follows its database: the message that deletes the key goes out exactly if the
//! write commits, and is repeated until Redis has done it.
//!
//! `cargo run -p dtmd-examples --example cache`
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::routing::{any, post};
use axum::{Json, Router, extract::State};
use dtmcli::Msg;
use dtmcli::axum::{Answer, BranchCall, Done};
use dtmcli::barrier::LocalOutcome;
use dtmcli::prelude::*;
use dtmd_examples::{PATIENCE, Stage, fresh};
use redis::AsyncCommands as _;
use redis::aio::ConnectionManager;
use sqlx::{PgConnection, PgPool};

const ITEMS: &str = "
    create table item (id bigint primary key, price bigint not null);
    insert into item values (1, 10);";
const LAMP: i64 = 1;
/// Even a key that nothing deletes is not wrong for longer than this.
const CACHED_SECONDS: u64 = 3_600;

#[derive(Clone)]
struct Shop {
    dtm: Client,
    db: PgPool,
    cache: ConnectionManager,
    prefix: String,
    url: String,
    /// How many of the next calls find Redis out of reach.
    outage: Arc<AtomicU32>,
}

impl Shop {
    fn key(&self, item: i64) -> String {
        format!("{}price:{item}", self.prefix)
    }

    /// Reads through the cache.
    async fn price(&self, item: i64) -> anyhow::Result<i64> {
        let (mut cache, key) = (self.cache.clone(), self.key(item));
        if let Some(price) = cache.get::<_, Option<i64>>(&key).await? {
            return Ok(price);
        }
        let price: i64 = sqlx::query_scalar("select price from item where id = $1")
            .bind(item)
            .fetch_one(&self.db)
            .await?;
        let () = cache.set_ex(&key, price, CACHED_SECONDS).await?;
        Ok(price)
    }

    /// The message that goes with every write of this item.
    fn forget(&self, gid: &str, item: i64) -> Msg {
        let forget = Delivery::at(format!("{}/forget", self.url)).json(&item);
        self.dtm.msg().gid(gid).deliver(forget).retry_interval(Duration::from_secs(1))
    }

    fn ask(&self) -> String {
        format!("{}/query-prepared", self.url)
    }
}

async fn write(tx: &mut PgConnection, item: i64, price: i64) -> BranchResult {
    let sql = "update item set price = $1 where id = $2";
    let done = sqlx::query(sql).bind(price).bind(item).execute(tx).await?;
    (done.rows_affected() == 1).or_failure("there is no such item")
}

/// Deleting twice is as good as once, so this needs no barrier.
async fn forget(State(shop): State<Shop>, Json(item): Json<i64>) -> Answer {
    let is_out = |left: u32| left.checked_sub(1);
    if shop.outage.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_out).is_ok() {
        return Err(BranchError::retry("Redis is out of reach").into());
    }
    let () = shop.cache.clone().del(shop.key(item)).await?;
    Ok(Done)
}

async fn query_prepared(BranchCall(branch): BranchCall, State(shop): State<Shop>) -> Answer {
    branch.query_prepared(&shop.db).await?;
    Ok(Done)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    let dtm = stage.dtm.clone();
    let db = stage.postgres(ITEMS).await?;
    let (cache, prefix) = stage.redis().await?;
    let (listener, url) = stage.listen().await?;
    let shop = Shop { dtm: dtm.clone(), db, cache, prefix, url, outage: Arc::default() };
    let router = Router::new()
        .route("/forget", post(forget))
        .route("/query-prepared", any(query_prepared))
        .with_state(shop.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    println!("price {}, and now it is cached", shop.price(LAMP).await?);

    // As it is meant.
    let gid = fresh("price");
    let message = shop.forget(&gid, LAMP);
    message.commit_with(&shop.db, &shop.ask(), async |tx| write(tx, LAMP, 11).await).await?;
    dtm.wait(&gid, PATIENCE).await?;
    println!("written 11, read {}", shop.price(LAMP).await?);
    anyhow::ensure!(shop.price(LAMP).await? == 11, "the key is deleted after the write");

    // Redis is out of reach at the first attempt: dtmd makes another.
    shop.outage.store(1, Ordering::SeqCst);
    let gid = fresh("price");
    let message = shop.forget(&gid, LAMP);
    message.commit_with(&shop.db, &shop.ask(), async |tx| write(tx, LAMP, 12).await).await?;
    println!("written 12, read {} while Redis is out of reach", shop.price(LAMP).await?);
    dtm.wait(&gid, PATIENCE).await?;
    println!("written 12, read {}", shop.price(LAMP).await?);
    anyhow::ensure!(shop.price(LAMP).await? == 12, "a delete that failed is repeated");

    // The process dies between the commit and the submit: dtmd asks whether it was committed.
    let gid = fresh("price");
    let asked_soon = shop.forget(&gid, LAMP).timeout_to_fail(Duration::from_secs(4));
    let prepared = asked_soon.prepare(&shop.ask()).await?;
    let branch = prepared.branch()?;
    let ended = branch.local_transaction(&shop.db, async |tx| write(tx, LAMP, 13).await).await;
    anyhow::ensure!(matches!(ended, LocalOutcome::Committed(())), "the write is committed");
    drop(prepared);
    println!("written 13 and died, read {}", shop.price(LAMP).await?);
    dtm.wait(&gid, PATIENCE).await?;
    println!("written 13, read {}", shop.price(LAMP).await?);
    anyhow::ensure!(shop.price(LAMP).await? == 13, "the key is deleted although the writer died");
    stage.end().await
}
