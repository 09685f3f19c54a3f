//! `cargo xtask budgets`: every budget that applies to what is built, in one table.
//!
//! `dtmd bench` measures and judges each case by itself; here the cases are listed, run one after
//! the other on a release build, and put together.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::dist;
use crate::shell::{Project, cargo, say};

/// `cargo xtask budgets`.
#[derive(Args)]
pub(crate) struct BudgetArgs {
    /// Measure for 2 s instead of 10 s each
    #[arg(long)]
    quick: bool,

    /// Also fill a store with a million transactions (B10, B11): takes minutes
    #[arg(long)]
    full: bool,

    /// Also measure servers on MariaDB, PostgreSQL and Redis, several of them, and the return of a
    /// service that many wait for (B12 to B16): takes minutes
    #[arg(long)]
    stores: bool,

    /// Measure the server as it is released (see `cargo xtask dist`), not the release build, which
    /// still makes the load and answers the calls
    #[arg(long)]
    dist: bool,

    /// Measure the build that is there
    #[arg(long)]
    no_build: bool,

    /// Where stores lie for the time of a run [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
}

/// A case and the arguments that make it.
struct Case {
    name: &'static str,
    arguments: &'static str,
}

const CASES: &[Case] = &[
    Case { name: "saga, embedded, wait, 64", arguments: "--mode saga --concurrency 64 --wait" },
    Case { name: "saga, embedded, wait, 256", arguments: "--mode saga --concurrency 256 --wait" },
    Case { name: "saga, embedded, wait, 1", arguments: "--mode saga --concurrency 1 --wait" },
    Case { name: "saga, embedded, 64", arguments: "--mode saga --concurrency 64" },
    Case { name: "message, embedded, 64", arguments: "--mode msg --steps 1 --concurrency 64" },
    Case { name: "TCC, embedded, 64", arguments: "--mode tcc --concurrency 64" },
    Case {
        name: "saga over gRPC, embedded, wait, 64",
        arguments: "--mode saga --protocol grpc --concurrency 64 --wait",
    },
    Case {
        name: "saga, memory, wait, 64",
        arguments: "--mode saga --concurrency 64 --wait --store memory",
    },
    Case { name: "idle", arguments: "--mode idle" },
];

/// With a million finished transactions in the store.
const PRELOADED: &str = "a million finished";

/// What takes minutes.
const FULL: &[Case] = &[
    Case { name: PRELOADED, arguments: "--concurrency 64 --wait --preload 1000000" },
    Case { name: "kill -9, 1 M + 100 k", arguments: "--mode restart --preload 1000000" },
];

/// How often a case that misses a budget of time is measured again, after all others. Whatever else
/// happens on a machine makes a server slower, never faster, so the best run is nearest to the truth.
const AGAIN: usize = 2;

/// Columns of the table.
const HEADER: [&str; 8] =
    ["budget", "case", "figure", "must", "aim", "measured", "at reference speed", "met"];

/// The column of what a figure would be at the reference's speed.
const REFERENCE: usize = 6;

/// Measures everything and prints the table; false if a budget is not met.
pub(crate) fn run(project: &Project, args: &BudgetArgs) -> Result<bool> {
    if !args.no_build {
        cargo(project, &["build", "--release", "--locked", "--package", "dtmd"])?;
        ensure!(!args.dist || dist::run(project, false)?, "the released binary does not build");
    }
    let mut measured = Vec::new();
    let mut baselines = Vec::new();
    for case in CASES.iter().chain(if args.full { FULL } else { &[] }) {
        let report = measure(project, args, case)?;
        baselines.extend(baseline_of(case.name, &report));
        measured.push((case, report));
    }
    for _ in 0..AGAIN {
        for (case, report) in measured.iter_mut().filter(|(_, report)| misses(report)) {
            let again = measure(project, args, case)?;
            baselines.extend(baseline_of(&format!("again: {}", case.name), &again));
            keep_better(report, &again);
        }
    }
    let processor = measured[0].1["processor"].as_str().unwrap_or("?");
    let rows = measured.iter().flat_map(|(case, report)| rows_of(case.name, report));
    let rows: Vec<Vec<String>> = rows.collect();
    if args.stores {
        let binary = measured_binary(project, args);
        for name in ["shared_stores", "fleet", "herd"] {
            say(&format!("measuring: {name}"));
            let example = ["run", "--quiet", "--release", "--locked", "--package", "dtmd-bench"];
            let path = binary.to_string_lossy();
            cargo(project, &[&example[..], &["--example", name, "--", &path]].concat())?;
        }
    }
    let failed = rows.iter().filter(|row| row.last().is_some_and(|met| met != "yes")).count();
    say("");
    print_table(&HEADER, &rows);
    say("");
    print_table(&["case", "tx/s", "server µs/tx", "echo µs", "ratio", "foreign cores"], &baselines);
    say("");
    if rows.iter().all(|row| row[REFERENCE].is_empty()) {
        say(&format!(
            "The processor ({processor}) is of another kind than the one that the budgets were set \
             on (AMD EPYC): figures are judged as measured (decision 17)."
        ));
    }
    say(&format!("budgets: {} figures, {failed} not met", rows.len()));
    Ok(failed == 0)
}

