//! Shared parts of the end-to-end tests: a real server process, services with scripted answers,
//! raw sockets, and waiting with a generous deadline.

#![allow(clippy::unwrap_used, reason = "a test's helper fails by panicking")]

mod files;
mod raw;
mod server;
mod service;

pub use files::{flip_bit, largest_segment};
pub use raw::{Reply, exchange, exchange_with, raw_exchange, raw_open};
pub use server::{Cli, Server, binary, cli, cli_at, data_folder, pairs, store_env};
pub use service::{Call, Says, Service, raw_service};

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The longest wait for anything that has to happen: generous, for the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Says a line past the harness, which shows a passing test's output to nobody.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Waits until `look` finds something.
///
/// # Panics
/// It does not within [`PATIENCE`].
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "in {} s there was no: {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A saga's body: one step for each pair of URLs, with `{}` as payload.
#[must_use]
pub fn saga(gid: &str, steps: &[(String, String)]) -> Value {
    let payloads: Vec<&str> = steps.iter().map(|_| "{}").collect();
    let steps: Vec<Value> = steps
        .iter()
        .map(|(action, compensate)| json!({ "action": action, "compensate": compensate }))
        .collect();
    json!({ "gid": gid, "trans_type": "saga", "steps": steps, "payloads": payloads })
}

/// Adds members to a body; members that are there are replaced.
#[must_use]
pub fn with(mut body: Value, more: Value) -> Value {
    let (Value::Object(members), Value::Object(more)) = (&mut body, more) else {
        unreachable!("both are objects")
    };
    members.extend(more);
    body
}

/// The statuses of a query's branches, in their order.
#[must_use]
pub fn branch_statuses(query: &Value) -> Vec<&str> {
    let branches = query["branches"].as_array().map(Vec::as_slice).unwrap_or_default();
    branches.iter().map(|branch| branch["status"].as_str().unwrap_or_default()).collect()
}
