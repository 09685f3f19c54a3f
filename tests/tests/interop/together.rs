//! One barrier table, services in several languages: what one of them has done or called off, the
//! others know.

use dtmd_tests::until;
use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};

use crate::languages::{Language, Play};
use crate::{Stage, bank};

const START: i64 = 1000;
const SUM: i64 = 30;

struct Service {
    name: &'static str,
    url: String,
}

impl Service {
    fn at(&self, operation: &str) -> String {
        format!("{}/{operation}", self.url)
    }

    /// Calls an operation as a transaction manager would; returns the HTTP status.
    async fn call(&self, stage: &Stage, operation: &str, query: &str, account: &str) -> u16 {
        let url = format!("{}?{query}", self.at(operation));
        let order = json!({ "account": account, "amount": SUM });
        stage.dtm.client.http().post(&url, &order).await.unwrap().status
    }
}

impl Stage {
    async fn open(&self, account: &str) {
        let mut conn = self.pool.get_conn().await.unwrap();
        let sql = "insert into account (name, balance) values (?, ?)";
        conn.exec_drop(sql, (account, START)).await.unwrap();
    }

    async fn balance(&self, account: &str) -> (i64, i64) {
        let mut conn = self.pool.get_conn().await.unwrap();
        let sql = "select balance, held from account where name = ?";
        conn.exec_first(sql, (account,)).await.unwrap().unwrap()
    }

    /// Runs a saga of (action, compensation, account) to its end and returns its status.
    async fn saga(&self, gid: &str, steps: &[(String, String, &str)]) -> String {
        let urls: Vec<Value> =
            steps.iter().map(|(a, c, _)| json!({ "action": a, "compensate": c })).collect();
        let payloads: Vec<String> = steps
            .iter()
            .map(|(_, _, account)| json!({ "account": account, "amount": SUM }).to_string())
            .collect();
        let body = json!({
            "gid": gid, "trans_type": "saga", "retry_interval": 1, "steps": urls, "payloads": payloads,
        });
        self.dtm.post_ok("submit", &body).await;
        until(&format!("an end of {gid}"), async || {
            let status = self.dtm.status(gid).await;
            matches!(status.as_str(), "succeed" | "failed").then_some(status)
        })
        .await
    }
}

#[tokio::test]
async fn services_of_several_languages_share_a_barrier_table() {
    let stage = Stage::start().await;
    let mut running = Vec::new();
    for language in Language::ALL {
        if let Some(ready) = language.ready() {
            running.push(ready.command(&stage, Play::Service).serve().await);
        }
    }
    let mut services: Vec<Service> =
        running.iter().map(|one| Service { name: one.name, url: one.url.clone() }).collect();
    services.push(Service { name: "rust", url: bank::serve(stage.pool.clone()).await });

    all_in_one_saga(&stage, &services).await;
    for first in &services {
        for second in &services {
            done_by_one_undone_by_the_other(&stage, first, second).await;
            refused_by_one_undone_by_the_other(&stage, first, second).await;
            done_once_by_two(&stage, first, second).await;
            cancelled_before_it_was_tried(&stage, first, second).await;
        }
    }
}

/// Every service takes from one account, the next one in the row gives it to another.
async fn all_in_one_saga(stage: &Stage, services: &[Service]) {
    stage.open("all-from").await;
    stage.open("all-into").await;
    let next = services.iter().cycle().skip(1);
    let steps: Vec<_> = services
        .iter()
        .zip(next)
        .flat_map(|(one, next)| {
            [
                (one.at("out"), one.at("outUndo"), "all-from"),
                (next.at("in"), next.at("inUndo"), "all-into"),
            ]
        })
        .collect();
    assert_eq!(stage.saga("all", &steps).await, "succeed");
    let moved = SUM * i64::try_from(services.len()).unwrap();
    assert_eq!(stage.balance("all-from").await, (START - moved, 0));
    assert_eq!(stage.balance("all-into").await, (START + moved, 0));

    let refused = (services[0].at("refuse"), services[0].at("nothing"), "all-from");
    let steps: Vec<_> = steps.into_iter().chain([refused]).collect();
    assert_eq!(stage.saga("all-back", &steps).await, "failed");
    assert_eq!(stage.balance("all-from").await, (START - moved, 0));
    assert_eq!(stage.balance("all-into").await, (START + moved, 0));
}

/// If the second did not see the first's row, it would take the action for one that never ran,
/// and the money would be gone.
async fn done_by_one_undone_by_the_other(stage: &Stage, first: &Service, second: &Service) {
    let gid = format!("undo-{}-{}", first.name, second.name);
    stage.open(&gid).await;
    let steps = [
        (first.at("out"), second.at("outUndo"), gid.as_str()),
        (first.at("refuse"), second.at("nothing"), gid.as_str()),
    ];
    assert_eq!(stage.saga(&gid, &steps).await, "failed");
    assert_eq!(stage.balance(&gid).await, (START, 0), "{gid}");
}

/// A null compensation, and then the action after all.
async fn refused_by_one_undone_by_the_other(stage: &Stage, first: &Service, second: &Service) {
    if second.name == "java" {
        // DTM's SDK for Java knows null compensation for `cancel` only, not for `compensate`.
        return;
    }
    let gid = format!("null-{}-{}", first.name, second.name);
    stage.open(&gid).await;
    let steps = [(first.at("refuse"), second.at("outUndo"), gid.as_str())];
    assert_eq!(stage.saga(&gid, &steps).await, "failed");
    assert_eq!(stage.balance(&gid).await, (START, 0), "{gid}: nothing was there to be undone");

    let late = format!("gid={gid}&trans_type=saga&branch_id=01&op=action");
    assert_eq!(first.call(stage, "out", &late, &gid).await, 200, "{gid}");
    assert_eq!(stage.balance(&gid).await, (START, 0), "{gid}: an action after its compensation");
}

async fn done_once_by_two(stage: &Stage, first: &Service, second: &Service) {
    let gid = format!("twice-{}-{}", first.name, second.name);
    stage.open(&gid).await;
    let call = format!("gid={gid}&trans_type=saga&branch_id=01&op=action");
    assert_eq!(first.call(stage, "out", &call, &gid).await, 200, "{gid}");
    assert_eq!(second.call(stage, "out", &call, &gid).await, 200, "{gid}");
    assert_eq!(stage.balance(&gid).await, (START - SUM, 0), "{gid}");
}

async fn cancelled_before_it_was_tried(stage: &Stage, first: &Service, second: &Service) {
    let gid = format!("cancel-{}-{}", first.name, second.name);
    stage.open(&gid).await;
    let cancel = format!("gid={gid}&trans_type=tcc&branch_id=01&op=cancel");
    assert_eq!(second.call(stage, "unhold", &cancel, &gid).await, 200, "{gid}");
    let late = format!("gid={gid}&trans_type=tcc&branch_id=01&op=try");
    assert_eq!(first.call(stage, "hold", &late, &gid).await, 200, "{gid}");
    assert_eq!(stage.balance(&gid).await, (START, 0), "{gid}");
}
