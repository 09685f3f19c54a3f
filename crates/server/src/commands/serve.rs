//! `dtmd serve` and `dtmd dev`.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use dtmd_demo::DevBanks;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::say;
use crate::cli::{DevArgs, ServeArgs};
use crate::config::{self, Loaded};
use crate::logs;
use crate::run::Server;

/// Runs the server until it is told to stop.
pub(super) async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let server = start(&args).await?;
    say(&format!("listening on http://{}", server.address()));
    say(&format!("grpc on http://{}", server.grpc_address()));
    if let Some(address) = server.test_control() {
        say(&format!("test control on http://{address}"));
    }
    // Whoever started us may read this through a pipe.
    std::io::stdout().flush().context("stdout is closed")?;
    wait_for_signal().await?;
    server.stop().await;
    Ok(())
}

/// Runs a server and two banks in one process, to play with.
pub(super) async fn dev(args: DevArgs) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir().context("no temporary directory can be made")?;
    let data = args.data.clone().unwrap_or_else(|| temporary.path().join("store"));
    let banks_data = args.data.as_ref().map(|data| data.join("banks"));
    let serve_args = ServeArgs {
        data: Some(data),
        http_port: args.http_port,
        grpc_port: args.grpc_port,
        ..ServeArgs::default()
    };
    let server = start(&serve_args).await?;
    let banks = DevBanks::start_in_process(banks_data.as_deref()).await?;
    say(&welcome(&server, &banks, args.data.as_deref()));
    wait_for_signal().await?;
    server.stop().await;
    Ok(())
}

async fn start(args: &ServeArgs) -> anyhow::Result<Server> {
    let Loaded { mut config, notes, warnings, .. } =
        config::load(args.config.as_deref(), &args.flags())?;
    config.listen.test_control = args.test_control;
    logs::init(&config.log)?;
    for line in &notes {
        info!(target: logs::START, "{line}");
    }
    for line in &warnings {
        warn!(target: logs::START, "{line}");
    }
    Server::start(config, args.reset).await
}

fn welcome(server: &Server, banks: &DevBanks, data: Option<&Path>) -> String {
    let base = format!("http://{}", server.address());
    let grpc = server.grpc_address();
    let (a, b) = (&banks.a.url, &banks.b.url);
    let kept = match data {
        Some(data) => format!("kept in {}", data.display()),
        None => "in a temporary directory; --data DIR keeps it".to_owned(),
    };
    let port = server.address().port();
    let cli = match port {
        36789 => "dtmd".to_owned(),
        _ => format!("DTMD_SERVER={base} dtmd"),
    };
    format!(
        "dtmd on {base}, gRPC on {grpc}, everything {kept}
bank a on {a}, bank b on {b}: accounts alice and bob, 10000 each

Move 30 from alice at bank a to bob at bank b, as one saga:

  curl -s {base}/api/dtmsvr/submit -d '{{
    \"gid\": \"first\", \"trans_type\": \"saga\", \"wait_result\": true,
    \"steps\": [{{\"action\": \"{a}/out\", \"compensate\": \"{a}/out-undo\"}},
              {{\"action\": \"{b}/in\", \"compensate\": \"{b}/in-undo\"}}],
    \"payloads\": [\"{{\\\"account\\\":\\\"alice\\\",\\\"amount\\\":30}}\",
                 \"{{\\\"account\\\":\\\"bob\\\",\\\"amount\\\":30}}\"]}}'

  {cli} tx get first
  curl -s '{b}/balance?account=bob'

Ctrl-C stops it."
    )
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("no signal handler")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no signal handler")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
