//! The client as the sink of a local message table in a real database.

use std::time::{Duration, Instant};

use dtmcli::GlobalStatus;
use dtmcli::barrier::create_table as create_barrier_table;
use dtmcli::outbox::{
    self, Delivery, Message, Relay, RelayOptions, Sink as _, SinkError, create_table, dead_letters,
};
use dtmd_local_servers::shared::postgres_database;
use sqlx::PgPool;

use crate::service::Say;
use crate::{PATIENCE, stage, until};

async fn database() -> PgPool {
    let pool = PgPool::connect(&postgres_database().await.unwrap()).await.unwrap();
    create_table(&pool, None).await.unwrap();
    create_barrier_table(&pool, None).await.unwrap();
    pool
}

async fn enqueue(pool: &PgPool, messages: &[&Message]) {
    let mut tx = pool.begin().await.unwrap();
    for message in messages {
        outbox::enqueue(&mut tx, message).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn messages_become_transactions_of_the_server() {
    let (_server, dtm, service) = stage().await;
    let pool = database().await;
    let (one, other) = (message(&service.at("/a")), message(&service.at("/b")));
    enqueue(&pool, &[&one, &other]).await;
    let mut tx = pool.begin().await.unwrap();
    outbox::enqueue(&mut tx, &message(&service.at("/never"))).await.unwrap();
    tx.rollback().await.unwrap();

    let relay = Relay::new(pool, dtm.clone(), RelayOptions::default());
    let look = relay.deliver_due().await.unwrap();
    assert_eq!(look, Delivery { claimed: 2, delivered: 2, postponed: 0, dead: 0 });
    for sent in [&one, &other] {
        until(&dtm, sent.gid(), GlobalStatus::Succeed).await;
    }
    let mut calls = service.calls();
    calls.sort();
    assert_eq!(calls, ["/a action 01", "/b action 01"]);

    // Handed over again, as after a crash of the relay: taken, and not delivered a second time.
    dtm.deliver(&one).await.unwrap();
    assert_eq!(service.count("/a action 01"), 1);
}

#[tokio::test]
async fn a_message_with_a_key_is_waited_for() {
    let (server, dtm, service) = stage().await;
    let pool = database().await;
    service.answer("/first", &[Say::Retry]);
    let (first, second) = (
        message(&service.at("/first")).key("customer-1"),
        message(&service.at("/second")).key("customer-1"),
    );
    enqueue(&pool, &[&first, &second]).await;
    let options = RelayOptions { poll: Duration::from_millis(20), ..RelayOptions::default() };
    let relay = Relay::new(pool, dtm.clone(), options);
    let task = tokio::spawn(async move { relay.run(std::future::pending()).await });
    service.called("/first action 01").await;
    // The server has the first, and its destination has not answered yet.
    let begun = Instant::now();
    while service.count("/first action 01") < 2 {
        assert_eq!(service.count("/second action 01"), 0, "the second came first");
        assert!(begun.elapsed() < PATIENCE);
        server.clock().forward(Duration::from_secs(60)).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    service.called("/second action 01").await;
    until(&dtm, first.gid(), GlobalStatus::Succeed).await;
    task.abort();
}

#[tokio::test]
async fn what_can_never_be_sent_becomes_a_dead_letter() {
    let (_server, dtm, service) = stage().await;
    let pool = database().await;
    // Over HTTP a payload is text.
    let broken = Message::new(service.at("/a"), vec![0xff_u8]);
    enqueue(&pool, &[&broken]).await;
    let relay = Relay::new(pool.clone(), dtm, RelayOptions::default());
    assert_eq!(relay.deliver_due().await.unwrap().dead, 1);
    let dead = dead_letters(&pool, None, 10).await.unwrap();
    assert_eq!(dead[0].message, broken);
    assert!(service.calls().is_empty());
}

#[tokio::test]
async fn a_server_that_is_away_is_tried_again() {
    let (server, dtm, service) = stage().await;
    drop(server);
    let error = dtm.deliver(&message(&service.at("/a"))).await.unwrap_err();
    assert!(matches!(error, SinkError::Retry(_)), "{error}");
}

fn message(destination: &str) -> Message {
    Message::new(destination, "{}")
}
