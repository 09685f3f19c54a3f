//! The Rust service: axum and dtmcli's barrier, with the operations that the others have.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use dtmcli::BranchError;
use dtmcli::axum::{Answer, BranchCall, Done};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Pool, params};
use serde::Deserialize;
use tokio::net::TcpListener;

#[derive(Debug, Deserialize)]
struct Order {
    account: String,
    amount: i64,
}

/// Serves until the test ends; returns the URL.
pub(crate) async fn serve(pool: Pool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/{operation}", post(operate)).with_state(pool);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

async fn operate(
    Path(operation): Path<String>,
    BranchCall(branch): BranchCall,
    State(pool): State<Pool>,
    body: String,
) -> Answer {
    let order: Order = serde_json::from_str(&body)?;
    let work = branch.barrier(&pool, async |tx| {
        let Some(how) = change(&operation)? else { return Ok(()) };
        let sql = format!("update account set {how} where name = :account");
        let params = params! { "amount" => order.amount, "account" => &order.account };
        tx.exec_drop(sql, params).await?;
        Ok(())
    });
    work.await?;
    Ok(Done)
}

/// What an operation sets; nothing if it changes nothing.
fn change(operation: &str) -> Result<Option<&'static str>, BranchError> {
    Ok(Some(match operation {
        "out" | "inUndo" => "balance = balance - :amount",
        "in" | "outUndo" => "balance = balance + :amount",
        "hold" => "held = held + :amount",
        "unhold" => "held = held - :amount",
        "spend" => "held = held - :amount, balance = balance - :amount",
        "nothing" => return Ok(None),
        "refuse" => return Err(BranchError::failure("the account is closed")),
        _ => return Err(BranchError::retry(format!("no operation {operation}"))),
    }))
}
