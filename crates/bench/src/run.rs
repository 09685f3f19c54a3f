//! A run from its first process to its report.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};

use crate::budgets::{self, Figures};
use crate::generator::{Done, Load, Running};
use crate::metrics::{Metrics, StoreCounts};
use crate::options::{BenchOptions, Protocol};
use crate::plan::{self, Plan};
use crate::procfs::{self, Usage};
use crate::report::{CpuUs, Echo, LatencyUs, Report};
use crate::stage::{Asker, Folder, Measured, Participants, State};

/// Transactions at once while the store is filled.
const PRELOAD_CONCURRENCY: usize = 256;
/// The longest warm-up, and the longest measurement of a baseline.
const SHORT_MAX: Duration = Duration::from_secs(2);
/// Calls at once that tell the machine's speed.
const YARDSTICK_CALLS: usize = 64;
/// How long the last transactions may take to become final.
const FINAL_MAX: Duration = Duration::from_secs(30);
/// Transactions that are queried one by one where the server's totals prove the rest.
const SAMPLE: usize = 200;

/// Measures. `progress` is told what happens now.
///
/// # Errors
///
/// Something cannot be started or reached. Transactions that go wrong are no error here: the
/// report counts them.
pub async fn run(options: &BenchOptions, progress: &dyn Fn(&str)) -> Result<Report> {
    ensure!(options.steps > 0, "--steps: a transaction has at least one");
    ensure!(options.concurrency > 0, "--concurrency: at least one");
    let folder = Folder::new(options.data.as_deref())?;
    let participants = Participants::start(&options.binary).await?;
    let server = Measured::start(options, &folder).await?;
    let bench = Bench { options, server, participants, run: run_number() };
    let mut checked = Checked::begin(&bench).await?;
    if options.preload > 0 {
        progress(&format!("finishing {} transactions first", options.preload));
        bench.preload(&mut checked).await?;
    }
    let bare_call_us = match options.concurrency {
        1 => Some(bench.bare_call().await?),
        _ => None,
    };
    let echo = bench.echo().await?;
    let before = bench.yardstick().await?;
    progress(&format!("measuring for {:.0} s", options.duration.as_secs_f64()));
    let window = bench.measure(&mut checked).await?;
    let after = bench.yardstick().await?;
    let bare_call_cpu_us = before.zip(after).map(|(before, after)| f64::midpoint(before, after));
    progress("checking every transaction's state");
    let (errors, error_texts) = checked.finish(&bench).await?;
    let mut report = window.report(&bench, echo, bare_call_us);
    report.budgets = budgets::judge(options, &figures(&report, bare_call_cpu_us));
    report.file_system = options.target.is_none().then(|| folder.file_system());
    report.rss_kib = bench.server.peak_kib();
    report.errors = errors;
    report.error_texts = error_texts;
    if let Some(mut process) = bench.server.process {
        process.terminate().await?;
    }
    Ok(report)
}

/// Returns a number that two runs within half a year do not share.
fn run_number() -> u32 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (passed.as_secs() & 0x00ff_ffff) as u32
}

/// What everything in a run works on.
struct Bench<'a> {
    options: &'a BenchOptions,
    server: Measured,
    participants: Participants,
    run: u32,
}

/// What the processes have used at a moment.
struct Moment {
    at: Instant,
    completed: u64,
    server: Option<Usage>,
    participants: Usage,
    generator: Usage,
    busy: Duration,
    store: Option<StoreCounts>,
}

/// What lies between two moments.
struct Window {
    seconds: f64,
    transactions: u64,
    server: Option<Usage>,
    participants: Usage,
    generator: Usage,
    foreign_cores: f64,
    store: Option<StoreCounts>,
    done: Done,
}

