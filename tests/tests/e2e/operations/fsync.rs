//! The real process on a disk whose syncs fail or take long, by way of strace (T13).

use std::process::Stdio;
use std::time::Duration;

use dtmd_tests::{Server, tell, until};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::turn;

/// The way strace names what the store calls to make a batch durable.
const SYNC: &str = "fdatasync";

/// strace, attached to a server; ended when dropped.
struct Strace {
    child: Child,
    log: std::path::PathBuf,
}

impl Strace {
    /// Attaches, or tells why this machine does not allow it.
    async fn attach(server: &Server, inject: &str) -> Result<Self, String> {
        let log = server.data().with_extension("strace");
        let id = server.process.id().expect("it runs").to_string();
        let mut child = Command::new("strace")
            .args(["-f", "-q", "-e", &format!("trace={SYNC}")])
            .args(["-e", &format!("inject={SYNC}:{inject}"), "-p", &id, "-o"])
            .arg(&log)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("no strace: {error}"))?;
        // It is attached when the kernel names it as the tracer.
        for _ in 0..500 {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("strace may not attach: {status}"));
            }
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            if tracer.is_some_and(|tracer| tracer.trim() != "0") {
                return Ok(Self { child, log });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("strace does not attach".to_owned())
    }

    /// How many syncs it has seen, and how many of them it has made fail.
    fn seen(&self) -> (usize, usize) {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let injected = log.lines().filter(|line| line.contains("INJECTED")).count();
        (log.lines().filter(|line| line.contains(SYNC)).count(), injected)
    }

    async fn detach(mut self) -> (usize, usize) {
        if let Some(id) = self.child.id() {
            // Asked nicely it lets go of the server.
            let _ = Command::new("kill").args(["-INT", &id.to_string()]).status().await;
        }
        let _ = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await;
        self.seen()
    }
}

fn tcc(gid: &str) -> Value {
    json!({ "gid": gid, "trans_type": "tcc", "timeout_to_fail": 3600 })
}

fn skipped(why: &str) {
    tell(&format!("skipped: no failing syncs on this machine: {why}"));
}

#[tokio::test]
async fn a_failed_fsync_is_never_acknowledged_and_the_store_recovers() {
    let _turn = turn::shared().await;
    let mut server = Server::start().await;
    server.assert_serves("before").await;
    // The fourth sync from now fails, and every fiftieth after it.
    let strace = match Strace::attach(&server, "error=EIO:when=4+50").await {
        Ok(strace) => strace,
        Err(why) => return skipped(&why),
    };
    let (mut accepted, refusals) = (Vec::new(), std::cell::Cell::new(0));
    for n in 0..160 {
        let gid = format!("g{n}");
        // A refusal says nothing about the transaction: it is asked for again, as it must be.
        until(&format!("{gid} acknowledged"), async || {
            let answer = server.client.post("prepare", &tcc(&gid)).await.ok()?;
            refusals.set(refusals.get() + usize::from(answer.status != 200));
            assert!(matches!(answer.status, 200 | 503), "{}: {}", answer.status, answer.body);
            (answer.status == 200).then_some(())
        })
        .await;
        accepted.push(gid);
    }
    let (syncs, failed) = strace.detach().await;
    assert!(failed >= 2, "{failed} of {syncs} syncs failed");
    let refused = refusals.get();
    assert!(refused >= failed, "{refused} refusals, {failed} failed syncs");
    server.process.kill_9().await.unwrap();
    server.process.restart().await.unwrap();
    for gid in &accepted {
        assert_eq!(server.status(gid).await, "prepared", "{gid} was acknowledged");
    }
    server.assert_serves("after").await;
}

#[tokio::test]
async fn slow_syncs_are_shared_by_those_who_wait() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    server.assert_serves("before").await;
    let strace = match Strace::attach(&server, "delay_enter=300000").await {
        Ok(strace) => strace,
        Err(why) => return skipped(&why),
    };
    const CLIENTS: usize = 200;
    const EACH: usize = 3;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let dtm = server.client.clone();
        clients.spawn(async move {
            for n in 0..EACH {
                let answer = dtm.post("prepare", &tcc(&format!("c{client}-{n}"))).await.unwrap();
                assert_eq!(answer.status, 200, "a slow disk is no failed one: {}", answer.body);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let (syncs, _) = strace.detach().await;
    let requests = CLIENTS * EACH;
    assert!(syncs > 0 && syncs * 5 < requests, "{syncs} syncs for {requests} requests");
    tell(&format!(
        "slow syncs: {requests} requests of {CLIENTS} clients shared {syncs} syncs of 300 ms"
    ));
}
