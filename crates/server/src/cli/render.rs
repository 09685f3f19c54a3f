//! Answers of the API as text for people.
//!
//! What comes from outside (gids, URLs, reasons) is shown without control characters, so that it
//! cannot move the cursor or recolour a terminal.

use std::fmt::Write as _;

use chrono::{DateTime, Datelike};
use comfy_table::{Table, presets};
use serde_json::Value;

/// Returns a member's text; numbers count as text, everything else as empty.
pub(super) fn member(record: &Value, name: &str) -> String {
    match record.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// Returns the text with every control character written out.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out
}

/// Shows the answer of `all` (spec 02 §2.7).
pub(super) fn transactions(answer: &Value) -> String {
    let records = list(answer, "transactions");
    if records.is_empty() {
        return "no transactions\n".into();
    }
    let rows = records.iter().map(|record| {
        let finished = time(record, "finish_time").or_else(|| time(record, "rollback_time"));
        let next = if is_final(record) { None } else { time(record, "next_cron_time") };
        vec![
            shown(record, "gid"),
            shown(record, "trans_type"),
            shown(record, "status"),
            time(record, "create_time").unwrap_or_default(),
            finished.unwrap_or_default(),
            next.unwrap_or_default(),
        ]
    });
    let header = ["GID", "TYPE", "STATUS", "CREATED", "FINISHED", "NEXT TRY"];
    table(&header, rows) + &more(answer)
}

/// Shows the answer of `scanKV` for topics (spec 02 §2.9): a row for each subscriber.
pub(super) fn topics(answer: &Value) -> String {
    let records = list(answer, "kv");
    if records.is_empty() {
        return "no topics\n".into();
    }
    let mut rows = Vec::new();
    for record in records {
        let (topic, version) = (shown(record, "k"), shown(record, "version"));
        let value = serde_json::from_str::<Value>(&member(record, "v")).unwrap_or_default();
        let subscribers = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if subscribers.is_empty() {
            rows.push(vec![topic, version, "(no subscribers)".into(), String::new()]);
            continue;
        }
        for (index, subscriber) in subscribers.iter().enumerate() {
            let first = |text: &String| if index == 0 { text.clone() } else { String::new() };
            let (url, remark) = (shown(subscriber, "url"), shown(subscriber, "remark"));
            rows.push(vec![first(&topic), first(&version), url, remark]);
        }
    }
    table(&["TOPIC", "VERSION", "SUBSCRIBER", "REMARK"], rows) + &more(answer)
}

/// Shows the answer of `query` (spec 02 §2.6): header lines, then the branches as a tree.
pub(super) fn transaction(answer: &Value) -> String {
    let record = &answer["transaction"];
    let mut out = format!(
        "{} {}  {}\n",
        shown(record, "trans_type"),
        shown(record, "gid"),
        shown(record, "status")
    );
    for (label, value) in headers(record) {
        if !value.is_empty() {
            _ = writeln!(out, "  {label:<12} {value}");
        }
    }
    let branches = list(answer, "branches");
    if branches.is_empty() {
        out.push_str("no branches\n");
    } else {
        out.push_str("branches\n");
        out.push_str(&tree(branches, list(answer, "attempts")));
    }
    out
}

/// Returns what is said of a transaction before its branches; empty values are left out.
fn headers(record: &Value) -> Vec<(&'static str, String)> {
    let text = |name| shown(record, name);
    let time = |name| time(record, name).unwrap_or_default();
    let seconds = |name| match text(name) {
        number if number.is_empty() || number == "0" => String::new(),
        number => format!("{number} s"),
    };
    let mut lines = vec![
        ("created", time("create_time")),
        ("updated", time("update_time")),
        ("finished", time("finish_time")),
        ("rolled back", time("rollback_time")),
    ];
    if !is_final(record) {
        lines.push(("next try", time("next_cron_time")));
        lines.push(("interval", seconds("next_cron_interval")));
    }
    lines.extend([
        ("protocol", text("protocol")),
        ("query", text("query_prepared")),
        ("timeout", seconds("timeout_to_fail")),
        ("owner", text("owner")),
        ("reason", text("rollback_reason")),
    ]);
    if record.get("concurrent").and_then(Value::as_bool) == Some(true) {
        lines.push(("concurrent", "yes".into()));
    }
    lines
}

