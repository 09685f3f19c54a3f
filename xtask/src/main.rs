//! The project's own build steps: `cargo xtask check`, `layers`, `docs`, `test`.
//!
//! Everything a change must pass runs from here, the same on a laptop and on a server. This
//! crate has few dependencies, so that it is built in seconds.

mod budgets;
mod dist;
mod docs;
mod fuzz;
mod interop;
mod layers;
mod licences;
mod mutants;
mod programs;
mod prove;
mod rules;
mod shell;
mod sim;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use shell::{Project, Stages};

/// The project's own build steps.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that is checked without running tests
    Check,
    /// Compare which crate uses which with the table
    Layers,
    /// Write the generated pages
    Docs,
    /// Measure every budget on a release build and print one table
    Budgets(budgets::BudgetArgs),
    /// Build the binary as it is released: guided by a profile, linked as one piece
    Dist {
        /// Lay the finished program's code out anew with LLVM's BOLT: up to 3 % less CPU.
        #[arg(long)]
        bolt: bool,
    },
    /// Run a server against services and clients written in Go
    InteropGo,
    /// Lose a Galera node, and replace PostgreSQL by its standby, under load
    Failover,
    /// Feed hostile bytes to everything that reads some (needs nightly and cargo-fuzz)
    Fuzz(fuzz::FuzzArgs),
    /// Play one of the long proofs
    #[command(subcommand)]
    Prove(prove::Proof),
    /// Run all tests: the fast ones, then the end-to-end ones
    Test(test::TestArgs),
    /// Play simulated worlds under faults; a failing seed prints the command that repeats it
    Sim(sim::SimArgs),
    /// Search every reachable state of small transactions
    Model(sim::SimArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            shell::say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs a command; false means that something was found and has been said.
fn run(command: Command) -> Result<bool> {
    let project = Project::load()?;
    match command {
        Command::Check => check(&project),
        Command::Layers => {
            let mut stages = Stages::new();
            stages.run("layers", || layers::check(&project));
            Ok(stages.close("layers"))
        }
        Command::Docs => {
            for page in docs::write(&project)? {
                shell::say(&format!("wrote {page}"));
            }
            Ok(true)
        }
        Command::Budgets(args) => budgets::run(&project, &args),
        Command::Dist { bolt } => dist::run(&project, bolt),
        Command::InteropGo => interop::run(&project),
        Command::Failover => test::failover(&project),
        Command::Fuzz(args) => fuzz::run(&project, &args),
        Command::Prove(proof) => prove::run(&project, &proof),
        Command::Test(args) => test::run(&project, &args),
        Command::Sim(args) => sim::run(&project, "dtmd-sim", &args),
        Command::Model(args) => sim::run(&project, "dtmd-model", &args),
    }
}

/// Runs every check, also after one has failed: a push should not find the next fault tomorrow.
fn check(project: &Project) -> Result<bool> {
    let mut stages = Stages::new();
    stages.run("format", || shell::cargo(project, &["fmt", "--all", "--check", "--", "-l"]));
    stages.run("layers", || layers::check(project));
    stages.run("lints inherited", || tidy::check_lints(project));
    stages.run("file sizes", || tidy::check_sizes(project));
    stages.run("licences", || licences::check(project));
    stages.run("generated pages", || docs::check(project));
    let clippy = ["clippy", "--quiet", "--locked", "--workspace", "--all-targets"];
    let rest = ["--features", test::ALL_DRIVERS, "--", "-D", "warnings"];
    stages.run("clippy", || shell::cargo(project, &[&clippy[..], &rest[..]].concat()));
    Ok(stages.close("check"))
}
