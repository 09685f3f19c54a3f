//! What callers are told (spec 01 §2, §6; spec 07 D01, D22, D26, D28).

use std::sync::Arc;
use std::time::Duration;

use dtmd_engine::EngineError;
use dtmd_protocol::{GlobalStatus, Invalid, Mode, Refused, TransType};

use crate::stage::{Stage, eventually, gid, msg, new, saga, text, waiting};

#[tokio::test]
async fn d01_a_repeated_submit_executes_nothing() {
    let stage = Stage::new();
    let gate = stage.services.hold("http://rm/1");
    for _ in 0..5 {
        stage.engine.submit(saga("a", 2)).await.unwrap();
    }
    gate.add_permits(1);
    stage.until("a", GlobalStatus::Succeed).await;
    assert_eq!(stage.services.calls(), ["01 action", "02 action"]);
    let told = text(stage.engine.submit(saga("a", 2)).await);
    assert_eq!(told, "current status 'succeed', cannot sumbmit. FAILURE");
}

#[tokio::test]
async fn d01_a_repeated_submit_of_a_tcc_confirms_what_was_registered() {
    use dtmd_protocol::{BranchId, BranchStatus, NewBranch, Op};

    let stage = Stage::new();
    stage.engine.prepare(new("t", Mode::Tcc, 0)).await.unwrap();
    let row = NewBranch {
        branch_id: BranchId::new("01").unwrap(),
        op: Op::Confirm,
        url: Arc::from("http://rm/c"),
        data: Arc::from([]),
        status: BranchStatus::Prepared,
    };
    stage.engine.register(&gid("t"), TransType::Tcc, vec![row]).await.unwrap();
    let gate = stage.services.hold("http://rm/c");
    stage.engine.submit(new("t", Mode::Tcc, 0)).await.unwrap();
    stage.engine.submit(new("t", Mode::Tcc, 0)).await.unwrap();
    eventually(async || (!stage.services.calls().is_empty()).then_some(())).await;
    assert_eq!(stage.load("t").await.status, GlobalStatus::Submitted, "not before its confirm");
    gate.add_permits(1);
    stage.until("t", GlobalStatus::Succeed).await;
    assert_eq!(stage.services.calls(), ["01 confirm"]);
}

#[tokio::test]
async fn a_taken_gid_with_other_content_is_refused() {
    let stage = Stage::new();
    let _gate = stage.services.hold("http://rm/1");
    stage.engine.submit(saga("a", 2)).await.unwrap();
    let mut other = saga("a", 2);
    other.content = 2;
    let refused = stage.engine.submit(other).await;
    assert!(matches!(refused, Err(EngineError::Refused(Refused::OtherContent { .. }))));
    let refused = stage.engine.submit(msg("a", 2)).await;
    assert!(matches!(refused, Err(EngineError::Refused(Refused::OtherType { .. }))));
}

#[tokio::test]
async fn d22_waiting_callers_can_tell_rolled_back_from_not_finished() {
    let stage = Stage::new();
    stage.services.unknown("http://rm/1");
    let unfinished = stage.engine.submit(waiting(saga("s", 1))).await;
    assert!(matches!(&unfinished, Err(EngineError::Ongoing(text)) if text.contains("ONGOING")));
    stage.until("s", GlobalStatus::Succeed).await;

    stage.services.unknown("http://rm/1");
    let unfinished = stage.engine.submit(waiting(msg("m", 1))).await;
    assert!(matches!(&unfinished, Err(EngineError::Branch(text)) if text.contains("status 500")));
    stage.until("m", GlobalStatus::Succeed).await;

    stage.services.fail("http://rm/1");
    let rolled_back = stage.engine.submit(waiting(saga("r", 1))).await;
    assert!(matches!(rolled_back, Err(EngineError::RolledBack(_))));
}

#[tokio::test]
async fn unknown_gids_have_their_texts() {
    let stage = Stage::new();
    let engine = &stage.engine;
    let unknown = gid("nobody-knows");
    let none = "no TransGlobal with gid: nobody-knows found";
    assert_eq!(text(engine.abort(&unknown, Some(TransType::Tcc), "").await), none);
    assert_eq!(text(engine.force_stop(&unknown).await), none);
    assert_eq!(text(engine.retry_now(&unknown).await), none);
    assert_eq!(
        text(engine.register(&unknown, TransType::Tcc, Vec::new()).await),
        "no trans with gid: nobody-knows status: prepared found FAILURE"
    );
    let ended = engine.finish_workflow(&unknown, true, "", "").await;
    assert_eq!(text(ended), "storage: NotFound");
    assert!(engine.query(&unknown).await.unwrap().is_none());
}