impl Bench<'_> {
    fn load(&self, plan: Plan, concurrency: usize, run: u32) -> Load {
        Load {
            plan,
            protocol: self.options.protocol,
            address: self.server.address_for(self.options.protocol),
            watch: Some(self.participants.address),
            concurrency,
            run,
            count_max: u64::MAX,
        }
    }

    fn transactions(&self, wait: bool) -> Plan {
        let BenchOptions { mode, protocol, steps, .. } = *self.options;
        let base = self.participants.base(protocol);
        match protocol {
            Protocol::Http => {
                let host = self.server.address.to_string();
                Plan::transaction(mode, steps, wait, &host, &base)
            }
            Protocol::Grpc => Plan::grpc_transaction(mode, steps, wait, &base),
        }
    }

    /// Returns how long anything short may take: long runs get longer ones.
    fn short(&self) -> Duration {
        (self.options.duration / 5).min(SHORT_MAX)
    }

    async fn preload(&self, checked: &mut Checked) -> Result<()> {
        let run = self.run.wrapping_add(1);
        let load = self.load(self.transactions(true), PRELOAD_CONCURRENCY, run);
        let load = Load { count_max: self.options.preload, ..load };
        let done = Running::start(load).await?.run_out().await;
        if done.errors.count > 0 {
            bail!("the store could not be filled: {}", done.errors.texts.join("; "));
        }
        checked.started += done.started();
        Ok(())
    }

    async fn bare_call(&self) -> Result<f64> {
        let protocol = self.options.protocol;
        let address = self.participants.address_for(protocol);
        let plan = match protocol {
            Protocol::Http => Plan::bare_call(&address.to_string()),
            Protocol::Grpc => Plan::grpc_bare_call(),
        };
        let load = self.load(plan, 1, self.run);
        let mut running = Running::start(Load { address, ..load }).await?;
        running.measure(true);
        running.run_for(self.short()).await;
        Ok(running.finish().await.latencies.percentile_us(50.0))
    }

    /// Returns what a call over HTTP costs the participants now when nobody else calls them, in
    /// microseconds of CPU; `None` where their cost in the run itself tells the machine's speed, or
    /// nothing is judged by it.
    async fn yardstick(&self) -> Result<Option<f64>> {
        let is_judged = self.options.protocol == Protocol::Grpc && self.options.target.is_none();
        if !is_judged || !budgets::tells_speed(&procfs::processor()) {
            return Ok(None);
        }
        let address = self.participants.address;
        let load = self.load(Plan::bare_call(&address.to_string()), YARDSTICK_CALLS, self.run);
        let load = Load { address, protocol: Protocol::Http, ..load };
        let window = self.window(Running::start(load).await?, self.short()).await?;
        Ok(Some(per(window.participants.cpu, window.transactions)))
    }

    async fn echo(&self) -> Result<Echo> {
        let plan = match self.options.protocol {
            Protocol::Http => Plan::echo(&self.server.address.to_string()),
            Protocol::Grpc => Plan::grpc_echo(),
        };
        let load = self.load(plan, self.options.concurrency, self.run);
        let window = self.window(Running::start(load).await?, self.short()).await?;
        if window.done.errors.count > 0 {
            let texts = window.done.errors.texts.join("; ");
            bail!("the server does not answer the cheapest request: {texts}");
        }
        let each = |usage: Usage| per(usage.cpu, window.transactions);
        Ok(Echo {
            rate: window.transactions as f64 / window.seconds,
            server_us: window.server.map(each),
            generator_us: each(window.generator),
        })
    }

    async fn measure(&self, checked: &mut Checked) -> Result<Window> {
        let plan = self.transactions(self.options.wait);
        let load = self.load(plan, self.options.concurrency, self.run);
        let mut running = Running::start(load).await?;
        running.run_for(self.short()).await;
        let window = self.window(running, self.options.duration).await?;
        checked.started += window.done.started();
        checked.measured = window.done.numbers().collect();
        checked.errors = window.done.errors.count;
        checked.texts.clone_from(&window.done.errors.texts);
        Ok(window)
    }

    /// Lets a load run and takes what everybody used meanwhile.
    async fn window(&self, mut running: Running, duration: Duration) -> Result<Window> {
        let before = self.moment(&running, true).await?;
        running.run_for(duration).await;
        let after = self.moment(&running, false).await?;
        let done = running.finish().await;
        let since = |now: Usage, then: Usage| now.since(then);
        let server = after.server.zip(before.server).map(|(now, then)| since(now, then));
        let participants = since(after.participants, before.participants);
        let generator = since(after.generator, before.generator);
        let ours =
            server.map_or(Duration::ZERO, |usage| usage.cpu) + participants.cpu + generator.cpu;
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let foreign = after.busy.saturating_sub(before.busy).saturating_sub(ours);
        Ok(Window {
            seconds,
            transactions: after.completed - before.completed,
            server,
            participants,
            generator,
            foreign_cores: foreign.as_secs_f64() / seconds,
            store: after.store.zip(before.store).map(|(now, then)| now.since(then)),
            done,
        })
    }

    /// Looks at everything at once; the slow look at the metrics lies outside of the window.
    async fn moment(&self, running: &Running, begins: bool) -> Result<Moment> {
        let metrics = if begins { Some(self.server.metrics().await?) } else { None };
        let moment = Moment {
            at: Instant::now(),
            completed: running.measure(begins),
            server: self.server.pid.map(procfs::usage).transpose()?,
            participants: procfs::usage(self.participants.pid()?)?,
            generator: procfs::usage(std::process::id())?,
            busy: procfs::busy()?,
            store: None,
        };
        let metrics = match metrics {
            Some(metrics) => metrics,
            None => self.server.metrics().await?,
        };
        Ok(Moment { store: metrics.store(), ..moment })
    }
}

