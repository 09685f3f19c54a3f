//! Every case of the barrier, on every adapter.

use std::time::Duration;

use dtmcli_barrier::{
    Admission, Branch, BranchError, BranchResult, LocalOutcome, Op, PurgeError, SqlTx, Value, purge,
};

use crate::fixture::{Db, Fixture, book, fresh_gid, kill, lossy_proxy, open};

/// Rounds of each race.
const ROUNDS: usize = 25;
/// How often a call that lost a race against a deadlock is repeated.
const RETRIES_MAX: usize = 50;

/// The table: one row a case, one column an adapter.
macro_rules! cases {
    ($($adapter:ident: [$($case:ident),* $(,)?])*) => { $(
        mod $adapter {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(&crate::fixture::open::$adapter().await).await;
                }
            )*

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn the_answer_to_a_commit_is_lost() {
                let fixture = crate::fixture::open::$adapter().await;
                if !fixture.url.starts_with("sqlite") {
                    let proxy = super::lossy_proxy(&fixture.url).await;
                    let db = super::open::connect::$adapter(&proxy.url).await;
                    super::the_answer_to_a_commit_is_lost(&fixture, &db, &proxy.armed).await;
                }
            }
        }
    )* };
}

cases! {
    sqlx_mysql: [call_after_call, a_joined_transaction, a_business_error, a_panic,
        an_abandoned_future, a_lost_connection, action_against_compensation, a_message,
        a_message_against_its_query, purging, a_table_of_ones_own]
    sqlx_postgres: [call_after_call, a_joined_transaction, a_business_error, a_panic,
        an_abandoned_future, a_lost_connection, action_against_compensation, a_message,
        a_message_against_its_query, purging, a_table_of_ones_own, a_swallowed_error]
    sqlx_sqlite: [call_after_call, a_joined_transaction, a_business_error, a_panic,
        an_abandoned_future, action_against_compensation, a_message,
        a_message_against_its_query, purging, a_table_of_ones_own]
    mysql_async: [call_after_call, a_joined_transaction, a_business_error, a_panic,
        an_abandoned_future, a_lost_connection, action_against_compensation, a_message,
        a_message_against_its_query, purging, a_table_of_ones_own]
    tokio_postgres: [call_after_call, a_joined_transaction, a_business_error, a_panic,
        an_abandoned_future, a_lost_connection, action_against_compensation, a_message,
        a_message_against_its_query, purging, a_table_of_ones_own, a_swallowed_error]
    sea_orm_mysql: [call_after_call, a_joined_transaction, a_business_error, a_panic,
        an_abandoned_future, a_lost_connection, action_against_compensation, a_message,
        a_message_against_its_query, purging, a_table_of_ones_own]
    sea_orm_postgres: [call_after_call, a_joined_transaction, a_business_error, a_panic,
        an_abandoned_future, a_lost_connection, action_against_compensation, a_message,
        a_message_against_its_query, purging, a_table_of_ones_own, a_swallowed_error]
    sea_orm_sqlite: [call_after_call, a_joined_transaction, a_business_error, a_panic,
        an_abandoned_future, action_against_compensation, a_message,
        a_message_against_its_query, purging, a_table_of_ones_own]
}

async fn call<D: Db>(db: &D, branch: &Branch) -> BranchResult {
    branch.at(1).barrier(db, async |tx| book(tx, branch).await).await
}

/// First call, duplicate, null compensation, hanging action, for sagas and TCC.
async fn call_after_call<D: Db>(fixture: &Fixture<D>) {
    for (calls, done) in [
        ("action", "action"),
        ("action action", "action"),
        ("action compensate compensate", "action compensate"),
        ("compensate", ""),
        ("compensate action compensate", ""),
        ("try confirm confirm", "confirm try"),
        ("try cancel", "cancel try"),
        ("cancel try cancel", ""),
        ("action rollback", "action rollback"),
        ("rollback action", ""),
    ] {
        let gid = fresh_gid();
        for op in calls.split(' ') {
            let branch = fixture.branch(op.parse().unwrap());
            let branch = Branch::new(branch.trans_type(), &gid, "01", branch.op().clone()).unwrap();
            call(&fixture.db, &branch).await.unwrap();
        }
        assert_eq!(fixture.ledger(&gid).await.join(" "), done, "{calls}");
    }
}