#[tokio::test]
async fn what_cannot_be_called_is_not_accepted() {
    let stage = Stage::new();
    let mut bad = saga("a", 1);
    bad.steps[0].def.action = Arc::from("http://nobody/x");
    let refused = stage.engine.submit(bad).await;
    assert!(matches!(refused, Err(EngineError::Invalid(Invalid::Uncallable { .. }))));
    assert!(stage.engine.query(&gid("a")).await.unwrap().is_none());
}

#[tokio::test]
async fn force_stop_ends_it_and_its_late_answers_change_nothing() {
    let stage = Stage::new();
    let gate = stage.services.hold("http://rm/1");
    stage.engine.submit(saga("a", 2)).await.unwrap();
    eventually(async || (!stage.services.calls().is_empty()).then_some(())).await;
    stage.engine.force_stop(&gid("a")).await.unwrap();
    gate.add_permits(1);
    tokio::time::sleep(Duration::from_millis(30)).await;
    let global = stage.load("a").await;
    assert_eq!(global.status, GlobalStatus::Failed);
    assert_eq!(&*global.rollback_reason, "forced");
    assert_eq!(stage.services.calls(), ["01 action"]);
    assert_eq!(
        text(stage.engine.force_stop(&gid("a")).await),
        "global transaction force stop error. status: failed. error: FAILURE"
    );
}

#[tokio::test]
async fn retry_now_does_not_wait_for_the_schedule() {
    let mut options = crate::stage::options();
    options.policy.retry_interval = Duration::from_secs(3600);
    let stage = Stage::with(options);
    stage.services.unknown("http://rm/1");
    stage.services.unknown("http://rm/1");
    stage.engine.submit(saga("a", 1)).await.unwrap();
    let tried = |times| {
        let services = &stage.services;
        eventually(async move || (services.calls().len() == times).then_some(()))
    };
    tried(1).await;
    stage.engine.retry_now(&gid("a")).await.unwrap();
    tried(2).await;
    // In bulk: what would wait for longer than a minute.
    eventually(async || {
        let count = stage.engine.reset_cron_time(Duration::from_secs(60), 100).await.unwrap();
        (count.succeed_count == 1).then_some(())
    })
    .await;
    stage.until("a", GlobalStatus::Succeed).await;
}

#[tokio::test]
async fn workflows_keep_their_progress_and_end_once() {
    use dtmd_protocol::{BranchId, BranchStatus, NewBranch, Op};

    let stage = Stage::new();
    let mode = Mode::Workflow { name: Arc::from("wf"), data: Arc::from(*b"in") };
    let workflow = || new("w", mode.clone(), 0);
    assert!(stage.engine.prepare_workflow(workflow()).await.unwrap().branches.is_empty());
    let step = NewBranch {
        branch_id: BranchId::new("01").unwrap(),
        op: Op::Action,
        url: Arc::from(""),
        data: Arc::from(*b"result"),
        status: BranchStatus::Succeed,
    };
    let id = gid("w");
    stage.engine.register(&id, TransType::Workflow, vec![step]).await.unwrap();
    let stored = stage.engine.prepare_workflow(workflow()).await.unwrap();
    assert_eq!(&*stored.branches[0].data, b"result");
    stage.engine.finish_workflow(&id, true, "", "cmVz").await.unwrap();
    stage.engine.finish_workflow(&id, true, "", "cmVz").await.unwrap();
    let stored = stage.engine.prepare_workflow(workflow()).await.unwrap();
    assert_eq!((stored.status, &*stored.result), (GlobalStatus::Succeed, "cmVz"));
    assert_eq!(text(stage.engine.finish_workflow(&id, false, "", "").await), "storage: NotFound");
}

#[tokio::test]
async fn nothing_is_undone_while_its_action_is_under_way() {
    // Found by simulation: a request that times the saga out sent the compensation at once.
    let stage = Stage::new();
    let gate = stage.services.hold("http://rm/1");
    let mut short = saga("a", 1);
    short.options.timeout_to_fail = Some(Duration::from_millis(30));
    stage.engine.submit(short).await.unwrap();
    eventually(async || (!stage.services.calls().is_empty()).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(40)).await;
    stage.engine.retry_now(&gid("a")).await.unwrap();
    assert_eq!(stage.load("a").await.status, GlobalStatus::Aborting);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(stage.services.calls(), ["01 action"]);
    gate.add_permits(1);
    stage.until("a", GlobalStatus::Failed).await;
    assert_eq!(stage.services.calls(), ["01 action", "01 compensate"]);
}
