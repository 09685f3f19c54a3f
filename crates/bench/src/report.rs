//! What a run found, for people and for programs.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::budgets::Budget;
use crate::options::{Mode, Protocol};

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatencyUs {
    /// Median.
    pub p50: f64,
    /// 95 of 100 take no longer.
    pub p95: f64,
    /// 99 of 100 take no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// CPU time per transaction in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CpuUs {
    /// The server's; `None` if its process is not known.
    pub server: Option<f64>,
    /// Of it, in the kernel.
    pub server_kernel: Option<f64>,
    /// The participants'.
    pub participants: f64,
    /// The load generator's.
    pub generator: f64,
}

/// The cheapest request of the same server by the same generator, to compare machines by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Echo {
    /// Requests per second.
    pub rate: f64,
    /// CPU of the server per request, in microseconds.
    pub server_us: Option<f64>,
    /// CPU of the load generator per request, in microseconds.
    pub generator_us: f64,
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was driven.
    pub mode: Mode,
    /// Over which protocol.
    pub protocol: Protocol,
    /// Steps, targets or branches.
    pub steps: usize,
    /// Transactions at once.
    pub concurrency: usize,
    /// Whether submits waited for the result.
    pub wait: bool,
    /// The store, or the URL of a server that was not started here.
    pub store: String,
    /// The type of the file system the store lies on.
    pub file_system: Option<String>,
    /// Seconds measured.
    pub seconds: f64,
    /// Transactions completed in them.
    pub transactions: u64,
    /// Transactions per second.
    pub tps: f64,
    /// From the first request of a transaction to its end.
    pub latency_us: LatencyUs,
    /// CPU time per transaction.
    pub cpu_us_per_tx: CpuUs,
    /// How often a thread of the server ran out of work, per transaction.
    pub server_waits_per_tx: Option<f64>,
    /// Flushes per transaction.
    pub flushes_per_tx: Option<f64>,
    /// Changes written per transaction, forced and lazy.
    pub changes_per_tx: Option<f64>,
    /// Forced changes per transaction, if the server counts them apart.
    pub forced_per_tx: Option<f64>,
    /// Mean number of changes in a flush.
    pub changes_per_flush: Option<f64>,
    /// Mean time of a flush in microseconds.
    pub flush_us: Option<f64>,
    /// The server's peak memory in KiB.
    pub rss_kib: Option<u64>,
    /// Transactions that were refused, or are not final, or did not succeed.
    pub errors: u64,
    /// The first few different texts of errors.
    pub error_texts: Vec<String>,
    /// What kind of processor the machine has, `?` if it does not say.
    pub processor: String,
    /// Cores that others kept busy meanwhile.
    pub foreign_cores: f64,
    /// CPU of the server for the cheapest request, in microseconds.
    pub echo_cpu_us: Option<f64>,
    /// More about that request.
    pub echo: Echo,
    /// Median latency of one branch call made directly; measured with one transaction at a time.
    pub bare_call_us: Option<f64>,
    /// The budgets this run covers.
    pub budgets: Vec<Budget>,
}

