use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::client::{Answer, HttpClient, HttpError, branch_url};

struct Fixture {
    bank: Bank,
    http: HttpClient,
    reports: mpsc::Receiver<CallReport>,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (sender, reports) = mpsc::channel(100);
        let mut config =
            BankConfig::new("a", dir.path().join("a.db")).account("alice", 100).account("bob", 100);
        config.reports = Some(sender);
        let bank = Bank::start(config).await.unwrap();
        Self { bank, http: HttpClient::default(), reports, _dir: dir }
    }

    async fn call(
        &self,
        path: &str,
        trans_type: &str,
        branch_id: &str,
        op: &str,
        body: Value,
    ) -> Result<Answer, HttpError> {
        let url = format!("{}{path}", self.bank.url);
        let url = branch_url(&url, "http://dtm", trans_type, "g", branch_id, op);
        self.http.post(&url, &body).await
    }

    async fn saga(&self, path: &str, op: &str, amount: i64) -> Result<Answer, HttpError> {
        self.call(path, "saga", "01", op, json!({ "account": "alice", "amount": amount })).await
    }

    async fn alice(&self) -> Value {
        let url = format!("{}/balance?account=alice", self.bank.url);
        self.http.get(&url).await.unwrap().json()
    }
}

#[tokio::test]
async fn a_saga_branch_goes_there_and_back() {
    let mut bank = Fixture::start().await;
    assert_eq!(bank.saga("/out", "action", 30).await.unwrap().status, 200);
    assert_eq!(bank.saga("/out", "action", 30).await.unwrap().status, 200);
    assert_eq!(bank.alice().await["balance"], 70);
    let undone = bank.saga("/out-undo", "compensate", 30).await.unwrap();
    assert_eq!(undone.json(), json!({ "dtm_result": "SUCCESS" }));
    assert_eq!(bank.alice().await["balance"], 100);
    let report = bank.reports.recv().await.unwrap();
    assert_eq!((report.path.as_str(), report.admission), ("/out", Some(Admission::Run)));
    let report = bank.reports.recv().await.unwrap();
    assert_eq!(report.admission, Some(Admission::Duplicate));
    let stats = bank.bank.stats();
    assert_eq!((stats.calls, stats.run, stats.duplicates, stats.in_flight), (3, 2, 1, 0));
}

#[tokio::test]
async fn insufficient_funds_and_unknown_accounts_are_failures() {
    let bank = Fixture::start().await;
    let refused = bank.saga("/out", "action", 101).await.unwrap();
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("FAILURE"), "{}", refused.body);
    let body = json!({ "account": "nobody", "amount": 1 });
    let refused = bank.call("/in", "saga", "02", "action", body).await.unwrap();
    assert_eq!(refused.status, 409);
    assert_eq!(bank.bank.stats().failures, 2);
}

#[tokio::test]
async fn calls_that_are_not_understood_are_not_failures_of_the_business() {
    let bank = Fixture::start().await;
    // 400 and 404 are "unknown" to a transaction manager: it retries, and a person can look.
    assert_eq!(bank.saga("/out", "compensate", 1).await.unwrap().status, 400);
    assert_eq!(bank.saga("/out", "action", -1).await.unwrap().status, 400);
    assert_eq!(bank.saga("/nowhere", "action", 1).await.unwrap().status, 404);
    let url = format!("{}/out?gid=g&branch_id=01&op=action", bank.bank.url);
    let answer = bank.http.post(&url, &json!({ "account": "alice", "amount": 1 })).await.unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("trans_type"), "{}", answer.body);
    assert_eq!(bank.alice().await["balance"], 100);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let bank = Fixture::start().await;
    let body = json!({ "account": "x".repeat(70_000), "amount": 1 });
    let answer = bank.call("/out", "saga", "01", "action", body).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 400));
}

#[tokio::test]
async fn tcc_freezes_and_confirms_over_http() {
    let bank = Fixture::start().await;
    let body = || json!({ "account": "alice", "amount": 40 });
    bank.call("/try-out", "tcc", "01", "try", body()).await.unwrap();
    let alice = bank.alice().await;
    assert_eq!((&alice["balance"], &alice["frozen"]), (&json!(100), &json!(40)));
    bank.call("/confirm-out", "tcc", "01", "confirm", body()).await.unwrap();
    let alice = bank.alice().await;
    assert_eq!((&alice["balance"], &alice["frozen"]), (&json!(60), &json!(0)));
    let total = bank.http.get(&format!("{}/total", bank.bank.url)).await.unwrap().json();
    assert_eq!(total, json!({ "total": 160, "frozen": 0, "incoming": 0, "accounts": 2 }));
}

