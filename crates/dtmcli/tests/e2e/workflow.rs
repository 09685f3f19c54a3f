//! Workflows over HTTP: replay, both ends, and being resumed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use dtmcli::{
    BranchError, BranchResult, Call, Client, Error, GlobalStatus, TransOptions, Try, Workflow,
    Workflows,
};
use dtmcli_test::TestServer;

use crate::service::{Say, Service};
use crate::until;

struct Stage {
    server: TestServer,
    dtm: Client,
    service: Service,
    workflows: Workflows,
    /// How often the local step ran.
    ran: Arc<AtomicUsize>,
}

/// A service with the workflow `transfer`: a local step, two calls, a TCC branch.
async fn stage() -> Stage {
    let server = TestServer::start().await;
    let dtm = Client::new(server.url()).unwrap();
    let service = Service::start(dtm.clone()).await;
    let ran = Arc::new(AtomicUsize::new(0));
    // The callback has a listener of its own, for its address is in the registry that it serves.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let callback = format!("http://{}/workflows", listener.local_addr().unwrap());
    let (bank, count) = (service.clone(), Arc::clone(&ran));
    let workflows = Workflows::builder(dtm.clone(), callback)
        .options(TransOptions::new().retry_interval(Duration::from_secs(5)))
        .register("transfer", move |wf, amount| {
            transfer(wf, amount, bank.clone(), Arc::clone(&count))
        })
        .register("careless", |mut wf: Workflow, url: String| async move {
            let lost = wf.step().call(Call::post(url)).await;
            assert!(lost.is_err());
            Ok("never mind")
        })
        .build()
        .unwrap();
    let router: Router = workflows.router("/workflows");
    tokio::spawn(async move { axum::serve(listener, router).await });
    Stage { server, dtm, service, workflows, ran }
}

async fn transfer(
    mut wf: Workflow,
    amount: i64,
    bank: Service,
    ran: Arc<AtomicUsize>,
) -> BranchResult<String> {
    let fee = wf
        .step()
        .on_rollback(|phase| async move {
            assert_eq!(phase.branch().op().as_str(), "rollback");
            Ok(())
        })
        .run(async |branch| {
            ran.fetch_add(1, Ordering::SeqCst);
            assert_eq!((branch.branch_id(), branch.op().as_str()), ("01", "action"));
            Ok(amount / 10)
        })
        .await?;
    let call = |path: &str| Call::post(bank.at(path)).json(&(amount - fee));
    wf.step().undo(call("/out/undo")).call(call("/out")).await?;
    let held = Try::at(bank.at("/fee/try"))
        .confirm(bank.at("/fee/confirm"))
        .cancel(bank.at("/fee/cancel"))
        .json(&fee);
    wf.tcc(held).await?;
    wf.step().undo(call("/in/undo")).call(call("/in")).await?;
    Ok(format!("moved {}", amount - fee))
}

#[tokio::test]
async fn a_workflow_succeeds_once() {
    let stage = stage().await;
    let execute = || stage.workflows.execute::<String>("transfer", "w-1", &30);
    assert_eq!(execute().await.unwrap(), "moved 27");
    let calls = ["/out action 02", "/fee/try action 03", "/in action 04", "/fee/confirm commit 03"];
    assert_eq!(stage.service.calls(), calls);
    // Again: the recorded result, and nothing is done.
    assert_eq!(execute().await.unwrap(), "moved 27");
    assert_eq!((stage.service.calls().len(), stage.ran.load(Ordering::SeqCst)), (4, 1));
}

