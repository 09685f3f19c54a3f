//! Walking over transactions page by page, and `dtmd tx export`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::client::{ApiClient, ClientError};
use super::client_args::FilterArgs;
use super::{commands, render};

/// Transactions asked for at a time.
const PAGE: usize = 500;

/// Walks over the transactions that a filter leaves, newest first.
pub(super) struct Pages<'a> {
    api: &'a ApiClient,
    params: Vec<(&'static str, String)>,
    /// None at the end.
    position: Option<String>,
}

impl<'a> Pages<'a> {
    pub(super) fn new(api: &'a ApiClient, filter: &FilterArgs) -> Self {
        let params = params(filter, PAGE);
        Self { api, params, position: Some(String::new()) }
    }

    /// Returns the next page; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Value>>, ClientError> {
        let Some(position) = self.position.take() else { return Ok(None) };
        let mut params: Vec<(&str, &str)> =
            self.params.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if !position.is_empty() {
            params.push(("position", &position));
        }
        let mut answer = self.api.get("all", &params).await?;
        let next = render::member(&answer, "next_position");
        // A server that repeats its position would be asked for ever.
        self.position = Some(next).filter(|next| !next.is_empty() && *next != position);
        Ok(match answer["transactions"].take() {
            Value::Array(records) => Some(records),
            _ => Some(Vec::new()),
        })
    }
}

/// Returns the parameters of the list for a filter.
pub(super) fn params(filter: &FilterArgs, limit: usize) -> Vec<(&'static str, String)> {
    let mut params = vec![("limit", limit.to_string())];
    params.extend(filter.status.clone().map(|status| ("status", status)));
    params.extend(filter.trans_type.clone().map(|name| ("transType", name)));
    params.extend(filter.older_than.map(|age| ("createTimeEnd", millis_before(age).to_string())));
    params
}

/// Returns the time so long ago, in milliseconds since 1970.
fn millis_before(age: Duration) -> u128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.saturating_sub(age).as_millis()
}

/// Writes every transaction as a line of JSON.
pub(super) async fn export(
    api: &ApiClient,
    filter: &FilterArgs,
    branches: bool,
    to: Option<&Path>,
    out: &mut dyn Write,
) -> Result<(), ClientError> {
    let Some(path) = to else {
        return write_all(api, filter, branches, out, &ProgressBar::hidden()).await;
    };
    let file = File::create_new(path)
        .map_err(|error| ClientError::Usage(format!("cannot make {}: {error}", path.display())))?;
    let mut file = BufWriter::new(file);
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    bar.set_style(ProgressStyle::default_spinner());
    write_all(api, filter, branches, &mut file, &bar).await?;
    let file = file.into_inner().map_err(|error| ClientError::Output(error.into_error()))?;
    // Whoever exports before deleting must be able to rely on it.
    file.sync_all().map_err(ClientError::Output)?;
    let text = format!("{} transactions written to {}\n", bar.position(), path.display());
    bar.finish_and_clear();
    out.write_all(text.as_bytes()).map_err(ClientError::Output)
}

async fn write_all(
    api: &ApiClient,
    filter: &FilterArgs,
    branches: bool,
    out: &mut dyn Write,
    bar: &ProgressBar,
) -> Result<(), ClientError> {
    let mut pages = Pages::new(api, filter);
    while let Some(records) = pages.next().await? {
        for mut record in records {
            if branches {
                let gid = render::member(&record, "gid");
                match commands::query(api, &gid).await {
                    Ok(whole) => record = whole,
                    // Deleted since the list was made.
                    Err(ClientError::NoSuchGid { .. }) => continue,
                    Err(error) => return Err(error),
                }
            }
            writeln!(out, "{record}").map_err(ClientError::Output)?;
            bar.inc(1);
        }
    }
    out.flush().map_err(ClientError::Output)
}
