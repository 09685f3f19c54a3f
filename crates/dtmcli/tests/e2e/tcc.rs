//! TCC and XA, and every way in which an application can leave them.

use std::time::Duration;

use dtmcli::{BranchError, Client, Error, GlobalStatus, TccBranch, Try, XaCall};

use crate::service::{Say, Service};
use crate::{stage, until};

fn branch(service: &Service, path: &str) -> TccBranch {
    Try::at(service.at(&format!("{path}/try")))
        .confirm(service.at(&format!("{path}/confirm")))
        .cancel(service.at(&format!("{path}/cancel")))
        .json(&30)
}

#[tokio::test]
async fn a_tcc_is_confirmed() {
    let (_server, dtm, service) = stage().await;
    let order = String::from("borrowed by the closure");
    let tcc = dtm.tcc().wait_at_most(crate::PATIENCE);
    let length = tcc
        .run(async |tcc| {
            let reply = tcc.branch(branch(&service, "/a")).await?;
            assert_eq!(reply.text(), dtmcli::SUCCESS_BODY);
            tcc.branch(branch(&service, "/b")).await?;
            Ok(order.len())
        })
        .await
        .unwrap();
    assert_eq!(length, order.len());
    let calls =
        ["/a/try try 01", "/b/try try 02", "/b/confirm confirm 02", "/a/confirm confirm 01"];
    assert_eq!(service.calls(), calls);
}

