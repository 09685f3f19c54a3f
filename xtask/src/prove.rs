//! `cargo xtask prove`: the proofs that are too long for the ordinary run, one command each.
//!
//! Each is a test of the ordinary run with larger numbers; what it prints is what
//! `docs/reliability.md` reports.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::mutants::{self, MutantArgs};
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
    /// Run the real servers on a simulated network
    Shell {
        /// How many worlds of 20 transactions
        #[arg(long, default_value_t = 20_000)]
        seeds: u64,
        /// The first of them
        #[arg(long, default_value_t = 1_000_000)]
        from: u64,
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
    /// Start with 100,000 transactions that are all due, on a release build
    Restart {
        /// How many
        #[arg(long, default_value_t = 100_000)]
        live: u64,
        /// Seconds from a transaction's submit to its being due: longer than it takes to submit all
        #[arg(long, default_value_t = 60)]
        delay: u64,
    },
    /// Begin far more transactions than can be done, on little memory
    Overload {
        /// For how long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Change the protocol's code in every small way; its tests must notice (needs cargo-mutants)
    Mutants(MutantArgs),
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
        Proof::Shell { seeds, from } => {
            let env = [("DTMD_SHELL_SEEDS", *seeds), ("DTMD_SEED", *from)];
            let args = ["--package", "dtmd-testkit", "--test", "shell"];
            test(project, &args, "no_fault_on_the_way", &env)
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
        Proof::Restart { live, delay } => {
            cargo(project, &["build", "--quiet", "--locked", "--release", "--package", "dtmd"])?;
            let env = [("DTMD_LIVE", *live), ("DTMD_LIVE_DELAY", *delay)];
            let name = "a_server_with_much_to_do_starts_and_does_it";
            let args = ["--package", "dtmd-tests", "--test", "e2e"];
            test_with(project, &args, name, &env, "release")
        }
        Proof::Overload { seconds } => {
            cargo(project, &["build", "--quiet", "--locked", "--workspace", "--bins"])?;
            let env = [("DTMD_OVERLOAD_SECONDS", *seconds)];
            let name = "more_than_can_be_done_is_refused";
            test(project, &["--package", "dtmd-tests", "--test", "e2e"], name, &env)
        }
        Proof::Mutants(args) => mutants::run(project, args),
    }
}

/// Runs one test, its output going where ours goes.
fn test(project: &Project, args: &[&str], name: &str, env: &[(&str, u64)]) -> Result<bool> {
    test_with(project, args, name, env, "debug")
}

/// As [`test`], with the server of another build.
fn test_with(
    project: &Project,
    args: &[&str],
    name: &str,
    env: &[(&str, u64)],
    build: &str,
) -> Result<bool> {
    let status = Command::new(cargo_path())
        .args(["test", "--quiet", "--locked"])
        .args(args)
        .args(["--", "--nocapture", name])
        .env("DTMD_BIN", project.target.join(build).join("dtmd"))
        .envs(env.iter().map(|(name, value)| (name, value.to_string())))
        .current_dir(&project.root)
        .status()
        .context("cannot run cargo")?;
    Ok(status.success())
}
