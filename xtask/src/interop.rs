//! `cargo xtask interop-go`: a server of ours against services and clients on Go's libraries.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::programs;
use crate::shell::{Project, cargo, say};

/// Where the Go programs are.
const FOLDER: &str = "interop/go";

/// Builds the server and runs the Go programs against it.
pub(crate) fn run(project: &Project) -> Result<bool> {
    ensure!(is_go_there(), "interop-go needs Go (https://go.dev/dl), which is not installed");
    programs::ensure_present(project, false)?;
    cargo(project, &["build", "--quiet", "--locked", "-p", "dtmd"])?;
    play(project, &project.target.join("debug/dtmd"))?;
    Ok(true)
}

/// Runs the Go programs against a server's program; says so if there is no Go to do it with.
pub(crate) fn run_if_possible(project: &Project, binary: &Path) -> Result<()> {
    if !is_go_there() {
        say("Go is not installed: interop/go was NOT run");
        return Ok(());
    }
    play(project, binary)
}

fn play(project: &Project, binary: &Path) -> Result<()> {
    let status = Command::new("go")
        .args(["run", ".", "-dtmd"])
        .arg(binary)
        .current_dir(project.root.join(FOLDER))
        .stdin(Stdio::null())
        .status()
        .context("cannot run go")?;
    ensure!(status.success(), "interop/go failed; `cargo xtask interop-go` runs it alone");
    Ok(())
}

fn is_go_there() -> bool {
    let asked = Command::new("go").arg("version").stdout(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}
