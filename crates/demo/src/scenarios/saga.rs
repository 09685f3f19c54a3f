//! Sagas: actions forward, compensations in reverse.

use std::time::Duration;

use super::stage::{Expected, Stage};
use crate::bank::{Admission, Fault, FaultKind};
use crate::client::{Saga, SagaStep};

/// More often than any scenario calls one branch.
const ALWAYS: u32 = 1_000;

fn transfer(stage: &Stage) -> anyhow::Result<Saga> {
    let mut steps = Vec::new();
    for (leg, path) in ["/out", "/in", "/in"].into_iter().enumerate() {
        let (action, payload) = stage.leg(leg, path)?;
        let (compensate, _) = stage.leg(leg, &format!("{path}-undo"))?;
        steps.push(SagaStep { action, compensate, payload });
    }
    Ok(Saga { steps, orders: Vec::new(), options: stage.options() })
}

async fn submit(stage: &mut Stage, gid: &str, saga: &Saga) -> anyhow::Result<()> {
    let client = stage.client();
    Ok(stage.during(client.submit_saga(gid, saga)).await?)
}

pub(super) async fn good(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let saga = transfer(stage)?;
    submit(stage, gid, &saga).await?;
    Ok(Expected::moved().with("01", "action", Admission::Run))
}

/// The failed action's own step is compensated too (spec 01 §4.6): there is nothing to undo.
pub(super) async fn failure(
    stage: &mut Stage,
    gid: &str,
    fail_at: usize,
) -> anyhow::Result<Expected> {
    let branch_id = format!("{fail_at:02}");
    let fault = Fault::new(FaultKind::Fail).gid(gid).op("action").branch_id(&branch_id);
    stage.inject(fail_at - 1, fault).await?;
    let saga = transfer(stage)?;
    submit(stage, gid, &saga).await?;
    Ok(Expected::unmoved().with(&branch_id, "compensate", Admission::NullCompensation))
}

/// The second action never reaches the bank's database; the retry limit ends the attempts.
async fn lose_second(stage: &mut Stage, gid: &str) -> anyhow::Result<()> {
    let lose = Fault::new(FaultKind::Lose).gid(gid).op("action").branch_id("02").times(ALWAYS);
    stage.inject(1, lose).await?;
    let mut saga = transfer(stage)?;
    saga.options.retry_limit = Some(1);
    submit(stage, gid, &saga).await
}

pub(super) async fn null_compensation(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    lose_second(stage, gid).await?;
    Ok(Expected::unmoved().with("01", "compensate", Admission::Run).with(
        "02",
        "compensate",
        Admission::NullCompensation,
    ))
}

pub(super) async fn hanging(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    lose_second(stage, gid).await?;
    let client = stage.client();
    stage.during(client.wait_final(gid, Duration::from_secs(10))).await?;
    let bank = stage.bank(1)?;
    bank.clear_faults().await?;
    stage.note("the lost action arrives now").await;
    let (action, payload) = stage.leg(1, "/in")?;
    let names = ("saga", gid, "02", "action");
    stage.during(client.call_branch(&action, names, Some(&payload))).await?;
    Ok(Expected::unmoved().with("02", "compensate", Admission::NullCompensation).with(
        "02",
        "action",
        Admission::Hanging,
    ))
}

pub(super) async fn timeout(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let hang = Fault::new(FaultKind::Hang).gid(gid).op("action").branch_id("02");
    stage.inject(1, hang.times(ALWAYS).hold(Duration::from_millis(400))).await?;
    let mut saga = transfer(stage)?;
    saga.options.request_timeout_ms = Some(300);
    saga.options.timeout_to_fail_ms = Some(700);
    submit(stage, gid, &saga).await?;
    Ok(Expected::unmoved().with("01", "compensate", Admission::Run))
}

/// The bank holds the call of the second action while the server is killed: the server cannot know
/// whether it was done, so it calls again, and the barrier keeps the money from moving twice.
pub(super) async fn kill(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let slow = Fault::new(FaultKind::Slow).gid(gid).op("action").branch_id("02");
    stage.inject(1, slow.hold(Duration::from_millis(600))).await?;
    let saga = transfer(stage)?;
    submit(stage, gid, &saga).await?;
    stage.wait_call(1).await?;
    stage.note("bank b holds the call of branch 02").await;
    stage.kill_server().await?;
    stage.restart_server().await?;
    Ok(Expected::moved())
}
