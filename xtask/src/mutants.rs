//! `cargo xtask prove mutants`: changes the protocol's code in every small way; its tests must
//! notice.
//!
//! Three judges, one after the other, each for what the one before let live: the tables of the
//! protocol's tests, which are built quickest; all of its tests, the laws over arbitrary sequences
//! among them; a short simulation and the model. Everything happens in a copy that holds nothing
//! else, so that nothing else is built, and so that the tree may change meanwhile. A run that was
//! broken off goes on where it was: what has been noticed is not tried again, until `--anew`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::shell::{Project, cargo_path, say};

/// A changed loop may have no end; the tests take less than two seconds.
const TIMEOUT_SECONDS: &str = "30";
/// The simulation takes fifteen on a busy machine.
const SIMULATION_TIMEOUT_SECONDS: &str = "180";

/// What must be noticed; the rest is listed with its reason in docs/reliability.md.
const NOTICED_MIN_PERCENT: f64 = 95.0;

/// `cargo xtask prove mutants`.
#[derive(Args)]
pub(crate) struct MutantArgs {
    /// Forget what earlier runs have found, as must be done after a change of the protocol's code
    #[arg(long)]
    anew: bool,
    /// Only this part of all mutants, as 1/4
    #[arg(long)]
    shard: Option<String>,
    /// Only these files, as crates/protocol/src/mode/saga.rs
    #[arg(long)]
    file: Vec<String>,
}

/// Who looks at a mutant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judge {
    Tables,
    Tests,
    Simulation,
}

/// Where the copy, its build and the outcomes are.
struct Place {
    root: PathBuf,
}

/// Runs the judges; false if too many mutants have survived them.
pub(crate) fn run(project: &Project, args: &MutantArgs) -> Result<bool> {
    let there = Command::new(cargo_path()).args(["mutants", "--version"]).output();
    let is_there = there.is_ok_and(|output| output.status.success());
    ensure!(is_there, "this needs cargo-mutants: cargo install cargo-mutants");
    let place = Place { root: project.target.join("mutants") };
    if args.anew {
        remove(&place.root)?;
    }
    place.remember_unviable()?;
    for judge in [Judge::Tables, Judge::Tests, Judge::Simulation] {
        if judge == Judge::Tables || !place.missed()?.is_empty() {
            place.copy(project, judge)?;
            place.judge(args, judge)?;
        }
    }
    place.report()
}

impl Place {
    fn outcomes(&self) -> PathBuf {
        self.root.join("mutants.out")
    }

    /// Copies what is needed. A copy that was left in the middle of a change is replaced.
    fn copy(&self, project: &Project, judge: Judge) -> Result<()> {
        let with_simulation = judge == Judge::Simulation;
        let tree = self.root.join("tree");
        remove(&tree)?;
        let manifest = fs::read_to_string(project.root.join("Cargo.toml"))?;
        let is_kept = |line: &&str| {
            !["members", "exclude", "default-members"].iter().any(|key| line.starts_with(key))
        };
        let kept: Vec<&str> = manifest.lines().filter(is_kept).collect();
        let mut manifest =
            kept.join("\n").replacen("[workspace]", "[workspace]\nmembers = [\"crates/*\"]", 1);
        if !with_simulation {
            // Optimising costs more than it saves where everything is built for one run.
            manifest = manifest.replace("opt-level = 2", "opt-level = 0");
        }
        let crates: &[&str] =
            if with_simulation { &["protocol", "store", "testkit"] } else { &["protocol"] };
        for name in crates {
            let from = project.root.join("crates").join(name);
            copy_folder(&from, &tree.join("crates").join(name))?;
        }
        if with_simulation {
            // Its other tests need the engine, which needs everything.
            let testkit = tree.join("crates/testkit");
            let cargo = fs::read_to_string(testkit.join("Cargo.toml"))?;
            let (kept, _) =
                cargo.split_once("[dev-dependencies]").context("no dev-dependencies")?;
            fs::write(testkit.join("Cargo.toml"), kept)?;
            for other in ["store_faults.rs", "simulation.rs", "model.rs"] {
                fs::remove_file(testkit.join("tests").join(other))?;
            }
        }
        if judge == Judge::Tables {
            let main = tree.join("crates/protocol/tests/protocol/main.rs");
            let tests = fs::read_to_string(&main)?;
            ensure!(tests.contains("\nmod laws;\n"), "the protocol's tests have no laws");
            fs::write(&main, tests.replace("\nmod laws;\n", "\n"))?;
        }
        fs::write(tree.join("Cargo.toml"), manifest)?;
        fs::copy(project.root.join("Cargo.lock"), tree.join("Cargo.lock"))?;
        Ok(())
    }

