//! The test clock (design.md section 9).

use std::sync::Arc;
use std::time::Duration;

use dtmd_engine::EngineOptions;
use dtmd_protocol::{GlobalStatus, Mode, Outcome};

use crate::stage::{Stage, gid, msg, new, saga, text};

const WAIT: Duration = Duration::from_secs(5);

fn stage() -> Stage {
    Stage::with(EngineOptions { test_control: true, ..EngineOptions::default() })
}

#[tokio::test]
async fn a_submit_gives_exactly_one_event_when_its_pass_has_ended() {
    let stage = stage();
    let control = stage.engine.test_control().unwrap().clone();
    stage.engine.submit(saga("a", 2)).await.unwrap();
    assert_eq!(control.processed(WAIT).await, Some(gid("a")));
    assert_eq!(stage.load("a").await.status, GlobalStatus::Succeed);
    assert_eq!(control.processed(Duration::from_millis(20)).await, None);
    // Refused: no event.
    assert!(text(stage.engine.submit(saga("a", 2)).await).contains("cannot sumbmit"));
    assert_eq!(control.processed(Duration::from_millis(150)).await, None);
}

#[tokio::test]
async fn nothing_happens_until_it_is_picked() {
    let stage = stage();
    let control = stage.engine.test_control().unwrap().clone();
    stage.services.unknown("http://rm/1");
    stage.engine.submit(saga("a", 1)).await.unwrap();
    assert_eq!(control.processed(WAIT).await, Some(gid("a")));
    assert_eq!(stage.load("a").await.status, GlobalStatus::Submitted);
    assert_eq!(control.cron_once(false).await.unwrap(), None, "not due for 20 s");
    control.set_clock(0, 180_000);
    assert_eq!(control.cron_once(false).await.unwrap(), Some(gid("a")));
    assert_eq!(stage.load("a").await.status, GlobalStatus::Succeed);
    assert_eq!(control.processed(WAIT).await, Some(gid("a")));
    assert_eq!(control.cron_once(false).await.unwrap(), None, "final ones are never picked");
}

/// What is under way when it is picked puts its retry off; the pick asks for one at once.
#[tokio::test]
async fn a_pick_while_a_call_is_under_way_comes_after_its_answer() {
    let stage = stage();
    let control = stage.engine.test_control().unwrap().clone();
    let unknown = Outcome::Unknown("no answer".into());
    let answer = stage.services.hold_for("http://rm/1", unknown);
    stage.engine.submit(saga("a", 1)).await.unwrap();
    crate::stage::eventually(async || (stage.services.calls().len() == 1).then_some(())).await;
    let before = stage.load("a").await;
    control.set_clock(0, 180_000);
    let picker = control.clone();
    let picked = tokio::spawn(async move { picker.cron_once(true).await.unwrap() });
    let is_picked = async || (stage.load("a").await.epoch > before.epoch).then_some(());
    crate::stage::eventually(is_picked).await;
    assert_eq!(stage.services.calls().len(), 1, "one call at a time");
    answer.add_permits(1);
    assert_eq!(picked.await.unwrap(), Some(gid("a")));
    assert_eq!(stage.load("a").await.status, GlobalStatus::Succeed);
    assert_eq!(stage.services.calls().len(), 2);
    for _ in 0..2 {
        assert_eq!(control.processed(WAIT).await, Some(gid("a")), "one event for each pass");
    }
}

#[tokio::test]
async fn ages_can_be_forwarded() {
    let stage = stage();
    let control = stage.engine.test_control().unwrap().clone();
    stage.engine.prepare(new("t", Mode::Tcc, 0)).await.unwrap();
    assert_eq!(control.processed(Duration::from_millis(20)).await, None, "prepare gives no event");
    control.set_clock(0, 180_000);
    assert_eq!(control.cron_once(false).await.unwrap(), Some(gid("t")));
    assert_eq!(stage.load("t").await.status, GlobalStatus::Prepared, "picked, but not old enough");
    assert_eq!(control.processed(WAIT).await, Some(gid("t")));
    control.set_clock(180_000, 360_000);
    assert_eq!(control.cron_once(false).await.unwrap(), Some(gid("t")));
    assert_eq!(stage.load("t").await.status, GlobalStatus::Failed);
}

#[tokio::test]
async fn a_delay_follows_the_second_offset() {
    let stage = stage();
    let control = stage.engine.test_control().unwrap().clone();
    let mut delayed = msg("m", 1);
    delayed.mode = Mode::Msg { delay: Duration::from_secs(10) };
    stage.engine.submit(delayed).await.unwrap();
    assert_eq!(control.processed(WAIT).await, Some(gid("m")));
    for (forward, picked) in [(0, None), (8_000, None), (12_000, Some(gid("m")))] {
        control.set_clock(0, forward);
        assert_eq!(control.cron_once(false).await.unwrap(), picked, "{forward} ms");
    }
    assert_eq!(stage.load("m").await.status, GlobalStatus::Succeed);
}

#[tokio::test]
async fn reset_empties_everything() {
    let stage = stage();
    let control = stage.engine.test_control().unwrap().clone();
    stage.engine.submit(saga("a", 1)).await.unwrap();
    assert_eq!(control.processed(WAIT).await, Some(gid("a")));
    stage.engine.submit(saga("b", 1)).await.unwrap();
    crate::stage::eventually(async || {
        let done = stage.store.load(&gid("b")).await.unwrap()?;
        done.status.is_final().then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    control.reset().await.unwrap();
    assert!(stage.engine.query(&gid("a")).await.unwrap().is_none());
    assert_eq!(control.processed(Duration::from_millis(20)).await, None);
    stage.engine.submit(saga("a", 1)).await.unwrap();
    assert_eq!(control.processed(WAIT).await, Some(gid("a")));
    let _ = Arc::strong_count(&stage.store);
}
