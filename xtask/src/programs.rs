//! The database servers that the end-to-end tests start.
//!
//! Only the programs are needed: the tests run them on temporary directories and free ports, so
//! no service of the system is used, and none has to be running.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{Project, say};

/// A Debian package and the programs of it that the tests start.
struct Package {
    name: &'static str,
    programs: &'static [&'static str],
}

const PACKAGES: &[Package] = &[
    Package { name: "mariadb-server", programs: &["mariadbd", "mariadb-install-db"] },
    Package { name: "postgresql", programs: &["postgres", "initdb"] },
    Package { name: "redis-server", programs: &["redis-server"] },
    // Sets the clock of one process.
    Package { name: "faketime", programs: &["faketime"] },
];

/// Makes sure every program is there; installs packages when that is possible.
pub(crate) fn ensure_present(project: &Project, install: bool) -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let by_hand = format!(
        "the end-to-end tests need {names}: run `apt-get install {names}` as root (any other \
         installation does too, if its programs are in PATH), or run `cargo xtask test --fast`"
    );
    if !install || !is_root() || find("apt-get").is_none() {
        bail!(by_hand);
    }
    say(&format!("installing {names}"));
    let log = project.target.join("xtask-apt.log");
    apt(&log, &["update"])
        .and_then(|()| {
            let mut args = vec!["install", "--yes", "--no-install-recommends"];
            args.extend(&missing);
            apt(&log, &args)
        })
        .with_context(|| format!("{by_hand} (log: {})", log.display()))?;
    let still = self::missing();
    ensure!(still.is_empty(), "{} installed, but its programs are not found", still.join(" "));
    Ok(())
}

/// Returns the packages that lack a program.
fn missing() -> Vec<&'static str> {
    let lacks = |package: &&Package| package.programs.iter().any(|name| find(name).is_none());
    PACKAGES.iter().filter(lacks).map(|package| package.name).collect()
}

/// Finds a program in PATH and where Debian keeps servers.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.into_iter().map(|folder| folder.join(name)).find(|program| program.is_file())
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Runs apt-get, its output going to a log: it is long and of interest only when it fails.
fn apt(log: &Path, args: &[&str]) -> Result<()> {
    let out = fs::OpenOptions::new().create(true).append(true).open(log)?;
    let status = Command::new("apt-get")
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stderr(out.try_clone()?)
        .stdout(out)
        .status()
        .context("cannot run apt-get")?;
    ensure!(status.success(), "`apt-get {}` failed", args.join(" "));
    Ok(())
}
