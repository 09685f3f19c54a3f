//! `cargo xtask sim` and `cargo xtask model`: the proofs of `dtmd-testkit` by command.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::shell::{Project, cargo_path};

/// Options that are handed on to the program.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct SimArgs {
    /// `--seeds N`, `--seed S --trace`, `--from S`, `--threads N`, `--release`, …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs one of the testkit's programs. The dev profile optimises what matters; `--release` is
/// worth its build time from some ten million transactions on.
pub(crate) fn run(project: &Project, program: &str, args: &SimArgs) -> Result<bool> {
    let mut command = Command::new(cargo_path());
    command.args(["run", "--quiet", "--locked", "--package", "dtmd-testkit", "--bin", program]);
    if args.args.iter().any(|arg| arg == "--release") {
        command.arg("--release");
    }
    command.arg("--").args(args.args.iter().filter(|arg| *arg != "--release"));
    let status = command.current_dir(&project.root).status().context("cannot run cargo")?;
    Ok(status.success())
}
