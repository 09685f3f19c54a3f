//! `cargo xtask dist`: the binary as it is released.
//!
//! The code of one transaction is several times as large as a processor's first instruction cache
//! (docs/decisions/0009), so the order of that code counts. The compiler gets it from a profile: an
//! instrumented server is driven by `dtmd bench` in every mode, and what it counted guides the
//! second build. Both are linked as one piece: cargo names what it compiles by such settings, and
//! a profile of other names guides nobody, without a word.
//!
//! With `--bolt` the finished program's blocks are laid out anew by LLVM's BOLT, after a training
//! of its own (decision 15).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::programs;
use crate::shell::{Project, Stages, cargo_path, say};

/// What the instrumented server is driven with. Steady work counts, not the time it takes: a
/// second of each is millions of calls.
const TRAINING: &[&str] = &[
    "--mode saga --concurrency 64 --wait",
    "--mode saga --concurrency 64",
    "--mode saga --concurrency 64 --wait --store memory",
    "--mode msg --steps 1 --concurrency 64",
    "--mode tcc --concurrency 64",
    "--mode saga --concurrency 64 --wait --protocol grpc",
    "--mode tcc --concurrency 64 --protocol grpc",
];
const TRAINING_SECONDS: &str = "2s";

/// The tool that reads what an instrumented program has counted. The compiler's own comes with
/// `rustup component add llvm-tools`; Debian's is compatible since LLVM 19.
const MERGERS: &[&str] =
    &["llvm-profdata-22", "llvm-profdata-21", "llvm-profdata-20", "llvm-profdata-19"];

/// Builds the released binary; false if a stage has failed.
pub(crate) fn run(project: &Project, bolt: bool) -> Result<bool> {
    let place = Place::new(project)?;
    let mut stages = Stages::new();
    build(project, &place, bolt, &mut stages);
    Ok(stages.close("dist"))
}

/// Returns early, with none, when a stage has failed.
fn build(project: &Project, place: &Place, bolt: bool, stages: &mut Stages) -> Option<()> {
    let merger = stages.run("profile reader", || merger(place))?;
    let bolt = match bolt {
        true => Some(stages.run("bolt", Bolt::find)?),
        false => None,
    };
    let instrument = format!("-Cprofile-generate={}", place.counts.display());
    let trained = stages.run("instrumented build", || place.build(project, &instrument))?;
    stages.run("training", || place.train(&trained, &trained))?;
    stages.run("profile", || place.merge(&merger))?;
    let guide = format!(
        "-Cprofile-use={} -Cllvm-args=-pgo-warn-missing-function=false{}",
        place.profile.display(),
        if bolt.is_some() { Bolt::FLAGS } else { "" }
    );
    let mut built = stages.run("guided build", || place.build(project, &guide))?;
    if let Some(bolt) = bolt {
        built = stages.run("layout", || bolt.lay_out(place, &built))?;
    }
    stages.run("copy", || {
        let folder = project.target.join("dist");
        fs::create_dir_all(&folder)?;
        let binary = folder.join("dtmd");
        fs::copy(&built, &binary)?;
        say(&format!("wrote {}", binary.display()));
        Ok(())
    })
}

/// Where the builds and the profile are.
struct Place {
    host: String,
    target: PathBuf,
    /// What instrumented processes have counted.
    counts: PathBuf,
    profile: PathBuf,
}

impl Place {
    fn new(project: &Project) -> Result<Self> {
        let output = Command::new("rustc").arg("-vV").current_dir(&project.root).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let host = text.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.context("`rustc -vV` names no host")?.to_owned();
        let target = project.target.join("guided");
        let (counts, profile) = (target.join("counts"), target.join("dtmd.profdata"));
        Ok(Self { host, target, counts, profile })
    }

