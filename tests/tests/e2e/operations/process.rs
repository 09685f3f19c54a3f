//! Starting and stopping.

use std::time::Duration;

use dtmd_tests::{Says, Server, Service, cli, saga};
use serde_json::json;

use crate::turn;

#[tokio::test]
async fn a_directory_has_one_server_at_a_time() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let data = server.data();
    let second = cli(&["serve", "--data", data.to_str().unwrap(), "--http-port", "0"]).await;
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(second.stderr.contains(data.to_str().unwrap()), "{}", second.stderr);
    let text = second.stderr.to_lowercase();
    assert!(text.contains("another") || text.contains("in use"), "it is not clear: {text}");
    server.assert_serves("g").await;
}

#[tokio::test]
async fn what_is_not_done_in_time_is_handed_back_and_goes_on_after_the_next_start() {
    let _turn = turn::shared().await;
    let service = Service::start().await;
    let mut server = Server::start_with(&[], &[("SHUTDOWN_TIMEOUT", "1")]).await;
    service.script("/a", [Says::success().after(Duration::from_secs(3600)), Says::success()]);
    let body = dtmd_tests::with(saga("g", &[service.step("a")]), json!({ "request_timeout": 600 }));
    server.post_ok("submit", &body).await;
    service.wait_calls("/a", 1).await;
    server.process.terminate().await.unwrap();
    server.process.restart().await.unwrap();
    server.wait_status("g", "succeed").await;
    assert_eq!(service.calls("/a").len(), 2);
}

#[tokio::test]
async fn a_file_with_dtms_keys_is_understood() {
    let _turn = turn::shared().await;
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("dtm.yml");
    let text = "Store:\n  Driver: boltdb\n  FinishedDataExpire: 3600\nTransCronInterval: 2\n\
                TimeoutToFail: 45\nRetryInterval: 15\nRequestTimeout: 4\nLogLevel: 'warn'\n\
                UpdateBranchSync: 1\nMicroService:\n  Driver: 'default'\n";
    std::fs::write(&file, text).unwrap();
    let server = Server::start_with(&["-c", file.to_str().unwrap()], &[]).await;
    server.post_ok("prepare", &json!({ "gid": "g", "trans_type": "tcc" })).await;
    assert_eq!(server.status("g").await, "prepared");
    let service = Service::start().await;
    service.script("/a", [Says::error()]);
    server.post_ok("submit", &saga("s", &[service.step("a")])).await;
    let query = dtmd_tests::until("an attempt on record", async || {
        let query = server.query("s").await;
        (query["branches"][1]["attempts"] == 1).then_some(query)
    })
    .await;
    let interval = query["transaction"]["next_cron_interval"].as_u64().unwrap();
    assert!((15..=33).contains(&interval), "RetryInterval is not the file's: {interval}");
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_a_suggestion() {
    let _turn = turn::shared().await;
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("dtm.yml");
    for (text, named) in
        [("RetryIntervall: 15\n", "RetryInterval"), ("RetryInterval: 3\n", "RetryInterval")]
    {
        std::fs::write(&file, text).unwrap();
        let refused = cli(&["serve", "-c", file.to_str().unwrap(), "--http-port", "0"]).await;
        assert_eq!(refused.code, Some(1), "{text}: {}", refused.stderr);
        assert!(refused.stderr.contains(named), "{text}: {}", refused.stderr);
    }
}

#[tokio::test]
async fn a_reset_empties_the_store() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    server.assert_serves("g").await;
    let folder = server.stop().await;
    let server = Server::try_start(folder, &["--reset"], &[]).await.unwrap();
    assert_eq!(server.status("g").await, "");
    server.assert_serves("h").await;
}