    fn judge(&self, args: &MutantArgs, judge: Judge) -> Result<()> {
        let (timeout, how): (&str, &[&str]) = match judge {
            Judge::Tables => (TIMEOUT_SECONDS, &["--", "--test", "protocol"]),
            Judge::Tests => (TIMEOUT_SECONDS, &["--", "--lib", "--tests"]),
            Judge::Simulation => (
                SIMULATION_TIMEOUT_SECONDS,
                // The unchanged tree would be tested as the package that is changed.
                &[
                    "--baseline=skip",
                    "--test-package",
                    "dtmd-testkit",
                    "--",
                    "--test",
                    "judge",
                    "--",
                    "--ignored",
                ],
            ),
        };
        let mut command = Command::new(cargo_path());
        command.args(["mutants", "--in-place", "--iterate", "--no-shuffle"]);
        command.args(["--package", "dtmd-protocol", "--timeout", timeout, "--output"]);
        command.arg(&self.root);
        if let Some(shard) = &args.shard {
            command.args(["--shard", shard]);
        }
        for file in &args.file {
            command.args(["--file", file]);
        }
        let status = command
            .args(how)
            .current_dir(self.root.join("tree"))
            .env("CARGO_TARGET_DIR", self.root.join("target"))
            // Linked a thousand times and never debugged.
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .status()
            .context("cannot run cargo")?;
        // 2: some were missed, 3: some ran into the timeout; both are told by the report.
        let is_judged = matches!(status.code(), Some(0 | 2 | 3));
        ensure!(is_judged, "cargo-mutants did not get to its end; the same command goes on");
        self.remember_unviable()
    }

    /// Keeps the names of what could not be built: a later run counts it as caught.
    fn remember_unviable(&self) -> Result<()> {
        fs::create_dir_all(&self.root)?;
        let known: BTreeSet<String> =
            [self.unviable()?, self.lines(&self.outcomes().join("unviable.txt"))?]
                .concat()
                .into_iter()
                .collect();
        let known: String = known.iter().map(|name| format!("{name}\n")).collect();
        Ok(fs::write(self.root.join("unviable.txt"), known)?)
    }

    fn unviable(&self) -> Result<Vec<String>> {
        self.lines(&self.root.join("unviable.txt"))
    }

    fn lines(&self, path: &Path) -> Result<Vec<String>> {
        let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn outcome(&self, file: &str) -> Result<Vec<String>> {
        self.lines(&self.outcomes().join(file))
    }

    fn missed(&self) -> Result<Vec<String>> {
        self.outcome("missed.txt")
    }

    fn report(&self) -> Result<bool> {
        let (missed, unviable) = (self.missed()?, self.unviable()?.len());
        let mut noticed = 0;
        for file in ["previously_caught.txt", "caught.txt", "timeout.txt", "unviable.txt"] {
            noticed += self.outcome(file)?.len();
        }
        for mutant in &missed {
            say(&format!("not noticed: {mutant}"));
        }
        let noticed = noticed - unviable;
        let viable = noticed + missed.len();
        ensure!(viable > 0, "there were no mutants");
        let percent = noticed as f64 * 100.0 / viable as f64;
        say(&format!(
            "mutants: {noticed} of {viable} noticed, {percent:.1} %; {unviable} more could not be built"
        ));
        Ok(percent >= NOTICED_MIN_PERCENT)
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
