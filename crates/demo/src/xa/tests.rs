//! XA against private database servers; skipped, with a word, where they are not installed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use http::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::*;
use crate::serve::{Handler, Reply, WholeRequest, serve};
use dtmd_local_servers::{DatabaseOptions, Mariadb, Postgres};

/// A transaction manager that only registers branches; if told so it refuses, or lets the caller
/// wait until it is released.
#[derive(Default)]
struct Registrar {
    refuses: AtomicBool,
    holds: AtomicBool,
    arrived: Notify,
    release: Notify,
    registered: AtomicU32,
}

struct Shared(Arc<Registrar>);

impl Handler for Shared {
    async fn handle(&self, request: WholeRequest) -> Reply {
        assert_eq!(request.uri().path(), "/api/dtmsvr/registerBranch");
        if self.0.holds.load(Ordering::SeqCst) {
            self.0.arrived.notify_one();
            self.0.release.notified().await;
        }
        if self.0.refuses.load(Ordering::SeqCst) {
            let text = "no trans with gid: g status: prepared found FAILURE";
            return Reply::Json(StatusCode::CONFLICT, json!({ "message": text }));
        }
        self.0.registered.fetch_add(1, Ordering::SeqCst);
        Reply::Json(StatusCode::OK, json!({ "dtm_result": "SUCCESS" }))
    }
}

struct Fixture {
    url: String,
    ledger: XaLedger,
    registrar: Arc<Registrar>,
    dtm: String,
}