/// Shows branch rows as a tree: a branch, and under it its ops, in the server's order.
fn tree(rows: &[Value], attempts: &[Value]) -> String {
    let mut branches: Vec<(String, Vec<&Value>)> = Vec::new();
    for row in rows {
        let id = shown(row, "branch_id");
        match branches.iter_mut().find(|(known, _)| *known == id) {
            Some((_, ops)) => ops.push(row),
            None => branches.push((id, vec![row])),
        }
    }
    let width = |name| rows.iter().map(|row| shown(row, name).chars().count()).max().unwrap_or(0);
    let (op_width, status_width) = (width("op"), width("status"));
    let mut out = String::new();
    let count = branches.len();
    for (index, (id, ops)) in branches.iter().enumerate() {
        let (corner, bar) =
            if index + 1 == count { ("└─", "   ") } else { ("├─", "│  ") };
        _ = writeln!(out, "{corner} {id}");
        for (index, row) in ops.iter().enumerate() {
            let is_last = index + 1 == ops.len();
            let corner = if is_last { "└─" } else { "├─" };
            let (op, status) = (shown(row, "op"), shown(row, "status"));
            let line = format!(
                "{bar}{corner} {op:<op_width$}  {status:<status_width$}  {}",
                details(row).join("  ")
            );
            _ = writeln!(out, "{}", line.trim_end());
            let bar = format!("{bar}{}", if is_last { "   " } else { "│  " });
            for attempt in attempts.iter().filter(|it| is_of(it, row)) {
                _ = writeln!(out, "{bar}  {}", attempt_line(attempt));
            }
        }
    }
    // The calls that are no row's: asking back for a message, calling a workflow.
    let others = attempts.iter().filter(|it| !rows.iter().any(|row| is_of(it, row)));
    for attempt in others {
        let (branch, op) = (shown(attempt, "branch_id"), shown(attempt, "op"));
        _ = writeln!(out, "{branch} {op}  {}", attempt_line(attempt));
    }
    out
}

fn is_of(attempt: &Value, row: &Value) -> bool {
    attempt["branch_id"] == row["branch_id"] && attempt["op"] == row["op"]
}

/// Shows one call of a branch: when, outcome, how long, what went wrong.
fn attempt_line(attempt: &Value) -> String {
    let ms = attempt["ms"].as_f64().unwrap_or_default();
    let mut line = format!(
        "· {}  {}  {ms:.1} ms",
        time(attempt, "at").unwrap_or_default(),
        shown(attempt, "outcome")
    );
    let error = shown(attempt, "error");
    if !error.is_empty() {
        line.push_str("  ");
        line.push_str(&error);
    }
    line
}

/// Returns the time here, to the millisecond.
pub(super) fn now() -> String {
    chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Returns what is known of one op beside its status.
fn details(row: &Value) -> Vec<String> {
    let mut details = Vec::new();
    let url = shown(row, "url");
    if !url.is_empty() {
        details.push(url);
    }
    if let Some(at) = time(row, "finish_time").or_else(|| time(row, "rollback_time")) {
        details.push(format!("at {at}"));
    }
    match shown(row, "attempts").as_str() {
        "" | "0" => {}
        "1" => details.push("1 attempt".into()),
        attempts => details.push(format!("{attempts} attempts")),
    }
    for (name, label) in [("next_time", "next try"), ("next_cron_time", "next try")] {
        details.extend(time(row, name).map(|at| format!("{label} {at}")));
    }
    let error = shown(row, "error");
    if !error.is_empty() {
        details.push(format!("({error})"));
    }
    details
}

/// Returns whether nothing more will happen to a transaction.
fn is_final(record: &Value) -> bool {
    matches!(member(record, "status").as_str(), "succeed" | "failed")
}

fn shown(record: &Value, name: &str) -> String {
    plain(&member(record, name))
}

/// Returns a member's time to the millisecond, in the server's zone; none for a missing or zero one.
fn time(record: &Value, name: &str) -> Option<String> {
    let text = member(record, name);
    match DateTime::parse_from_rfc3339(&text) {
        // Go writes its zero time as the year 1.
        Ok(time) if time.year() <= 1 => None,
        Ok(time) => Some(time.format("%Y-%m-%d %H:%M:%S%.3f %:z").to_string()),
        Err(_) if text.is_empty() => None,
        Err(_) => Some(plain(&text)),
    }
}

fn list<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Returns how to go on with a list that has more, or nothing.
fn more(answer: &Value) -> String {
    match shown(answer, "next_position").as_str() {
        "" => String::new(),
        position => format!("there is more: add --position '{position}'\n"),
    }
}

fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    let mut out = String::new();
    for line in table.to_string().lines() {
        // The style keeps a blank at both ends of a line.
        out.push_str(line.strip_prefix(' ').unwrap_or(line).trim_end());
        out.push('\n');
    }
    out
}
