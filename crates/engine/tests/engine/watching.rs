//! What operators see: attempts, alerts, metrics.

use std::collections::BTreeSet;

use dtmd_engine::Event;
use dtmd_protocol::GlobalStatus;

use crate::stage::{Stage, gid, saga, waiting};

#[tokio::test]
async fn attempts_are_kept_with_their_outcomes() {
    let stage = Stage::new();
    stage.services.unknown("http://rm/2");
    stage.services.unknown("http://rm/2");
    stage.engine.submit(saga("a", 2)).await.unwrap();
    stage.until("a", GlobalStatus::Succeed).await;
    let kept: Vec<String> = stage
        .engine
        .attempts(&gid("a"))
        .iter()
        .map(|it| {
            let error = it.error.as_deref().unwrap_or("-");
            format!("{} {} #{} {} {error}", it.branch_id, it.op, it.number, it.outcome)
        })
        .collect();
    assert_eq!(
        kept,
        [
            "01 action #1 success -",
            "02 action #1 unknown status 500",
            "02 action #2 unknown status 500",
            "02 action #3 success -",
        ]
    );
    assert!(stage.engine.attempts(&gid("b")).is_empty());
}

#[tokio::test]
async fn whoever_listens_to_alerts_hears_of_the_recovery() {
    let stage = Stage::new();
    let mut alerts = stage.engine.alerts();
    stage.services.unknown("http://rm/1");
    stage.engine.submit(saga("a", 1)).await.unwrap();
    stage.until("a", GlobalStatus::Succeed).await;
    let Event::Alert { attempts: 1, .. } = alerts.recv().await.unwrap() else { panic!("no alert") };
    let Event::Recovered { gid, url, .. } = alerts.recv().await.unwrap() else {
        panic!("no recovery")
    };
    assert_eq!((gid.as_str(), url.as_str()), ("a", "http://rm/1"));
    // A transaction without a failure says nothing here.
    stage.engine.submit(waiting(saga("b", 1))).await.unwrap();
    assert!(alerts.try_recv().is_err());
    // One that is stopped while a branch fails has ended, not recovered.
    for _ in 0..50 {
        stage.services.unknown("http://rm/1");
    }
    stage.engine.submit(saga("c", 1)).await.unwrap();
    let Event::Alert { .. } = alerts.recv().await.unwrap() else { panic!("no alert") };
    stage.engine.force_stop(&crate::stage::gid("c")).await.unwrap();
    loop {
        match alerts.recv().await.unwrap() {
            Event::Ended { gid, status } => {
                assert_eq!((gid.as_str(), status), ("c", GlobalStatus::Failed));
                break;
            }
            Event::Alert { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The names and labels of all series there are, without their values.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn no_series_is_added_by_another_gid() {
    let stage = Stage::new();
    let round = async |from: usize, count: usize| {
        for number in from..from + count {
            let name = format!("gid-{number}-{:x}", number.wrapping_mul(0x9e37_79b9));
            if number % 3 == 0 {
                stage.services.fail("http://rm/1");
            }
            let _ = stage.engine.submit(waiting(saga(&name, 2))).await;
        }
        stage.engine.refresh_metrics().await;
        series(&stage.engine.metrics().encode())
    };
    let first = round(0, 12).await;
    let then = round(12, 500).await;
    assert_eq!(first, then);
    assert!(then.iter().all(|series| !series.contains("gid-") && !series.contains("//rm")));
}

#[tokio::test]
async fn gauges_show_the_backlog() {
    let stage = Stage::new();
    let gate = stage.services.hold("http://rm/1");
    stage.engine.submit(saga("a", 1)).await.unwrap();
    let shown = async |wanted: &str| {
        stage.engine.refresh_metrics().await;
        let text = stage.engine.metrics().encode();
        text.lines().any(|line| line == wanted)
    };
    crate::stage::eventually(async || shown("dtmd_branch_calls_in_flight 1").await.then_some(()))
        .await;
    assert!(shown("dtmd_stored_transactions{model=\"saga\",status=\"submitted\"} 1").await);
    assert!(shown("dtmd_breakers{state=\"closed\"} 1").await);
    assert!(!shown("dtmd_oldest_unfinished_age_seconds 0.0").await);
    gate.add_permits(1);
    stage.until("a", GlobalStatus::Succeed).await;
    assert!(shown("dtmd_oldest_unfinished_age_seconds 0.0").await);
    assert!(shown("dtmd_due_lag_seconds 0.0").await);
    assert!(shown("dtmd_branch_call_duration_seconds_count{model=\"saga\",status=\"ok\"} 1").await);
}
