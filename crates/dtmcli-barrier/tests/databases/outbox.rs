//! The local message table.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dtmcli_barrier::Branch;
use dtmcli_barrier::outbox::{
    Message, Relay, RelayOptions, Sink, SinkError, create_table, dead_letters, enqueue,
    purge_delivered, requeue,
};

use crate::fixture::{Db, Fixture, book, pause};

macro_rules! cases {
    ($($adapter:ident: [$($case:ident),* $(,)?])*) => { $(
        mod $adapter {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let fixture = crate::fixture::open::$adapter().await;
                    super::create_table(&fixture.db, None).await.unwrap();
                    super::create_table(&fixture.db, None).await.unwrap();
                    super::$case(&fixture).await;
                }
            )*
        }
    )* };
}

cases! {
    sqlx_mysql: [with_the_business_or_not_at_all, two_relays_share, a_relay_that_dies,
        order_of_a_key, a_hole_in_the_order_of_commits, dead_letters_are_kept, a_bell]
    sqlx_postgres: [with_the_business_or_not_at_all, two_relays_share, a_relay_that_dies,
        order_of_a_key, a_hole_in_the_order_of_commits, dead_letters_are_kept, a_bell]
    sqlx_sqlite: [with_the_business_or_not_at_all, two_relays_share, a_relay_that_dies,
        order_of_a_key, dead_letters_are_kept, a_bell]
    mysql_async: [with_the_business_or_not_at_all, two_relays_share, a_relay_that_dies,
        order_of_a_key, a_hole_in_the_order_of_commits, dead_letters_are_kept, a_bell]
    tokio_postgres: [with_the_business_or_not_at_all, two_relays_share, a_relay_that_dies,
        order_of_a_key, a_hole_in_the_order_of_commits, dead_letters_are_kept, a_bell]
    sea_orm_postgres: [with_the_business_or_not_at_all, two_relays_share, order_of_a_key]
}

/// Remembers what it was given; fails or hangs for the destinations `fail`, `refuse` and `hang`.
#[derive(Debug, Default, Clone)]
struct Seen(Arc<Mutex<Vec<Message>>>);