impl Report {
    /// Returns whether every transaction succeeded.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.errors == 0
    }

    /// Returns the report as a JSON object.
    ///
    /// # Errors
    ///
    /// Never in practice: every member has a JSON form.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// Returns the report for people.
    #[must_use]
    pub fn to_table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for (name, value) in self.rows() {
            table.add_row([name.to_owned(), value]);
        }
        let mut text = format!("{}\n{table}\n", self.title());
        if !self.budgets.is_empty() {
            text.push('\n');
            text.push_str(&budget_table(&self.budgets));
            text.push('\n');
        }
        if self.foreign_cores >= 0.3 {
            text.push_str(
                "\nOther work ran on this machine: rates and latencies are pessimistic.\n",
            );
        }
        if self.file_system.as_deref() == Some("tmpfs") {
            text.push_str(
                "\nThe store lies in memory (tmpfs): flushes cost nothing; use --data.\n",
            );
        }
        text
    }

    fn title(&self) -> String {
        let wait = if self.wait { "waiting for the result" } else { "until all are final" };
        let server = match self.store.contains("://") {
            true => format!("the server at {}", self.store),
            false => format!("{} store", self.store),
        };
        format!(
            "{} of {} over {}, {server}, {} at once, {wait}",
            self.mode.as_str(),
            self.steps,
            self.protocol.as_str(),
            self.concurrency
        )
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let (latency, cpu) = (&self.latency_us, &self.cpu_us_per_tx);
        let mut rows = vec![
            (
                "transactions",
                format!("{} in {:.1} s: {:.0}/s", self.transactions, self.seconds, self.tps),
            ),
            (
                "latency, µs",
                format!(
                    "p50 {:.0}  p95 {:.0}  p99 {:.0}  max {:.0}",
                    latency.p50, latency.p95, latency.p99, latency.max
                ),
            ),
            (
                "CPU, µs/tx",
                format!(
                    "server {} (kernel {})  participants {:.1}  generator {:.1}",
                    shown(cpu.server),
                    shown(cpu.server_kernel),
                    cpu.participants,
                    cpu.generator
                ),
            ),
            ("server's waits/tx", shown(self.server_waits_per_tx)),
        ];
        if let (Some(flushes), Some(changes)) = (self.flushes_per_tx, self.changes_per_tx) {
            let per_flush = shown(self.changes_per_flush);
            let took = shown(self.flush_us);
            rows.push((
                "store",
                format!(
                    "{changes:.2} changes/tx, {flushes:.3} flushes/tx; a flush: {per_flush} \
                     changes, {took} µs"
                ),
            ));
        }
        if let Some(rss) = self.rss_kib {
            rows.push(("peak memory", format!("{:.1} MiB", rss as f64 / 1024.0)));
        }
        let echo = &self.echo;
        rows.push((
            "echo baseline",
            format!(
                "{:.0}/s, server {} µs, generator {:.1} µs a request",
                echo.rate,
                shown(echo.server_us),
                echo.generator_us
            ),
        ));
        if let Some(bare) = self.bare_call_us {
            rows.push(("a bare branch call", format!("p50 {bare:.0} µs")));
        }
        rows.push(("processor", self.processor.clone()));
        rows.push(("foreign load", format!("{:.2} cores", self.foreign_cores)));
        rows.push(("errors", self.errors.to_string()));
        rows.extend(self.error_texts.iter().map(|text| ("", text.clone())));
        rows
    }
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| format!("{value:.1}"))
}

/// Returns budgets as a table for people.
#[must_use]
pub fn budget_table(budgets: &[Budget]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["budget", "figure", "must", "aim", "measured", "at reference speed", "met"]);
    for budget in budgets {
        let bound = |value| format!("{} {}", budget.bound, figure(value));
        table.add_row([
            budget.id.to_owned(),
            budget.what.to_owned(),
            bound(budget.must),
            bound(budget.aim),
            figure(budget.measured),
            budget.at_reference.map(figure).unwrap_or_default(),
            if budget.met { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    for column in 2..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Returns a number with as many digits as it deserves.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budgets::Bound;

    #[test]
    fn a_budget_that_is_not_met_stands_out() {
        let budgets = [
            Budget::new("B1", "server CPU, µs", Bound::AtMost, (65.0, 50.0), 71.25),
            Budget::new("B1", "rate, 1/s", Bound::AtLeast, (12_000.0, 16_000.0), 12_345.6),
        ];
        let table = budget_table(&budgets);
        let line = |name: &str| table.lines().find(|line| line.contains(name)).unwrap();
        for part in ["≤ 65.0", "≤ 50.0", "71.2", "NO"] {
            assert!(line("server CPU").contains(part), "{part} in\n{table}");
        }
        for part in ["≥ 12000", "12346", "yes"] {
            assert!(line("rate").contains(part), "{part} in\n{table}");
        }
    }
}
