//! Measurements that are no load: a server with nothing to do, and one that starts again after it
//! was killed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::budgets::{self, Budget};
use crate::generator::{Load, Running};
use crate::options::{BenchOptions, Mode, Protocol};
use crate::plan::Plan;
use crate::procfs;
use crate::report::budget_table;
use crate::stage::{Folder, Measured, Participants};

/// How long a server may settle before its idleness is measured.
const SETTLE: Duration = Duration::from_secs(1);
/// Transactions at once while the store is filled.
const FILL_CONCURRENCY: usize = 256;

/// What such a measurement found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpecialReport {
    /// What was measured.
    pub case: String,
    /// CPU of the server in percent of one core.
    pub cpu_percent: Option<f64>,
    /// From the start to the first 200 of `/healthz`, in seconds.
    pub ready_seconds: Option<f64>,
    /// The server's memory in KiB.
    pub rss_kib: u64,
    /// The budgets, judged.
    pub budgets: Vec<Budget>,
}

impl SpecialReport {
    /// Returns the report for people.
    #[must_use]
    pub fn to_table(&self) -> String {
        format!("{}\n\n{}\n", self.case, budget_table(&self.budgets))
    }

    /// Returns the report as a JSON object.
    ///
    /// # Errors
    ///
    /// Never in practice: every member has a JSON form.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

/// Measures a server that has nothing to do (B17).
///
/// # Errors
///
/// It cannot be started.
pub async fn idle(options: &BenchOptions) -> Result<SpecialReport> {
    let folder = Folder::new(options.data.as_deref())?;
    let mut server = Measured::start(options, &folder).await?;
    let pid = server.pid.context("an idle server is measured by its process: give --target-pid")?;
    tokio::time::sleep(SETTLE).await;
    let (before, begun) = (procfs::usage(pid)?, Instant::now());
    tokio::time::sleep(options.duration).await;
    let used = procfs::usage(pid)?.since(before);
    let cpu_percent = used.cpu.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let rss_kib = procfs::memory(pid)?.now;
    if let Some(process) = &mut server.process {
        process.terminate().await?;
    }
    Ok(SpecialReport {
        case: format!("idle for {:.0} s", options.duration.as_secs_f64()),
        cpu_percent: Some(cpu_percent),
        ready_seconds: None,
        rss_kib,
        budgets: budgets::idle(cpu_percent, rss_kib as f64 / 1024.0),
    })
}

/// Fills a store with `--preload` finished sagas and a tenth as many unfinished messages, kills the
/// server and measures how soon it is ready again (B10).
///
/// # Errors
///
/// It cannot be started or filled.
pub async fn restart(options: &BenchOptions, progress: &dyn Fn(&str)) -> Result<SpecialReport> {
    let folder = Folder::new(options.data.as_deref())?;
    let participants = Participants::start(&options.binary).await?;
    let mut server = Measured::start(options, &folder).await?;
    if server.process.is_none() {
        bail!("only a server that was started here can be killed: leave --target out");
    }
    let (finished, live) = (options.preload, options.preload / 10);
    let (host, base) = (server.address.to_string(), participants.base(Protocol::Http));
    progress(&format!("storing {finished} finished and {live} unfinished transactions"));
    let saga = Plan::transaction(Mode::Saga, options.steps, true, &host, &base);
    fill(&server, saga, 1, finished).await?;
    fill(&server, Plan::unfinished(&host, &base), 2, live).await?;
    let process = server.process.as_mut().context("the server was started here")?;
    process.kill_9().await?;
    progress("killed; starting again");
    let begun = Instant::now();
    process.restart().await?;
    let seconds = begun.elapsed().as_secs_f64();
    let pid = process.id().context("the server has ended")?;
    let rss_kib = procfs::memory(pid)?.peak;
    process.terminate().await?;
    Ok(SpecialReport {
        case: format!("restart with {finished} finished and {live} unfinished transactions"),
        cpu_percent: None,
        ready_seconds: Some(seconds),
        rss_kib,
        budgets: budgets::restart(seconds, rss_kib as f64 / 1024.0),
    })
}

async fn fill(server: &Measured, plan: Plan, run: u32, count_max: u64) -> Result<()> {
    let concurrency = FILL_CONCURRENCY;
    let (protocol, address) = (Protocol::Http, server.address);
    let load = Load { plan, protocol, address, watch: None, concurrency, run, count_max };
    let done = Running::start(load).await?.run_out().await;
    if done.errors.count > 0 {
        bail!("the store could not be filled: {}", done.errors.texts.join("; "));
    }
    Ok(())
}
