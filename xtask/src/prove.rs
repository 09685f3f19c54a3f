//! `cargo xtask prove`: the proofs that are too long for the ordinary run, one command each.
//!
//! Each is a test of the ordinary run with larger numbers; what it prints is what
//! `docs/reliability.md` reports.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

use crate::shell::{Project, cargo, cargo_path};

/// `cargo xtask prove`.
#[derive(Subcommand)]
pub(crate) enum Proof {
    /// Crash the embedded store on a simulated disk
    CrashPoints {
        /// How many crashes
        #[arg(long, default_value_t = 1_000_000)]
        points: u64,
        /// The first history
        #[arg(long, default_value_t = 1_000_000)]
        seed: u64,
    },
    /// Fail at every store call of the real engine, in three ways
    StoreFaults {
        /// How many transactions are taken through all of their calls
        #[arg(long, default_value_t = 1000)]
        scenarios: u64,
    },
    /// Kill the server under load
    Kills {
        /// How many times
        #[arg(long, default_value_t = 10_000)]
        kills: u64,
    },
    /// End the server at every named place under load
    Failpoints {
        /// How many times at each
        #[arg(long, default_value_t = 50)]
        hits: u64,
    },
    /// Change the protocol's code in every small way; its tests must notice (needs cargo-mutants)
    Mutants,
}

/// Runs a proof; false if it found something.
pub(crate) fn run(project: &Project, proof: &Proof) -> Result<bool> {
    match proof {
        Proof::CrashPoints { points, seed } => {
            let env = [("DTMD_CRASH_POINTS", *points), ("DTMD_SEED", *seed)];
            let args = ["--release", "--package", "dtmd-store-embedded", "--test", "crash_points"];
            test(project, &args, "thousands_of_crash_points", &env)
        }
        Proof::StoreFaults { scenarios } => {
            let env = [("DTMD_SCENARIOS", *scenarios)];
            let args = ["--package", "dtmd-testkit", "--test", "store_faults"];
            test(project, &args, "a_fault_at_any_store_call", &env)
        }
        Proof::Kills { kills } => {
            // With the tests' package, so that shared features are those of the ordinary run.
            cargo(project, &["build", "--quiet", "--locked", "--workspace", "--bins"])?;
            let env = [("DTMD_KILLS", *kills)];
            test(
                project,
                &["--package", "dtmd-tests", "--test", "e2e"],
                "kill_loop::kill_loop",
                &env,
            )
        }
        Proof::Failpoints { hits } => {
            cargo(project, &["build", "--quiet", "--locked", "--workspace", "--bins"])?;
            let env = [("DTMD_FAILPOINT_HITS", *hits)];
            let name = "a_process_that_ends_at_any_named_place";
            test(project, &["--package", "dtmd-tests", "--test", "e2e"], name, &env)
        }
        Proof::Mutants => mutants(project),
    }
}

/// Runs one test, its output going where ours goes.
fn test(project: &Project, args: &[&str], name: &str, env: &[(&str, u64)]) -> Result<bool> {
    let status = Command::new(cargo_path())
        .args(["test", "--quiet", "--locked"])
        .args(args)
        .args(["--", "--nocapture", name])
        .env("DTMD_BIN", project.target.join("debug").join("dtmd"))
        .envs(env.iter().map(|(name, value)| (name, value.to_string())))
        .current_dir(&project.root)
        .status()
        .context("cannot run cargo")?;
    Ok(status.success())
}

fn mutants(project: &Project) -> Result<bool> {
    let mut command = Command::new(cargo_path());
    let there = command.args(["mutants", "--version"]).output();
    let is_there = there.is_ok_and(|output| output.status.success());
    ensure!(is_there, "this needs cargo-mutants: cargo install cargo-mutants");
    let status = Command::new(cargo_path())
        .args(["mutants", "--package", "dtmd-protocol", "--timeout", "120", "--output"])
        .arg(project.target.join("mutants"))
        .args(["--", "--lib", "--tests"])
        .current_dir(&project.root)
        .status()
        .context("cannot run cargo")?;
    Ok(status.success())
}
