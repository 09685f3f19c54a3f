//! DTM's published SDKs of other languages against a real dtmd, and services of four languages in
//! one transaction and on one barrier table, and the tests of DTM itself.
//!
//! What a language needs (its interpreter, its packages) is fetched by its own tools at the first
//! run. Where that is not possible its part is left out, and says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bank;
mod dtms_tests;
mod languages;
mod moving;
mod together;

use dtmd_local_servers::{DatabaseOptions, Mariadb};
use dtmd_tests::Server;
use mysql_async::Pool;
use mysql_async::prelude::Queryable as _;

use languages::{Language, Play};

/// A dtmd, and a database whose barrier table all services share.
struct Stage {
    dtm: Server,
    /// The host and port of its gRPC interface.
    dtm_grpc: String,
    mariadb: Mariadb,
    pool: Pool,
}

impl Stage {
    async fn start() -> Self {
        let mariadb = Mariadb::start(DatabaseOptions { fsync: false }).await.unwrap();
        // Named as the SDKs expect it: some write the whole name, some only `barrier`.
        mariadb.make_database("dtm_barrier").await.unwrap();
        let pool = Pool::new(mariadb.url().replace("/dtmd", "/dtm_barrier").as_str());
        dtmcli_barrier::create_table(&pool, None).await.unwrap();
        let sql = "create table account (name varchar(64) primary key, \
                   balance bigint not null, held bigint not null default 0)";
        pool.get_conn().await.unwrap().query_drop(sql).await.unwrap();
        let dtm = Server::start().await;
        let dtm_grpc = dtm.process.grpc_address().await.unwrap().to_string();
        Self { dtm, dtm_grpc, mariadb, pool }
    }

    /// The database's address, as a program of another language is told it.
    fn database(&self) -> String {
        format!("127.0.0.1:{}", self.mariadb.port())
    }
}

async fn play(language: Language) {
    let Some(ready) = language.ready() else { return };
    let stage = Stage::start().await;
    ready.command(&stage, Play::Scenarios).run_to_the_end().await;
}

#[tokio::test]
async fn the_published_sdk_for_go() {
    play(Language::GoSdk).await;
}

#[tokio::test]
async fn the_published_sdk_for_python() {
    play(Language::Python).await;
}

#[tokio::test]
async fn the_published_sdk_for_java() {
    play(Language::Java).await;
}
