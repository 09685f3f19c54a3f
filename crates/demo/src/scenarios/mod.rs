//! The demo: a server and its banks as processes of their own, and what happens to them.
//!
//! Every scenario moves 30 from alice to bob (20) and carol (10), or shows that nothing moves. After
//! each one the balances, and at the end all sums, statuses and prepared transactions are checked;
//! what does not add up ends the demo with an error.

mod msg;
mod saga;
mod stage;
mod tcc;
mod workflow;
mod xa;

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

pub use crate::printer::{Color, Printer};
use stage::{Expected, Stage};
use xa::XaDatabases;

/// Which scenarios are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoMode {
    /// All of them.
    All,
    /// Sagas.
    Saga,
    /// Two-phase messages.
    Msg,
    /// TCC.
    Tcc,
    /// XA, if there is a database for it.
    Xa,
    /// Workflows, over gRPC.
    Workflow,
    /// Those of every mode in which the server is killed.
    Kill,
}

impl DemoMode {
    /// The words [`DemoMode::from_str`] understands.
    pub const WORDS: [&'static str; 7] = ["all", "saga", "msg", "tcc", "xa", "workflow", "kill"];
}

impl FromStr for DemoMode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "all" => Ok(Self::All),
            "saga" => Ok(Self::Saga),
            "msg" => Ok(Self::Msg),
            "tcc" => Ok(Self::Tcc),
            "xa" => Ok(Self::Xa),
            "workflow" => Ok(Self::Workflow),
            "kill" => Ok(Self::Kill),
            other => Err(format!("{other} is not one of {}", Self::WORDS.join(", "))),
        }
    }
}

/// Over which protocol the application, the server and the banks talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DemoProtocol {
    /// HTTP with JSON.
    #[default]
    Http,
    /// gRPC; without XA, whose branches are HTTP only.
    Grpc,
}

/// How the demo is run.
#[derive(Debug, Clone, Default)]
pub struct DemoOptions {
    /// Which scenarios; none means all.
    pub modes: Vec<DemoMode>,
    /// Over which protocol.
    pub protocol: DemoProtocol,
    /// Which of the three steps (1 to 3) answers FAILURE in the scenarios that show a failure; the
    /// second if not given.
    pub fail_at: Option<usize>,
    /// The `dtmd` binary; the running one if not given.
    pub binary: Option<PathBuf>,
    /// More arguments for `dtmd serve`.
    pub server_args: Vec<OsString>,
    /// Keep the directory with the store, the banks' files and the logs.
    pub keep: bool,
    /// Whether to colour the output.
    pub color: Color,
    /// A MariaDB or MySQL database for XA; a private server is started if not given.
    pub mysql: Option<String>,
    /// A PostgreSQL database for XA; a private server is started if not given.
    pub postgres: Option<String>,
}

/// What the demo did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The scenarios, in the order they ran.
    pub scenarios: Vec<ScenarioSummary>,
    /// What was not run, and why.
    pub skipped: Vec<String>,
    /// From the start of the demo to the first transaction that succeeded.
    pub first_commit: Option<Duration>,
    /// The sum of all balances over all banks, the same before and after.
    pub total: i64,
    /// How long the demo took.
    pub took: Duration,
}

/// What one scenario came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioSummary {
    /// Mode and title.
    pub name: String,
    /// The global transaction's id.
    pub gid: String,
    /// Its final status, as expected.
    pub status: String,
    /// How long the scenario took, its checks included.
    pub took: Duration,
}

/// One thing that can happen to a global transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    SagaGood,
    SagaFailure,
    SagaNullCompensation,
    SagaHanging,
    SagaTimeout,
    SagaKill,
    MsgGood,
    MsgRefused,
    MsgRetried,
    MsgLostSubmit,
    MsgNeverCommitted,
    MsgKill,
    TccGood,
    TccFailure,
    TccNullCompensation,
    TccHanging,
    TccTimeout,
    TccKill,
    WorkflowGood,
    WorkflowFailure,
    WorkflowKill,
    XaCommit,
    XaRollback,
    XaKill,
}

