//! `cargo xtask test`: builds once, then runs the fast tests, then the end-to-end ones.
//!
//! The test programs are built together and run from here, not by several calls of cargo: those
//! would choose different features for shared dependencies and build them again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::interop;
use crate::programs;
use crate::rules;
use crate::shell::{Project, Stages, cargo, cargo_path, say};

/// The package of the end-to-end tests.
const END_TO_END: &str = "dtmd-tests";
/// The variable that tells the end-to-end tests which server to start.
const BINARY_ENV: &str = "DTMD_BIN";
/// What is off by default and tested all the same: every driver of the barrier.
pub(crate) const ALL_DRIVERS: &str = "dtmcli-barrier/full";
/// The longest one test program may run; past it something hangs.
const PROGRAM_MAX: Duration = Duration::from_secs(20 * 60);

/// `cargo xtask test`.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Only tests whose name contains this
    filter: Option<String>,

    /// Leave the end-to-end tests out
    #[arg(long)]
    fast: bool,

    /// Do not install missing database servers, only say which are missing
    #[arg(long)]
    no_install: bool,
}

/// Runs everything; stops at the first stage that fails.
pub(crate) fn run(project: &Project, args: &TestArgs) -> Result<bool> {
    let mut stages = Stages::new();
    let mut counts = Counts::default();
    run_stages(project, args, &mut stages, &mut counts);
    let Counts { passed, failed, ignored } = counts;
    if stages.ok() && args.filter.is_some() && passed + failed == 0 {
        bail!("no test has this filter in its name");
    }
    let what = format!("test: {passed} passed, {failed} failed, {ignored} ignored");
    Ok(stages.close(&what))
}

/// Returns early, with none, when a stage has failed.
fn run_stages(
    project: &Project,
    args: &TestArgs,
    stages: &mut Stages,
    counts: &mut Counts,
) -> Option<()> {
    let filter = args.filter.as_deref();
    if !args.fast {
        stages.run("programs", || programs::ensure_present(project, !args.no_install))?;
    }
    let tests = stages.run("build", || build(project, args.fast))?;
    let (slow, fast): (Vec<_>, Vec<_>) =
        tests.into_iter().partition(|test| test.package == END_TO_END);
    stages.run("fast tests", || run_all(project, &fast, filter, counts))?;
    if filter.is_none() {
        let args =
            ["test", "--quiet", "--locked", "--workspace", "--features", ALL_DRIVERS, "--doc"];
        stages.run("doc tests", || quietly(project, &args))?;
    }
    if filter.is_none() {
        stages.run("alert rules", || rules::check(project))?;
    }
    if !args.fast {
        stages.run("end to end", || run_all(project, &slow, filter, counts))?;
        if filter.is_none() {
            let binary = project.target.join("debug").join("dtmd");
            stages.run("interop with Go", || interop::run_if_possible(project, &binary))?;
        }
    }
    Some(())
}

/// Runs the tests in which a database itself fails over; they are too long for every run.
pub(crate) fn failover(project: &Project) -> Result<bool> {
    let mut stages = Stages::new();
    let run = |stages: &mut Stages| -> Option<()> {
        stages.run("programs", || programs::ensure_present(project, true))?;
        let tests = stages.run("build", || build(project, false))?;
        let test = tests.iter().find(|test| test.package == END_TO_END && test.target == "e2e")?;
        stages.run("failover", || {
            let status = Command::new(&test.path)
                .args(["--ignored", "--nocapture", "--test-threads=1", "failover", "galera"])
                .current_dir(&test.folder)
                .env(BINARY_ENV, project.target.join("debug").join("dtmd"))
                .status()?;
            ensure!(status.success(), "a database's failover was not survived");
            Ok(())
        })
    };
    run(&mut stages);
    Ok(stages.close("failover"))
}

/// A program that holds tests.
struct TestProgram {
    package: String,
    target: String,
    folder: PathBuf,
    path: PathBuf,
}

impl TestProgram {
    fn name(&self) -> String {
        if self.package.replace('-', "_") == self.target.replace('-', "_") {
            self.package.clone()
        } else {
            format!("{}: {}", self.package, self.target)
        }
    }
}

/// Builds the server and every test program; returns the programs in a settled order.
fn build(project: &Project, fast: bool) -> Result<Vec<TestProgram>> {
    let mut selection = vec!["--locked", "--workspace", "--features", ALL_DRIVERS];
    if fast {
        selection.extend(["--exclude", END_TO_END]);
    }
    let mut bins = vec!["build", "--quiet", "--bins"];
    bins.extend(&selection);
    cargo(project, &bins)?;
    let output = Command::new(cargo_path())
        .args(["test", "--quiet", "--no-run", "--message-format", "json-render-diagnostics"])
        .args(&selection)
        .current_dir(&project.root)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the tests do not build");
    let mut programs = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_slice(line)?;
        programs.extend(test_program(project, &message));
    }
    programs.sort_by_key(TestProgram::name);
    Ok(programs)
}

