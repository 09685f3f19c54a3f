//! Two-phase messages: a local transaction at bank a, targets at bank b.

use anyhow::ensure;

use super::stage::{Expected, Stage};
use crate::bank::{Admission, Fault, FaultKind};
use crate::client::{FlowError, Msg};

fn transfer(stage: &Stage) -> anyhow::Result<Msg> {
    let (query_prepared, _) = stage.leg(0, "/query-prepared")?;
    let steps = vec![stage.leg(1, "/in")?, stage.leg(2, "/in")?];
    Ok(Msg { query_prepared, steps, options: stage.options() })
}

/// A message that is asked back soon.
fn impatient(stage: &Stage) -> anyhow::Result<Msg> {
    let mut msg = transfer(stage)?;
    msg.options.timeout_to_fail_ms = Some(500);
    Ok(msg)
}

async fn run(stage: &mut Stage, gid: &str, msg: &Msg) -> anyhow::Result<Result<(), FlowError>> {
    let (url, payload) = stage.leg(0, "/local-out")?;
    let client = stage.client();
    Ok(stage.during(client.msg(gid, msg, (&url, &payload))).await)
}

pub(super) async fn good(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let msg = transfer(stage)?;
    run(stage, gid, &msg).await??;
    Ok(Expected::moved().with("00", "msg", Admission::Run).with("02", "action", Admission::Run))
}

pub(super) async fn refused(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    stage.inject(0, Fault::new(FaultKind::Fail).gid(gid).op("msg")).await?;
    let msg = transfer(stage)?;
    let refused = run(stage, gid, &msg).await?;
    ensure!(matches!(refused, Err(FlowError::Failure { .. })), "not refused: {refused:?}");
    Ok(Expected::unmoved())
}

/// A submitted message does not fail: even FAILURE is asked again (spec 01 §4.3).
pub(super) async fn retried(
    stage: &mut Stage,
    gid: &str,
    fail_at: usize,
) -> anyhow::Result<Expected> {
    let leg = fail_at.max(2) - 1;
    let branch_id = format!("{leg:02}");
    let fault = Fault::new(FaultKind::Fail).gid(gid).op("action").branch_id(&branch_id).times(2);
    stage.inject(leg, fault).await?;
    let msg = transfer(stage)?;
    run(stage, gid, &msg).await??;
    Ok(Expected::moved().with(&branch_id, "action", Admission::Run))
}

/// The bank holds a delivery while the server is killed: it is made again, and the barrier keeps the
/// money from moving twice.
pub(super) async fn kill(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let slow = Fault::new(FaultKind::Slow).gid(gid).op("action").branch_id("01");
    stage.inject(1, slow.hold(std::time::Duration::from_millis(600))).await?;
    let msg = transfer(stage)?;
    run(stage, gid, &msg).await??;
    stage.wait_call(1).await?;
    stage.note("bank b holds the delivery of branch 01").await;
    stage.kill_server().await?;
    stage.restart_server().await?;
    Ok(Expected::moved().with("00", "msg", Admission::Run))
}

pub(super) async fn lost_submit(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let msg = impatient(stage)?;
    let (url, payload) = stage.leg(0, "/local-out")?;
    let client = stage.client();
    stage.during(client.prepare_msg(gid, &msg)).await?;
    stage.during(client.call_local(gid, &url, &payload)).await?;
    stage.note("the application is gone before it submits; the server asks the bank").await;
    Ok(Expected::moved().with("00", "msg", Admission::Run))
}

pub(super) async fn never_committed(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let msg = impatient(stage)?;
    let (url, payload) = stage.leg(0, "/local-out")?;
    let client = stage.client();
    stage.during(client.prepare_msg(gid, &msg)).await?;
    stage
        .note("the application is gone before its local transaction; the server asks the bank")
        .await;
    stage.during(client.wait_final(gid, std::time::Duration::from_secs(10))).await?;
    stage.note("the local transaction comes too late").await;
    let late = stage.during(client.call_local(gid, &url, &payload)).await;
    ensure!(late.is_err(), "a local transaction committed after the message had failed");
    Ok(Expected::unmoved().with("00", "msg", Admission::Duplicate))
}