async fn a_joined_transaction<D: Db>(fixture: &Fixture<D>) {
    let branch = fixture.branch(Op::Action);
    for (round, expected) in [Admission::Run, Admission::Duplicate].into_iter().enumerate() {
        let mut tx = fixture.db.begin().await.unwrap();
        let admission = branch.at(1).barrier_in(&mut tx).await.unwrap();
        assert_eq!(admission, expected, "{round}");
        if admission.must_run() {
            book(&mut tx, &branch).await.unwrap();
        }
        D::commit(tx).await.unwrap();
    }
    assert_eq!(fixture.ledger(&fixture.gid).await, ["action"]);
    // Two barriers of one call, in one transaction, do not take each other for a duplicate.
    let mut tx = fixture.db.begin().await.unwrap();
    let two = fixture.branch(Op::Confirm);
    assert!(two.barrier_in(&mut tx).await.unwrap().must_run());
    assert!(two.barrier_in(&mut tx).await.unwrap().must_run());
    D::rollback(tx).await.unwrap();
    // What was rolled back was not done.
    let mut tx = fixture.db.begin().await.unwrap();
    assert!(two.at(1).barrier_in(&mut tx).await.unwrap().must_run());
    D::rollback(tx).await.unwrap();
}

async fn a_business_error<D: Db>(fixture: &Fixture<D>) {
    let branch = fixture.branch(Op::Action);
    let answer = branch
        .at(1)
        .barrier(&fixture.db, async |tx| {
            book(tx, &branch).await?;
            Err(BranchError::failure("no money"))
        })
        .await;
    assert!(answer.unwrap_err().is_failure());
    assert!(fixture.ledger(&fixture.gid).await.is_empty());
    // Nothing ran, so nothing is to be undone.
    call(&fixture.db, &fixture.branch(Op::Compensate)).await.unwrap();
    assert!(fixture.ledger(&fixture.gid).await.is_empty());
}

async fn a_panic<D: Db>(fixture: &Fixture<D>) {
    let (db, branch) = (fixture.db.clone(), fixture.branch(Op::Action));
    let task = tokio::spawn(async move {
        let fault = branch.gid().len();
        branch
            .barrier(&db, async |tx| {
                book(tx, &branch).await?;
                assert_eq!(fault, 0, "the business panics");
                Ok(())
            })
            .await
    });
    assert!(task.await.unwrap_err().is_panic());
    assert!(fixture.ledger(&fixture.gid).await.is_empty());
    call(&fixture.db, &fixture.branch(Op::Action)).await.unwrap();
    assert_eq!(fixture.ledger(&fixture.gid).await, ["action"]);
}

async fn an_abandoned_future<D: Db>(fixture: &Fixture<D>) {
    let (db, branch) = (fixture.db.clone(), fixture.branch(Op::Action));
    let (booked, waiting) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        branch
            .barrier(&db, async |tx| {
                book(tx, &branch).await?;
                let _ = booked.send(());
                std::future::pending().await
            })
            .await
    });
    waiting.await.unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    call(&fixture.db, &fixture.branch(Op::Action)).await.unwrap();
    assert_eq!(fixture.ledger(&fixture.gid).await, ["action"]);
}

async fn a_lost_connection<D: Db>(fixture: &Fixture<D>) {
    let branch = fixture.branch(Op::Action);
    let answer = branch
        .at(1)
        .barrier(&fixture.db, async |tx| {
            book(tx, &branch).await?;
            kill(&fixture.db, tx).await;
            Ok(())
        })
        .await;
    assert!(matches!(answer, Err(BranchError::Retry(_))), "{answer:?}");
    assert!(fixture.ledger(&fixture.gid).await.is_empty());
    call(&fixture.db, &branch).await.unwrap();
    assert_eq!(fixture.ledger(&fixture.gid).await, ["action"]);
}

