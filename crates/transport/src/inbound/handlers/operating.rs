//! Our own API, for operators and their tools: its prefix carries its version, and an error has the
//! status that HTTP means it to have.

use dtmd_engine::{AlertRecord, Attempt};
use dtmd_protocol::{Gid, url};
use dtmd_wire::Zone;
use dtmd_wire::time::Rfc3339;
use serde::Serialize;

use super::super::api::{Api, Asked};
use super::super::query_string::decode;
use super::super::reply::{Problem, Reply};

/// `GET /dtmd/v1/transactions/{gid}/attempts`: the last calls of each branch.
pub(in super::super) async fn attempts(api: &Api, asked: &Asked<'_>) -> Result<Reply, Problem> {
    let name = decode(asked.name, false);
    let unknown = || Problem::Parameter(404, format!("there is no transaction with gid {name}"));
    let gid = Gid::new(&name).map_err(|_| unknown())?;
    let attempts = api.engine.attempts(&gid);
    if attempts.is_empty() && api.engine.query(&gid).await?.is_none() {
        return Err(unknown());
    }
    let zone = api.options.zone;
    let attempts = attempts.iter().map(|attempt| ShownAttempt::new(attempt, zone)).collect();
    Ok(json(&ShownAttempts { gid: gid.as_str(), attempts }))
}

/// `GET /dtmd/v1/alerts`: what became of the last alerts, newest first.
pub(in super::super) fn alerts(api: &Api) -> Reply {
    let zone = api.options.zone;
    let records = api.engine.alert_log().newest_first();
    json(&ShownAlerts {
        alerts: records.iter().map(|record| ShownAlert::new(record, zone)).collect(),
    })
}

/// `GET /dtmd/v1/info`: what runs here.
pub(in super::super) async fn info(api: &Api) -> Reply {
    let store = api.engine.store_info();
    let not_ready = api.engine.ready().await.err().map(|error| error.to_string());
    json(&Info {
        version: &api.options.version,
        now: Rfc3339(api.engine.now(), api.options.zone),
        ready: not_ready.is_none(),
        not_ready: not_ready.unwrap_or_default(),
        store: ShownStore {
            kind: store.kind,
            location: &store.location,
            exclusive: store.exclusive,
            durable: store.durable,
        },
    })
}

/// `GET /dtmd/v1/store`: what an operator should know of the store. May take seconds.
pub(in super::super) async fn store(api: &Api) -> Reply {
    let checks = api.engine.examine_store().await;
    let checks = checks.iter().map(|check| ShownCheck {
        name: check.name,
        health: check.health.as_str(),
        text: &check.text,
    });
    json(&ShownChecks { checks: checks.collect() })
}

/// These have no form that JSON lacks.
fn json(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => Reply::json(body),
        Err(error) => Reply::message(500, &format!("the answer cannot be written: {error}")),
    }
}

#[derive(Serialize)]
struct ShownChecks<'a> {
    checks: Vec<ShownCheck<'a>>,
}

#[derive(Serialize)]
struct ShownCheck<'a> {
    name: &'static str,
    health: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct ShownAttempts<'a> {
    gid: &'a str,
    attempts: Vec<ShownAttempt<'a>>,
}

#[derive(Serialize)]
struct ShownAttempt<'a> {
    branch_id: &'a str,
    op: &'a str,
    at: Rfc3339,
    url: String,
    attempt: u32,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> ShownAttempt<'a> {
    fn new(attempt: &'a Attempt, zone: Zone) -> Self {
        Self {
            branch_id: attempt.branch_id.as_str(),
            op: attempt.op.as_str(),
            at: Rfc3339(attempt.at, zone),
            url: url_for_people(&attempt.url),
            attempt: attempt.number,
            outcome: attempt.outcome,
            status: attempt.status(),
            ms: millis(attempt.elapsed),
            error: attempt.error.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct ShownAlerts<'a> {
    alerts: Vec<ShownAlert<'a>>,
}

#[derive(Serialize)]
struct ShownAlert<'a> {
    at: Rfc3339,
    kind: &'static str,
    gid: &'a str,
    status: &'static str,
    branch: String,
    result: &'static str,
    sendings: u32,
    ms: f64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

impl<'a> ShownAlert<'a> {
    fn new(record: &'a AlertRecord, zone: Zone) -> Self {
        Self {
            at: Rfc3339(record.at, zone),
            kind: record.kind,
            gid: &record.gid,
            status: record.status,
            branch: url_for_people(&record.branch),
            result: record.result,
            sendings: record.sendings,
            ms: millis(record.elapsed),
            error: &record.error,
        }
    }
}

#[derive(Serialize)]
struct Info<'a> {
    version: &'a str,
    now: Rfc3339,
    ready: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    not_ready: String,
    store: ShownStore<'a>,
}

#[derive(Serialize)]
struct ShownStore<'a> {
    kind: &'static str,
    location: &'a str,
    exclusive: bool,
    durable: bool,
}

/// Milliseconds to the microsecond.
fn millis(elapsed: std::time::Duration) -> f64 {
    elapsed.as_micros() as f64 / 1000.0
}

/// Returns a URL without its query and without a user name, either of which may hold a secret.
fn url_for_people(text: &str) -> String {
    let bare = text.split(['?', '#']).next().unwrap_or_default();
    let place = url::destination(bare);
    match (bare.strip_prefix(place), place.rsplit_once('@')) {
        (Some(path), Some((before, host))) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://{host}{path}")
        }
        _ => bare.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_secrets() {
        let table = [
            ("http://h:1/a/b", "http://h:1/a/b"),
            ("http://h:1/a?token=1", "http://h:1/a"),
            ("https://user:pass@h/a?x#y", "https://h/a"),
            ("h:1/Service/Method", "h:1/Service/Method"),
            ("", ""),
        ];
        for (url, shown) in table {
            assert_eq!(url_for_people(url), shown);
        }
    }
}
