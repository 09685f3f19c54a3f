//! Moving from DTM to dtmd on DTM's database, with both at work, and back again.

use dtmd_demo::client::DtmClient;
use dtmd_local_servers::{DatabaseOptions, DtmProgram, Mariadb};
use dtmd_tests::{Says, Server, Service, pairs, saga, store_env, tell, until, with};
use serde_json::{Value, json};

use crate::languages::built;

/// Transactions that each of two servers is given while both are at work.
const EACH: usize = 20;

/// What an unfinished transaction of every kind is left with, and how it has to end.
const LEFT: [(&str, &str); 5] = [
    ("saga", "succeed"),
    ("undo", "failed"),
    ("msg", "succeed"),
    ("tcc", "failed"),
    ("tcc-submitted", "succeed"),
];

#[tokio::test]
async fn moving_from_dtm_and_back_on_its_database() {
    let program = match DtmProgram::make(built("dtm-server")) {
        Ok(program) => program,
        Err(why) => return tell(&format!("moving from DTM was NOT tried: {why}")),
    };
    let mariadb = Mariadb::start(DatabaseOptions { fsync: false }).await.unwrap();
    mariadb.make_database("dtm").await.unwrap();
    let port = mariadb.port();
    let configuration = format!(
        "Store: {{Driver: mysql, Host: 127.0.0.1, Port: {port}, User: root, Db: dtm}}\n\
         TransCronInterval: 1"
    );
    let start_dtm = async |reset: bool| {
        let dtm = program.start(&configuration, reset).await.unwrap();
        (DtmClient::new(&dtm.url()), dtm)
    };
    let services = Service::start().await;

    // DTM's tables, filled by DTM, which dies.
    let (client, dtm) = start_dtm(true).await;
    leave(&client, &services, "a").await;
    drop(dtm);
    let mut env = store_env("mysql", port, "root", "dtm");
    env.extend(["TRANS_CRON_INTERVAL", "BREAKER_OPEN"].map(|name| (name.into(), "1".into())));
    let dtmd = Server::start_with(&[], &pairs(&env)).await;
    are_ended(&dtmd.client, &services, "a").await;

    // Both of them on the same tables.
    let (client, dtm) = start_dtm(false).await;
    together(&client, &dtmd.client, &services).await;

    // And back.
    drop(dtm);
    leave(&dtmd.client, &services, "b").await;
    drop(dtmd);
    let (client, _dtm) = start_dtm(false).await;
    are_ended(&client, &services, "b").await;
}

/// Sends a request; its transaction is tried again after a second, then at doubled intervals.
async fn send(client: &DtmClient, operation: &str, body: &Value) {
    let options = match (operation, body["trans_type"].as_str()) {
        ("registerBranch", _) => json!({}),
        (_, Some("saga")) => json!({ "retry_interval": 1 }),
        _ => json!({ "retry_interval": 1, "timeout_to_fail": 3 }),
    };
    let body = &with(body.clone(), options);
    let answer = client.post(operation, body).await.unwrap();
    assert_eq!(answer.status, 200, "{operation} {body}: {}", answer.body);
}

/// Begins a transaction of every kind whose services are out of order, or whose sender is lost.
async fn leave(client: &DtmClient, services: &Service, round: &str) {
    let gid = |kind: &str| format!("{round}-{kind}");
    let at = |kind: &str, what: &str| services.at(&format!("/{round}-{kind}/{what}"));
    let down = |kind: &str, what: &str| {
        let errors = [Says::error()];
        services.script(&format!("/{round}-{kind}/{what}"), errors);
    };
    let steps = |kind: &str| {
        let step = |nth: &str| (at(kind, nth), at(kind, &format!("{nth}-undo")));
        vec![step("1"), step("2")]
    };
    down("saga", "2");
    send(client, "submit", &saga(&gid("saga"), &steps("saga"))).await;

    services.script(&format!("/{round}-undo/2"), [Says::failure()]);
    down("undo", "1-undo");
    send(client, "submit", &saga(&gid("undo"), &steps("undo"))).await;

    let message = json!({ "gid": gid("msg"), "trans_type": "msg", "payloads": ["{}"],
        "steps": [{ "action": at("msg", "1") }], "query_prepared": at("msg", "query") });
    down("msg", "query");
    send(client, "prepare", &message).await;

    for kind in ["tcc", "tcc-submitted"] {
        let tcc = json!({ "gid": gid(kind), "trans_type": "tcc" });
        send(client, "prepare", &tcc).await;
        let branch = json!({ "branch_id": "01", "data": "{}",
            "confirm": at(kind, "confirm"), "cancel": at(kind, "cancel") });
        send(client, "registerBranch", &with(tcc.clone(), branch)).await;
        down(kind, "confirm");
        down(kind, "cancel");
        if kind == "tcc-submitted" {
            send(client, "submit", &tcc).await;
        }
    }
    for path in ["saga/2", "undo/1-undo", "tcc-submitted/confirm"] {
        was_called(services, &format!("/{round}-{path}")).await;
    }
}

async fn was_called(services: &Service, path: &str) {
    until(&format!("a call of {path}"), async || (!services.calls(path).is_empty()).then_some(()))
        .await;
}

/// Mends the services and looks at how everything ends.
async fn are_ended(client: &DtmClient, services: &Service, round: &str) {
    for path in ["saga/2", "undo/1-undo", "msg/query", "tcc/cancel", "tcc-submitted/confirm"] {
        services.script(&format!("/{round}-{path}"), []);
    }
    for (kind, end) in LEFT {
        ends(client, &format!("{round}-{kind}"), end).await;
    }
    for path in ["saga/1", "undo/1", "undo/1-undo", "msg/1", "tcc/cancel", "tcc-submitted/confirm"]
    {
        was_called(services, &format!("/{round}-{path}")).await;
    }
    for path in ["saga/1-undo", "saga/2-undo", "tcc/confirm", "tcc-submitted/cancel"] {
        assert!(services.calls(&format!("/{round}-{path}")).is_empty(), "{path} was called");
    }
}

async fn ends(client: &DtmClient, gid: &str, end: &str) {
    until(&format!("{gid} {end}"), async || {
        let answer = client.http().get(&format!("{}/query?gid={gid}", client.base())).await.ok()?;
        (answer.json()["transaction"]["status"] == end).then_some(())
    })
    .await;
}

/// Gives sagas to both servers. Every service fails at first, so that either may end them.
async fn together(one: &DtmClient, other: &DtmClient, services: &Service) {
    let mut all = Vec::new();
    for nth in 0..EACH {
        for (name, client) in [("dtm", one), ("dtmd", other)] {
            let gid = format!("{name}-{nth}");
            let refuses = nth % 2 == 1;
            let last = if refuses { Says::failure() } else { Says::success() };
            services.script(&format!("/{gid}/1"), [Says::error(), Says::success()]);
            services.script(&format!("/{gid}/2"), [Says::error(), last]);
            let step = |nth: &str| {
                (services.at(&format!("/{gid}/{nth}")), services.at(&format!("/{gid}/{nth}-undo")))
            };
            send(client, "submit", &saga(&gid, &[step("1"), step("2")])).await;
            all.push((gid, refuses));
        }
    }
    for (gid, refuses) in &all {
        let end = if *refuses { "failed" } else { "succeed" };
        // What one of them has ended, the other one knows.
        ends(one, gid, end).await;
        ends(other, gid, end).await;
        was_called(services, &format!("/{gid}/1")).await;
        let undone = !services.calls(&format!("/{gid}/1-undo")).is_empty();
        assert_eq!(undone, *refuses, "{gid}");
    }
}
