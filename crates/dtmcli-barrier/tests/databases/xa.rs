//! XA branches on MariaDB and PostgreSQL, two drivers each.

use std::time::{Duration, Instant};

use ::mysql_async::prelude::Queryable as _;
use dtmcli_barrier::xa::{Decision, Outcome, Resolved, XaDb, resolve_dangling};
use dtmcli_barrier::{Branch, BranchError, BranchResult, Op, SqlTx as _, TransType};
use dtmd_local_servers::{DatabaseOptions, Mariadb, Postgres};

use crate::fixture::{Db, Fixture, book, fresh_gid, open, pause};

/// The longest that a branch may have to be called again.
const PATIENCE: Duration = Duration::from_secs(20);

macro_rules! cases {
    ($($adapter:ident: [$($case:ident),* $(,)?])*) => { $(
        mod $adapter {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(&crate::fixture::open::$adapter().await).await;
                }
            )*
        }
    )* };
}

cases! {
    sqlx_mysql: [commits_twice, rolls_back_twice, an_unknown_xid, failures_leave_nothing,
        one_endpoint, a_panic]
    mysql_async: [commits_twice, rolls_back_twice, an_unknown_xid, failures_leave_nothing,
        one_endpoint, a_panic]
    sqlx_postgres: [commits_twice, rolls_back_twice, an_unknown_xid, failures_leave_nothing,
        one_endpoint, a_panic]
    tokio_postgres: [commits_twice, rolls_back_twice, an_unknown_xid, failures_leave_nothing,
        one_endpoint, a_panic]
}

fn branch(gid: &str, op: Op) -> Branch {
    Branch::new(TransType::Xa, gid, "01", op).unwrap()
}

async fn local<D: Db + XaDb>(db: &D, gid: &str) -> BranchResult {
    let branch = branch(gid, Op::Action);
    branch.xa_local(db, async || Ok(()), async |xa| book(xa, &branch).await).await
}

/// Calls phase two as a transaction manager does: again while it is told to. MariaDB lets go of a
/// prepared branch a moment after its connection was closed, and is not believed before.
async fn finish<D: Db + XaDb>(db: &D, gid: &str, op: Op) -> BranchResult {
    let branch = branch(gid, op);
    let begun = Instant::now();
    loop {
        match branch.xa_finish(db).await {
            Err(BranchError::Retry(_)) if begun.elapsed() < PATIENCE => pause().await,
            answer => return answer,
        }
    }
}

async fn prepared<D: Db + XaDb>(db: &D, gid: &str) -> bool {
    db.xa_recover().await.unwrap().contains(&format!("{gid}-01"))
}

async fn commits_twice<D: Db + XaDb>(fixture: &Fixture<D>) {
    let gid = &fixture.gid;
    local(&fixture.db, gid).await.unwrap();
    assert!(prepared(&fixture.db, gid).await);
    assert!(fixture.ledger(gid).await.is_empty(), "prepared is not committed");
    finish(&fixture.db, gid, Op::Commit).await.unwrap();
    finish(&fixture.db, gid, Op::Commit).await.unwrap();
    assert_eq!(fixture.ledger(gid).await, ["action"]);
    assert!(!prepared(&fixture.db, gid).await);
    // The action is repeated after all was committed: nothing runs again.
    local(&fixture.db, gid).await.unwrap();
    assert_eq!(fixture.ledger(gid).await, ["action"]);
    assert!(!prepared(&fixture.db, gid).await);
}

async fn rolls_back_twice<D: Db + XaDb>(fixture: &Fixture<D>) {
    let gid = &fixture.gid;
    local(&fixture.db, gid).await.unwrap();
    finish(&fixture.db, gid, Op::Rollback).await.unwrap();
    finish(&fixture.db, gid, Op::Rollback).await.unwrap();
    assert!(fixture.ledger(gid).await.is_empty());
    assert!(!prepared(&fixture.db, gid).await);
}

/// A rollback overtakes the local phase, which must not run any more.
async fn an_unknown_xid<D: Db + XaDb>(fixture: &Fixture<D>) {
    finish(&fixture.db, &fixture.gid, Op::Rollback).await.unwrap();
    let late = local(&fixture.db, &fixture.gid).await;
    assert!(late.unwrap_err().is_failure());
    assert!(fixture.ledger(&fixture.gid).await.is_empty());
    assert!(!prepared(&fixture.db, &fixture.gid).await);
    // As in DTM: a commit of what the database does not know counts as done.
    finish(&fixture.db, &fresh_gid(), Op::Commit).await.unwrap();
}

async fn failures_leave_nothing<D: Db + XaDb>(fixture: &Fixture<D>) {
    let (db, gid) = (&fixture.db, &fixture.gid);
    let action = branch(gid, Op::Action);
    let refused = async || Err(BranchError::failure("the global transaction is aborting"));
    let answer = action.xa_local(db, refused, async |xa| book(xa, &action).await).await;
    assert!(answer.unwrap_err().is_failure());
    let answer = action
        .xa_local(
            db,
            async || Ok(()),
            async |xa| {
                book(xa, &action).await?;
                Err(BranchError::ongoing("not yet"))
            },
        )
        .await;
    assert!(answer.unwrap_err().is_ongoing());
    let answer = action
        .xa_local(
            db,
            async || Ok(()),
            async |xa| {
                book(xa, &action).await?;
                let _ = xa.execute("insert into no_such_table values (1)", &[]).await;
                xa.execute("insert into no_such_table values (2)", &[])
                    .await
                    .map_err(BranchError::retry)?;
                Ok(())
            },
        )
        .await;
    assert!(matches!(answer, Err(BranchError::Retry(_))));
    assert!(fixture.ledger(gid).await.is_empty());
    assert!(!prepared(db, gid).await);

    let unsafe_gid = Branch::new(TransType::Xa, "it's", "01", Op::Commit).unwrap();
    assert!(matches!(unsafe_gid.xa_finish(db).await, Err(BranchError::Retry(_))));
    // And the same branch may still go on.
    local(db, gid).await.unwrap();
    finish(db, gid, Op::Commit).await.unwrap();
    assert_eq!(fixture.ledger(gid).await, ["action"]);
}

