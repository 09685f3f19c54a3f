//! Prometheus' own check of the alert rules, where its tool is installed.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::programs;
use crate::shell::{Project, say};

const RULES: &str = "ops/prometheus/dtmd.rules.yml";

/// Runs `promtool check rules`; without the tool says so, which is no fault.
pub(crate) fn check(project: &Project) -> Result<()> {
    let Some(promtool) = programs::find("promtool") else {
        say(&format!(
            "  {RULES} is not checked: there is no promtool (Debian's package prometheus has it)"
        ));
        return Ok(());
    };
    let output = Command::new(promtool)
        .args(["check", "rules", RULES])
        .current_dir(&project.root)
        .output()
        .context("cannot run promtool")?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "promtool refuses {RULES}:\n{said}");
    Ok(())
}