    /// Builds the server and returns its path. A target is named so that the flags are the
    /// server's alone, and not those of build scripts and macros.
    fn build(&self, project: &Project, flags: &str) -> Result<PathBuf> {
        let status = Command::new(cargo_path())
            .args(["build", "--quiet", "--locked", "--package", "dtmd", "--bin", "dtmd"])
            .args(["--profile", "dist", "--target", &self.host, "--target-dir"])
            .arg(&self.target)
            .env("RUSTFLAGS", flags)
            .current_dir(&project.root)
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "the server does not build with {flags}");
        Ok(self.target.join(&self.host).join("dist").join("dtmd"))
    }

    /// Drives a server with the load and the services of a binary, which may be another one.
    fn train(&self, binary: &Path, server: &Path) -> Result<()> {
        if self.counts.exists() {
            fs::remove_dir_all(&self.counts)?;
        }
        fs::create_dir_all(&self.counts)?;
        for arguments in TRAINING {
            let output = Command::new(binary)
                .arg("bench")
                .args(arguments.split_whitespace())
                .args(["--duration", TRAINING_SECONDS, "-o", "json", "--server-binary"])
                .arg(server)
                // One file for all processes of a binary, so that a long training needs no room.
                .env("LLVM_PROFILE_FILE", self.counts.join("%4m.profraw"))
                .stderr(Stdio::inherit())
                .output()
                .with_context(|| format!("cannot run {}", binary.display()))?;
            ensure!(output.status.success(), "`dtmd bench {arguments}` failed");
        }
        Ok(())
    }

    fn merge(&self, merger: &Path) -> Result<()> {
        let mut merge = Command::new(merger);
        finish(merge.args(["merge", "-o"]).arg(&self.profile).arg(&self.counts))
    }
}

/// LLVM's BOLT: it instruments and rewrites a finished program.
struct Bolt {
    rewriter: PathBuf,
    merger: PathBuf,
}

impl Bolt {
    /// It moves code, so it must know every place that names an address.
    const FLAGS: &str = " -Cstrip=none -Clink-args=-Wl,--emit-relocs";
    const LAYOUT: &[&str] = &[
        "-reorder-blocks=ext-tsp",
        "-reorder-functions=cdsort",
        "-split-functions",
        "-split-all-cold",
        "-icf=1",
        "-use-gnu-stack",
    ];

    fn find() -> Result<Self> {
        let found = (19..=22).rev().find_map(|version| {
            let rewriter = programs::find(&format!("llvm-bolt-{version}"))?;
            let merger = programs::find(&format!("merge-fdata-{version}"))?;
            Some(Self { rewriter, merger })
        });
        found.context("run `apt-get install bolt-22 libbolt-22-dev` as root")
    }

    /// Returns the path of the program with its code in another order, and without symbols.
    fn lay_out(&self, place: &Place, built: &Path) -> Result<PathBuf> {
        let beside = |name: &str| place.target.join(name);
        let (counting, counts) = (beside("dtmd-counting"), place.counts.join("blocks"));
        let mut instrument = self.on(built, &counting);
        instrument.arg("-instrument").arg("-instrumentation-file-append-pid");
        finish(instrument.arg(with("-instrumentation-file=", &counts)))?;
        place.train(built, &counting)?;
        let mut merge = Command::new(&self.merger);
        for entry in fs::read_dir(&place.counts)? {
            merge.arg(entry?.path());
        }
        let profile = beside("dtmd.fdata");
        finish(merge.arg("-o").arg(&profile))?;
        let laid_out = beside("dtmd-laid-out");
        finish(self.on(built, &laid_out).args(Self::LAYOUT).arg(with("-data=", &profile)))?;
        finish(Command::new("strip").arg(&laid_out))?;
        Ok(laid_out)
    }

    fn on(&self, from: &Path, to: &Path) -> Command {
        let mut command = Command::new(&self.rewriter);
        command.arg(from).arg("-o").arg(to);
        command
    }
}

fn with(option: &str, path: &Path) -> String {
    format!("{option}{}", path.display())
}

/// Runs a tool to its end; its words are shown if it fails.
fn finish(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?} failed:\n{words}");
    Ok(())
}

/// Finds the compiler's own tool, or one that understands its format.
fn merger(place: &Place) -> Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output()?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let own = sysroot.join("lib/rustlib").join(&place.host).join("bin/llvm-profdata");
    let own = Some(own).filter(|path| path.is_file());
    own.or_else(|| MERGERS.iter().find_map(|name| programs::find(name))).context(
        "a profile is read with llvm-profdata: run `rustup component add llvm-tools`, or \
         `apt-get install llvm-19` as root",
    )
}