impl Fixture {
    async fn new(url: &str) -> Self {
        let registrar = Arc::new(Registrar::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dtm = format!("http://{}/api/dtmsvr", listener.local_addr().unwrap());
        let handler = Arc::new(Shared(Arc::clone(&registrar)));
        tokio::spawn(async move { match serve(listener, handler).await {} });
        let ledger = XaLedger::open(url, "a").await.unwrap();
        ledger.open_account("alice", 100).await.unwrap();
        Self { url: url.to_owned(), ledger, registrar, dtm }
    }

    fn call(&self, gid: &str) -> XaCall {
        XaCall {
            gid: gid.to_owned(),
            branch_id: "01".to_owned(),
            dtm: self.dtm.clone(),
            phase2_url: "http://bank/xa".to_owned(),
        }
    }

    async fn alice(&self) -> i64 {
        self.ledger.balance("alice").await.unwrap().unwrap()
    }

    async fn prepared(&self) -> Vec<String> {
        prepared(&self.url).await.unwrap()
    }
}

async fn commits_once(fixture: &Fixture) {
    let call = fixture.call("commit");
    assert_eq!(fixture.ledger.action(&call, "alice", -30).await.unwrap(), Admission::Run);
    assert_eq!(fixture.prepared().await, ["commit-01"]);
    assert_eq!(fixture.alice().await, 100, "prepared is not committed");
    // A repeated action meets the lock of the prepared one: its outcome is unknown, not success.
    let again = fixture.ledger.action(&call, "alice", -30).await;
    assert!(matches!(again, Err(XaError::Unknown(_))), "{again:?}");
    fixture.ledger.commit(&call).await.unwrap();
    assert_eq!(fixture.alice().await, 70);
    fixture.ledger.commit(&call).await.unwrap();
    let late = fixture.ledger.action(&call, "alice", -30).await.unwrap();
    assert_eq!(late, Admission::Duplicate);
    assert_eq!(fixture.alice().await, 70);
    assert!(fixture.prepared().await.is_empty());
}

async fn rolls_back_once(fixture: &Fixture) {
    let call = fixture.call("rollback");
    fixture.ledger.action(&call, "alice", -30).await.unwrap();
    fixture.ledger.rollback(&call).await.unwrap();
    fixture.ledger.rollback(&call).await.unwrap();
    assert_eq!(fixture.alice().await, 70);
    let late = fixture.ledger.action(&call, "alice", -30).await.unwrap();
    assert_eq!(late, Admission::Hanging, "the barrier row keeps a late action out");
    assert!(fixture.prepared().await.is_empty());
}

async fn refusals_leave_nothing_behind(fixture: &Fixture) {
    let call = fixture.call("refused");
    let poor = fixture.ledger.action(&call, "alice", -71).await;
    assert!(matches!(poor, Err(XaError::Refused(_))), "{poor:?}");
    fixture.registrar.refuses.store(true, Ordering::SeqCst);
    let refused = fixture.ledger.action(&call, "alice", -30).await;
    assert!(matches!(refused, Err(XaError::Refused(_))), "{refused:?}");
    fixture.registrar.refuses.store(false, Ordering::SeqCst);
    assert!(fixture.prepared().await.is_empty());
    assert_eq!(fixture.alice().await, 70);
}

/// A rollback that comes while the local phase is still open must not be answered with success:
/// the transaction could be prepared afterwards, and nobody would roll it back.
async fn a_rollback_waits_for_the_open_transaction(fixture: &Fixture) {
    let call = fixture.call("open");
    fixture.registrar.holds.store(true, Ordering::SeqCst);
    let local = fixture.ledger.action(&call, "alice", -30);
    let rollback = async {
        fixture.registrar.arrived.notified().await;
        let early = fixture.ledger.rollback(&call).await;
        fixture.registrar.release.notify_one();
        early
    };
    let (local, early) = tokio::join!(local, rollback);
    assert!(matches!(early, Err(XaError::Unknown(_))), "{early:?}");
    assert_eq!(local.unwrap(), Admission::Run);
    fixture.registrar.holds.store(false, Ordering::SeqCst);
    fixture.ledger.rollback(&call).await.unwrap();
    assert!(fixture.prepared().await.is_empty());
    assert_eq!(fixture.alice().await, 70);
}

async fn all_of_it(url: &str) {
    let fixture = Fixture::new(url).await;
    commits_once(&fixture).await;
    rolls_back_once(&fixture).await;
    refusals_leave_nothing_behind(&fixture).await;
    a_rollback_waits_for_the_open_transaction(&fixture).await;
    assert_eq!(fixture.ledger.total().await.unwrap(), 70);
    assert_eq!(fixture.registrar.registered.load(Ordering::SeqCst), 3);
    drop_tables(url).await.unwrap();
    assert!(fixture.ledger.total().await.is_err(), "the tables are gone");
}

#[expect(clippy::print_stdout, reason = "a test that is skipped must say so")]
fn skipped(why: &str) {
    println!("skipped: {why}");
}

#[tokio::test]
async fn mariadb() {
    if let Err(why) = Mariadb::available() {
        return skipped(&why);
    }
    let mut server = Mariadb::start(DatabaseOptions::default()).await.unwrap();
    all_of_it(&server.url()).await;
    // What is prepared outlives a killed database.
    let fixture = Fixture::new(&server.url()).await;
    let call = fixture.call("killed");
    fixture.ledger.action(&call, "alice", -30).await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(fixture.prepared().await, ["killed-01"]);
    fixture.ledger.commit(&call).await.unwrap();
    assert_eq!(fixture.alice().await, 70);
}

#[tokio::test]
async fn postgres() {
    if let Err(why) = Postgres::available() {
        return skipped(&why);
    }
    let mut server = Postgres::start(DatabaseOptions { fsync: true }).await.unwrap();
    all_of_it(&server.url()).await;
    // What is prepared outlives a killed database.
    let fixture = Fixture::new(&server.url()).await;
    let call = fixture.call("killed");
    fixture.ledger.action(&call, "alice", -30).await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(fixture.prepared().await, ["killed-01"]);
    fixture.ledger.commit(&call).await.unwrap();
    assert_eq!(fixture.alice().await, 70);
}

#[test]
fn xids_that_could_not_stand_in_a_statement_are_refused() {
    let call = |gid: &str, branch_id: &str| XaCall {
        gid: gid.to_owned(),
        branch_id: branch_id.to_owned(),
        dtm: String::new(),
        phase2_url: String::new(),
    };
    assert_eq!(call("g.1:a_b", "0102").xid().unwrap(), "g.1:a_b-0102");
    for (gid, branch_id) in
        [("g'1", "01"), ("", "01"), ("g", ""), ("g", "01'; drop"), (&"g".repeat(62), "01")]
    {
        assert!(matches!(call(gid, branch_id).xid(), Err(XaError::Refused(_))), "{gid}");
    }
}

#[tokio::test]
async fn a_url_of_another_database_is_refused() {
    let error = XaLedger::open("redis://localhost", "a").await.unwrap_err();
    assert!(error.to_string().contains("mysql://"), "{error}");
}