impl Window {
    fn report(&self, bench: &Bench<'_>, echo: Echo, bare_call_us: Option<f64>) -> Report {
        let options = bench.options;
        let latencies = &self.done.latencies;
        let count = self.transactions.max(1) as f64;
        let store = self.store.as_ref();
        let latency_us = LatencyUs {
            p50: latencies.percentile_us(50.0),
            p95: latencies.percentile_us(95.0),
            p99: latencies.percentile_us(99.0),
            max: latencies.max_us(),
        };
        let cpu_us_per_tx = CpuUs {
            server: self.server.map(|usage| per(usage.cpu, self.transactions)),
            server_kernel: self.server.map(|usage| per(usage.kernel, self.transactions)),
            participants: per(self.participants.cpu, self.transactions),
            generator: per(self.generator.cpu, self.transactions),
        };
        let flushes = store.map(|store| store.flushes.max(1.0));
        let flush_us =
            store.zip(flushes).map(|(store, flushes)| store.flush_seconds / flushes * 1e6);
        Report {
            mode: options.mode,
            protocol: options.protocol,
            steps: options.steps,
            concurrency: options.concurrency,
            wait: options.wait,
            store: match &options.target {
                Some(target) => target.url.clone(),
                None => options.store.name(),
            },
            file_system: None,
            seconds: self.seconds,
            transactions: self.transactions,
            tps: self.transactions as f64 / self.seconds,
            latency_us,
            cpu_us_per_tx,
            server_waits_per_tx: self.server.map(|usage| usage.waits as f64 / count),
            flushes_per_tx: store.map(|store| store.flushes / count),
            changes_per_tx: store.map(|store| store.changes / count),
            forced_per_tx: store.and_then(|store| store.forced).map(|forced| forced / count),
            changes_per_flush: store.zip(flushes).map(|(store, flushes)| store.changes / flushes),
            flush_us,
            rss_kib: None,
            errors: 0,
            error_texts: Vec::new(),
            processor: procfs::processor(),
            foreign_cores: self.foreign_cores,
            echo_cpu_us: echo.server_us,
            echo,
            bare_call_us,
            budgets: Vec::new(),
        }
    }
}

fn figures(report: &Report, bare_call_cpu_us: Option<f64>) -> Figures {
    let tells_speed = budgets::tells_speed(&report.processor);
    Figures {
        tps: report.tps,
        p50_us: report.latency_us.p50,
        p99_us: report.latency_us.p99,
        server_us: report.cpu_us_per_tx.server,
        participants_us: tells_speed.then_some(report.cpu_us_per_tx.participants),
        bare_call_cpu_us,
        flushes: report.flushes_per_tx,
        flush_us: report.flush_us,
        changes: report.changes_per_tx,
        forced: report.forced_per_tx,
        bare_call_us: report.bare_call_us,
    }
}

/// Microseconds each of `count` took.
fn per(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// What is known about transactions that were started, to be compared with what is stored.
struct Checked {
    before: Option<(u64, u64)>,
    /// All of them, those before the measurement included.
    started: u64,
    /// The numbers of those of the measured run.
    measured: Vec<u64>,
    errors: u64,
    texts: Vec<String>,
}

impl Checked {
    async fn begin(bench: &Bench<'_>) -> Result<Self> {
        let before = Self::stored(bench, &bench.server.metrics().await?);
        Ok(Self { before, started: 0, measured: Vec::new(), errors: 0, texts: Vec::new() })
    }

    fn stored(bench: &Bench<'_>, metrics: &Metrics) -> Option<(u64, u64)> {
        metrics.stored(bench.options.mode.as_str())
    }

    /// Returns how many transactions did not succeed, and why.
    ///
    /// The totals of a server of ours count every one of them, a sample is queried besides. Of any
    /// other server every transaction of the measured run is queried.
    async fn finish(mut self, bench: &Bench<'_>) -> Result<(u64, Vec<String>)> {
        let mut missing = 0;
        let mut sample = self.measured.len();
        if let Some((succeed_before, _)) = self.before {
            sample = sample.min(SAMPLE);
            let deadline = Instant::now() + FINAL_MAX;
            loop {
                let totals = Self::stored(bench, &bench.server.metrics().await?);
                let (succeed, others) = totals.context("the server's metrics have changed")?;
                missing = self.started.saturating_sub(succeed.saturating_sub(succeed_before));
                if missing == 0 {
                    break;
                }
                if self.errors > 0 || Instant::now() > deadline {
                    self.texts.push(format!(
                        "{missing} of {} did not succeed; {others} are stored with another status",
                        self.started
                    ));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let wrong = self.query(bench, sample).await?;
        Ok((self.errors.max(missing).max(wrong), self.texts))
    }

    /// Queries so many transactions, evenly spread over the measured run; returns how many are not
    /// as they should be.
    async fn query(&mut self, bench: &Bench<'_>, sample: usize) -> Result<u64> {
        let mut asker = Asker::open(&bench.server).await?;
        let every = self.measured.len().div_ceil(sample.max(1)).max(1);
        let mut wrong = 0;
        for number in self.measured.iter().step_by(every) {
            let gid = plan::gid(bench.run, *number);
            let state = asker.settled(&gid, FINAL_MAX).await?;
            if state.is_succeed() {
                continue;
            }
            wrong += 1;
            if wrong == 1 {
                let State { status, open_branches } = state;
                self.texts.push(format!("{gid} is {status}, {open_branches} branches are open"));
            }
        }
        Ok(wrong)
    }
}
