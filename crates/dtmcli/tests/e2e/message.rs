//! Two-phase messages: with every fate that a local transaction can have.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use dtmcli::axum::{Answer, BranchCall, Done};
use dtmcli::{BranchError, Client, Committed, Delivery, Error, GlobalStatus, Msg};
use dtmcli_test::TestServer;

use crate::database::{Commit, Database};
use crate::service::Service;
use crate::until;

struct Stage {
    server: TestServer,
    dtm: Client,
    service: Service,
    database: Database,
}

/// A service that can be asked whether a message counts.
async fn stage() -> Stage {
    let server = TestServer::start().await;
    let dtm = Client::new(server.url()).unwrap();
    let database = Database::default();
    let asked = database.clone();
    let query = move |BranchCall(branch): BranchCall| async move {
        branch.query_prepared(&asked).await?;
        Answer::Ok(Done)
    };
    let with_query = |router: Router| router.route("/query", get(query));
    let service = Service::start_with(dtm.clone(), with_query).await;
    Stage { server, dtm, service, database }
}

impl Stage {
    fn msg(&self, gid: &str) -> Msg {
        self.dtm.msg().gid(gid).deliver(Delivery::at(self.service.at("/in")).json(&30))
    }

    fn query(&self) -> String {
        self.service.at("/query")
    }
}

#[tokio::test]
async fn it_goes_out_with_the_commit() {
    let stage = stage().await;
    let sent = stage.msg("m-1").commit_with(&stage.database, &stage.query(), async |_| Ok(7)).await;
    assert_eq!(sent.unwrap(), Committed::Now(7));
    until(&stage.dtm, "m-1", GlobalStatus::Succeed).await;
    assert_eq!(stage.service.calls(), ["/in action 01"]);
}

#[tokio::test]
async fn it_does_not_go_out_without() {
    let stage = stage().await;
    let refuse = async |_: &mut _| Err::<(), _>(BranchError::failure("no money"));
    let error =
        stage.msg("m-2").commit_with(&stage.database, &stage.query(), refuse).await.unwrap_err();
    assert!(matches!(error, Error::Aborted { .. }), "{error:?}");
    until(&stage.dtm, "m-2", GlobalStatus::Failed).await;
    assert_eq!(*stage.database.commits.lock().unwrap(), 0);
    assert_eq!(stage.service.calls(), [""; 0]);
}

#[tokio::test]
async fn a_lost_confirmation_is_found_out() {
    let stage = stage().await;
    *stage.database.next.lock().unwrap() = Commit::DoneButLost;
    let sent = stage.msg("m-3").commit_with(&stage.database, &stage.query(), async |_| Ok(7)).await;
    assert_eq!(sent.unwrap(), Committed::Before);
    until(&stage.dtm, "m-3", GlobalStatus::Succeed).await;

    *stage.database.next.lock().unwrap() = Commit::LostBefore;
    let sent = stage.msg("m-4").commit_with(&stage.database, &stage.query(), async |_| Ok(7)).await;
    assert!(matches!(sent, Err(Error::Aborted { .. })), "{sent:?}");
    until(&stage.dtm, "m-4", GlobalStatus::Failed).await;
}

#[tokio::test]
async fn a_lost_sender_is_asked_for() {
    let stage = stage().await;
    for (gid, commits, end) in
        [("m-5", true, GlobalStatus::Succeed), ("m-6", false, GlobalStatus::Failed)]
    {
        let message = stage.msg(gid).prepare(&stage.query()).await.unwrap();
        if commits {
            let branch = message.branch().unwrap();
            branch.barrier(&stage.database, async |_| Ok(())).await.unwrap();
        }
        drop(message);
        stage.server.clock().forward(Duration::from_secs(60)).await;
        until(&stage.dtm, gid, end).await;
    }
    assert_eq!(stage.service.calls(), ["/in action 01"]);
}

#[tokio::test]
async fn any_local_transaction_will_do() {
    let stage = stage().await;
    let query = stage.query();
    let database = &stage.database;
    let sent = stage.msg("m-7").commit_by(&query, async |branch| {
        branch.barrier(database, async |_| Ok(())).await?;
        Ok("paid")
    });
    assert_eq!(sent.await.unwrap().into_value(), Some("paid"));
    until(&stage.dtm, "m-7", GlobalStatus::Succeed).await;

    // It broke, and nobody knows when: the question is asked from here, and finds the commit.
    let sent = stage.msg("m-8").commit_by(&query, async |branch| {
        branch.barrier(database, async |_| Ok(())).await?;
        Err::<(), _>(BranchError::retry("the connection broke"))
    });
    assert_eq!(sent.await.unwrap(), Committed::Before);
    until(&stage.dtm, "m-8", GlobalStatus::Succeed).await;

    // The same before the commit.
    let sent = stage
        .msg("m-9")
        .commit_by(&query, async |_| Err::<(), _>(BranchError::retry("the connection broke")));
    assert!(matches!(sent.await, Err(Error::Aborted { .. })));
    until(&stage.dtm, "m-9", GlobalStatus::Failed).await;

    // And when there is nobody to ask.
    let sent = stage.msg("m-10").commit_by("http://127.0.0.1:1/query", async |_| {
        Err::<(), _>(BranchError::retry("the connection broke"))
    });
    let error = sent.await.unwrap_err();
    assert!(matches!(error, Error::Unclear { .. }) && error.is_unknown(), "{error:?}");
}

#[tokio::test]
async fn a_delay_puts_the_delivery_off() {
    let stage = stage().await;
    stage.msg("m-11").delay(Duration::from_secs(600)).submit().await.unwrap();
    let error = stage.dtm.wait("m-11", Duration::from_millis(250)).await.unwrap_err();
    assert!(matches!(error, Error::Unfinished { .. }), "{error:?}");
    assert_eq!(stage.service.calls(), [""; 0]);
    stage.server.clock().forward(Duration::from_secs(601)).await;
    until(&stage.dtm, "m-11", GlobalStatus::Succeed).await;
}

#[tokio::test]
async fn a_used_gid_commits_nothing() {
    let stage = stage().await;
    let send = || stage.msg("m-12");
    send().commit_with(&stage.database, &stage.query(), async |_| Ok(())).await.unwrap();
    until(&stage.dtm, "m-12", GlobalStatus::Succeed).await;
    let again = send().commit_with(&stage.database, &stage.query(), async |_| Ok(())).await;
    assert!(matches!(again, Err(Error::Failure { what: "prepare", .. })), "{again:?}");
    assert_eq!(*stage.database.commits.lock().unwrap(), 1);
}
