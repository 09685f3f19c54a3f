//! Topics (spec 01 §4.4; spec 07 D15, D29).

use std::sync::Arc;

use dtmd_protocol::GlobalStatus;

use crate::stage::{Stage, msg, text, waiting};

fn to_topic(name: &str, topic: &str) -> dtmd_protocol::NewGlobal {
    let mut new = msg(name, 1);
    new.steps[0].def.action = Arc::from(format!("topic://{topic}"));
    new
}

#[tokio::test]
async fn texts_are_dtms() {
    let stage = Stage::new();
    let e = &stage.engine;
    assert_eq!(text(e.subscribe("", "http://a", "").await), "empty topic");
    assert_eq!(text(e.subscribe("t", "", "").await), "empty url");
    assert_eq!(text(e.unsubscribe("", "http://a").await), "empty topic");
    assert_eq!(text(e.unsubscribe("t", "").await), "empty url");
    assert_eq!(text(e.unsubscribe("t", "http://a").await), "no such a topic");
    assert_eq!(text(e.delete_topic("t").await), "storage: NotFound");
    e.subscribe("t", "http://a", "remark").await.unwrap();
    assert_eq!(text(e.subscribe("t", "http://a", "").await), "this url exists");
    assert_eq!(text(e.unsubscribe("t", "http://b").await), "no such an url ");
    e.unsubscribe("t", "http://a").await.unwrap();
    assert_eq!(text(e.unsubscribe("t", "http://a").await), "this topic is empty");
    assert_eq!(text(e.submit(to_topic("m", "t")).await), "topic not found: t");
    e.delete_topic("t").await.unwrap();
}

#[tokio::test]
async fn d15_changes_count_at_once() {
    let stage = Stage::new();
    let engine = &stage.engine;
    for url in ["http://rm/a", "http://rm/b"] {
        engine.subscribe("t", url, "").await.unwrap();
    }
    engine.submit(waiting(to_topic("one", "t"))).await.unwrap();
    assert_eq!(stage.services.calls(), ["01-01 action", "01-02 action"]);
    engine.delete_topic("t").await.unwrap();
    assert_eq!(text(engine.submit(to_topic("two", "t")).await), "topic not found: t");
    engine.subscribe("t", "http://rm/c", "").await.unwrap();
    engine.submit(waiting(to_topic("three", "t"))).await.unwrap();
    assert_eq!(stage.services.calls().last().unwrap(), "01 action");
}

#[tokio::test]
async fn d29_a_topic_that_went_away_after_prepare_does_not_matter() {
    let stage = Stage::new();
    stage.engine.subscribe("t", "http://rm/a", "").await.unwrap();
    stage.engine.prepare(to_topic("m", "t")).await.unwrap();
    stage.engine.delete_topic("t").await.unwrap();
    stage.engine.submit(to_topic("m", "t")).await.unwrap();
    stage.until("m", GlobalStatus::Succeed).await;
}

#[tokio::test]
async fn concurrent_changes_all_count() {
    let stage = Stage::new();
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let engine = stage.engine.clone();
            tokio::spawn(async move { engine.subscribe("t", &format!("http://rm/{n}"), "").await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    for n in 0..5 {
        stage.engine.unsubscribe("t", &format!("http://rm/{n}")).await.unwrap();
    }
    let kv = stage.engine.load_kv("topics", "t").await.unwrap().unwrap();
    assert_eq!(kv.version, 25, "successful subscribes plus successful unsubscribes");
    assert_eq!(kv.value.matches("\"url\"").count(), 15);
}
