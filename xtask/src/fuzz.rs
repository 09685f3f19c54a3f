//! `cargo xtask fuzz`: runs the fuzz targets where nightly and cargo-fuzz are there.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::shell::{Project, say};

/// Inputs that are longer find nothing new.
const INPUT_MAX: &str = "-max_len=4096";
/// The most files of a corpus that are kept.
const KEPT_MAX: usize = 20;
const KEPT_BYTES_MAX: u64 = 8 * 1024;

/// `cargo xtask fuzz`.
#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// Only this target
    target: Option<String>,

    /// How long each target runs
    #[arg(long, default_value_t = 30)]
    seconds: u64,

    /// Add what was found to the committed corpora: a few small inputs of each target
    #[arg(long)]
    keep: bool,
}

/// Runs the targets one after the other; false if one has found something.
pub(crate) fn run(project: &Project, args: &FuzzArgs) -> Result<bool> {
    ensure!(
        answers(Command::new("cargo").args(["+nightly", "fuzz", "--version"])),
        "fuzzing needs a nightly compiler and cargo-fuzz:\n  rustup toolchain install nightly\n  \
         cargo install cargo-fuzz\nThe corpora are replayed without them, by `cargo test -p \
         dtmd-fuzz-targets`."
    );
    let names = names(project)?;
    let chosen: Vec<&String> = match &args.target {
        Some(wanted) => names.iter().filter(|name| *name == wanted).collect(),
        None => names.iter().collect(),
    };
    if chosen.is_empty() {
        bail!("the targets are {}", names.join(", "));
    }
    let folder = project.target.join("fuzz");
    let build = ["build", "--sanitizer", "none", "--fuzz-dir", "fuzz"];
    let mut command = fuzz(project, &folder, &build);
    ensure!(command.status()?.success(), "the fuzz targets do not build");
    let mut is_well = true;
    for name in chosen {
        is_well &= run_one(project, &folder, name, args)?;
    }
    Ok(is_well)
}

/// There is no unsafe code for a sanitizer to watch; overflows and assertions are on.
fn fuzz(project: &Project, folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz"]).args(args).current_dir(&project.root);
    // The toolchain that runs us must not be the one that cargo-fuzz builds with.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env("CARGO_TARGET_DIR", folder);
    command
}

/// Returns the targets' names: those of their programs.
fn names(project: &Project) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(project.root.join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn run_one(project: &Project, folder: &Path, name: &str, args: &FuzzArgs) -> Result<bool> {
    let corpus = project.root.join("fuzz/corpus").join(name);
    let found = folder.join("found").join(name);
    fs::create_dir_all(&found)?;
    let seconds = format!("-max_total_time={}", args.seconds);
    let begun = Instant::now();
    let output = fuzz(project, folder, &["run", "--sanitizer", "none", "--fuzz-dir", "fuzz", name])
        .arg(&found)
        .arg(&corpus)
        .args([
            "--",
            &seconds,
            INPUT_MAX,
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ])
        .stdin(Stdio::null())
        .output()
        .context("cannot run cargo")?;
    let told = String::from_utf8_lossy(&output.stderr);
    let of = |label: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(label));
        line.map_or(0, |number| number.trim().parse::<u64>().unwrap_or(0))
    };
    let executions = of("stat::number_of_executed_units:");
    let seconds = begun.elapsed().as_secs_f64();
    let coverage = told.lines().rev().find_map(|line| line.split_once("cov: "));
    let coverage = coverage.and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?");
    if !output.status.success() {
        say(&told);
        say(&format!("{name}: FOUND SOMETHING; the input is in fuzz/artifacts/{name}"));
        return Ok(false);
    }
    say(&format!(
        "{name:<16} {executions:>10} executions in {seconds:>5.0} s, coverage {coverage}"
    ));
    ensure!(executions > 0, "{name}: nothing was executed");
    if args.keep {
        keep(project, folder, name, &found, &corpus)?;
    }
    Ok(true)
}

/// Merges what was found into the committed corpus: the smallest inputs that reach something new.
fn keep(project: &Project, folder: &Path, name: &str, found: &Path, corpus: &Path) -> Result<()> {
    let small = folder.join("small").join(name);
    let _ = fs::remove_dir_all(&small);
    fs::create_dir_all(&small)?;
    for entry in fs::read_dir(corpus)? {
        let path = entry?.path();
        fs::copy(&path, small.join(path.file_name().context("a file has a name")?))?;
    }
    let before = fs::read_dir(&small)?.count();
    let merged = fuzz(project, folder, &["run", "--sanitizer", "none", "--fuzz-dir", "fuzz", name])
        .arg(&small)
        .arg(found)
        .args(["--", "-merge=1", INPUT_MAX])
        .output()
        .context("cannot run cargo")?;
    ensure!(merged.status.success(), "{name}: the corpus cannot be merged");
    let mut new: Vec<(u64, std::path::PathBuf)> = Vec::new();
    for entry in fs::read_dir(&small)? {
        let entry = entry?;
        let length = entry.metadata()?.len();
        if !corpus.join(entry.file_name()).exists() && length <= KEPT_BYTES_MAX {
            new.push((length, entry.path()));
        }
    }
    // Long ones reach further; of them a few are enough.
    new.sort();
    let room = KEPT_MAX.saturating_sub(before);
    for (_, path) in new.iter().rev().take(room) {
        let file = path.file_name().context("a file has a name")?;
        fs::copy(path, corpus.join(file))?;
    }
    Ok(())
}

fn answers(command: &mut Command) -> bool {
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    command.output().is_ok_and(|output| output.status.success())
}
