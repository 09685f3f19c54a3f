//! Branch calls: from the path to the ledger or the XA database, and back to an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::Service;
use super::barrier::{Admission, BranchContext, LocalOutcome};
use super::faults::FaultKind;
use super::ledger::{Change, LedgerError};
use crate::serve::Reply;
use crate::xa::{XaCall, XaError};

/// The ledger endpoints: path, the op it serves, the change it makes.
const ENDPOINTS: [(&str, &str, Change); 11] = [
    ("/out", "action", Change::Out),
    ("/out-undo", "compensate", Change::OutUndo),
    ("/in", "action", Change::In),
    ("/in-undo", "compensate", Change::InUndo),
    ("/try-out", "try", Change::TryOut),
    ("/confirm-out", "confirm", Change::ConfirmOut),
    ("/cancel-out", "cancel", Change::CancelOut),
    ("/try-in", "try", Change::TryIn),
    ("/confirm-in", "confirm", Change::ConfirmIn),
    ("/cancel-in", "cancel", Change::CancelIn),
    ("/local-out", "msg", Change::Out),
];

/// What a branch call moves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Order {
    pub(super) account: String,
    pub(super) amount: i64,
}

/// What a branch call came to.
#[derive(Debug)]
pub(super) struct BranchAnswer {
    pub(super) reply: Reply,
    pub(super) outcome: &'static str,
    pub(super) admission: Option<Admission>,
    pub(super) note: Option<String>,
}

impl BranchAnswer {
    fn success(admission: Option<Admission>) -> Self {
        let reply = Reply::Json(StatusCode::OK, json!({ "dtm_result": "SUCCESS" }));
        Self { reply, outcome: "success", admission, note: None }
    }

    /// `text` must contain FAILURE: some callers look for the word only.
    fn failure(text: &str) -> Self {
        let reply = Reply::Json(StatusCode::CONFLICT, json!({ "error": text }));
        let note = Some(text.trim_end_matches(". FAILURE").to_owned());
        Self { reply, outcome: "failure", admission: None, note }
    }

    fn unknown(status: StatusCode, text: &str) -> Self {
        let reply = Reply::Json(status, json!({ "error": text }));
        Self { reply, outcome: "unknown", admission: None, note: Some(text.to_owned()) }
    }

    fn dropped(note: &str) -> Self {
        let note = Some(note.to_owned());
        Self { reply: Reply::Drop, outcome: "unknown", admission: None, note }
    }
}

/// Tells whether a POST to the path is a branch call.
pub(super) fn is_branch_path(path: &str) -> bool {
    matches!(path, "/xa-out" | "/xa-in") || ENDPOINTS.iter().any(|(known, ..)| *known == path)
}

/// Handles one branch call; also returns the order of its body, if it had one.
pub(super) async fn handle(
    service: &Service,
    path: &str,
    branch: &BranchContext,
    pairs: &BTreeMap<String, String>,
    body: &[u8],
) -> (BranchAnswer, Option<Order>) {
    let order: Option<Order> = serde_json::from_slice(body).ok();
    let account = order.as_ref().map(|order| order.account.as_str());
    let fault = service.faults.take(&branch.op, account, &branch.gid, &branch.branch_id);
    let mut crash = false;
    if let Some(fault) = fault {
        let hold = Duration::from_millis(fault.ms);
        let answer = match fault.kind {
            FaultKind::Fail => Some(BranchAnswer::failure("told to fail. FAILURE")),
            FaultKind::Ongoing => Some(ongoing()),
            FaultKind::Error => Some(BranchAnswer::unknown(
                StatusCode::INTERNAL_SERVER_ERROR,
                "told to answer with an error",
            )),
            FaultKind::Lose => Some(BranchAnswer::dropped("lost before the database")),
            FaultKind::Hang => {
                tokio::time::sleep(hold).await;
                Some(BranchAnswer::dropped("held, then lost before the database"))
            }
            FaultKind::Slow => {
                tokio::time::sleep(hold).await;
                None
            }
            FaultKind::CrashAfterCommit => {
                crash = true;
                None
            }
        };
        if let Some(answer) = answer {
            return (answer, order);
        }
    }
    let mut answer = run(service, path, branch, pairs, order.clone()).await;
    if crash {
        answer.reply = Reply::Drop;
        answer.outcome = "unknown";
        answer.note = Some("answer lost after the commit".to_owned());
    }
    (answer, order)
}