impl Scenario {
    /// All scenarios; the good saga comes first, so that something succeeds at once.
    const ALL: [Self; 24] = [
        Self::SagaGood,
        Self::SagaFailure,
        Self::SagaNullCompensation,
        Self::SagaHanging,
        Self::SagaTimeout,
        Self::SagaKill,
        Self::MsgGood,
        Self::MsgRefused,
        Self::MsgRetried,
        Self::MsgLostSubmit,
        Self::MsgNeverCommitted,
        Self::MsgKill,
        Self::TccGood,
        Self::TccFailure,
        Self::TccNullCompensation,
        Self::TccHanging,
        Self::TccTimeout,
        Self::TccKill,
        Self::WorkflowGood,
        Self::WorkflowFailure,
        Self::WorkflowKill,
        Self::XaCommit,
        Self::XaRollback,
        Self::XaKill,
    ];

    /// The mode, a short name for the gid, and a title.
    fn names(self) -> (DemoMode, &'static str, &'static str) {
        use DemoMode::{Msg, Saga, Tcc, Workflow, Xa};
        match self {
            Self::SagaGood => (Saga, "saga-good", "every step succeeds"),
            Self::SagaFailure => (Saga, "saga-failure", "a step fails, the others are undone"),
            Self::SagaNullCompensation => {
                (Saga, "saga-null", "an action is lost on its way, its compensation is not")
            }
            Self::SagaHanging => (Saga, "saga-hanging", "an action arrives after its compensation"),
            Self::SagaTimeout => (Saga, "saga-timeout", "a branch hangs, the saga times out"),
            Self::SagaKill => (Saga, "saga-kill", "the server is killed in the middle"),
            Self::MsgGood => (Msg, "msg-good", "a local transaction and its message"),
            Self::MsgRefused => (Msg, "msg-refused", "the local transaction is refused"),
            Self::MsgRetried => (Msg, "msg-retried", "a target says no twice, and is asked again"),
            Self::MsgLostSubmit => (Msg, "msg-lost-submit", "committed, but the submit is lost"),
            Self::MsgNeverCommitted => (Msg, "msg-lost-commit", "prepared, but never committed"),
            Self::MsgKill => (Msg, "msg-kill", "the server is killed while it delivers"),
            Self::TccGood => (Tcc, "tcc-good", "every try succeeds, all are confirmed"),
            Self::TccFailure => (Tcc, "tcc-failure", "a try fails, all are cancelled"),
            Self::TccNullCompensation => {
                (Tcc, "tcc-null", "a try is lost on its way, its cancel is not")
            }
            Self::TccHanging => (Tcc, "tcc-hanging", "a try arrives after its cancel"),
            Self::TccTimeout => (Tcc, "tcc-timeout", "tried, but never submitted"),
            Self::TccKill => {
                (Tcc, "tcc-kill", "the server is killed between the tries and the submit")
            }
            Self::WorkflowGood => {
                (Workflow, "workflow-good", "every step succeeds and is recorded")
            }
            Self::WorkflowFailure => {
                (Workflow, "workflow-failure", "a step fails, those before it are undone")
            }
            Self::WorkflowKill => {
                (Workflow, "workflow-kill", "the application stops, the server is killed")
            }
            Self::XaCommit => (Xa, "xa-commit", "both databases prepare, both commit"),
            Self::XaRollback => (Xa, "xa-rollback", "a branch refuses, all roll back"),
            Self::XaKill => {
                (Xa, "xa-kill", "the server is killed between prepare and the second phase")
            }
        }
    }

    fn kills(self) -> bool {
        matches!(
            self,
            Self::SagaKill | Self::MsgKill | Self::TccKill | Self::WorkflowKill | Self::XaKill
        )
    }

    /// XA branches are HTTP only; the workflows here are written for gRPC.
    fn is_played_over(self, protocol: DemoProtocol) -> bool {
        match protocol {
            DemoProtocol::Http => self.names().0 != DemoMode::Workflow,
            DemoProtocol::Grpc => self.names().0 != DemoMode::Xa,
        }
    }

    fn is_chosen(self, modes: &[DemoMode]) -> bool {
        let (mode, ..) = self.names();
        modes.is_empty()
            || modes.iter().any(|chosen| match chosen {
                DemoMode::All => true,
                DemoMode::Kill => self.kills(),
                other => *other == mode,
            })
    }

