//! XA on real databases: the application's side, the service's, and as a step of a workflow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::any;
use dtmcli::axum::{Answer, BranchCall, Done};
use dtmcli::barrier::create_table;
use dtmcli::xa::XaDb;
use dtmcli::{
    BranchError, BranchResult, Client, Error, GlobalStatus, TransOptions, Workflow, Workflows,
    XaCall,
};
use dtmcli_test::TestServer;
use dtmd_local_servers::shared::{mariadb_database, postgres_database};
use sqlx::{MySqlPool, PgPool};
use tokio::sync::Notify;

use crate::{PATIENCE, until};

const LEDGER: &str = "create table ledger (gid varchar(64) not null, amount bigint not null)";

async fn mariadb() -> MySqlPool {
    let pool = MySqlPool::connect(&mariadb_database().await.unwrap()).await.unwrap();
    create_table(&pool, None).await.unwrap();
    sqlx::raw_sql(LEDGER).execute(&pool).await.unwrap();
    pool
}

async fn postgres() -> PgPool {
    let pool = PgPool::connect(&postgres_database().await.unwrap()).await.unwrap();
    create_table(&pool, None).await.unwrap();
    sqlx::raw_sql(LEDGER).execute(&pool).await.unwrap();
    pool
}

/// The prepared branches of this global transaction.
async fn prepared<D: XaDb>(db: &D, gid: &str) -> usize {
    let all = db.xa_recover().await.unwrap();
    all.iter().filter(|xid| xid.starts_with(gid)).count()
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[derive(Clone)]
struct Banks {
    dtm: Client,
    north: MySqlPool,
    south: PgPool,
}

async fn north(BranchCall(branch): BranchCall, State(banks): State<Banks>) -> Answer {
    let work = async |tx: &mut <MySqlPool as XaDb>::Session| {
        let insert = sqlx::query("insert into ledger values (?, -30)").bind(branch.gid());
        insert.execute(&mut **tx).await?;
        Ok(())
    };
    banks.dtm.xa_branch(&branch, &banks.north, work).await?;
    Ok(Done)
}

async fn south(BranchCall(branch): BranchCall, State(banks): State<Banks>) -> Answer {
    let work = async |tx: &mut <PgPool as XaDb>::Session| {
        let insert = sqlx::query("insert into ledger values ($1, 30)").bind(branch.gid());
        insert.execute(&mut **tx).await?;
        if branch.gid().ends_with("refused") {
            return Err(BranchError::failure("the account is frozen"));
        }
        Ok(())
    };
    banks.dtm.xa_branch(&branch, &banks.south, work).await?;
    Ok(Done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_databases_commit_together_or_not_at_all() {
    let server = TestServer::start().await;
    let dtm = Client::new(server.url()).unwrap();
    let banks = Banks { dtm: dtm.clone(), north: mariadb().await, south: postgres().await };
    let router = Router::new().route("/north", any(north)).route("/south", any(south));
    let url = serve(router.with_state(banks.clone())).await;
    let rows = async || {
        let north: Vec<i64> =
            sqlx::query_scalar("select amount from ledger").fetch_all(&banks.north).await.unwrap();
        let south: Vec<i64> =
            sqlx::query_scalar("select amount from ledger").fetch_all(&banks.south).await.unwrap();
        (north, south)
    };
    for gid in ["xa-e2e-refused", "xa-e2e-done"] {
        let ended = dtm
            .xa()
            .gid(gid)
            .wait_at_most(PATIENCE)
            .run(async |xa| {
                xa.call(XaCall::at(format!("{url}/north"))).await?;
                assert_eq!(prepared(&banks.north, gid).await, 1, "and it is not committed");
                xa.call(XaCall::at(format!("{url}/south"))).await?;
                Ok(())
            })
            .await;
        // As it was asked to wait, both ends have come.
        assert_eq!(prepared(&banks.north, gid).await + prepared(&banks.south, gid).await, 0);
        if gid.ends_with("refused") {
            let error = ended.unwrap_err();
            assert!(matches!(&error, Error::Aborted { cause, .. } if cause.is_failure()));
            assert_eq!(error.gid(), Some(gid));
            assert_eq!(rows().await, (vec![], vec![]));
        } else {
            ended.unwrap();
            assert_eq!(rows().await, (vec![-30], vec![30]));
        }
    }
}

/// What the workflow of these tests does between its XA step and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Ends,
    Refuses,
    DiesOnce,
}

struct Stage {
    server: TestServer,
    dtm: Client,
    workflows: Workflows,
    db: MySqlPool,
    died: Arc<Notify>,
}

async fn workflow_stage(after: After) -> Stage {
    let server = TestServer::start().await;
    let dtm = Client::new(server.url()).unwrap();
    let (db, died) = (mariadb().await, Arc::new(Notify::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let callback = format!("http://{}/workflows", listener.local_addr().unwrap());
    let (pool, bell, dies) = (db.clone(), died.clone(), Arc::new(AtomicBool::new(true)));
    let workflows = Workflows::builder(dtm.clone(), callback)
        .options(TransOptions::new().retry_interval(Duration::from_secs(5)))
        .register("pay", move |wf, amount| {
            pay(wf, amount, after, pool.clone(), bell.clone(), dies.clone())
        })
        .build()
        .unwrap();
    let router: Router = workflows.router("/workflows");
    tokio::spawn(async move { axum::serve(listener, router).await });
    Stage { server, dtm, workflows, db, died }
}

async fn pay(
    mut wf: Workflow,
    amount: i64,
    after: After,
    db: MySqlPool,
    bell: Arc<Notify>,
    dies: Arc<AtomicBool>,
) -> BranchResult<i64> {
    let gid = wf.gid().to_owned();
    wf.xa(&db, async |tx| {
        let insert = sqlx::query("insert into ledger values (?, ?)").bind(&gid).bind(amount);
        insert.execute(&mut **tx).await?;
        Ok(())
    })
    .await?;
    match after {
        After::Refuses => Err(BranchError::failure("the test says no")),
        After::DiesOnce if dies.swap(false, Ordering::SeqCst) => {
            bell.notify_one();
            std::future::pending().await
        }
        After::Ends | After::DiesOnce => Ok(amount),
    }
}

impl Stage {
    async fn rows(&self) -> Vec<i64> {
        sqlx::query_scalar("select amount from ledger").fetch_all(&self.db).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_xa_step_is_committed_with_its_workflow() {
    let stage = workflow_stage(After::Ends).await;
    let execute = || stage.workflows.execute::<i64>("pay", "wf-xa-1", &30);
    assert_eq!(execute().await.unwrap(), 30);
    assert_eq!(execute().await.unwrap(), 30);
    assert_eq!(stage.rows().await, [30]);
    assert_eq!(prepared(&stage.db, "wf-xa-1").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_xa_step_is_rolled_back_with_its_workflow() {
    let stage = workflow_stage(After::Refuses).await;
    let error = stage.workflows.execute::<i64>("pay", "wf-xa-2", &30).await.unwrap_err();
    assert!(error.is_rolled_back(), "{error:?}");
    assert!(stage.rows().await.is_empty());
    assert_eq!(prepared(&stage.db, "wf-xa-2").await, 0);
    until(&stage.dtm, "wf-xa-2", GlobalStatus::Failed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_xa_step_outlives_its_process() {
    let stage = workflow_stage(After::DiesOnce).await;
    tokio::select! {
        ended = stage.workflows.execute::<i64>("pay", "wf-xa-3", &30) => panic!("{ended:?}"),
        () = stage.died.notified() => {}
    }
    assert_eq!(prepared(&stage.db, "wf-xa-3").await, 1);
    assert!(stage.rows().await.is_empty(), "prepared is not committed");
    stage.server.clock().forward(Duration::from_secs(60)).await;
    until(&stage.dtm, "wf-xa-3", GlobalStatus::Succeed).await;
    assert_eq!(stage.rows().await, [30]);
    assert_eq!(prepared(&stage.db, "wf-xa-3").await, 0);
}
