//! Running programs, timing stages, and what `cargo metadata` says about the project.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Prints a line. A closed pipe is no reason to stop checking.
pub(crate) fn say(line: &str) {
    _ = writeln!(std::io::stdout(), "{line}");
}

/// The workspace as `cargo metadata` describes it.
pub(crate) struct Project {
    /// The workspace's directory.
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds.
    pub(crate) target: PathBuf,
    /// Everything else.
    pub(crate) metadata: Value,
}

impl Project {
    /// Asks cargo about the workspace this program was built in.
    pub(crate) fn load() -> Result<Self> {
        let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let root = root.canonicalize().context("the workspace has been moved; build xtask anew")?;
        let output = Command::new(cargo_path())
            .args(["metadata", "--format-version", "1", "--locked"])
            .current_dir(&root)
            .output()
            .context("cannot run cargo")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cargo metadata failed:\n{complaint}");
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let target = metadata["target_directory"].as_str().context("no target directory")?;
        Ok(Self { root, target: PathBuf::from(target), metadata })
    }

    /// Returns every package of the dependency graph.
    pub(crate) fn packages(&self) -> impl Iterator<Item = &Value> {
        self.metadata["packages"].as_array().into_iter().flatten()
    }

    /// Returns the packages of the workspace.
    pub(crate) fn members(&self) -> Vec<&Value> {
        let ids = self.metadata["workspace_members"].as_array();
        let is_member = |package: &&Value| ids.is_some_and(|ids| ids.contains(&package["id"]));
        self.packages().filter(is_member).collect()
    }
}

/// Returns the cargo that runs us, so that a chosen toolchain stays chosen.
pub(crate) fn cargo_path() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Runs cargo in the workspace, its output going where ours goes.
pub(crate) fn cargo(project: &Project, args: &[&str]) -> Result<()> {
    let status = Command::new(cargo_path())
        .args(args)
        .current_dir(&project.root)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed", args.join(" "));
    }
    Ok(())
}

/// Stages that have run, with their times.
pub(crate) struct Stages {
    started: Instant,
    times: Vec<(&'static str, Duration)>,
    failed: Vec<&'static str>,
}

impl Stages {
    /// Starts the clock.
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), times: Vec::new(), failed: Vec::new() }
    }

    /// Runs a stage and says how it went and how long it took; returns its result, if it has one.
    pub(crate) fn run<T>(
        &mut self,
        name: &'static str,
        stage: impl FnOnce() -> Result<T>,
    ) -> Option<T> {
        let started = Instant::now();
        let result = stage();
        let time = started.elapsed();
        self.times.push((name, time));
        match result {
            Ok(value) => {
                say(&format!("{name:<18} ok      {:>7.1} s", time.as_secs_f64()));
                Some(value)
            }
            Err(error) => {
                self.failed.push(name);
                say(&format!("{error:#}"));
                say(&format!("{name:<18} FAILED  {:>7.1} s", time.as_secs_f64()));
                None
            }
        }
    }

    /// Returns whether every stage so far went well.
    pub(crate) fn ok(&self) -> bool {
        self.failed.is_empty()
    }

    /// Prints the closing line and returns whether all went well.
    pub(crate) fn close(&self, what: &str) -> bool {
        let times: Vec<String> = self
            .times
            .iter()
            .map(|(name, time)| format!("{name} {:.1} s", time.as_secs_f64()))
            .collect();
        let verdict =
            if self.ok() { "ok".into() } else { format!("FAILED ({})", self.failed.join(", ")) };
        let total = self.started.elapsed().as_secs_f64();
        say(&format!("{what}: {verdict} in {total:.1} s ({})", times.join(", ")));
        self.ok()
    }
}