#[tokio::test]
async fn query_prepared_decides_both_ways_over_http() {
    let bank = Fixture::start().await;
    let query = |gid: &str| {
        branch_url(&format!("{}/query-prepared", bank.bank.url), "d", "msg", gid, "00", "msg")
    };
    let local = |gid: &str| {
        branch_url(&format!("{}/local-out", bank.bank.url), "d", "msg", gid, "00", "msg")
    };
    let body = json!({ "account": "alice", "amount": 30 });
    assert_eq!(bank.http.post(&local("yes"), &body).await.unwrap().status, 200);
    assert_eq!(bank.http.get(&query("yes")).await.unwrap().status, 200);
    assert_eq!(bank.http.get(&query("no")).await.unwrap().status, 409);
    let late = bank.http.post(&local("no"), &body).await.unwrap();
    assert_eq!(late.status, 500, "not FAILURE: query-prepared says which way it went");
    assert!(late.body.contains("DUPLICATED"), "{}", late.body);
    assert_eq!(bank.alice().await["balance"], 70);
}

#[tokio::test]
async fn faults_do_what_they_say() {
    let bank = Fixture::start().await;
    let control = format!("{}/control", bank.bank.url);
    for (fault, status) in [
        (Fault::new(FaultKind::Fail), 409),
        (Fault::new(FaultKind::Ongoing), 425),
        (Fault::new(FaultKind::Error), 500),
    ] {
        let answer = bank.http.post(&control, &json!(fault)).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(bank.saga("/out", "action", 30).await.unwrap().status, status);
    }
    assert!(bank.bank.inject(Fault::new(FaultKind::Lose)));
    assert!(matches!(bank.saga("/out", "action", 30).await, Err(HttpError::Broken { .. })));
    let hang = Fault::new(FaultKind::Hang).hold(Duration::from_millis(1));
    assert!(bank.bank.inject(hang));
    assert!(matches!(bank.saga("/out", "action", 30).await, Err(HttpError::Broken { .. })));
    assert_eq!(bank.alice().await["balance"], 100, "nothing was done so far");
    assert!(bank.bank.inject(Fault::new(FaultKind::CrashAfterCommit)));
    assert!(matches!(bank.saga("/out", "action", 30).await, Err(HttpError::Broken { .. })));
    assert_eq!(bank.alice().await["balance"], 70, "the commit came before the crash");
    assert_eq!(bank.saga("/out", "action", 30).await.unwrap().status, 200);
    assert_eq!(bank.alice().await["balance"], 70);
    let unknown = bank.http.post(&control, &json!({ "kind": "explode" })).await.unwrap();
    assert_eq!(unknown.status, 400);
}

/// The caller gives up on a slow action and compensates; the action's work goes on behind its
/// back and is kept out by the barrier.
#[tokio::test]
async fn a_slow_action_outlives_its_caller_and_is_kept_out() {
    let mut bank = Fixture::start().await;
    let slow = Fault::new(FaultKind::Slow).op("action").hold(Duration::from_millis(150));
    assert!(bank.bank.inject(slow));
    let impatient = HttpClient::new(Duration::from_millis(30));
    let url = branch_url(&format!("{}/out", bank.bank.url), "d", "saga", "g", "01", "action");
    let body = json!({ "account": "alice", "amount": 30 });
    let mut given_up = impatient.post(&url, &body).await;
    while matches!(given_up, Err(HttpError::Connect { .. })) {
        given_up = impatient.post(&url, &body).await;
    }
    assert!(matches!(given_up, Err(HttpError::Deadline { .. })));
    assert_eq!(bank.saga("/out-undo", "compensate", 30).await.unwrap().status, 200);
    let mut admissions = Vec::new();
    while admissions.len() < 2 {
        let report = bank.reports.recv().await.unwrap();
        admissions.push((report.op, report.admission.unwrap()));
    }
    let expected = [
        ("compensate".to_owned(), Admission::NullCompensation),
        ("action".to_owned(), Admission::Hanging),
    ];
    assert_eq!(admissions, expected);
    assert_eq!(bank.alice().await["balance"], 100);
}

#[tokio::test]
async fn accounts_are_opened_over_http_once() {
    let bank = Fixture::start().await;
    let open = format!("{}/open", bank.bank.url);
    for balance in [7, 9] {
        let body = json!({ "account": "carol", "balance": balance });
        assert_eq!(bank.http.post(&open, &body).await.unwrap().status, 200);
    }
    let url = format!("{}/balance?account=carol", bank.bank.url);
    assert_eq!(bank.http.get(&url).await.unwrap().json()["balance"], 7);
    let url = format!("{}/balance?account=dave", bank.bank.url);
    assert_eq!(bank.http.get(&url).await.unwrap().status, 404);
}

#[tokio::test]
async fn xa_without_a_database_says_so() {
    let bank = Fixture::start().await;
    let body = json!({ "account": "alice", "amount": 1 });
    let answer = bank.call("/xa-out", "xa", "01", "action", body).await.unwrap();
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("--xa-url"), "{}", answer.body);
}
