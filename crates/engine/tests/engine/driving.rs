//! From acceptance to the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dtmd_engine::{DestinationLimits, EngineError, EngineOptions};
use dtmd_protocol::{BranchStatus, GlobalStatus, Mode, Policy};

use crate::stage::{Said, Stage, eventually, msg, new, options, saga, text, waiting};

#[tokio::test]
async fn a_saga_goes_forward() {
    let stage = Stage::new();
    stage.engine.submit(waiting(saga("a", 3))).await.unwrap();
    let global = stage.load("a").await;
    assert_eq!(global.status, GlobalStatus::Succeed, "durable before the caller is told");
    assert_eq!(stage.services.calls(), ["01 action", "02 action", "03 action"]);
}

#[tokio::test]
async fn without_wait_result_it_goes_on_by_itself() {
    let stage = Stage::new();
    let gate = stage.services.hold("http://rm/1");
    stage.engine.submit(saga("a", 2)).await.unwrap();
    assert_eq!(stage.load("a").await.status, GlobalStatus::Submitted);
    gate.add_permits(1);
    stage.until("a", GlobalStatus::Succeed).await;
}

#[tokio::test]
async fn a_saga_goes_back() {
    let stage = Stage::new();
    stage.services.fail("http://rm/2");
    let told = text(stage.engine.submit(waiting(saga("a", 3))).await);
    assert_eq!(told, "url:http://rm/2 return failed: refused FAILURE");
    assert_eq!(stage.load("a").await.status, GlobalStatus::Failed);
    let calls = ["01 action", "02 action", "02 compensate", "01 compensate"];
    assert_eq!(stage.services.calls(), calls);
}

#[tokio::test]
async fn unknown_outcomes_are_retried_until_they_are_known() {
    let stage = Stage::new();
    for _ in 0..3 {
        stage.services.unknown("http://rm/1");
        stage.services.unknown("http://rm/2/undo");
    }
    stage.services.fail("http://rm/2");
    stage.engine.submit(saga("a", 2)).await.unwrap();
    stage.until("a", GlobalStatus::Failed).await;
    let count = |word| stage.services.calls().iter().filter(|call| *call == word).count();
    assert_eq!((count("01 action"), count("02 compensate")), (4, 4));
}