impl Seen {
    fn payloads(&self) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        seen.iter().map(|message| String::from_utf8(message.payload().to_vec()).unwrap()).collect()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Sink for Seen {
    async fn deliver(&self, message: &Message) -> Result<(), SinkError> {
        self.0.lock().unwrap().push(message.clone());
        match message.destination() {
            "fail" => Err(SinkError::Retry("broker is away".into())),
            "refuse" => Err(SinkError::Refused("no such topic".to_owned())),
            "hang" => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

fn options() -> RelayOptions {
    RelayOptions { backoff: Duration::ZERO, backoff_max: Duration::ZERO, ..RelayOptions::default() }
}

async fn send<D: Db>(fixture: &Fixture<D>, messages: &[Message]) {
    let mut tx = fixture.db.begin().await.unwrap();
    for message in messages {
        enqueue(&mut tx, message).await.unwrap();
    }
    D::commit(tx).await.unwrap();
}

/// Delivers until nothing is due.
async fn drain<D: Db, S: Sink>(relay: &Relay<D, S>) {
    while relay.deliver_due().await.unwrap().claimed > 0 {}
}

async fn with_the_business_or_not_at_all<D: Db>(fixture: &Fixture<D>) {
    let branch = Branch::message(&fixture.gid).unwrap();
    let lost = Message::new("t", "lost");
    let sent = Message::new("t", vec![0, 159, 146, 150]);
    let mut tx = fixture.db.begin().await.unwrap();
    book(&mut tx, &branch).await.unwrap();
    enqueue(&mut tx, &lost).await.unwrap();
    D::rollback(tx).await.unwrap();
    let mut tx = fixture.db.begin().await.unwrap();
    book(&mut tx, &branch).await.unwrap();
    enqueue(&mut tx, &sent).await.unwrap();
    D::commit(tx).await.unwrap();

    let seen = Seen::default();
    let keep = RelayOptions { keep_delivered: true, ..options() };
    let relay = Relay::new(fixture.db.clone(), seen.clone(), keep);
    drain(&relay).await;
    assert_eq!(*seen.0.lock().unwrap(), [sent], "bytes and all");
    assert_eq!(fixture.execute("delete from dtm_outbox where state = 0").await, 0);
    assert_eq!(purge_delivered(&fixture.db, None, Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(purge_delivered(&fixture.db, None, Duration::ZERO).await.unwrap(), 1);

    let big = Message::new("t", vec![0; dtmcli_barrier::outbox::PAYLOAD_MAX_BYTES + 1]);
    let mut tx = fixture.db.begin().await.unwrap();
    assert!(enqueue(&mut tx, &big).await.is_err());
    assert!(enqueue(&mut tx, &Message::new("", "x")).await.is_err());
    assert!(enqueue(&mut tx, &Message::new("t", "x").key("")).await.is_err());
    D::rollback(tx).await.unwrap();
}

async fn two_relays_share<D: Db>(fixture: &Fixture<D>) {
    let messages: Vec<Message> =
        (0..60).map(|number| Message::new("t", number.to_string())).collect();
    send(fixture, &messages).await;
    let seen = Seen::default();
    let small = RelayOptions { batch: 7, ..options() };
    let relays = [0, 1].map(|_| {
        let relay = Relay::new(fixture.db.clone(), seen.clone(), small.clone());
        let seen = seen.clone();
        // One that finds nothing has met the other's claims; the errors of a deadlock pass.
        tokio::spawn(async move {
            while seen.count() < 60 {
                let _ = relay.deliver_due().await;
                pause().await;
            }
        })
    });
    for relay in relays {
        relay.await.unwrap();
    }
    let mut numbers: Vec<u32> =
        seen.payloads().iter().map(|payload| payload.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>(), "each once");
}

async fn a_relay_that_dies<D: Db>(fixture: &Fixture<D>) {
    send(fixture, &[Message::new("hang", "1")]).await;
    let short = RelayOptions { lease: Duration::from_millis(300), ..options() };
    let dying = Seen::default();
    let relay = Relay::new(fixture.db.clone(), dying.clone(), short);
    let task = tokio::spawn(async move { relay.deliver_due().await });
    while dying.count() == 0 {
        pause().await;
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());

    let seen = Seen::default();
    let patient = RelayOptions { lease: Duration::from_millis(200), ..options() };
    let relay = Relay::new(fixture.db.clone(), seen.clone(), patient);
    while seen.count() == 0 {
        relay.deliver_due().await.unwrap();
        pause().await;
    }
    assert_eq!(seen.0.lock().unwrap()[0].gid(), dying.0.lock().unwrap()[0].gid());
}

async fn order_of_a_key<D: Db>(fixture: &Fixture<D>) {
    for number in 0..12 {
        let key = if number % 3 == 0 { "a" } else { "b" };
        send(fixture, &[Message::new("t", format!("{key}{number}")).key(key)]).await;
    }
    let seen = Seen::default();
    let relays = [0, 1].map(|_| {
        let relay = Relay::new(fixture.db.clone(), seen.clone(), options());
        let seen = seen.clone();
        tokio::spawn(async move {
            while seen.count() < 12 {
                let _ = relay.deliver_due().await;
                pause().await;
            }
        })
    });
    for relay in relays {
        relay.await.unwrap();
    }
    let mut of_key: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for payload in seen.payloads() {
        let (key, number) = payload.split_at(1);
        of_key.entry(key.to_owned()).or_default().push(number.parse().unwrap());
    }
    assert_eq!(of_key["a"], [0, 3, 6, 9]);
    assert_eq!(of_key["b"], [1, 2, 4, 5, 7, 8, 10, 11]);
}

/// The transaction with the smaller number commits last, when the greater one is long delivered.
async fn a_hole_in_the_order_of_commits<D: Db>(fixture: &Fixture<D>) {
    let seen = Seen::default();
    let relay = Relay::new(fixture.db.clone(), seen.clone(), options());
    let mut slow = fixture.db.begin().await.unwrap();
    enqueue(&mut slow, &Message::new("t", "slow")).await.unwrap();
    send(fixture, &[Message::new("t", "quick")]).await;
    drain(&relay).await;
    assert_eq!(seen.payloads(), ["quick"]);
    D::commit(slow).await.unwrap();
    drain(&relay).await;
    assert_eq!(seen.payloads(), ["quick", "slow"]);
}

async fn dead_letters_are_kept<D: Db>(fixture: &Fixture<D>) {
    let failing = Message::new("fail", "1").key("k");
    let behind = Message::new("t", "2").key("k");
    let refused = Message::new("refuse", "3");
    send(fixture, &[failing.clone(), behind, refused.clone()]).await;
    let seen = Seen::default();
    let few = RelayOptions { attempts_max: 3, ..options() };
    let relay = Relay::new(fixture.db.clone(), seen.clone(), few);
    drain(&relay).await;
    let mut payloads = seen.payloads();
    payloads.sort();
    assert_eq!(payloads, ["1", "1", "1", "2", "3"], "dead ones do not hold up their key");
    assert_eq!(seen.payloads().last().unwrap(), "2");

    let dead = dead_letters(&fixture.db, None, 10).await.unwrap();
    assert_eq!(dead.len(), 2);
    assert_eq!((&dead[0].message, dead[0].attempts), (&failing, 3));
    assert_eq!(dead[0].last_error.as_deref(), Some("broker is away"));
    assert_eq!((&dead[1].message, dead[1].attempts), (&refused, 1));
    assert_eq!(purge_delivered(&fixture.db, None, Duration::ZERO).await.unwrap(), 0);

    assert!(requeue(&fixture.db, None, refused.gid()).await.unwrap());
    assert!(!requeue(&fixture.db, None, refused.gid()).await.unwrap());
    assert_eq!(relay.deliver_due().await.unwrap().dead, 1);
}

/// A relay that would look again in an hour delivers at once when told, and stops when told.
async fn a_bell<D: Db>(fixture: &Fixture<D>) {
    let seen = Seen::default();
    let idle = RelayOptions { poll: Duration::from_secs(3600), ..options() };
    let relay = Relay::new(fixture.db.clone(), seen.clone(), idle);
    let bell = relay.doorbell();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        relay.run(async move { drop(stopped.await) }).await;
    });
    for number in 1..=3 {
        send(fixture, &[Message::new("t", number.to_string())]).await;
        bell.ring();
        while seen.count() < number {
            pause().await;
        }
    }
    stop.send(()).unwrap();
    task.await.unwrap();
    assert_eq!(seen.payloads(), ["1", "2", "3"]);
}
