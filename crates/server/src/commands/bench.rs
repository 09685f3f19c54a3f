//! `dtmd bench` and the participants it starts.

use anyhow::{Context as _, bail, ensure};
use dtmd_bench::{BenchOptions, Mode, Protocol, StoreChoice, Target, run, special};
use tokio::signal::unix::{SignalKind, signal};

use super::{complain, say};
use crate::cli::{BenchArgs, BenchMode, BenchOutput, ProtocolChoice};

/// Measures and prints; an error if a transaction went wrong. Ctrl-C ends what was started.
pub(super) async fn bench(args: BenchArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("no signal handler")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no signal handler")?;
    // Dropping the measurement ends its processes.
    tokio::select! {
        result = measure(args) => result,
        _ = terminate.recv() => bail!("the measurement was ended"),
        _ = interrupt.recv() => bail!("the measurement was interrupted"),
    }
}

/// Runs the participants as this process.
pub(super) async fn participant() -> anyhow::Result<()> {
    dtmd_bench::participant::run().await
}

async fn measure(args: BenchArgs) -> anyhow::Result<()> {
    let output = args.output;
    let mode = match args.mode {
        BenchMode::Saga | BenchMode::Idle | BenchMode::Restart => Mode::Saga,
        BenchMode::Msg => Mode::Msg,
        BenchMode::Tcc => Mode::Tcc,
        BenchMode::Xa => Mode::Xa,
    };
    let measured = args.mode;
    let is_load = !matches!(measured, BenchMode::Idle | BenchMode::Restart);
    if args.protocol == ProtocolChoice::Grpc && !is_load {
        bail!("--protocol grpc is for --mode saga, msg, tcc and xa: leave it out here");
    }
    let options = options(args, mode)?;
    let special = match measured {
        BenchMode::Idle => special::idle(&options).await?,
        BenchMode::Restart => special::restart(&options, &complain).await?,
        _ => {
            let report = run::run(&options, &complain).await?;
            say(&match output {
                BenchOutput::Table => report.to_table(),
                BenchOutput::Json => report.to_json()?,
            });
            if !report.is_clean() {
                bail!("{} transactions went wrong", report.errors);
            }
            return Ok(());
        }
    };
    say(&match output {
        BenchOutput::Table => special.to_table(),
        BenchOutput::Json => special.to_json()?,
    });
    Ok(())
}

fn options(args: BenchArgs, mode: Mode) -> anyhow::Result<BenchOptions> {
    let store = match args.store.as_str() {
        "embedded" => StoreChoice::Embedded,
        "memory" => StoreChoice::Memory,
        path => StoreChoice::Config(path.into()),
    };
    let binary = std::env::current_exe().context("this program cannot find itself")?;
    if let Some(server) = &args.server_binary {
        ensure!(server.is_file(), "--server-binary {}: there is no such program", server.display());
    }
    Ok(BenchOptions {
        server: args.server_binary.unwrap_or_else(|| binary.clone()),
        binary,
        mode,
        protocol: match args.protocol {
            ProtocolChoice::Http => Protocol::Http,
            ProtocolChoice::Grpc => Protocol::Grpc,
        },
        steps: usize::from(args.steps),
        concurrency: usize::from(args.concurrency),
        duration: args.duration,
        wait: args.wait,
        store,
        data: args.data,
        preload: args.preload,
        target: args.target.map(|url| Target { url, grpc: args.target_grpc, pid: args.target_pid }),
    })
}