#[tokio::test]
async fn a_refused_step_undoes_those_before() {
    let stage = stage().await;
    stage.service.answer("/in", &[Say::Failure]);
    let execute = || stage.workflows.execute::<String>("transfer", "w-2", &30);
    for _ in 0..2 {
        match execute().await.unwrap_err() {
            Error::RolledBack { gid, reason } => {
                assert_eq!(gid, "w-2");
                assert!(reason.contains("the test says no"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    let calls = [
        "/out action 02",
        "/fee/try action 03",
        "/in action 04",
        // Not /in/undo: what failed has nothing to undo.
        "/fee/cancel rollback 03",
        "/out/undo rollback 02",
    ];
    assert_eq!(stage.service.calls(), calls);
    until(&stage.dtm, "w-2", GlobalStatus::Failed).await;
}

#[tokio::test]
async fn the_server_resumes_what_was_given_up() {
    let stage = stage().await;
    stage.service.answer("/in", &[Say::Nothing]);
    {
        let execute = stage.workflows.execute::<String>("transfer", "w-3", &30);
        tokio::select! {
            ended = execute => panic!("it ended: {ended:?}"),
            () = stage.service.called("/in action 04") => {}
        }
        // The handler has crashed: its future is gone, in the middle of a step.
    }
    stage.server.clock().forward(Duration::from_secs(60)).await;
    until(&stage.dtm, "w-3", GlobalStatus::Succeed).await;
    assert_eq!(stage.ran.load(Ordering::SeqCst), 1);
    assert_eq!(stage.service.count("/out action 02"), 1);
    assert_eq!(stage.service.count("/in action 04"), 2);
    let result: String = stage.workflows.execute("transfer", "w-3", &30).await.unwrap();
    assert_eq!(result, "moved 27");
}

#[tokio::test]
async fn the_server_resumes_what_was_suspended() {
    let stage = stage().await;
    stage.service.answer("/out", &[Say::Retry]);
    let error = stage.workflows.execute::<String>("transfer", "w-4", &30).await.unwrap_err();
    assert!(matches!(error, Error::Suspended { .. }) && error.is_retryable(), "{error:?}");
    // The undo of a later failure is broken for a while; it is repeated, and only it.
    stage.service.answer("/in", &[Say::Failure]);
    stage.service.answer("/out/undo", &[Say::Failure]);
    stage.server.clock().forward(Duration::from_secs(60)).await;
    stage.server.clock().forward(Duration::from_secs(600)).await;
    until(&stage.dtm, "w-4", GlobalStatus::Failed).await;
    let count = |call| stage.service.count(call);
    assert_eq!((count("/out action 02"), count("/out/undo rollback 02")), (2, 2));
    assert_eq!((count("/in action 04"), count("/fee/cancel rollback 03")), (1, 1));
}

#[tokio::test]
async fn an_unknown_outcome_cannot_be_swallowed() {
    let stage = stage().await;
    stage.service.answer("/lost", &[Say::Retry]);
    let url = stage.service.at("/lost");
    let error = stage.workflows.execute::<String>("careless", "w-5", &url).await.unwrap_err();
    assert!(matches!(error, Error::Suspended { .. }), "{error:?}");
    let found = stage.dtm.query("w-5").await.unwrap().unwrap();
    assert_eq!(found.status, GlobalStatus::Prepared);
}

#[tokio::test]
async fn one_run_at_a_time() {
    let stage = stage().await;
    stage.service.answer("/out", &[Say::Nothing]);
    let first = stage.workflows.execute::<String>("transfer", "w-6", &30);
    let second = async {
        stage.service.called("/out action 02").await;
        stage.workflows.resume("transfer", "w-6", "30".into()).await
    };
    tokio::select! {
        ended = first => panic!("it ended: {ended:?}"),
        refused = second => {
            assert!(refused.as_ref().is_err_and(BranchError::is_ongoing), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn a_name_is_registered_once() {
    let stage = stage().await;
    let builder = || Workflows::builder(stage.dtm.clone(), "http://127.0.0.1:1/x");
    let one = async |_: Workflow, (): ()| Ok(());
    let twice = builder().register("a", one).register("a", one).build();
    assert!(matches!(twice, Err(Error::Invalid(_))), "{twice:?}");
    let none = Workflows::builder(stage.dtm.clone(), "").build();
    assert!(matches!(none, Err(Error::Invalid(_))), "{none:?}");
    let unknown = stage.workflows.execute::<()>("other", "w-7", &()).await;
    assert!(matches!(unknown, Err(Error::Invalid(_))), "{unknown:?}");
    assert_eq!(stage.dtm.query("w-7").await.unwrap(), None);
}