    /// Runs the scenario; returns what is expected of its global transaction.
    async fn play(self, stage: &mut Stage, gid: &str, fail_at: usize) -> anyhow::Result<Expected> {
        match self {
            Self::SagaGood => saga::good(stage, gid).await,
            Self::SagaFailure => saga::failure(stage, gid, fail_at).await,
            Self::SagaNullCompensation => saga::null_compensation(stage, gid).await,
            Self::SagaHanging => saga::hanging(stage, gid).await,
            Self::SagaTimeout => saga::timeout(stage, gid).await,
            Self::SagaKill => saga::kill(stage, gid).await,
            Self::MsgGood => msg::good(stage, gid).await,
            Self::MsgRefused => msg::refused(stage, gid).await,
            Self::MsgRetried => msg::retried(stage, gid, fail_at).await,
            Self::MsgLostSubmit => msg::lost_submit(stage, gid).await,
            Self::MsgNeverCommitted => msg::never_committed(stage, gid).await,
            Self::MsgKill => msg::kill(stage, gid).await,
            Self::TccGood => tcc::good(stage, gid).await,
            Self::TccFailure => tcc::failure(stage, gid, fail_at).await,
            Self::TccNullCompensation => tcc::null_compensation(stage, gid).await,
            Self::TccHanging => tcc::hanging(stage, gid).await,
            Self::TccTimeout => tcc::timeout(stage, gid).await,
            Self::TccKill => tcc::kill(stage, gid).await,
            Self::WorkflowGood => workflow::good(stage, gid).await,
            Self::WorkflowFailure => workflow::failure_of_a_step(stage, gid, fail_at).await,
            Self::WorkflowKill => workflow::kill(stage, gid).await,
            Self::XaCommit => xa::commit(stage, gid).await,
            Self::XaRollback => xa::rollback(stage, gid, fail_at).await,
            Self::XaKill => xa::kill(stage, gid).await,
        }
    }
}

/// Runs the demo and prints what happens.
///
/// # Errors
/// Something could not be started, a scenario did not end as it must, the sum of the balances
/// changed, a transaction is not final, or a prepared XA transaction was left behind. The error
/// tells what happened and shows the end of the server's output.
pub async fn run_demo(options: DemoOptions) -> anyhow::Result<Summary> {
    let fail_at = options.fail_at.unwrap_or(2);
    anyhow::ensure!((1..=3).contains(&fail_at), "there are steps 1 to 3, {fail_at} is none");
    let chosen = chosen(&options)?;
    let mut printer = Printer::stdout(options.color);
    let played = tokio::select! {
        played = play(&options, &chosen, fail_at, &mut printer) => played,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match &played {
        Ok(summary) => printer.good(&summary_line(summary)),
        Err(_) => printer.bad("\nthe demo found something wrong"),
    }
    played
}

fn summary_line(summary: &Summary) -> String {
    let first = summary.first_commit.map_or_else(String::new, |first| {
        format!(", the first transaction succeeded after {:.1} s", first.as_secs_f64())
    });
    format!(
        "\n{} scenarios in {:.1} s{first}; all transactions are final, the sum of all balances is \
         still {}",
        summary.scenarios.len(),
        summary.took.as_secs_f64(),
        summary.total
    )
}

/// Returns the scenarios that are asked for, if there are any over that protocol.
fn chosen(options: &DemoOptions) -> anyhow::Result<Vec<Scenario>> {
    let chosen: Vec<Scenario> = Scenario::ALL
        .into_iter()
        .filter(|scenario| scenario.is_chosen(&options.modes))
        .filter(|scenario| scenario.is_played_over(options.protocol))
        .collect();
    if chosen.is_empty() {
        match options.protocol {
            DemoProtocol::Http => bail!("the workflows of this demo go over gRPC: --protocol grpc"),
            DemoProtocol::Grpc => bail!("the XA branches of this demo are HTTP: --protocol http"),
        }
    }
    Ok(chosen)
}

async fn play(
    options: &DemoOptions,
    chosen: &[Scenario],
    fail_at: usize,
    printer: &mut Printer,
) -> anyhow::Result<Summary> {
    let begun = Instant::now();
    let needs_xa = chosen.iter().any(|scenario| scenario.names().0 == DemoMode::Xa);
    // Databases take seconds to come up; they do so while the other scenarios run.
    let databases = needs_xa.then(|| XaDatabases::begin(options));
    let mut stage = Stage::open(options, std::mem::replace(printer, Printer::memory())).await?;
    if options.protocol == DemoProtocol::Grpc {
        stage.printer().note("XA is left out: its branches are HTTP (dtmd demo xa)");
    }
    let played = play_all(&mut stage, chosen, fail_at, databases, begun).await;
    let log = stage.server_log();
    *printer = stage.close(options.keep || played.is_err());
    // The cause comes first: it is what the reader looks for.
    played.map_err(|error| anyhow::anyhow!("{error:#}\n\nthe end of the server's output:\n{log}"))
}

async fn play_all(
    stage: &mut Stage,
    chosen: &[Scenario],
    fail_at: usize,
    mut databases: Option<xa::Beginning>,
    begun: Instant,
) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    for scenario in chosen {
        if scenario.names().0 == DemoMode::Xa {
            if let Some(beginning) = databases.take()
                && let Err(why) = stage.open_xa(beginning).await?
            {
                stage.printer().header("xa", "skipped");
                stage.printer().note(&why);
                summary.skipped.push(format!("xa: {why}"));
            }
            if !stage.has_xa() {
                continue;
            }
        }
        let scenario = play_one(stage, *scenario, fail_at).await?;
        if summary.first_commit.is_none() && scenario.status == "succeed" {
            summary.first_commit = Some(begun.elapsed());
        }
        summary.scenarios.push(scenario);
    }
    summary.total = stage.check_end().await?;
    summary.took = begun.elapsed();
    Ok(summary)
}

