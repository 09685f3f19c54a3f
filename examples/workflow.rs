//! A workflow: a trip is booked by a saga-like step, a TCC step and an XA step. Its process dies in
//! the middle, and dtmd has it resumed.
//!
//! `cargo run -p dtmd-examples --example workflow`
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::{Json, Router, extract::State, routing::post};
use dtmcli::axum::{Answer, BranchCall, Done};
use dtmcli::prelude::*;
use dtmcli::{Error, Op, TransOptions};
use dtmd_examples::{PATIENCE, Stage, fresh};
use serde::{Deserialize, Serialize};
use sqlx::{MySqlPool, PgPool};
use tokio::sync::Notify;

const WALLET: &str = "
    create table wallet (name varchar(32) primary key, balance bigint not null);
    insert into wallet values ('alice', 100);";
const TRAVEL: &str = "
    create table room (trip varchar(64) primary key);
    create table seat (trip varchar(64) primary key, state varchar(16) not null);";

#[derive(Clone, Serialize, Deserialize)]
struct Trip {
    id: String,
    price: i64,
}

#[derive(Clone)]
struct Agency {
    travel: String,
    wallet: MySqlPool,
    /// Whether the power fails in the next run, and a bell for when it has.
    power_cut: Arc<AtomicBool>,
    dead: Arc<Notify>,
}

/// Runs again from its beginning when it is resumed. Steps that are recorded are not done again:
/// they give back what they answered.
async fn book(mut wf: Workflow, trip: Trip, agency: Agency) -> BranchResult<String> {
    let room = format!("{}/room", agency.travel);
    wf.step()
        .undo(Call::delete(&room).json(&trip)) // as in a saga
        .call(Call::post(&room).json(&trip))
        .await?;

    let seat = format!("{}/seat", agency.travel);
    wf.tcc(Try::at(&seat).confirm(&seat).cancel(&seat).json(&trip)).await?;

    if agency.power_cut.swap(false, Ordering::SeqCst) {
        agency.dead.notify_one();
        std::future::pending::<()>().await;
    }

    wf.xa(&agency.wallet, async |tx| {
        let sql = "update wallet set balance = balance - ? where name = 'alice' and balance >= ?";
        let done = sqlx::query(sql).bind(trip.price).bind(trip.price).execute(&mut **tx).await?;
        (done.rows_affected() == 1).or_failure("not enough money")
    })
    .await?;
    Ok(format!("{} for {}", trip.id, trip.price))
}

async fn room(
    BranchCall(branch): BranchCall,
    State(db): State<PgPool>,
    Json(trip): Json<Trip>,
) -> Answer {
    let sql = match branch.op() {
        Op::Rollback => "delete from room where trip = $1",
        _ => "insert into room values ($1)",
    };
    branch
        .barrier(&db, async |tx| {
            sqlx::query(sql).bind(&trip.id).execute(&mut **tx).await?;
            Ok(())
        })
        .await?;
    Ok(Done)
}

/// In a workflow try, confirm and cancel are called action, commit and rollback.
async fn seat(
    BranchCall(branch): BranchCall,
    State(db): State<PgPool>,
    Json(trip): Json<Trip>,
) -> Answer {
    let sql = match branch.op() {
        Op::Commit => "update seat set state = 'taken' where trip = $1",
        Op::Rollback => "delete from seat where trip = $1",
        _ => "insert into seat values ($1, 'held')",
    };
    branch
        .barrier(&db, async |tx| {
            sqlx::query(sql).bind(&trip.id).execute(&mut **tx).await?;
            Ok(())
        })
        .await?;
    Ok(Done)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut stage = Stage::start().await?;
    let dtm = stage.dtm.clone();
    let (wallet, travel_db) = (stage.mariadb(WALLET).await?, stage.postgres(TRAVEL).await?);
    let router = Router::new().route("/room", post(room).delete(room)).route("/seat", post(seat));
    let travel = stage.serve(router.with_state(travel_db.clone())).await?;
    let (power_cut, dead) = (Arc::new(AtomicBool::new(true)), Arc::new(Notify::new()));
    let agency = Agency { travel, wallet: wallet.clone(), power_cut, dead: dead.clone() };

    let (listener, here) = stage.listen().await?;
    let workflows = Workflows::builder(dtm.clone(), format!("{here}/workflows"))
        // How long nothing may happen until dtmd calls; 10 s unless told.
        .options(TransOptions::new().retry_interval(Duration::from_secs(1)))
        .register("book", move |wf, trip| book(wf, trip, agency.clone()))
        .build()?;
    let router: Router = workflows.router("/workflows");
    tokio::spawn(async move { axum::serve(listener, router).await });

    // The run is dropped in the middle: with a room and a seat, and without a payment.
    let trip = Trip { id: fresh("trip"), price: 60 };
    tokio::select! {
        ended = workflows.execute::<String>("book", &trip.id, &trip) => {
            anyhow::bail!("it should have died, and ended: {ended:?}");
        }
        () = dead.notified() => println!("trip for 60: the process dies after its second step"),
    }
    println!(
        "trip for 60: {} after dtmd had it resumed",
        dtm.wait(&trip.id, PATIENCE).await?.status
    );
    // Whoever executes it again gets the recorded result.
    let receipt: String = workflows.execute("book", &trip.id, &trip).await?;
    anyhow::ensure!(receipt == format!("{} for 60", trip.id), "not the receipt: {receipt}");

    // The last step refuses: the seat is released, the room is given back.
    let dear = Trip { id: fresh("trip"), price: 500 };
    match workflows.execute::<String>("book", &dear.id, &dear).await {
        Err(Error::RolledBack { reason, .. }) => println!("trip for 500: rolled back, {reason}"),
        other => anyhow::bail!("a trip that cannot be paid is rolled back, not {other:?}"),
    }

    let balance: i64 = sqlx::query_scalar("select balance from wallet").fetch_one(&wallet).await?;
    let rooms: Vec<String> =
        sqlx::query_scalar("select trip from room").fetch_all(&travel_db).await?;
    let seats: Vec<(String, String)> =
        sqlx::query_as("select trip, state from seat").fetch_all(&travel_db).await?;
    println!("alice has {balance}; rooms {}, seats {}", rooms.len(), seats.len());
    anyhow::ensure!(balance == 40, "the trip is paid once");
    anyhow::ensure!(rooms == [trip.id.clone()], "one room is booked: {rooms:?}");
    anyhow::ensure!(seats == [(trip.id, "taken".to_owned())], "one seat is taken: {seats:?}");
    stage.end().await
}