#[tokio::test]
async fn a_decision_waits_for_the_answers_in_flight() {
    // 01 fails while 02 is under way: 02 is not compensated before it has answered, and its
    // success is on record.
    let stage = Stage::new();
    let gate = stage.services.hold("http://rm/2");
    stage.services.fail("http://rm/1");
    let mode = Mode::Saga { concurrent: true, orders: Arc::from([]) };
    stage.engine.submit(new("a", mode, 2)).await.unwrap();
    eventually(async || (stage.services.calls().len() == 2).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(stage.services.calls().len(), 2, "nothing is compensated yet");
    gate.add_permits(1);
    let global = stage.until("a", GlobalStatus::Failed).await;
    let statuses: Vec<_> = global.branches.iter().map(|row| row.status).collect();
    let (succeed, failed) = (BranchStatus::Succeed, BranchStatus::Failed);
    assert_eq!(statuses, [succeed, failed, succeed, succeed]);
}

#[tokio::test]
async fn one_destination_gets_no_more_calls_than_its_limit() {
    let limits = DestinationLimits { concurrency: 3, ..DestinationLimits::default() };
    let stage = Stage::with(EngineOptions { destinations: limits, ..options() });
    let mode = Mode::Saga { concurrent: true, orders: Arc::from([]) };
    let gates: Vec<_> = (1..=10).map(|n| stage.services.hold(&format!("http://rm/{n}"))).collect();
    stage.engine.submit(new("a", mode, 10)).await.unwrap();
    eventually(async || (stage.services.calls().len() == 3).then_some(())).await;
    for gate in &gates {
        gate.add_permits(1);
    }
    stage.until("a", GlobalStatus::Succeed).await;
    assert_eq!(stage.services.most_flying.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_destination_that_is_down_is_left_alone() {
    let limits = DestinationLimits {
        breaker_failures: 2,
        breaker_open: Duration::from_millis(50),
        ..DestinationLimits::default()
    };
    let stage = Stage::with(EngineOptions { destinations: limits, ..options() });
    for _ in 0..2 {
        stage.services.say("http://rm/1", Said::Unreachable);
    }
    for name in ["a", "b", "c", "d"] {
        stage.engine.submit(saga(name, 1)).await.unwrap();
    }
    for name in ["a", "b", "c", "d"] {
        let global = stage.until(name, GlobalStatus::Succeed).await;
        assert_eq!(global.branches[1].retry.attempts, 0);
    }
}

#[tokio::test]
async fn who_has_waited_for_a_destination_comes_when_it_is_back() {
    let policy = Policy { retry_interval: Duration::from_secs(3600), ..Policy::default() };
    let limits = DestinationLimits {
        breaker_failures: 2,
        breaker_open: Duration::from_millis(300),
        concurrency: 4,
        ..DestinationLimits::default()
    };
    let stage = Stage::with(EngineOptions { policy, destinations: limits, ..options() });
    // Their calls are lost, so that they have an hour to wait.
    for name in ["lost1", "lost2"] {
        stage.services.say("http://rm/1", Said::Unreachable);
        stage.engine.submit(saga(name, 1)).await.unwrap();
    }
    eventually(async || {
        stage.engine.refresh_metrics().await;
        stage.engine.metrics().encode().contains("dtmd_breakers_open 1").then_some(())
    })
    .await;
    let put_off: Vec<String> = (0..20).map(|n| format!("put-off{n}")).collect();
    for name in &put_off {
        stage.engine.submit(saga(name, 1)).await.unwrap();
    }
    for name in put_off.iter().map(String::as_str).chain(["lost1", "lost2"]) {
        stage.until(name, GlobalStatus::Succeed).await;
    }
    assert_eq!(stage.services.calls().len(), 24, "nobody was called twice but the two");
    assert!(stage.services.most_flying.load(Ordering::SeqCst) <= 4);
}

#[tokio::test]
async fn tcc_and_xa_end_as_their_application_says() {
    use dtmd_protocol::{BranchId, NewBranch, Op, TransType};

    let stage = Stage::new();
    for (name, mode, trans_type, ops) in [
        ("t", Mode::Tcc, TransType::Tcc, [Op::Cancel, Op::Confirm]),
        ("x", Mode::Xa, TransType::Xa, [Op::Rollback, Op::Commit]),
    ] {
        for (suffix, submit) in [(".ok", true), (".no", false)] {
            let name = format!("{name}{suffix}");
            let gid = crate::stage::gid(&name);
            stage.engine.prepare(new(&name, mode.clone(), 0)).await.unwrap();
            for id in ["01", "02"] {
                let row = |op: &Op| NewBranch {
                    branch_id: BranchId::new(id).unwrap(),
                    op: op.clone(),
                    url: Arc::from(format!("http://rm/{id}/{op}")),
                    data: Arc::from(*b"{}"),
                    status: BranchStatus::Prepared,
                };
                let rows = ops.iter().map(row).collect();
                stage.engine.register(&gid, trans_type, rows).await.unwrap();
            }
            if submit {
                stage.engine.submit(waiting(new(&name, mode.clone(), 0))).await.unwrap();
                assert_eq!(stage.load(&name).await.status, GlobalStatus::Succeed);
            } else {
                stage.engine.abort(&gid, Some(trans_type), "no").await.unwrap();
                stage.until(&name, GlobalStatus::Failed).await;
            }
        }
    }
    let expected = [
        "02 confirm",
        "01 confirm",
        "02 cancel",
        "01 cancel",
        "01 commit",
        "02 commit",
        "01 rollback",
        "02 rollback",
    ];
    assert_eq!(stage.services.calls(), expected);
}

#[tokio::test]
async fn what_is_left_undecided_times_out() {
    let stage = Stage::new();
    let mut tcc = new("t", Mode::Tcc, 0);
    tcc.options.timeout_to_fail = Some(Duration::from_millis(60));
    stage.engine.prepare(tcc).await.unwrap();
    stage.until("t", GlobalStatus::Failed).await;

    let mut asked = msg("m", 1);
    asked.options.timeout_to_fail = Some(Duration::from_millis(60));
    asked.query_prepared = Arc::from("http://ap/query");
    stage.services.unknown("http://ap/query");
    stage.engine.prepare(asked).await.unwrap();
    stage.until("m", GlobalStatus::Succeed).await;
    assert_eq!(stage.services.calls(), ["00 msg", "00 msg", "01 action"]);
}

#[tokio::test]
async fn many_at_a_time_share_flushes() {
    let stage = Stage::new();
    let all = (0..200).map(|n| {
        let engine = stage.engine.clone();
        tokio::spawn(async move { engine.submit(waiting(saga(&format!("g{n}"), 2))).await })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap().unwrap();
    }
    let text = stage.engine.metrics().encode();
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let flushes = value("dtmd_store_flush_duration_seconds_count");
    let changes = value("dtmd_store_flushed_changes_total");
    assert_eq!(changes, 600.0, "accept, first result, last result with the end");
    assert!(flushes < changes / 4.0, "{flushes} flushes for {changes} changes");
}

#[tokio::test]
async fn a_caller_that_hangs_up_cancels_nothing() {
    let stage = Stage::new();
    let gate = stage.services.hold("http://rm/1");
    let engine = stage.engine.clone();
    let caller = tokio::spawn(async move { engine.submit(waiting(saga("a", 2))).await });
    eventually(async || (stage.services.calls().len() == 1).then_some(())).await;
    caller.abort();
    gate.add_permits(1);
    stage.until("a", GlobalStatus::Succeed).await;
}

#[tokio::test]
async fn too_much_at_a_time_is_refused_and_nothing_of_it_is_kept() {
    let stage = Stage::with(EngineOptions { active_max: 2, ..options() });
    let gates = [stage.services.hold("http://rm/1"), stage.services.hold("http://rm/1")];
    stage.engine.submit(saga("a", 1)).await.unwrap();
    stage.engine.submit(saga("b", 1)).await.unwrap();
    let refused = stage.engine.submit(saga("c", 1)).await;
    assert!(matches!(refused, Err(EngineError::Overloaded(_))), "{refused:?}");
    assert!(stage.store.load(&crate::stage::gid("c")).await.unwrap().is_none());
    for gate in gates {
        gate.add_permits(1);
    }
    stage.until("a", GlobalStatus::Succeed).await;
    stage.until("b", GlobalStatus::Succeed).await;
}
