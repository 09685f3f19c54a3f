//! Little memory: callers begin large transactions faster than they end. From `MemoryMax` on new
//! ones are refused, what exists goes on, and when enough of it has ended new ones are accepted.

use std::time::Duration;

use dtmd_tests::{Says, Server, Service, saga, tell, until};
use serde_json::{Value, json};

use super::{Line, memory};
use crate::turn;

const MEMORY_MAX: &str = "192MiB";
const MEMORY_MAX_KIB: u64 = 192 << 10;
/// What may come in between two looks, and what the system counts besides.
const OVERSHOOT_KIB: u64 = 96 << 10;
const PAYLOAD_BYTES: usize = 200 << 10;
/// Far more than fit.
const TRANSACTIONS_MAX: usize = 5_000;

/// A saga of one step.
fn large(gid: &str, step: &(String, String), payload: &str) -> Value {
    let mut body = saga(gid, std::slice::from_ref(step));
    body["payloads"] = json!([json!(payload).to_string()]);
    body["request_timeout"] = json!(60);
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_transactions_are_refused_while_memory_is_short() {
    let _turn = turn::alone().await;
    let server = Server::start_with(&[], &[("MEMORY_MAX", MEMORY_MAX)]).await;
    let service = Service::start().await;
    service.script("/slow", [Says::success().after(Duration::from_secs(5))]);
    let step = service.step("slow");
    let existing = json!({ "gid": "existing", "trans_type": "tcc", "timeout_to_fail": 3600 });
    server.post_ok("prepare", &existing).await;

    let mut line = Line::open(server.address()).await;
    let payload = "x".repeat(PAYLOAD_BYTES);
    let mut accepted = 0;
    let refused = loop {
        assert!(accepted < TRANSACTIONS_MAX, "nothing was refused: {:?}", memory(&server));
        let told = line.post("submit", &large(&format!("large-{accepted}"), &step, &payload)).await;
        match told.status {
            200 => accepted += 1,
            _ => break told,
        }
    };
    let small = line.post("submit", &large("small", &step, "x")).await;
    for told in [refused, small] {
        assert_eq!((told.status, told.retry_after.as_deref()), (503, Some("1")), "{}", told.body);
        assert!(told.body.contains("memory is short"), "{}", told.body);
    }
    let (_, most) = memory(&server);
    assert!(most < MEMORY_MAX_KIB + OVERSHOOT_KIB, "{most} KiB");

    // What exists comes to its end. Its service is another one: at the slow one it would have to wait
    // behind all that was accepted.
    let other = Service::start().await;
    let branch = json!({
        "gid": "existing", "trans_type": "tcc", "branch_id": "01", "data": "{}",
        "confirm": other.at("/confirm"), "cancel": other.at("/cancel"),
    });
    server.post_ok("registerBranch", &branch).await;
    server.post_ok("submit", &json!({ "gid": "existing", "trans_type": "tcc" })).await;
    server.wait_status("existing", "succeed").await;
    service.script("/slow", [Says::success()]);
    until("no transaction that is submitted", async || {
        let list = server.get("all?status=submitted&limit=1").await.json();
        (list["transactions"].as_array()?.is_empty()).then_some(())
    })
    .await;
    assert_eq!(service.calls("/slow").len(), accepted, "each was called once");

    until("new transactions are accepted again", async || {
        let told = server.post("submit", &large("late", &step, "x")).await;
        (told.status == 200).then_some(())
    })
    .await;
    server.wait_status("late", "succeed").await;
    let (now, _) = memory(&server);
    tell(&format!(
        "memory: {accepted} sagas of 200 KiB accepted with {MEMORY_MAX}, {} MiB at most, {} MiB \
         when they had ended",
        most / 1024,
        now / 1024
    ));
}
