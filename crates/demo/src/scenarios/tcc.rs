//! TCC: the application tries, the server confirms or cancels.

use anyhow::{Context as _, ensure};

use super::stage::{Expected, Stage};
use crate::bank::{Admission, Fault, FaultKind};
use crate::client::TccBranch;

fn transfer(stage: &Stage) -> anyhow::Result<Vec<TccBranch>> {
    let mut branches = Vec::new();
    for (leg, side) in ["out", "in", "in"].into_iter().enumerate() {
        let (try_url, payload) = stage.leg(leg, &format!("/try-{side}"))?;
        let (confirm, _) = stage.leg(leg, &format!("/confirm-{side}"))?;
        let (cancel, _) = stage.leg(leg, &format!("/cancel-{side}"))?;
        branches.push(TccBranch { try_url, confirm, cancel, payload });
    }
    Ok(branches)
}

/// Prepares, registers and tries all branches; leaves the rest to the scenario.
async fn try_all(stage: &mut Stage, gid: &str, timeout_ms: Option<u64>) -> anyhow::Result<()> {
    let branches = transfer(stage)?;
    let mut options = stage.options();
    options.timeout_to_fail_ms = timeout_ms;
    let client = stage.client();
    stage.during(client.prepare("tcc", gid, &options)).await?;
    for (at, branch) in branches.iter().enumerate() {
        let branch_id = format!("{:02}", at + 1);
        stage.during(client.register_tcc(gid, &branch_id, branch)).await?;
        stage.during(client.call_try(gid, &branch_id, branch)).await?;
    }
    Ok(())
}

pub(super) async fn good(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let branches = transfer(stage)?;
    let (client, options) = (stage.client(), stage.options());
    stage.during(client.tcc(gid, &options, &branches)).await?;
    Ok(Expected::moved().with("01", "confirm", Admission::Run).with(
        "03",
        "confirm",
        Admission::Run,
    ))
}

/// A try goes wrong at one branch; its cancel has nothing to cancel.
async fn wrong_try(
    stage: &mut Stage,
    gid: &str,
    at: usize,
    kind: FaultKind,
) -> anyhow::Result<Expected> {
    let branch_id = format!("{at:02}");
    let fault = Fault::new(kind).gid(gid).op("try").branch_id(&branch_id);
    stage.inject(at - 1, fault).await?;
    let branches = transfer(stage)?;
    let (client, options) = (stage.client(), stage.options());
    let ended = stage.during(client.tcc(gid, &options, &branches)).await;
    ensure!(ended.is_err(), "the application did not notice that a try went wrong");
    Ok(Expected::unmoved().with(&branch_id, "cancel", Admission::NullCompensation))
}

pub(super) async fn failure(
    stage: &mut Stage,
    gid: &str,
    fail_at: usize,
) -> anyhow::Result<Expected> {
    wrong_try(stage, gid, fail_at, FaultKind::Fail).await
}

pub(super) async fn null_compensation(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    wrong_try(stage, gid, 2, FaultKind::Lose).await
}

pub(super) async fn hanging(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let expected = wrong_try(stage, gid, 2, FaultKind::Lose).await?;
    let client = stage.client();
    stage.during(client.wait_final(gid, std::time::Duration::from_secs(10))).await?;
    stage.note("the lost try arrives now").await;
    let branches = transfer(stage)?;
    let branch = branches.get(1).context("the second branch")?;
    stage.during(client.call_try(gid, "02", branch)).await?;
    Ok(expected.with("02", "try", Admission::Hanging))
}

pub(super) async fn timeout(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    try_all(stage, gid, Some(700)).await?;
    stage.note("the application is gone before it submits; the server cancels after 700 ms").await;
    Ok(Expected::unmoved().with("01", "cancel", Admission::Run).with(
        "03",
        "cancel",
        Admission::Run,
    ))
}

pub(super) async fn kill(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    try_all(stage, gid, None).await?;
    stage.kill_server().await?;
    stage.restart_server().await?;
    let client = stage.client();
    stage.during(client.submit("tcc", gid)).await?;
    Ok(Expected::moved().with("01", "confirm", Admission::Run))
}
