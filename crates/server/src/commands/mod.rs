//! The commands that start something or read files; the others speak HTTP ([`crate::cli`]).

mod bench;
mod config;
mod demo;
mod migrate;
mod serve;
mod store;

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::{self, Cli, ClientCommand, Command};

/// Runs a command; without one prints the help.
pub fn dispatch(command: Option<Command>) -> ExitCode {
    let result = match command {
        None => {
            let _ = Cli::command().print_help();
            return ExitCode::from(cli::EXIT_USAGE);
        }
        Some(Command::Version) => {
            say(&cli::version_line());
            Ok(())
        }
        Some(Command::Serve(args)) => block_on(serve::serve(args)),
        Some(Command::Dev(args)) => block_on(serve::dev(args)),
        Some(Command::Demo(args)) => block_on(demo::demo(args)),
        Some(Command::Bank(args)) => block_on(demo::bank(args)),
        Some(Command::Bench(args)) => block_on(bench::bench(args)),
        Some(Command::BenchParticipant) => block_on(bench::participant()),
        Some(Command::Config(args)) => config::run(args.command),
        Some(Command::Store(args)) => store::run(args.command),
        Some(Command::Migrate(args)) => block_on(migrate::run(args)),
        Some(Command::Tx(args)) => return block_on_client(ClientCommand::Tx(args)),
        Some(Command::Doctor(args)) => return block_on_client(ClientCommand::Doctor(args)),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "dtmd", &mut script);
            say(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Some(Command::Topic(args)) => return block_on_client(ClientCommand::Topic(args)),
    };
    match result {
        Ok(()) => ExitCode::from(cli::EXIT_OK),
        Err(error) => {
            complain(&format!("dtmd: {error:#}"));
            ExitCode::from(cli::EXIT_REFUSED)
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn block_on_client(command: ClientCommand) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli::run_client(command)),
        Err(error) => {
            complain(&format!("dtmd: no runtime: {error}"));
            ExitCode::from(cli::EXIT_REFUSED)
        }
    }
}

/// Prints what a command was asked for. A reader who has seen enough (`| head`) is no fault.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints everything else.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
