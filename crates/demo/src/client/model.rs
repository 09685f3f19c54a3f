//! What an application describes to the server, and what the server tells about it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Options of a global transaction; `None` leaves the server's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransOptions {
    /// Answer the submit only when the first pass is done.
    pub wait_result: bool,
    /// When a prepared or unfinished global is given up, in milliseconds.
    pub timeout_to_fail_ms: Option<u64>,
    /// How long a branch call may take, in milliseconds.
    pub request_timeout_ms: Option<u64>,
    /// The first interval between attempts, in milliseconds.
    pub retry_interval_ms: Option<u64>,
    /// Saga: how many repeated attempts before it is rolled back.
    pub retry_limit: Option<u64>,
    /// Saga and message: run branches in parallel.
    pub concurrent: bool,
}

impl TransOptions {
    pub(super) fn write(&self, body: &mut Map<String, Value>) {
        let numbers = [
            ("timeout_to_fail_ms", self.timeout_to_fail_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("retry_interval_ms", self.retry_interval_ms),
            ("retry_limit", self.retry_limit),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                body.insert(name.to_owned(), json!(value));
            }
        }
        if self.wait_result {
            body.insert("wait_result".to_owned(), json!(true));
        }
        body.insert("concurrent".to_owned(), json!(self.concurrent));
    }
}

/// One step of a saga; an empty URL is a step that has nothing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaStep {
    /// Where the action is called.
    pub action: String,
    /// Where the compensation is called.
    pub compensate: String,
    /// The body of both.
    pub payload: Value,
}

/// A saga as an application describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saga {
    /// The steps, in order.
    pub steps: Vec<SagaStep>,
    /// For concurrent sagas: (step, the steps it waits for), indexes from 0.
    pub orders: Vec<(usize, Vec<usize>)>,
    /// Its options.
    pub options: TransOptions,
}

/// One branch of a TCC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TccBranch {
    /// Where the application calls try.
    pub try_url: String,
    /// Where the server calls confirm.
    pub confirm: String,
    /// Where the server calls cancel.
    pub cancel: String,
    /// The body of all three.
    pub payload: Value,
}

/// A two-phase message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Msg {
    /// Where the server asks whether the local transaction committed.
    pub query_prepared: String,
    /// The targets: URL and body.
    pub steps: Vec<(String, Value)>,
    /// Its options.
    pub options: TransOptions,
}

/// One branch of an XA transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XaBranch {
    /// The endpoint of action, commit and rollback.
    pub url: String,
    /// The body of the action.
    pub payload: Value,
}

/// What the server tells about a global transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its status.
    pub status: String,
    /// Why it was rolled back; empty if it was not.
    pub rollback_reason: String,
    /// Its branch operations, in the server's order.
    pub branches: Vec<BranchRow>,
}

impl Transaction {
    /// True if the status is `succeed` or `failed`.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "succeed" | "failed")
    }
}

/// One branch operation as the server tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BranchRow {
    /// The branch id.
    #[serde(default)]
    pub branch_id: String,
    /// What is asked of the branch.
    #[serde(default)]
    pub op: String,
    /// `prepared`, `succeed` or `failed`.
    #[serde(default)]
    pub status: String,
}

/// What every request body begins with.
pub(super) fn head(trans_type: &str, gid: &str, options: &TransOptions) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("gid".to_owned(), json!(gid));
    body.insert("trans_type".to_owned(), json!(trans_type));
    options.write(&mut body);
    body
}

/// The body that submits a saga.
pub(super) fn saga_body(gid: &str, saga: &Saga) -> Value {
    let mut body = head("saga", gid, &saga.options);
    let steps: Vec<Value> = saga
        .steps
        .iter()
        .map(|step| json!({ "action": step.action, "compensate": step.compensate }))
        .collect();
    let payloads: Vec<String> = saga.steps.iter().map(|step| step.payload.to_string()).collect();
    body.insert("steps".to_owned(), json!(steps));
    body.insert("payloads".to_owned(), json!(payloads));
    if saga.options.concurrent {
        let orders: Map<String, Value> =
            saga.orders.iter().map(|(step, after)| (step.to_string(), json!(after))).collect();
        let custom = json!({ "orders": orders, "concurrent": true });
        body.insert("custom_data".to_owned(), json!(custom.to_string()));
    }
    Value::Object(body)
}

/// The body that prepares and submits a message.
pub(super) fn msg_body(gid: &str, msg: &Msg) -> Value {
    let mut body = head("msg", gid, &msg.options);
    let steps: Vec<Value> = msg.steps.iter().map(|(url, _)| json!({ "action": url })).collect();
    let payloads: Vec<String> = msg.steps.iter().map(|(_, body)| body.to_string()).collect();
    body.insert("steps".to_owned(), json!(steps));
    body.insert("payloads".to_owned(), json!(payloads));
    body.insert("query_prepared".to_owned(), json!(msg.query_prepared));
    Value::Object(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concurrent_saga_carries_its_orders() {
        let step = SagaStep {
            action: "http://s/a".to_owned(),
            compensate: "http://s/c".to_owned(),
            payload: json!({ "amount": 30 }),
        };
        let saga = Saga {
            steps: vec![step.clone(), step],
            orders: vec![(1, vec![0])],
            options: TransOptions {
                concurrent: true,
                retry_interval_ms: Some(200),
                ..TransOptions::default()
            },
        };
        let body = saga_body("g", &saga);
        assert_eq!(body["custom_data"], r#"{"concurrent":true,"orders":{"1":[0]}}"#);
        assert_eq!(body["payloads"], json!([r#"{"amount":30}"#, r#"{"amount":30}"#]));
        assert_eq!(body["steps"][0]["compensate"], "http://s/c");
        assert_eq!(body["retry_interval_ms"], 200);
        assert!(body.get("timeout_to_fail_ms").is_none());
    }
}