fn ongoing() -> BranchAnswer {
    let reply = Reply::Json(StatusCode::TOO_EARLY, json!({ "dtm_result": "ONGOING" }));
    BranchAnswer { reply, outcome: "ongoing", admission: None, note: None }
}

async fn run(
    service: &Service,
    path: &str,
    branch: &BranchContext,
    pairs: &BTreeMap<String, String>,
    order: Option<Order>,
) -> BranchAnswer {
    if path == "/query-prepared" {
        return query_prepared(service, branch).await;
    }
    if matches!(path, "/xa-out" | "/xa-in") {
        return xa(service, path, branch, pairs, order).await;
    }
    let Some(order) = order.filter(|order| order.amount > 0) else {
        let text = "the body must be {\"account\":\"…\",\"amount\":n} with n above 0";
        return BranchAnswer::unknown(StatusCode::BAD_REQUEST, text);
    };
    let Some((_, op, change)) = ENDPOINTS.iter().find(|(known, ..)| *known == path) else {
        return BranchAnswer::unknown(StatusCode::NOT_FOUND, "no such endpoint");
    };
    // A workflow calls its compensations `rollback` (spec 04 §7).
    let asked = if branch.op == "rollback" { "compensate" } else { branch.op.as_str() };
    if *op != asked {
        let text = format!("{path} serves the op {op}, but the call says {}", branch.op);
        return BranchAnswer::unknown(StatusCode::BAD_REQUEST, &text);
    }
    let (branch, change) = (branch.clone(), *change);
    let changed = service
        .with_ledger(move |ledger| ledger.change(&branch, change, &order.account, order.amount))
        .await;
    match changed {
        Ok(admission) => BranchAnswer::success(Some(admission)),
        Err(LedgerError::Refused(text)) => BranchAnswer::failure(&text),
        // Not FAILURE: the caller must ask query-prepared which way it was decided.
        Err(error @ LedgerError::Duplicated(_)) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let mut answer = BranchAnswer::unknown(status, &error.to_string());
            answer.admission = Some(Admission::Duplicate);
            answer.note = Some("decided before, kept out".to_owned());
            answer
        }
        Err(error @ (LedgerError::Database(_) | LedgerError::Interrupted)) => {
            BranchAnswer::unknown(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
        }
    }
}

async fn query_prepared(service: &Service, branch: &BranchContext) -> BranchAnswer {
    let gid = branch.gid.clone();
    match service.with_ledger(move |ledger| ledger.query_prepared(&gid)).await {
        Ok(LocalOutcome::Committed) => BranchAnswer {
            note: Some("the local transaction committed".to_owned()),
            ..BranchAnswer::success(None)
        },
        Ok(LocalOutcome::RolledBack) => {
            BranchAnswer::failure("the local transaction did not commit. FAILURE")
        }
        Err(error) => BranchAnswer::unknown(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn xa(
    service: &Service,
    path: &str,
    branch: &BranchContext,
    pairs: &BTreeMap<String, String>,
    order: Option<Order>,
) -> BranchAnswer {
    let Some(xa) = &service.xa else {
        let text = "this bank has no XA database; start it with --xa-url";
        return BranchAnswer::unknown(StatusCode::INTERNAL_SERVER_ERROR, text);
    };
    let read = |name: &str| pairs.get(name).cloned().unwrap_or_default();
    let call = XaCall {
        gid: branch.gid.clone(),
        branch_id: branch.branch_id.clone(),
        dtm: read("dtm"),
        phase2_url: read("phase2_url"),
    };
    let done = match branch.op.as_str() {
        "commit" => xa.commit(&call).await.map(|()| None),
        "rollback" => xa.rollback(&call).await.map(|()| None),
        "action" => {
            let Some(order) = order.filter(|order| order.amount > 0) else {
                let text = "the body must be {\"account\":\"…\",\"amount\":n} with n above 0";
                return BranchAnswer::unknown(StatusCode::BAD_REQUEST, text);
            };
            let delta = if path == "/xa-out" { -order.amount } else { order.amount };
            xa.action(&call, &order.account, delta).await.map(Some)
        }
        other => {
            let text = format!("{path} serves action, commit and rollback, not {other}");
            return BranchAnswer::unknown(StatusCode::BAD_REQUEST, &text);
        }
    };
    match done {
        Ok(admission) => BranchAnswer::success(admission),
        Err(XaError::Refused(text)) => BranchAnswer::failure(&text),
        Err(error) => BranchAnswer::unknown(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
