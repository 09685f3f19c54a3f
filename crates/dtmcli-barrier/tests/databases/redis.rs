//! The barrier in Redis.

use std::time::Duration;

use dtmcli_barrier::{Admission, Branch, Op, TransType};
use dtmd_local_servers::shared;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

const DAY: Duration = Duration::from_secs(86_400);

async fn connect() -> (MultiplexedConnection, String) {
    let (url, prefix) = shared::redis().await.unwrap();
    let client = redis::Client::open(url).unwrap();
    (client.get_multiplexed_async_connection().await.unwrap(), prefix)
}

#[tokio::test]
async fn call_after_call() {
    let (mut redis, prefix) = connect().await;
    for (number, (calls, said, left)) in [
        ("action:-30 action:-30", "Run Duplicate", 70),
        // Repeated when there is too little for another one (D30).
        ("action:-80 action:-80", "Run Duplicate", 20),
        ("action:-300", "FAILURE", 100),
        ("action:-300 compensate:300 action:-30", "FAILURE NullCompensation Hanging", 100),
        ("action:-30 compensate:30 compensate:30", "Run Run Duplicate", 100),
        ("compensate:30 action:-30 compensate:30", "NullCompensation Hanging Duplicate", 100),
        ("try:-30 cancel:30 try:-30", "Run Run Duplicate", 100),
        ("action:-30 rollback:30", "Run Run", 100),
        ("rollback:30 action:-30", "NullCompensation Hanging", 100),
        // A repeated compensation that takes (D30).
        ("action:50 compensate:-50 compensate:-50", "Run Run Duplicate", 100),
    ]
    .into_iter()
    .enumerate()
    {
        let (gid, key) = (format!("{prefix}{number}"), format!("{prefix}{number}:balance"));
        let _: () = redis.set(&key, 100).await.unwrap();
        let mut answers = Vec::new();
        for call in calls.split(' ') {
            let (op, delta) = call.split_once(':').unwrap();
            let branch = Branch::new(TransType::Saga, &gid, "01", op.parse().unwrap()).unwrap();
            let delta = delta.parse().unwrap();
            answers.push(match branch.redis_adjust(&mut redis, &key, delta, DAY).await {
                Ok(admission) => format!("{admission:?}"),
                Err(error) => error.word().unwrap().to_owned(),
            });
        }
        assert_eq!(answers.join(" "), said, "{calls}");
        assert_eq!(redis.get::<_, i64>(&key).await.unwrap(), left, "{calls}");
    }
}

#[tokio::test]
async fn keys_are_dtms() {
    let (mut redis, prefix) = connect().await;
    let (gid, key) = (format!("{prefix}g"), format!("{prefix}balance"));
    let branch = Branch::new(TransType::Tcc, &gid, "02", Op::Cancel).unwrap();
    let said = branch.redis_adjust(&mut redis, &key, 1, DAY).await.unwrap();
    assert_eq!(said, Admission::NullCompensation, "whatever the balance is");
    for (key, value) in [("02-cancel-01", "cancel"), ("02-try-01", "rollback")] {
        let key = format!("{gid}-{key}");
        assert_eq!(redis.get::<_, String>(&key).await.unwrap(), value);
        assert!(redis.ttl::<_, i64>(&key).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_message() {
    let (mut redis, prefix) = connect().await;
    let key = format!("{prefix}balance");
    let _: () = redis.set(&key, 100).await.unwrap();

    let message = Branch::message(&format!("{prefix}1")).unwrap();
    assert!(message.redis_query_prepared(&mut redis, DAY).await.unwrap_err().is_failure());
    let late = message.redis_adjust(&mut redis, &key, -30, DAY).await;
    assert!(late.unwrap_err().is_failure());

    let message = Branch::message(&format!("{prefix}2")).unwrap();
    let _ = message.at(1).redis_adjust(&mut redis, &key, -30, DAY).await.unwrap();
    message.redis_query_prepared(&mut redis, DAY).await.unwrap();
    let again = message.at(1).redis_adjust(&mut redis, &key, -30, DAY).await.unwrap_err();
    assert!(!again.is_failure(), "it counts, so nobody may abort it: {again}");
    assert_eq!(redis.get::<_, i64>(&key).await.unwrap(), 70);
}

#[tokio::test]
async fn action_against_compensation() {
    let (redis, prefix) = connect().await;
    let key = format!("{prefix}balance");
    let _: () = redis.clone().set(&key, 1000).await.unwrap();
    for round in 0..100 {
        let calls = [(Op::Action, -3), (Op::Compensate, 3), (Op::Action, -3)].map(|(op, delta)| {
            let (mut redis, key) = (redis.clone(), key.clone());
            let gid = format!("{prefix}{round}");
            tokio::spawn(async move {
                let branch = Branch::new(TransType::Saga, &gid, "01", op).unwrap();
                branch.redis_adjust(&mut redis, &key, delta, DAY).await.map(|_| ())
            })
        });
        for call in calls {
            call.await.unwrap().unwrap();
        }
        assert_eq!(redis.clone().get::<_, i64>(&key).await.unwrap(), 1000, "round {round}");
    }
}