#[tokio::test]
async fn a_refused_try_cancels_all() {
    let (_server, dtm, service) = stage().await;
    service.answer("/b/try", &[Say::Failure]);
    let run = dtm.tcc().gid("t-1").run(async |tcc| {
        tcc.branch(branch(&service, "/a")).await?;
        tcc.branch(branch(&service, "/b")).await?;
        Ok(())
    });
    match run.await.unwrap_err() {
        Error::Aborted { gid, cause: BranchError::Failure(reason) } => {
            assert_eq!(gid, "t-1");
            assert!(reason.contains("the test says no"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let end = until(&dtm, "t-1", GlobalStatus::Failed).await;
    assert!(end.rollback_reason.contains("the test says no"), "{end:?}");
    assert_eq!(service.count("/a/cancel cancel 01"), 1);
    assert_eq!(service.count("/b/cancel cancel 02"), 1);
}

#[tokio::test]
async fn branches_may_be_tried_at_once() {
    let (_server, dtm, service) = stage().await;
    dtm.tcc()
        .wait_at_most(crate::PATIENCE)
        .run(async |tcc| {
            let (a, b) = tokio::join!(
                tcc.branch(branch(&service, "/a")),
                tcc.branch(branch(&service, "/b"))
            );
            a?;
            b?;
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(service.calls().len(), 4);
}

#[tokio::test]
async fn a_panic_aborts_and_goes_on() {
    let (_server, dtm, service) = stage().await;
    let (client, bank) = (dtm.clone(), service.clone());
    let run = tokio::spawn(async move {
        let run = client.tcc().gid("t-2").run(async |tcc| {
            tcc.branch(branch(&bank, "/a")).await?;
            if bank.count("/a/try try 01") == 1 {
                panic!("the application is broken");
            }
            Ok(())
        });
        run.await
    });
    assert!(run.await.unwrap_err().is_panic());
    let end = until(&dtm, "t-2", GlobalStatus::Failed).await;
    assert!(end.rollback_reason.contains("the application is broken"), "{end:?}");
    assert_eq!(service.count("/a/cancel cancel 01"), 1);
}

#[tokio::test]
async fn a_dropped_future_aborts() {
    let (_server, dtm, service) = stage().await;
    service.answer("/b/try", &[Say::Nothing]);
    let run = dtm.tcc().gid("t-3").run(async |tcc| {
        tcc.branch(branch(&service, "/a")).await?;
        tcc.branch(branch(&service, "/b")).await?;
        Ok(())
    });
    tokio::select! {
        ended = run => panic!("it ended: {ended:?}"),
        () = service.called("/b/try try 02") => {}
    }
    let end = until(&dtm, "t-3", GlobalStatus::Failed).await;
    assert!(end.rollback_reason.contains("dropped"), "{end:?}");
    assert_eq!(service.count("/a/cancel cancel 01"), 1);
    assert_eq!(service.count("/b/cancel cancel 02"), 1);
}

#[tokio::test]
async fn nested_branches_share_the_decision() {
    let (_server, dtm, service) = stage().await;
    let nested = || {
        Try::at(service.at("/nested"))
            .confirm(service.at("/nothing"))
            .cancel(service.at("/nothing"))
    };
    dtm.tcc()
        .branch_header("x-trace", "7")
        .wait_at_most(crate::PATIENCE)
        .run(async |tcc| tcc.branch(nested().json(&1)).await)
        .await
        .unwrap();
    for call in ["/left/try try 0101", "/right/confirm confirm 0102", "/left/confirm confirm 0101"]
    {
        assert_eq!(service.count(call), 1, "{call} in {:?}", service.calls());
    }

    service.answer("/right/try", &[Say::Failure]);
    let run = dtm.tcc().gid("t-4").branch_header("x-trace", "7");
    let error = run.run(async |tcc| tcc.branch(nested().json(&1)).await).await.unwrap_err();
    assert!(error.is_rolled_back(), "{error:?}");
    until(&dtm, "t-4", GlobalStatus::Failed).await;
    assert_eq!(service.count("/left/cancel cancel 0101"), 1);
}

#[tokio::test]
async fn too_late_is_refused() {
    let (server, dtm, service) = stage().await;
    let (clock, client) = (server.clock(), &dtm);
    let run = dtm.tcc().gid("t-5").run(async |tcc| {
        tcc.branch(branch(&service, "/a")).await?;
        clock.forward(Duration::from_secs(60)).await;
        until(client, "t-5", GlobalStatus::Failed).await;
        let refused = tcc.branch(branch(&service, "/b")).await;
        assert!(refused.as_ref().is_err_and(BranchError::is_failure), "{refused:?}");
        Ok(())
    });
    // The business is content, but the server is not.
    let error = run.await.unwrap_err();
    assert!(matches!(error, Error::Failure { what: "submit", .. }), "{error:?}");
    assert_eq!(service.count("/b/try try 02"), 0);
}

#[tokio::test]
async fn a_tcc_in_a_task_of_its_own() {
    fn assert_send<T: Send>(future: T) -> T {
        future
    }
    let (_server, dtm, service) = stage().await;
    let run = assert_send(async move {
        dtm.tcc().run(async |tcc| tcc.branch(branch(&service, "/a")).await).await
    });
    tokio::spawn(run).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_xa_calls_and_submits() {
    let (_server, dtm, service) = stage().await;
    dtm.xa()
        .gid("x-1")
        .wait_at_most(crate::PATIENCE)
        .run(async |xa| {
            xa.call(XaCall::at(service.at("/a")).json(&30)).await?;
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(service.calls(), ["/a action 01"]);

    service.answer("/b", &[Say::Failure]);
    let run = dtm.xa().gid("x-2");
    let error = run
        .run(async |xa| xa.call(XaCall::at(service.at("/b")).json(&30)).await)
        .await
        .unwrap_err();
    assert!(error.is_rolled_back(), "{error:?}");
    until(&dtm, "x-2", GlobalStatus::Failed).await;
}

#[tokio::test]
async fn an_xa_branch_is_registered_by_its_service() {
    let (_server, dtm, service) = stage().await;
    let register = async |client: &Client, gid: &str, url: &str| {
        let query = format!("gid={gid}&trans_type=xa&branch_id=01&op=action&phase2_url={url}");
        let branch = dtmcli::Branch::from_query(&query).unwrap();
        client.register_xa(&branch).await
    };
    let url = service.at("/xa");
    dtm.xa()
        .gid("x-3")
        .wait_at_most(crate::PATIENCE)
        .run(async |_| {
            register(&dtm, "x-3", &url).await?;
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(service.calls(), ["/xa commit 01"]);
    let late = register(&dtm, "x-3", &url).await;
    assert!(late.as_ref().is_err_and(BranchError::is_failure), "{late:?}");
}