/// The binary that is measured. Load and participants are the release build's in any case: they are
/// the yardstick of the machine's speed, and a build that is better would be a shorter yardstick.
fn measured_binary(project: &Project, args: &BudgetArgs) -> PathBuf {
    project.target.join(if args.dist { "dist" } else { "release" }).join("dtmd")
}

/// Measures one case and returns its report.
fn measure(project: &Project, args: &BudgetArgs, case: &Case) -> Result<Value> {
    if case.name != PRELOADED {
        return bench(project, args, case);
    }
    // Right before it: what is compared is the store, not two moments of the machine.
    let empty = bench(project, args, &CASES[0])?;
    let mut full = bench(project, args, case)?;
    full["budgets"] = share_of(empty["tps"].as_f64(), full["tps"].as_f64());
    Ok(full)
}

/// Runs one case and returns its report.
fn bench(project: &Project, args: &BudgetArgs, case: &Case) -> Result<Value> {
    say(&format!("measuring: {}", case.name));
    let binary = project.target.join("release/dtmd");
    let mut command = Command::new(&binary);
    command.arg("bench").args(case.arguments.split_whitespace()).args(["-o", "json"]);
    command.arg("--server-binary").arg(measured_binary(project, args));
    command.args(["--duration", if args.quick { "2s" } else { "10s" }]);
    if let Some(data) = &args.data {
        command.args(["--data", data]);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    ensure!(output.status.success(), "`dtmd bench {}` failed", case.arguments);
    match serde_json::from_slice(&output.stdout) {
        Ok(report @ Value::Object(_)) => Ok(report),
        _ => bail!("`dtmd bench {}` printed no report", case.arguments),
    }
}

/// Returns whether a report has a budget that is not met, and may be in a second run.
fn misses(report: &Value) -> bool {
    budgets_of(report).iter().any(is_missed_by_time)
}

/// Returns whether a slow moment may be why a budget is not met: not so where writes are counted
/// (B9), nor of memory.
fn is_missed_by_time(budget: &Value) -> bool {
    let is_memory = budget["what"].as_str().is_some_and(|what| what.ends_with("MiB"));
    budget["met"] == false && budget["id"] != "B9" && !is_memory
}

fn budgets_of(report: &Value) -> &[Value] {
    report["budgets"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Replaces figures of time that miss their budget by those of a second run of the same case, where these
/// are better; what was measured first stays beside them.
fn keep_better(report: &mut Value, again: &Value) {
    let Some(budgets) = report["budgets"].as_array_mut() else { return };
    for old in budgets.iter_mut().filter(|budget| is_missed_by_time(budget)) {
        let same = |new: &&Value| new["id"] == old["id"] && new["what"] == old["what"];
        let Some(new) = budgets_of(again).iter().find(same) else { continue };
        let judged =
            |budget: &Value| budget["at_reference"].as_f64().or(budget["measured"].as_f64());
        let is_better = match judged(new).zip(judged(old)) {
            Some((now, before)) if new["bound"] == "at_least" => now > before,
            Some((now, before)) => now < before,
            None => false,
        };
        if is_better {
            let first = old.get("first").unwrap_or(&old["measured"]).clone();
            *old = new.clone();
            old["first"] = first;
        }
    }
}

/// Returns a line for each budget that a report judges.
fn rows_of(case: &str, report: &Value) -> Vec<Vec<String>> {
    let row = |budget: &Value| {
        let text = |name: &str| budget[name].as_str().unwrap_or("?").to_owned();
        let sign = if budget["bound"] == "at_least" { "≥" } else { "≤" };
        let bound = |name: &str| format!("{sign} {}", figure(&budget[name]));
        let met = if budget["met"] == true { "yes" } else { "NO" };
        vec![
            text("id"),
            case.to_owned(),
            text("what"),
            bound("must"),
            bound("aim"),
            match budget.get("first") {
                Some(first) => format!("{} (first {})", figure(&budget["measured"]), figure(first)),
                None => figure(&budget["measured"]),
            },
            budget["at_reference"].as_f64().map(shown).unwrap_or_default(),
            met.to_owned(),
        ]
    };
    budgets_of(report).iter().map(row).collect()
}

/// Returns the line that compares a run with the same server's cheapest request.
fn baseline_of(case: &str, report: &Value) -> Option<Vec<String>> {
    let server = &report["cpu_us_per_tx"]["server"];
    let echo = &report["echo_cpu_us"];
    let ratio = server.as_f64().zip(echo.as_f64()).map(|(server, echo)| server / echo);
    Some(vec![
        case.to_owned(),
        figure(report.get("tps")?),
        figure(server),
        figure(echo),
        ratio.map_or_else(|| "?".to_owned(), |ratio| format!("{ratio:.1}")),
        figure(&report["foreign_cores"]),
    ])
}

/// B11: the rate with a million finished transactions against that of an empty store.
fn share_of(empty: Option<f64>, full: Option<f64>) -> Value {
    let budget = empty.zip(full).map(|(empty, full)| {
        json!({ "id": "B11", "what": "rate / empty store's", "bound": "at_least", "must": 0.9,
                "aim": 1.0, "measured": full / empty, "met": full / empty >= 0.9 })
    });
    budget.into_iter().collect()
}

/// Returns a number with as many digits as it deserves.
fn figure(value: &Value) -> String {
    value.as_f64().map_or_else(|| "?".to_owned(), shown)
}

fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Prints a table that is Markdown too, so that it can be pasted into a page.
fn print_table(header: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("| {} |", padded.collect::<Vec<_>>().join(" | "))
    };
    say(&line(&header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()));
    say(&line(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>()));
    for row in rows {
        say(&line(row));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_report_becomes_lines() {
        let report = json!({
            "tps": 12000.5,
            "cpu_us_per_tx": { "server": 60.0 },
            "echo_cpu_us": 12.0,
            "foreign_cores": 0.1,
            "budgets": [
                { "id": "B1", "what": "rate, 1/s", "bound": "at_least", "must": 12000.0,
                  "aim": 16000.0, "measured": 12000.5, "at_reference": 15000.0, "met": true },
                { "id": "B9", "what": "flushes", "bound": "at_most", "must": 0.35,
                  "aim": 0.15, "measured": 0.4, "met": false },
            ],
        });
        assert_eq!(
            rows_of("c", &report),
            [
                ["B1", "c", "rate, 1/s", "≥ 12000", "≥ 16000", "12000", "15000", "yes"],
                ["B9", "c", "flushes", "≤ 0.35", "≤ 0.15", "0.40", "", "NO"],
            ]
        );
        let expected = ["c", "12000", "60.0", "12.0", "5.0", "0.10"];
        assert_eq!(baseline_of("c", &report).unwrap(), expected);
        assert_eq!(baseline_of("idle", &json!({})), None);
    }

    #[test]
    fn a_second_run_replaces_what_missed_and_is_better() {
        let of = |figures: [(f64, bool); 3]| {
            let [cpu, rate, tail] = figures.map(|(measured, met)| (json!(measured), json!(met)));
            json!({ "budgets": [
                { "id": "B1", "what": "cpu", "bound": "at_most", "measured": cpu.0, "met": cpu.1 },
                { "id": "B1", "what": "rate", "bound": "at_least", "measured": rate.0, "met": rate.1 },
                { "id": "B1", "what": "tail", "bound": "at_most", "measured": tail.0, "met": tail.1 },
            ] })
        };
        let mut report = of([(70.0, false), (10.0, false), (2.0, true)]);
        keep_better(&mut report, &of([(68.0, false), (9.0, false), (3.0, true)]));
        assert!(misses(&report));
        keep_better(&mut report, &of([(60.0, true), (20.0, true), (9.0, false)]));
        assert!(!misses(&report));
        let cells: Vec<String> =
            rows_of("c", &report).into_iter().map(|row| row[5].clone()).collect();
        assert_eq!(cells, ["60.0 (first 70.0)", "20.0 (first 10.0)", "2.00"]);
    }

    #[test]
    fn what_is_counted_is_not_measured_again() {
        let budget = |id: &str, what: &str| json!({ "id": id, "what": what, "met": false });
        assert!(is_missed_by_time(&budget("B10", "ready after kill -9, s")));
        assert!(!is_missed_by_time(&budget("B10", "memory, MiB")));
        assert!(!is_missed_by_time(&budget("B9", "forced changes")));
    }

    #[test]
    fn a_full_store_is_compared_with_the_empty_one() {
        let row = |full| rows_of("c", &json!({ "budgets": share_of(Some(100.0), full) }));
        let expected = ["B11", "c", "rate / empty store's", "≥ 0.90", "≥ 1.00", "0.95", "", "yes"];
        assert_eq!(row(Some(95.0)), [expected]);
        assert_eq!(row(Some(85.0))[0][5..], ["0.85", "", "NO"]);
        assert!(row(None).is_empty());
    }
}
