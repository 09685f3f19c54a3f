//! `dtmd store`: an embedded store's directory, read without a server.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use dtmd_store_embedded::Report;

use super::{complain, say};
use crate::cli::StoreCommand;

pub(super) fn run(command: StoreCommand) -> anyhow::Result<()> {
    match command {
        StoreCommand::Check { dir } => check(&dir),
        StoreCommand::Export { dir } => export(&dir),
    }
}

/// Prints what is there; an error if any of it is damaged.
fn check(dir: &Path) -> anyhow::Result<()> {
    let report = dtmd_store_embedded::check(dir)
        .with_context(|| format!("{} cannot be checked", dir.display()))?;
    say(&render(&report));
    if !report.damages.is_empty() {
        bail!("the store in {} is damaged", dir.display());
    }
    Ok(())
}

fn render(report: &Report) -> String {
    let mut lines = vec![format!(
        "{} unfinished transactions, {} finished, {} keys",
        report.live, report.finished, report.keys
    )];
    for (trans_type, status, count) in &report.totals {
        lines.push(format!("  {trans_type} {status}: {count}"));
    }
    for segment in &report.segments {
        let torn = if segment.torn { ", ends in an unacknowledged batch" } else { "" };
        lines.push(format!(
            "segment {}: {} batches, {} records, {} bytes, {} of them needed{torn}",
            segment.name, segment.batches, segment.records, segment.bytes, segment.needed_bytes
        ));
    }
    for damage in &report.damages {
        lines.push(format!("DAMAGED: {damage}"));
    }
    if report.damages.is_empty() {
        lines.push("the store is whole".to_owned());
    }
    lines.join("\n")
}

/// Prints every global and key as a line of JSON.
fn export(dir: &Path) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let exported = dtmd_store_embedded::export(dir, &mut out)
        .with_context(|| format!("{} cannot be exported", dir.display()))?;
    out.flush().context("stdout is closed")?;
    for damage in &exported.damages {
        complain(&format!("damaged: {damage}"));
    }
    if !exported.damages.is_empty() {
        bail!("the store in {} is damaged; what can be read was exported", dir.display());
    }
    Ok(())
}
