//! Sagas, and waiting.

use std::time::Duration;

use dtmcli::{Client, Error, GlobalStatus, Step, Transaction};
use dtmcli_test::TestServer;

use crate::service::{Say, Service};
use crate::stage;

const MOMENT: Duration = Duration::from_millis(60);

fn step(service: &Service, path: &str) -> Step {
    Step::at(service.at(&format!("{path}/do")))
        .compensate(service.at(&format!("{path}/undo")))
        .json(&serde_json::json!({ "amount": 30 }))
}

#[tokio::test]
async fn a_saga_is_carried_out_in_order() {
    let (_server, dtm, service) = stage().await;
    let saga = dtm.saga().step(step(&service, "/a")).step(step(&service, "/b"));
    let done = saga.submit().wait().await.unwrap();
    assert_eq!(done.status(), GlobalStatus::Succeed);
    assert_eq!(service.calls(), ["/a/do action 01", "/b/do action 02"]);
    let found = dtm.query(done.gid()).await.unwrap().unwrap();
    assert_eq!((found.trans_type.as_str(), found.branches.len()), ("saga", 4));
}

#[tokio::test]
async fn a_refused_saga_is_undone_in_reverse() {
    let (_server, dtm, service) = stage().await;
    service.answer("/b/do", &[Say::Failure]);
    let saga = dtm.saga().gid("s-1").step(step(&service, "/a")).step(step(&service, "/b"));
    let error = saga.submit().wait().await.unwrap_err();
    match &error {
        Error::RolledBack { gid, reason } => {
            assert_eq!(gid, "s-1");
            assert!(reason.contains("the test says no"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(error.is_rolled_back() && !error.is_retryable());
    let calls =
        ["/a/do action 01", "/b/do action 02", "/b/undo compensate 02", "/a/undo compensate 01"];
    assert_eq!(service.calls(), calls);
}

#[tokio::test]
async fn an_ordered_saga_runs_as_a_graph() {
    let (_server, dtm, service) = stage().await;
    let saga = dtm
        .saga()
        .step(step(&service, "/last").after([1, 2]))
        .step(step(&service, "/left"))
        .step(step(&service, "/right"));
    saga.submit().wait().await.unwrap();
    let calls = service.calls();
    assert_eq!((calls.len(), calls[2].as_str()), (3, "/last/do action 01"));
}

#[tokio::test]
async fn concurrent_steps_do_not_wait_for_each_other() {
    let (_server, dtm, service) = stage().await;
    service.answer("/stuck/do", &[Say::Ongoing]);
    let saga = dtm.saga().concurrent().step(step(&service, "/stuck")).step(step(&service, "/free"));
    let submitted = saga.submit().await.unwrap();
    assert_eq!(submitted.status(), GlobalStatus::Submitted);
    service.called("/free/do action 02").await;
}

#[tokio::test]
async fn what_is_not_finished_is_not_rolled_back() {
    let (server, dtm, service) = stage().await;
    service.answer("/a/do", &[Say::Ongoing]);
    let saga = dtm.saga().gid("s-2").step(step(&service, "/a"));
    let error = saga.submit().wait_at_most(MOMENT).await.unwrap_err();
    assert!(matches!(&error, Error::Unfinished { last, .. } if last == "submitted"), "{error:?}");
    assert!(error.is_unknown() && !error.is_rolled_back());

    server.clock().forward(Duration::from_secs(60)).await;
    let end = dtm.wait("s-2", crate::PATIENCE).await.unwrap();
    assert_eq!(end.status, GlobalStatus::Succeed);
    assert_eq!(service.count("/a/do action 01"), 2);
}

#[tokio::test]
async fn the_options_arrive() {
    let (server, dtm, service) = stage().await;
    service.answer("/a/do", &[Say::Retry, Say::Retry, Say::Retry, Say::Retry]);
    dtm.saga().gid("s-3").retry_limit(2).step(step(&service, "/a")).submit().await.unwrap();
    let end = forward_to_the_end(&server, &dtm, "s-3").await;
    assert!(end.rollback_reason.contains("RetryLimit"), "{end:?}");
    // The first call and two more; one that was on its way when the clock moved may come on top.
    assert!((3..=4).contains(&service.count("/a/do action 01")), "{:?}", service.calls());

    // Another server: the clock of the first is far ahead by now.
    let (server, dtm, service) = stage().await;
    service.answer("/slow/do", &[Say::Nothing]);
    let saga = dtm
        .saga()
        .gid("s-4")
        .request_timeout(MOMENT)
        .timeout_to_fail(Duration::from_millis(1_500))
        .step(step(&service, "/slow"));
    saga.submit().await.unwrap();
    service.called("/slow/do action 01").await;
    let end = forward_to_the_end(&server, &dtm, "s-4").await;
    assert!(end.rollback_reason.contains("Timeout"), "{end:?}");
}

/// Moves the clock until the saga has failed: a pass that is still busy is not made again.
async fn forward_to_the_end(server: &TestServer, dtm: &Client, gid: &str) -> Transaction {
    for _ in 0..100 {
        server.clock().forward(Duration::from_secs(60)).await;
        if let Ok(end) = dtm.wait(gid, MOMENT).await {
            assert_eq!(end.status, GlobalStatus::Failed);
            return end;
        }
    }
    panic!("{gid} does not end: {:?}", dtm.query(gid).await);
}

#[tokio::test]
async fn the_same_gid_is_the_same_saga() {
    let (_server, dtm, service) = stage().await;
    let saga = || dtm.saga().gid("s-5").step(step(&service, "/a")).submit();
    saga().wait().await.unwrap();
    assert!(matches!(saga().await, Err(Error::Failure { .. })));
    // Waiting asks how it ended, and it ended well.
    assert_eq!(saga().wait().await.unwrap().status(), GlobalStatus::Succeed);
    assert_eq!(service.count("/a/do action 01"), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let dtm = Client::new(url).unwrap();
    let error =
        dtm.saga().step(Step::at("http://127.0.0.1:1/x")).submit().wait().await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.is_retryable() && !error.is_unknown());
}

#[tokio::test]
async fn over_json_rpc() {
    let (server, _, service) = stage().await;
    let dtm = Client::builder(server.url()).json_rpc().build().unwrap();
    assert_eq!(dtm.new_gid().await.unwrap().len(), 22);
    dtm.saga().step(step(&service, "/a")).submit().wait().await.unwrap();
    service.answer("/a/do", &[Say::Failure]);
    let error = dtm.saga().step(step(&service, "/a")).submit().wait().await.unwrap_err();
    assert!(error.is_rolled_back(), "{error:?}");
    let unknown = dtm.wait("nobody", MOMENT).await;
    assert!(matches!(unknown, Err(Error::Failure { .. })), "{unknown:?}");
}