async fn one_endpoint<D: Db + XaDb>(fixture: &Fixture<D>) {
    for op in [Op::Action, Op::Commit, Op::Commit] {
        let branch = branch(&fixture.gid, op);
        let begun = Instant::now();
        loop {
            let called =
                branch.xa(&fixture.db, async || Ok(()), async |xa| book(xa, &branch).await).await;
            match called {
                // As in `finish`.
                Err(BranchError::Retry(_)) if begun.elapsed() < PATIENCE => pause().await,
                answer => break answer.unwrap(),
            }
        }
    }
    assert_eq!(fixture.ledger(&fixture.gid).await, ["action"]);
}

async fn a_panic<D: Db + XaDb>(fixture: &Fixture<D>) {
    let (db, gid) = (fixture.db.clone(), fixture.gid.clone());
    let task = tokio::spawn(async move {
        let branch = branch(&gid, Op::Action);
        let fault = gid.len();
        branch
            .xa_local(
                &db,
                async || Ok(()),
                async |xa| {
                    book(xa, &branch).await?;
                    assert_eq!(fault, 0, "the business panics");
                    Ok(())
                },
            )
            .await
    });
    assert!(task.await.unwrap_err().is_panic());
    // The server needs a moment to see that the connection has gone.
    while let Err(error) = local(&fixture.db, &fixture.gid).await {
        assert!(matches!(error, BranchError::Retry(_)), "{error}");
        pause().await;
    }
    finish(&fixture.db, &fixture.gid, Op::Commit).await.unwrap();
    assert_eq!(fixture.ledger(&fixture.gid).await, ["action"]);
}

/// MariaDB answers "unknown" about a branch that another connection still holds. Taking that for
/// "done" would lose the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_held_by_its_connection_is_not_done() {
    let fixture = open::mysql_async().await;
    let mut conn = ::mysql_async::Conn::from_url(&fixture.url).await.unwrap();
    let gid = &fixture.gid;
    for sql in [
        format!("xa start '{gid}-01'"),
        format!("insert into ledger (gid, op) values ('{gid}', 'action')"),
        format!("xa end '{gid}-01'"),
        format!("xa prepare '{gid}-01'"),
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    let answer = branch(gid, Op::Commit).xa_finish(&fixture.db).await;
    assert!(matches!(answer, Err(BranchError::Retry(_))), "{answer:?}");
    conn.disconnect().await.unwrap();
    finish(&fixture.db, gid, Op::Commit).await.unwrap();
    assert_eq!(fixture.ledger(gid).await, ["action"]);
}

/// Three prepared branches survive a killed server and are finished as the transaction manager says.
async fn dangling<D: Db + XaDb>(
    db: &D,
    ledger: impl AsyncFn(&str) -> Vec<String>,
    gids: [&str; 3],
) {
    let [to_commit, to_roll_back, open] = gids;
    let resolved = resolve_dangling(db, async |gid| {
        Ok(match gid {
            gid if gid == to_commit => Outcome::Decided(Decision::Commit),
            gid if gid == to_roll_back => Outcome::Decided(Decision::Rollback),
            _ => Outcome::Leave,
        })
    })
    .await
    .unwrap();
    assert_eq!(resolved, Resolved { committed: 1, rolled_back: 1, left: 1, failed: 0 });
    assert_eq!(ledger(to_commit).await, ["action"]);
    assert!(ledger(to_roll_back).await.is_empty());
    assert!(prepared(db, open).await);
    // A transaction manager that cannot be asked costs nothing.
    let resolved = resolve_dangling(db, async |_gid| Err(BranchError::retry("not reachable")));
    let expected = Resolved { failed: 1, ..Resolved::default() };
    assert_eq!(resolved.await.unwrap(), expected);
    finish(db, open, Op::Rollback).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_survive_a_killed_mariadb() {
    let mut server = Mariadb::start(DatabaseOptions::default()).await.unwrap();
    let url = server.url();
    let fixture = Fixture::new(open::connect::mysql_async(&url).await, url.clone(), None).await;
    let gids = [fresh_gid(), fresh_gid(), fresh_gid()];
    for gid in &gids {
        local(&fixture.db, gid).await.unwrap();
    }
    server.kill_9().await.unwrap();
    server.restart().await.unwrap();
    let db = open::connect::mysql_async(&server.url()).await;
    let after = Fixture { db: db.clone(), ..fixture };
    dangling(&db, async |gid: &str| after.ledger(gid).await, gids.each_ref().map(|gid| &**gid))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_survive_a_killed_postgres() {
    let mut server = Postgres::start(DatabaseOptions::default()).await.unwrap();
    let url = server.url();
    let fixture = Fixture::new(open::connect::tokio_postgres(&url).await, url.clone(), None).await;
    let gids = [fresh_gid(), fresh_gid(), fresh_gid()];
    for gid in &gids {
        local(&fixture.db, gid).await.unwrap();
    }
    server.kill_9().await.unwrap();
    server.restart().await.unwrap();
    let db = open::connect::tokio_postgres(&server.url()).await;
    let after = Fixture { db: db.clone(), ..fixture };
    dangling(&db, async |gid: &str| after.ledger(gid).await, gids.each_ref().map(|gid| &**gid))
        .await;
}
