//! The files for operators name metrics: all of them must exist, and all must be documented.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dtmd_engine::{Answer, BranchCall, BranchCaller, Engine, EngineOptions};
use dtmd_protocol::{CallProtocol, Gid, Mode, NewGlobal, NewStep, Options, Outcome, StepDef};
use dtmd_store::MemoryStore;

const DASHBOARD: &str = include_str!("../../../../ops/grafana/dtmd.json");
const RULES: &str = include_str!("../../../../ops/prometheus/dtmd.rules.yml");
const PAGE: &str = include_str!("../../../../docs/metrics.md");

struct Nobody;

#[async_trait]
impl BranchCaller for Nobody {
    async fn call(&self, _: &BranchCall) -> Answer {
        Answer { outcome: Outcome::Success, unreachable: false }
    }

    fn cannot_call(&self, _: &str, _: CallProtocol) -> Option<String> {
        None
    }
}

/// Returns the words of a text that can be metrics: with our prefixes.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_metric = |word: &&str| word.starts_with("dtm_") || word.starts_with("dtmd_");
    words.filter(is_metric).collect()
}

/// Returns the metrics there are, by their documented names, and every name a query may use.
///
/// A family without a series is not written, so everything has to have happened once.
async fn existing() -> (BTreeSet<String>, BTreeSet<String>) {
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::start(store, Arc::new(Nobody), EngineOptions::default()).unwrap();
    engine.register_runtime(true);
    let def = StepDef { action: "http://rm/a".into(), compensate: "http://rm/b".into() };
    let saga = NewGlobal {
        gid: Gid::new("g").unwrap(),
        namespace: Arc::from("default"),
        protocol: CallProtocol::Http,
        query_prepared: Arc::from(""),
        custom_data: Arc::from(""),
        options: Options { wait_result: true, ..Options::default() },
        steps: vec![NewStep { def, payload: Arc::from(*b"{}") }],
        content: 1,
        mode: Mode::Saga { concurrent: false, orders: Arc::from([]) },
    };
    engine.submit(saga).await.unwrap();
    engine.metrics().request("http", "submit", true, Duration::from_millis(1));
    engine.metrics().alert("retry", "delivered");
    engine.refresh_metrics().await;
    let text = engine.metrics().encode();
    let (mut documented, mut usable) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        if kind == "histogram" {
            usable.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        } else {
            usable.insert(name.clone());
        }
        documented.insert(name);
    }
    (documented, usable)
}

#[tokio::test]
async fn every_metric_that_operators_files_name_exists() {
    let (documented, usable) = existing().await;
    assert!(documented.len() > 15, "{documented:?}");
    for (file, text) in [("the dashboard", DASHBOARD), ("the rules", RULES)] {
        // Descriptions may speak of a histogram as a whole.
        let unknown: Vec<_> = named(text)
            .into_iter()
            .filter(|name| !usable.contains(*name) && !documented.contains(*name))
            .collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
        assert!(named(text).len() > 10);
    }
    let on_page: BTreeSet<String> = named(PAGE).into_iter().map(str::to_owned).collect();
    assert_eq!(on_page, documented, "docs/metrics.md names every metric and no other");
}

#[test]
fn the_dashboard_is_one() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let expressions = panel["targets"].as_array().unwrap();
        assert!(!expressions.is_empty(), "{}", panel["title"]);
        for target in expressions {
            let text = target["expr"].as_str().unwrap();
            let opened = text.matches(['(', '{', '[']).count();
            assert_eq!(opened, text.matches([')', '}', ']']).count(), "{text}");
        }
    }
}

#[test]
fn every_rule_has_what_a_person_needs() {
    let rules: serde_json::Value = serde_saphyr::from_str(RULES).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        assert!(rule["expr"].is_string() && rule["labels"]["severity"].is_string(), "{name}");
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].is_string(), "{name} has no {text}");
        }
    }
}
