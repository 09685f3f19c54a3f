//! `dtmd tx watch`: what changes, line by line.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{ApiClient, ClientError};
use super::client_args::{FilterArgs, OutputFormat};
use super::{EXIT_OK, EXIT_REFUSED, commands, export, render};

/// Transactions of a status looked at in one round; of a larger backlog only the newest are seen.
const LOOKED_AT: usize = 200;
/// Transactions remembered.
const KNOWN_MAX: usize = 10_000;

/// Prints what changes of one transaction until it has ended; the exit code says how.
pub(super) async fn one(
    api: &ApiClient,
    gid: &str,
    every: Duration,
    output: OutputFormat,
    out: &mut dyn Write,
) -> Result<u8, ClientError> {
    let mut before: HashMap<String, String> = HashMap::new();
    loop {
        let answer = commands::query(api, gid).await?;
        let record = &answer["transaction"];
        let mut now = vec![("".to_owned(), render::member(record, "status"))];
        for row in answer["branches"].as_array().into_iter().flatten() {
            let name =
                format!("{} {}", render::member(row, "branch_id"), render::member(row, "op"));
            now.push((name, branch_state(row)));
        }
        for (name, state) in now {
            if before.get(&name) != Some(&state) {
                print(out, output, gid, &name, &state, record)?;
                before.insert(name, state);
            }
        }
        match render::member(record, "status").as_str() {
            "succeed" => return Ok(EXIT_OK),
            "failed" => return Ok(EXIT_REFUSED),
            _ => tokio::time::sleep(every).await,
        }
    }
}

fn branch_state(row: &Value) -> String {
    let status = render::member(row, "status");
    match render::member(row, "attempts").as_str() {
        "" | "0" => status,
        attempts => format!("{status} after {attempts} failed tries"),
    }
}

/// Prints what changes of all transactions until the process is stopped.
pub(super) async fn all(
    api: &ApiClient,
    every: Duration,
    output: OutputFormat,
    out: &mut dyn Write,
) -> Result<u8, ClientError> {
    let mut known: HashMap<String, String> = HashMap::new();
    loop {
        round(api, &mut known, output, out).await?;
        tokio::time::sleep(every).await;
    }
}

/// One look at the newest, and at the newest unfinished.
async fn round(
    api: &ApiClient,
    known: &mut HashMap<String, String>,
    output: OutputFormat,
    out: &mut dyn Write,
) -> Result<(), ClientError> {
    let mut seen: Vec<Value> = Vec::new();
    for status in [None, Some("prepared"), Some("submitted"), Some("aborting")] {
        let filter = FilterArgs { status: status.map(str::to_owned), ..FilterArgs::default() };
        let params = export::params(&filter, LOOKED_AT);
        let params: Vec<(&str, &str)> = params.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let mut answer = api.get("all", &params).await?;
        if let Value::Array(records) = answer["transactions"].take() {
            seen.extend(records);
        }
    }
    // Ended since the last look, and no longer among the newest.
    let unfinished = known.iter().filter(|(_, status)| !is_final(status));
    let is_seen = |gid: &str| seen.iter().any(|record| record["gid"] == gid);
    let gone: Vec<String> =
        unfinished.map(|(gid, _)| gid.clone()).filter(|gid| !is_seen(gid)).collect();
    for gid in gone.into_iter().take(LOOKED_AT) {
        match commands::query(api, &gid).await {
            Ok(mut answer) => seen.push(answer["transaction"].take()),
            Err(ClientError::NoSuchGid { .. }) => drop(known.remove(&gid)),
            Err(error) => return Err(error),
        }
    }
    let is_first = known.is_empty();
    for record in seen.iter().rev() {
        let (gid, status) = (render::member(record, "gid"), render::member(record, "status"));
        if known.get(&gid) == Some(&status) {
            continue;
        }
        // What had ended before the first look is no change.
        if !(is_first && is_final(&status)) {
            print(out, output, &gid, "", &status, record)?;
        }
        known.insert(gid, status);
    }
    if known.len() > KNOWN_MAX {
        known.retain(|gid, status| !is_final(status) || seen.iter().any(|it| it["gid"] == **gid));
    }
    Ok(())
}

fn is_final(status: &str) -> bool {
    matches!(status, "succeed" | "failed")
}

fn print(
    out: &mut dyn Write,
    output: OutputFormat,
    gid: &str,
    branch: &str,
    state: &str,
    record: &Value,
) -> Result<(), ClientError> {
    let at = render::now();
    let trans_type = render::member(record, "trans_type");
    let line = match output {
        OutputFormat::Table => {
            let reason = match state {
                "aborting" | "failed" if branch.is_empty() => {
                    render::member(record, "rollback_reason")
                }
                _ => String::new(),
            };
            let words = [at.as_str(), &trans_type, gid, branch, state, &reason];
            let words: Vec<String> = words
                .iter()
                .filter(|word| !word.is_empty())
                .map(|word| render::plain(word))
                .collect();
            words.join("  ") + "\n"
        }
        OutputFormat::Json | OutputFormat::Yaml => {
            let line = json!({"at": at, "gid": gid, "trans_type": trans_type, "branch": branch,
                "state": state});
            match output {
                OutputFormat::Yaml => {
                    format!("---\n{}", serde_saphyr::to_string(&line).unwrap_or_default())
                }
                OutputFormat::Json | OutputFormat::Table => format!("{line}\n"),
            }
        }
    };
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(ClientError::Output)
}
