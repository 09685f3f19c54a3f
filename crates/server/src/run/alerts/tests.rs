//! Tests against a hook that listens, and one that does not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dtmd_engine::{Answer, BranchCall, BranchCaller, EngineOptions, Event};
use dtmd_protocol::Mode;
use dtmd_protocol::{CallProtocol, Gid, NewGlobal, NewStep, Options, Outcome, Policy, StepDef};
use dtmd_store::MemoryStore;
use ring::hmac;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::collect::Collector;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A service that is down.
struct Down;

#[async_trait]
impl BranchCaller for Down {
    async fn call(&self, _: &BranchCall) -> Answer {
        Answer { outcome: Outcome::Unknown(Arc::from("down")), unreachable: false }
    }

    fn cannot_call(&self, _: &str, _: CallProtocol) -> Option<String> {
        None
    }
}

fn engine() -> Engine {
    let options = EngineOptions {
        policy: Policy {
            retry_interval: Duration::from_millis(5),
            retry_interval_max: Duration::from_millis(20),
            ..Policy::default()
        },
        ..EngineOptions::default()
    };
    let engine = Engine::start(Arc::new(MemoryStore::new()), Arc::new(Down), options).unwrap();
    engine.register_runtime(true);
    engine
}

fn gid(text: &str) -> Gid {
    Gid::new(text).unwrap()
}

fn saga(name: &str) -> NewGlobal {
    let def = StepDef { action: "http://rm/a".into(), compensate: "http://rm/b".into() };
    NewGlobal {
        gid: gid(name),
        namespace: Arc::from("default"),
        protocol: CallProtocol::Http,
        query_prepared: Arc::from(""),
        custom_data: Arc::from(""),
        options: Options::default(),
        steps: vec![NewStep { def, payload: Arc::from(*b"{}") }],
        content: 1,
        mode: Mode::Saga { concurrent: false, orders: Arc::from([]) },
    }
}

fn settings(url: &str) -> AlertSettings {
    AlertSettings::new(&AlertConfig {
        retry_limit: 2,
        web_hook: Secret::new(url),
        secret: Secret::new("key"),
        stuck_after: Duration::from_micros(1),
        recovery: true,
    })
}

/// Answers each request with a status, one after the other, and hands out what it was sent.
async fn hook(statuses: &'static [u16]) -> (String, mpsc::Receiver<(String, Value, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel(100);
    tokio::spawn(async move {
        let mut statuses = statuses.iter().copied().chain(std::iter::repeat(200));
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let (head, body) = loop {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).await.unwrap();
                assert!(read > 0, "the request broke off");
                bytes.extend_from_slice(&piece[..read]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head
                    .lines()
                    .find_map(|line| {
                        line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()
                    })
                    .unwrap_or(0usize);
                if body.len() >= length {
                    break (head.to_lowercase(), body.as_bytes().to_vec());
                }
            };
            let status = statuses.next().unwrap();
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let json = serde_json::from_slice(&body).unwrap();
            if tell.send((head, json, body)).await.is_err() {
                return;
            }
        }
    });
    (url, told)
}

async fn next<T>(receiver: &mut mpsc::Receiver<T>) -> T {
    tokio::time::timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_failing_branch_is_told_signed_and_so_is_its_end() {
    let (url, mut told) = hook(&[503]).await;
    let engine = engine();
    let mut settings = settings(&url);
    settings.stuck_after = None;
    start(&engine, &settings);
    tokio::task::yield_now().await;
    engine.submit(saga("g")).await.unwrap();
    let (first, ..) = next(&mut told).await;
    let (head, json, body) = next(&mut told).await;
    assert!(head.starts_with("post /hook http/1.1"), "{head}");
    assert!(first.contains("x-dtmd-alert: retry") && head.contains("x-dtmd-alert: retry"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
    let signature = format!("x-dtmd-signature: {}", send::signature(&key, &body));
    assert!(head.contains(&signature), "{head}");
    let expected = serde_json::json!({"gid": "g", "status": "submitted", "branch": "http://rm/a",
        "error": "down", "retry_count": 2});
    assert_eq!(json, expected, "DTM's members and no other");
    engine.force_stop(&gid("g")).await.unwrap();
    let ended = loop {
        let (_, json, _) = next(&mut told).await;
        if json["kind"] == "recovered" {
            break json;
        }
    };
    assert_eq!(ended["status"], "failed");
    assert_eq!(ended["error"], "the transaction has ended as failed");
    let log = loop {
        let log = engine.alert_log().newest_first();
        if log.iter().any(|record| record.kind == "recovered") {
            break log;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let oldest = log.last().unwrap();
    assert_eq!((oldest.result, oldest.sendings), ("delivered", 2));
    let metrics = engine.metrics().encode();
    assert!(metrics.contains(r#"dtmd_alerts_total{kind="recovered",result="delivered"} 1"#));
}

/// The signature is the published one of HMAC-SHA256 (RFC 4231, test case 2).
#[test]
fn signatures_are_those_of_the_standard() {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
    assert_eq!(
        send::signature(&key, b"what do ya want for nothing?"),
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[tokio::test]
async fn stuck_ones_are_told_once_and_their_end_too() {
    let engine = engine();
    let (queue, mut told) = mpsc::channel(10);
    let mut collector = Collector::new(engine.clone(), settings("http://hook"), queue);
    engine.submit(saga("g")).await.unwrap();
    let mut delayed = saga("later");
    delayed.mode = Mode::Msg { delay: Duration::from_secs(3600) };
    delayed.query_prepared = "http://rm/q".into();
    engine.submit(delayed).await.unwrap();
    collector.look().await;
    collector.look().await;
    let alert = next(&mut told).await;
    assert_eq!((alert.kind, alert.gid.as_str()), (Kind::Stuck, "g"));
    assert!(told.try_recv().is_err(), "once, and not of the delayed message");
    engine.force_stop(&gid("g")).await.unwrap();
    collector.look().await;
    let alert = next(&mut told).await;
    assert_eq!((alert.kind, alert.status), (Kind::Recovered, Some(GlobalStatus::Failed)));
    collector.look().await;
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn the_limit_holds_and_what_does_not_fit_is_listed() {
    let engine = engine();
    let (queue, mut told) = mpsc::channel(1);
    let mut collector = Collector::new(engine.clone(), settings("http://hook"), queue);
    let failed = |name: &str, attempts| Event::Alert {
        gid: gid(name),
        status: GlobalStatus::Submitted,
        url: "http://rm/a".into(),
        error: "down".into(),
        attempts,
    };
    let back = |name: &str| Event::Recovered {
        gid: gid(name),
        status: GlobalStatus::Submitted,
        url: "http://rm/a".into(),
    };
    collector.hear(failed("g", 1));
    collector.hear(back("g"));
    assert!(told.try_recv().is_err(), "below the limit nothing is told");
    collector.hear(failed("g", 2));
    collector.hear(failed("h", 2));
    assert_eq!(told.try_recv().unwrap().gid, "g");
    assert!(told.try_recv().is_err());
    let dropped = engine.alert_log().newest_first();
    assert_eq!((dropped[0].result, dropped[0].gid.as_str()), ("dropped", "h"));
    collector.hear(back("g"));
    assert_eq!(told.try_recv().unwrap().kind, Kind::Recovered);
    let poisoned = Event::Poisoned { gid: gid("p"), error: "unreadable".into() };
    collector.hear(poisoned.clone());
    collector.hear(poisoned);
    let alert = told.try_recv().unwrap();
    assert_eq!((alert.kind, alert.status()), (Kind::Poisoned, ""));
    assert!(told.try_recv().is_err(), "once");
}
