//! More work than can be done (reliability.md T20, in short): callers begin transactions much faster
//! than the service they call can take them, on little memory. What is too much is refused at once
//! and leaves nothing; what was accepted is done; what exists already can be brought to its end.
//!
//! `DTMD_OVERLOAD_SECONDS` lengthens it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dtmd_tests::{Says, Server, Service, tell, until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Line, from_env, memory};
use crate::turn;

/// Callers that begin one transaction after the other without a pause.
const CALLERS: usize = 32;
const SECONDS: u64 = 4;
/// What the service can take in a second: eight calls at a time, of 50 ms each.
const CAPACITY: u32 = 160;
/// Transactions that are there before the flood.
const EXISTING: usize = 6;
const MEMORY_MAX_BYTES: u64 = 512 << 20;

/// A control group with little memory; removed when dropped.
struct LittleMemory {
    folder: PathBuf,
}

impl LittleMemory {
    /// Puts a server into one, if this machine lets us; otherwise memory is only looked at.
    fn around(server: &Server) -> Option<Self> {
        let id = server.process.id()?.to_string();
        let folder = Path::new("/sys/fs/cgroup/memory").join(format!("dtmd-overload-{id}"));
        std::fs::create_dir(&folder).ok()?;
        let group = Self { folder };
        let limit = MEMORY_MAX_BYTES.to_string();
        std::fs::write(group.folder.join("memory.limit_in_bytes"), limit).ok()?;
        std::fs::write(group.folder.join("cgroup.procs"), id).ok()?;
        Some(group)
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        // Only an empty group can be removed.
        let processes = std::fs::read_to_string(self.folder.join("cgroup.procs"));
        for id in processes.unwrap_or_default().lines() {
            let _ = std::fs::write("/sys/fs/cgroup/memory/cgroup.procs", id);
        }
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// What one caller was told.
#[derive(Default)]
struct Answers {
    accepted: Vec<String>,
    refused: Vec<String>,
    /// How long each refusal took.
    refusals: Vec<Duration>,
}

fn saga(gid: &str, service: &Service) -> Value {
    dtmd_tests::saga(gid, &[service.step("slow")])
}

/// Begins one transaction after the other until told to stop.
async fn flood(
    caller: usize,
    address: String,
    service: Arc<Service>,
    go: Arc<AtomicBool>,
) -> Answers {
    let mut line = Line::open(&address).await;
    let mut answers = Answers::default();
    for nth in 0.. {
        if !go.load(Ordering::Relaxed) {
            break;
        }
        let gid = format!("flood-{caller}-{nth}");
        let asked = Instant::now();
        let told = line.post("submit", &saga(&gid, &service)).await;
        match told.status {
            200 => answers.accepted.push(gid),
            503 | 429 => {
                assert_eq!(told.retry_after.as_deref(), Some("1"), "{}", told.body);
                assert!(told.body.contains("too many"), "it does not say why: {}", told.body);
                answers.refused.push(gid);
                answers.refusals.push(asked.elapsed());
            }
            other => panic!("{gid}: {other} {}", told.body),
        }
    }
    answers
}

/// Brings the transactions that were there before to their ends.
async fn end_existing(address: &str, healthy: &Service) {
    let mut line = Line::open(address).await;
    for nth in 0..EXISTING {
        let gid = format!("existing-{nth}");
        let branch = json!({
            "gid": gid, "trans_type": "tcc", "branch_id": "01", "data": "{}",
            "confirm": healthy.at("/confirm"), "cancel": healthy.at("/cancel"),
        });
        ask(&mut line, "registerBranch", &branch).await;
        let end = json!({ "gid": gid, "trans_type": "tcc" });
        let operation = if nth % 2 == 0 { "submit" } else { "abort" };
        ask(&mut line, operation, &end).await;
    }
}

/// Asks for something that must not be refused.
async fn ask(line: &mut Line, operation: &str, body: &Value) {
    let told = line.post(operation, body).await;
    assert_eq!(told.status, 200, "{operation} {body}: {}", told.body);
}

/// Every gid of the store with its status.
async fn listed(server: &Server) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut position = String::new();
    loop {
        let page = server.get(&format!("all?limit=1000&position={position}")).await.json();
        for transaction in page["transactions"].as_array().unwrap() {
            let text = |name: &str| transaction[name].as_str().unwrap().to_owned();
            all.push((text("gid"), text("status")));
        }
        position = page["next_position"].as_str().unwrap().to_owned();
        if position.is_empty() {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_can_be_done_is_refused_and_what_was_accepted_is_done() {
    let _turn = turn::alone().await;
    let env = [("ACTIVE_MAX", "200"), ("DESTINATION_CONCURRENCY", "8")];
    let mut server = Server::start_with(&[], &env).await;
    let group = LittleMemory::around(&server);
    let (slow, healthy) = (Arc::new(Service::start().await), Service::start().await);
    // Far less than callers can begin.
    slow.script("/slow", [Says::success().after(Duration::from_millis(50))]);
    for nth in 0..EXISTING {
        let body = json!({
            "gid": format!("existing-{nth}"), "trans_type": "tcc", "timeout_to_fail": 3600,
        });
        server.post_ok("prepare", &body).await;
    }
    let begun = Instant::now();
    let go = Arc::new(AtomicBool::new(true));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let address = server.address().to_owned();
        callers.spawn(flood(caller, address, Arc::clone(&slow), Arc::clone(&go)));
    }
    let seconds = from_env("DTMD_OVERLOAD_SECONDS").unwrap_or(SECONDS);
    tokio::time::sleep(Duration::from_secs(1)).await;
    end_existing(server.address(), &healthy).await;
    healthy.wait_calls("/confirm", EXISTING / 2).await;
    healthy.wait_calls("/cancel", EXISTING / 2).await;
    let ended_after = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(seconds).saturating_sub(begun.elapsed())).await;
    go.store(false, Ordering::Relaxed);
    let (mut accepted, mut refused) = (BTreeSet::new(), BTreeSet::new());
    let mut refusals = Vec::new();
    while let Some(answers) = callers.join_next().await {
        let answers = answers.expect("a caller has failed");
        accepted.extend(answers.accepted);
        refused.extend(answers.refused);
        refusals.extend(answers.refusals);
    }
    refusals.sort();
    let within = |percent: usize| refusals.get(refusals.len() * percent / 100).copied();
    let flooded = begun.elapsed();
    for status in ["prepared", "submitted", "aborting"] {
        until(&format!("no transaction that is {status}"), async || {
            let list = server.get(&format!("all?status={status}&limit=1")).await.json();
            (list["transactions"].as_array()?.is_empty()).then_some(())
        })
        .await;
    }
    let (_, most) = memory(&server);
    tell(&format!(
        "overload: {} accepted ({:.0} of at most {CAPACITY} a second), {} refused in {:.1} s, half \
         within {:.1?} and 99 % within {:.1?}, all accepted done after {:.1} s more; {} requests \
         for what existed were done within {:.1} s; {} MiB at most{}",
        accepted.len(),
        accepted.len() as f64 / flooded.as_secs_f64(),
        refused.len(),
        flooded.as_secs_f64(),
        within(50).unwrap_or_default(),
        within(99).unwrap_or_default(),
        (begun.elapsed() - flooded).as_secs_f64(),
        2 * EXISTING,
        ended_after.as_secs_f64(),
        most / 1024,
        if group.is_some() { ", in a control group of 512 MiB" } else { "" },
    ));
    assert!(server.process.has_ended().unwrap().is_none(), "{}", server.process.log_tail());
    assert!(most * 1024 < MEMORY_MAX_BYTES, "{most} KiB");
    assert!(!refused.is_empty(), "it was no overload");
    check_kept(&server, &accepted, &refused, &slow).await;
}

/// What was accepted has succeeded and was called; what was refused is not there.
async fn check_kept(
    server: &Server,
    accepted: &BTreeSet<String>,
    refused: &BTreeSet<String>,
    slow: &Service,
) {
    let listed = listed(server).await;
    let mut succeeded = BTreeSet::new();
    for (gid, status) in &listed {
        assert!(!refused.contains(gid), "{gid} was refused and is there");
        if accepted.contains(gid) {
            assert_eq!(status, "succeed", "{gid}");
            succeeded.insert(gid.clone());
        }
    }
    assert_eq!(succeeded.len(), accepted.len(), "something acknowledged is gone");
    let calls = slow.calls("/slow");
    let called: BTreeSet<&str> = calls.iter().map(|call| call.parameter("gid")).collect();
    assert_eq!(called.len(), accepted.len(), "an effect is missing or one too many");
    for nth in 0..EXISTING {
        let end = if nth % 2 == 0 { "succeed" } else { "failed" };
        assert_eq!(server.status(&format!("existing-{nth}")).await, end);
    }
}