async fn the_answer_to_a_commit_is_lost<D: Db>(
    fixture: &Fixture<D>,
    lossy: &D,
    armed: &std::sync::atomic::AtomicBool,
) {
    let message = Branch::message(&fixture.gid).unwrap();
    let outcome = message
        .local_transaction(lossy, async |tx| {
            book(tx, &message).await?;
            armed.store(true, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        })
        .await;
    armed.store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(matches!(outcome, LocalOutcome::Unknown(BranchError::Retry(_))), "{outcome:?}");
    // It was committed, and that is what asking says.
    message.query_prepared(lossy).await.unwrap();
    assert_eq!(fixture.ledger(&fixture.gid).await, ["msg"]);
    let again = message.at(1).local_transaction(lossy, async |_tx| Ok(())).await;
    assert!(matches!(again, LocalOutcome::AlreadyCommitted), "{again:?}");
}

/// Repeats a call as a transaction manager does, until it is answered.
async fn until_answered<D: Db>(db: D, branch: Branch) {
    for _ in 0..RETRIES_MAX {
        match call(&db, &branch).await {
            Ok(()) => return,
            Err(BranchError::Retry(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("never answered");
}

async fn action_against_compensation<D: Db>(fixture: &Fixture<D>) {
    let mut undone = 0;
    for _ in 0..ROUNDS {
        let gid = fresh_gid();
        let branch = |op: Op| {
            let of = fixture.branch(op);
            Branch::new(of.trans_type(), &gid, "01", of.op().clone()).unwrap()
        };
        let calls = [Op::Action, Op::Compensate, Op::Action, Op::Compensate]
            .map(|op| tokio::spawn(until_answered(fixture.db.clone(), branch(op))));
        for call in calls {
            call.await.unwrap();
        }
        match fixture.ledger(&gid).await.join(" ").as_str() {
            "" => {}
            "action compensate" => undone += 1,
            other => panic!("of an action and its compensation these ran: {other:?}"),
        }
    }
    assert!(undone <= ROUNDS);
}

async fn a_message<D: Db>(fixture: &Fixture<D>) {
    let message = Branch::message(&fixture.gid).unwrap();
    let outcome = message
        .local_transaction(&fixture.db, async |tx| {
            book(tx, &message).await?;
            Ok(7)
        })
        .await;
    assert!(matches!(outcome, LocalOutcome::Committed(7)), "{outcome:?}");
    message.query_prepared(&fixture.db).await.unwrap();
    message.query_prepared(&fixture.db).await.unwrap();

    let other = fresh_gid();
    let message = Branch::message(&other).unwrap();
    for _ in 0..2 {
        assert!(message.query_prepared(&fixture.db).await.unwrap_err().is_failure());
    }
    let late = message.local_transaction(&fixture.db, async |tx| book(tx, &message).await).await;
    assert!(matches!(late, LocalOutcome::RolledBack(error) if error.is_failure()));
    assert!(fixture.ledger(&other).await.is_empty());

    let failed = Branch::message(&fresh_gid()).unwrap();
    let outcome: LocalOutcome<()> =
        failed.local_transaction(&fixture.db, async |_tx| Err(BranchError::retry("no idea"))).await;
    assert!(matches!(outcome, LocalOutcome::RolledBack(BranchError::Retry(_))));
    assert!(failed.query_prepared(&fixture.db).await.unwrap_err().is_failure());
}

async fn a_message_against_its_query<D: Db>(fixture: &Fixture<D>) {
    for _ in 0..ROUNDS {
        let message = Branch::message(&fresh_gid()).unwrap();
        let (db, asked) = (fixture.db.clone(), message.clone());
        let query = tokio::spawn(async move {
            for _ in 0..RETRIES_MAX {
                match asked.query_prepared(&db).await {
                    Ok(()) => return true,
                    Err(error) if error.is_failure() => return false,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
            panic!("never answered")
        });
        let outcome =
            message.local_transaction(&fixture.db, async |tx| book(tx, &message).await).await;
        let counts = query.await.unwrap();
        let done = !fixture.ledger(message.gid()).await.is_empty();
        assert_eq!(counts, done, "{outcome:?}");
        assert_eq!(matches!(outcome, LocalOutcome::Committed(())), done, "{outcome:?}");
    }
}

async fn purging<D: Db>(fixture: &Fixture<D>) {
    let old = fixture.branch(Op::Action);
    call(&fixture.db, &old).await.unwrap();
    let table = fixture.db.begin().await.unwrap().dialect().default_barrier_table();
    let aged = format!("update {table} set create_time = '2001-01-01 00:00:00' where gid = ?");
    let mut tx = fixture.db.begin().await.unwrap();
    assert_eq!(tx.execute(&aged, &[Value::Text(old.gid())]).await.unwrap(), 1);
    D::commit(tx).await.unwrap();
    let young = Branch::message(&fresh_gid()).unwrap();
    call(&fixture.db, &young).await.unwrap();

    let day = Duration::from_secs(86_400);
    assert!(matches!(
        purge(&fixture.db, None, Duration::from_secs(60)).await,
        Err(PurgeError::TooYoung)
    ));
    // Others may purge the same table at the same time, so the count is not ours alone.
    purge(&fixture.db, None, day).await.unwrap();
    assert_eq!(purge(&fixture.db, None, day).await.unwrap(), 0);
    young.query_prepared(&fixture.db).await.unwrap();
    let mut tx = fixture.db.begin().await.unwrap();
    assert!(old.at(1).barrier_in(&mut tx).await.unwrap().must_run());
    D::rollback(tx).await.unwrap();
}

async fn a_table_of_ones_own<D: Db>(fixture: &Fixture<D>) {
    let table: dtmcli_barrier::TableName = "guard".parse().unwrap();
    dtmcli_barrier::create_table(&fixture.db, Some(&table)).await.unwrap();
    let message = Branch::message(&fixture.gid).unwrap().with_table(table);
    assert!(message.query_prepared(&fixture.db).await.unwrap_err().is_failure());
    // The default table has no such row: both the insert and the read used the other (D50).
    let default = Branch::message(&fixture.gid).unwrap();
    let done = default.local_transaction(&fixture.db, async |_tx| Ok(())).await;
    assert!(matches!(done, LocalOutcome::Committed(())));
    assert!(message.query_prepared(&fixture.db).await.unwrap_err().is_failure());
}

/// PostgreSQL answers the commit of a transaction it has aborted without an error.
async fn a_swallowed_error<D: Db>(fixture: &Fixture<D>) {
    let branch = fixture.branch(Op::Action);
    let answer = branch
        .at(1)
        .barrier(&fixture.db, async |tx| {
            book(tx, &branch).await?;
            let _ = tx.execute("insert into no_such_table values (1)", &[]).await;
            Ok(())
        })
        .await;
    assert!(matches!(answer, Err(BranchError::Retry(_))), "{answer:?}");
    call(&fixture.db, &branch).await.unwrap();
    assert_eq!(fixture.ledger(&fixture.gid).await, ["action"]);
}

/// A transaction of the bare driver, without any pool.
#[tokio::test]
async fn a_transaction_of_tokio_postgres_is_joined() {
    let fixture = open::tokio_postgres().await;
    let (mut client, connection) =
        ::tokio_postgres::connect(&fixture.url, ::tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let branch = fixture.branch(Op::Compensate);
    for expected in [Admission::NullCompensation, Admission::Duplicate] {
        let mut tx = client.transaction().await.unwrap();
        assert_eq!(branch.at(1).barrier_in(&mut tx).await.unwrap(), expected);
        tx.commit().await.unwrap();
    }
    let mut tx = client.transaction().await.unwrap();
    let late = fixture.branch(Op::Action).barrier_in(&mut tx).await.unwrap();
    assert_eq!(late, Admission::Hanging);
    tx.commit().await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
}
