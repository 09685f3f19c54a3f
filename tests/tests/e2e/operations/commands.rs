//! `dtmd tx`, `dtmd topic` and `dtmd store` against a real server and its directory.

use dtmd_tests::{Cli, Says, Server, Service, cli, cli_at, saga, until, with};
use serde_json::{Value, json};

use crate::turn;

async fn run(server: &Server, args: &[&str]) -> Cli {
    cli_at(Some(server.process.url()), args).await
}

/// Runs a command that must succeed and returns what it printed.
async fn ok(server: &Server, args: &[&str]) -> String {
    let done = run(server, args).await;
    assert_eq!(done.code, Some(0), "{args:?}: {}{}", done.stdout, done.stderr);
    done.stdout
}

#[tokio::test]
async fn transactions_are_listed_shown_and_acted_on() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/a", [Says::error(), Says::success()]);
    let body = with(saga("slow", &[service.step("a")]), json!({ "retry_interval": 1000 }));
    server.post_ok("submit", &body).await;
    server.post_ok("prepare", &json!({ "gid": "tcc", "trans_type": "tcc" })).await;
    server.post_ok("prepare", &json!({ "gid": "xa", "trans_type": "xa" })).await;
    until("an attempt on record", async || {
        let query = server.query("slow").await;
        (query["branches"][1]["attempts"] == 1).then_some(())
    })
    .await;

    let list = ok(&server, &["tx", "ls"]).await;
    assert!(["slow", "tcc", "xa", "submitted"].iter().all(|word| list.contains(word)), "{list}");
    let list = ok(&server, &["tx", "ls", "--status", "prepared", "--type", "xa"]).await;
    assert!(list.contains("xa") && !list.contains("slow"), "{list}");
    let shown = ok(&server, &["tx", "get", "slow"]).await;
    assert!(shown.contains("submitted") && shown.contains(&service.at("/a")), "{shown}");
    let answer = ok(&server, &["tx", "get", "slow", "-o", "json"]).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["transaction"]["gid"], "slow");

    ok(&server, &["tx", "retry", "slow"]).await;
    server.wait_status("slow", "succeed").await;
    ok(&server, &["tx", "abort", "tcc", "--reason", "ordered twice"]).await;
    let query = server.wait_status("tcc", "failed").await;
    assert_eq!(query["transaction"]["rollback_reason"], "ordered twice");
    ok(&server, &["tx", "stop", "xa"]).await;
    assert_eq!(server.status("xa").await, "failed");

    for (args, code) in [
        (["tx", "get", "none"], 1),
        (["tx", "stop", "xa"], 1),
        (["tx", "retry", "none"], 1),
        (["tx", "frobnicate", "x"], 2),
    ] {
        let refused = run(&server, &args).await;
        assert_eq!(refused.code, Some(code), "{args:?}: {}{}", refused.stdout, refused.stderr);
        assert!(!refused.stderr.is_empty(), "{args:?}");
    }
    let absent = cli_at(Some("http://127.0.0.1:1"), &["tx", "ls"]).await;
    assert_eq!(absent.code, Some(3), "{}", absent.stderr);
}

#[tokio::test]
async fn topics_are_listed_and_changed() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    ok(&server, &["topic", "subscribe", "paid", "http://s/mail", "--remark", "mail"]).await;
    ok(&server, &["topic", "subscribe", "paid", "http://s/stock"]).await;
    let list = ok(&server, &["topic", "ls"]).await;
    assert!(
        ["paid", "http://s/mail", "mail", "http://s/stock"].iter().all(|word| list.contains(word)),
        "{list}"
    );
    ok(&server, &["topic", "unsubscribe", "paid", "http://s/mail"]).await;
    assert!(!ok(&server, &["topic", "ls"]).await.contains("http://s/mail"));
    ok(&server, &["topic", "delete", "paid"]).await;
    assert!(!ok(&server, &["topic", "ls"]).await.contains("paid"));
    assert_eq!(run(&server, &["topic", "delete", "paid"]).await.code, Some(1));
}

#[tokio::test]
async fn a_store_is_checked_and_exported_without_a_server() {
    let _turn = turn::shared().await;
    let mut server = Server::start().await;
    server.assert_serves("done").await;
    server.post_ok("prepare", &json!({ "gid": "open", "trans_type": "tcc" })).await;
    assert_eq!(server.get("subscribe?topic=t&url=http://s/a").await.status, 200);
    server.process.terminate().await.unwrap();
    let data = server.data();
    let data = data.to_str().unwrap();

    let checked = cli(&["store", "check", data]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let text = "1 unfinished transactions, 1 finished, 1 keys";
    assert!(
        checked.stdout.contains(text) && checked.stdout.contains("the store is whole"),
        "{}",
        checked.stdout
    );
    let exported = cli(&["store", "export", data]).await;
    assert_eq!(exported.code, Some(0), "{}", exported.stderr);
    let lines: Vec<Value> =
        exported.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{}", exported.stdout);
    for gid in ["done", "open"] {
        assert!(exported.stdout.contains(&format!("\"{gid}\"")), "{gid} is missing");
    }
    assert_eq!(cli(&["store", "check", "/no/such/directory"]).await.code, Some(1));
    server.process.restart().await.unwrap();
    assert_eq!(server.status("open").await, "prepared", "neither changed anything");
}