async fn play_one(
    stage: &mut Stage,
    scenario: Scenario,
    fail_at: usize,
) -> anyhow::Result<ScenarioSummary> {
    let begun = Instant::now();
    let (mode, short, title) = scenario.names();
    let word = format!("{mode:?}").to_lowercase();
    let gid = stage.begin(&word, short, title).await?;
    let name = format!("{word}: {title}");
    let played = async {
        let expected = scenario.play(stage, &gid, fail_at).await?;
        stage.finish(&gid, &expected).await
    };
    let status = played.await.with_context(|| format!("{name} (gid {gid})"))?;
    Ok(ScenarioSummary { name, gid, status, took: begun.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_choose_scenarios() {
        let chosen = |modes: &[DemoMode]| {
            Scenario::ALL.into_iter().filter(|scenario| scenario.is_chosen(modes)).count()
        };
        assert_eq!(chosen(&[]), Scenario::ALL.len());
        assert_eq!(chosen(&[DemoMode::All]), Scenario::ALL.len());
        assert_eq!(chosen(&[DemoMode::Kill]), 5);
        assert_eq!(chosen(&[DemoMode::Saga]), 6);
        assert_eq!(chosen(&[DemoMode::Saga, DemoMode::Kill]), 10);
        assert!(DemoMode::WORDS.iter().all(|word| word.parse::<DemoMode>().is_ok()));
        assert!("sage".parse::<DemoMode>().unwrap_err().contains("saga"));
    }

    #[test]
    fn what_a_protocol_has_not_is_left_out_or_refused_by_name() {
        let options = |modes: &[DemoMode], protocol| DemoOptions {
            modes: modes.to_vec(),
            protocol,
            ..DemoOptions::default()
        };
        let count =
            |modes: &[DemoMode], protocol| chosen(&options(modes, protocol)).map(|all| all.len());
        assert_eq!(count(&[], DemoProtocol::Http).unwrap(), 21);
        assert_eq!(count(&[], DemoProtocol::Grpc).unwrap(), 21);
        let refused = count(&[DemoMode::Xa], DemoProtocol::Grpc).unwrap_err();
        assert!(refused.to_string().contains("--protocol http"), "{refused}");
        let refused = count(&[DemoMode::Workflow], DemoProtocol::Http).unwrap_err();
        assert!(refused.to_string().contains("--protocol grpc"), "{refused}");
    }

    #[test]
    fn gids_are_told_apart_by_their_short_names() {
        let names: std::collections::BTreeSet<&str> =
            Scenario::ALL.into_iter().map(|scenario| scenario.names().1).collect();
        assert_eq!(names.len(), Scenario::ALL.len());
    }

    #[tokio::test]
    async fn a_step_that_does_not_exist_is_refused_before_anything_starts() {
        let options = DemoOptions {
            fail_at: Some(4),
            binary: Some("/nonexistent".into()),
            ..DemoOptions::default()
        };
        let error = run_demo(options).await.unwrap_err();
        assert!(error.to_string().contains("1 to 3"), "{error}");
    }
}