/// Reads one of cargo's messages; most are about other things.
fn test_program(project: &Project, message: &Value) -> Option<TestProgram> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let package = project.packages().find(|package| package["id"] == message["package_id"])?;
    let manifest = Path::new(package["manifest_path"].as_str()?);
    Some(TestProgram {
        package: package["name"].as_str()?.to_owned(),
        target: message["target"]["name"].as_str()?.to_owned(),
        folder: manifest.parent()?.to_owned(),
        path: PathBuf::from(message["executable"].as_str()?),
    })
}

/// How many tests went how.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// Runs programs one after the other, also after one has failed: a stage reports all it finds.
fn run_all(
    project: &Project,
    programs: &[TestProgram],
    filter: Option<&str>,
    counts: &mut Counts,
) -> Result<()> {
    let mut failed = Vec::new();
    for program in programs {
        let started = Instant::now();
        let (status, output) = run_one(project, program, filter)?;
        let found = read_counts(&output);
        counts.add(found);
        let ok = status.is_some_and(|status| status.success());
        if !ok {
            say(output.trim_end());
            failed.push(program.name());
        }
        if !ok || found.passed > 0 {
            let verdict = match (ok, status.is_some()) {
                (true, _) => "ok",
                (false, true) => "FAILED",
                (false, false) => "STOPPED: it ran too long",
            };
            let seconds = started.elapsed().as_secs_f64();
            let name = program.name();
            say(&format!("  {name:<40} {:>5} passed {seconds:>7.1} s  {verdict}", found.passed));
        }
        if ok {
            for line in output.lines().filter(|line| is_worth_telling(line)) {
                say(&format!("    {}", line.trim()));
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// Returns whether a line of a test that passed tells what it did, or that it did nothing.
fn is_worth_telling(line: &str) -> bool {
    let words = [
        "kill loop:",
        "three servers on",
        "simulation:",
        "crash points:",
        "store faults:",
        "failpoints:",
        "mutated inputs:",
        "skipped:",
        "interop with",
        "DTM's own tests",
        "moving from DTM",
    ];
    words.iter().any(|word| line.trim_start().starts_with(word))
}

/// Runs a program; its status is none if it had to be stopped. The output goes through a file,
/// because servers that a test leaves behind would hold a pipe open for ever.
fn run_one(
    project: &Project,
    program: &TestProgram,
    filter: Option<&str>,
) -> Result<(Option<ExitStatus>, String)> {
    let folder = project.target.join("xtask-tests");
    fs::create_dir_all(&folder)?;
    let log = folder.join(format!("{}-{}.log", program.package, program.target));
    let out = File::create(&log)?;
    let mut child = Command::new(&program.path)
        .args(filter)
        .current_dir(&program.folder)
        .env("CARGO_MANIFEST_DIR", &program.folder)
        .env("CARGO_PKG_NAME", &program.package)
        .env(BINARY_ENV, project.target.join("debug").join("dtmd"))
        .stdin(Stdio::null())
        .stderr(out.try_clone()?)
        .stdout(out)
        .spawn()
        .with_context(|| format!("cannot run {}", program.path.display()))?;
    let status = wait(&mut child)?;
    let output = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    Ok((status, output))
}

/// Waits for a program, and stops it when its time is over.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() > PROGRAM_MAX {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        sleep(Duration::from_millis(20));
    }
}

/// Runs cargo and shows its output only if it fails.
fn quietly(project: &Project, args: &[&str]) -> Result<()> {
    let output = Command::new(cargo_path())
        .args(args)
        .current_dir(&project.root)
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        say(&String::from_utf8_lossy(&output.stdout));
        say(&String::from_utf8_lossy(&output.stderr));
        bail!("`cargo {}` failed", args.join(" "));
    }
    Ok(())
}

/// Reads `test result: ok. 14 passed; 0 failed; 0 ignored; …`.
fn read_counts(output: &str) -> Counts {
    let mut counts = Counts::default();
    for line in output.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        for part in line.split([';', '.']) {
            let Some((number, word)) = part.trim().split_once(' ') else { continue };
            let number = number.parse().unwrap_or(0);
            match word {
                "passed" => counts.passed += number,
                "failed" => counts.failed += number,
                "ignored" => counts.ignored += number,
                _ => {}
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_harness() {
        let output = "running 3 tests\n...\ntest result: FAILED. 14 passed; 2 failed; 1 ignored; \
                      0 measured; 5 filtered out; finished in 0.02s\n";
        assert_eq!(read_counts(output), Counts { passed: 14, failed: 2, ignored: 1 });
    }
}
