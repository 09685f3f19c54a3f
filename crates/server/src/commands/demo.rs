//! `dtmd demo` and the bank it starts.

use dtmd_demo::printer::Color;
use dtmd_demo::{DemoMode, DemoOptions, DemoProtocol, run_demo};

use crate::cli::{BankArgs, DemoArgs, DemoScenario, ProtocolChoice};

/// Plays the demo; an error if any money was made or lost.
pub(super) async fn demo(args: DemoArgs) -> anyhow::Result<()> {
    let modes = match args.scenario {
        DemoScenario::Saga => vec![DemoMode::Saga],
        DemoScenario::Msg => vec![DemoMode::Msg],
        DemoScenario::Tcc => vec![DemoMode::Tcc],
        DemoScenario::Xa => vec![DemoMode::Xa],
        DemoScenario::Workflow => vec![DemoMode::Workflow],
        DemoScenario::Kill => vec![DemoMode::Kill],
        DemoScenario::All => Vec::new(),
    };
    let options = DemoOptions {
        modes,
        protocol: match args.protocol {
            ProtocolChoice::Http => DemoProtocol::Http,
            ProtocolChoice::Grpc => DemoProtocol::Grpc,
        },
        fail_at: args.fail_at.and_then(|step| usize::try_from(step).ok()),
        binary: None,
        server_args: Vec::new(),
        keep: args.keep,
        color: Color::Auto,
        mysql: args.mysql.map(|url| url.reveal().to_owned()),
        postgres: args.postgres.map(|url| url.reveal().to_owned()),
    };
    run_demo(options).await.map(drop)
}

/// Runs one of the demo's banks as a process of its own.
pub(super) async fn bank(args: BankArgs) -> anyhow::Result<()> {
    dtmd_demo::bank::run_process(args.args).await
}
