//! `dtmd doctor`: whether a server is reachable and well.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use hyper::Method;
use serde_json::{Value, json};

use super::client::{ApiClient, ClientError};
use super::client_args::OutputFormat;
use super::{EXIT_OK, EXIT_REFUSED, commands, render};

/// A clock that is wrong by more makes timeouts and logs hard to understand.
const SKEW_MAX: Duration = Duration::from_secs(2);
/// Less free space than this soon stops the server.
const FREE_MIN_KIB: u64 = 1 << 20;
/// A slower disk makes every transaction slow.
const SYNC_MAX: Duration = Duration::from_millis(20);
/// Forced writes of which the median counts.
const SYNCS: usize = 9;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Ok,
    Warn,
    Bad,
}

struct Finding {
    what: String,
    health: Health,
    text: String,
}

/// Looks at everything and prints what it found; the exit code is not 0 if something is bad.
pub(super) async fn run(
    api: &ApiClient,
    output: OutputFormat,
    out: &mut dyn Write,
) -> Result<u8, ClientError> {
    let mut findings = Vec::new();
    let mut find = |what: &str, health, text| {
        findings.push(Finding { what: what.to_owned(), health, text });
    };

    let begun = Instant::now();
    let ping = api.ask(Method::GET, "/api/ping", None).await?;
    let took = begun.elapsed();
    let reached = match ping.status.as_u16() {
        200 => Health::Ok,
        _ => Health::Bad,
    };
    find("reach", reached, format!("{} answers in {:.1} ms", api.server(), ms(took)));

    let version = api.get("version", &[]).await?;
    let version = render::member(&version, "version");
    let own = format!("v{}", env!("CARGO_PKG_VERSION"));
    let (health, text) = match version == own {
        true => (Health::Ok, format!("{version}, as this command")),
        false => (Health::Warn, format!("the server is {version}, this command {own}")),
    };
    find("version", health, text);

    let asked = Utc::now();
    let info = api.get_own("info").await.ok();
    let waited = Utc::now() - asked;
    match &info {
        None => find("server", Health::Warn, "it is not dtmd, or older: no more is known".into()),
        Some(info) => {
            let (health, text) = readiness(info);
            find("ready", health, text);
            let (health, text) = store(&info["store"]);
            find("store", health, text);
        }
    }
    let says = info
        .as_ref()
        .and_then(|info| DateTime::parse_from_rfc3339(&render::member(info, "now")).ok());
    let by_date = || DateTime::parse_from_rfc2822(ping.date.as_deref()?).ok();
    if let Some(says) = says.or_else(by_date) {
        let (health, text) = clock(says.with_timezone(&Utc), asked + waited / 2);
        find("clock", health, text);
    }
    if let Ok(answer) = api.get_own("store").await {
        for check in answer["checks"].as_array().into_iter().flatten() {
            let member = |name| render::plain(&render::member(check, name));
            let health = match member("health").as_str() {
                "good" => Health::Ok,
                "warning" => Health::Warn,
                _ => Health::Bad,
            };
            find(&format!("store: {}", member("name")), health, member("text"));
        }
    }
    if let Ok(alerts) = api.get_own("alerts").await {
        let (health, text) = alerts_of(&alerts);
        find("alerts", health, text);
    }
    let place = info.as_ref().map(|info| render::member(&info["store"], "location"));
    if let Some(place) = place.filter(|place| api.is_local() && Path::new(place).is_dir()) {
        let (health, text) = free_space(&place);
        find("space", health, text);
        let (health, text) = sync_latency(Path::new(&place));
        find("disk", health, text);
    }
    print(&findings, output, out)?;
    let is_bad = findings.iter().any(|finding| finding.health == Health::Bad);
    Ok(if is_bad { EXIT_REFUSED } else { EXIT_OK })
}

fn readiness(info: &Value) -> (Health, String) {
    match info["ready"].as_bool() {
        Some(true) => (Health::Ok, "it accepts transactions".into()),
        _ => {
            let why = render::plain(&render::member(info, "not_ready"));
            (Health::Bad, format!("it accepts none: {why}"))
        }
    }
}

fn store(store: &Value) -> (Health, String) {
    let text = format!(
        "{} in {}",
        render::plain(&render::member(store, "kind")),
        render::plain(&render::member(store, "location"))
    );
    match store["durable"].as_bool() {
        Some(true) => (Health::Ok, text),
        _ => (Health::Warn, format!("{text}: transactions are lost when the server ends")),
    }
}

fn clock(server: DateTime<Utc>, here: DateTime<Utc>) -> (Health, String) {
    let skew = (server - here).num_milliseconds();
    let health = match skew.unsigned_abs() > SKEW_MAX.as_millis() as u64 {
        true => Health::Warn,
        false => Health::Ok,
    };
    let side = if skew < 0 { "behind" } else { "ahead" };
    (health, format!("the server's clock is {} ms {side}", skew.abs()))
}

fn alerts_of(answer: &Value) -> (Health, String) {
    let alerts = answer["alerts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lost = alerts.iter().filter(|alert| alert["result"] != "delivered").count();
    match (alerts.len(), lost) {
        (0, _) => (Health::Ok, "none yet".into()),
        (all, 0) => (Health::Ok, format!("the last {all} reached the webhook")),
        (all, lost) => {
            (Health::Warn, format!("{lost} of the last {all} did not reach the webhook"))
        }
    }
}

/// Asks `df`, which every system has, how much is free.
fn free_space(place: &str) -> (Health, String) {
    let output = Command::new("df").args(["-Pk", "--"]).arg(place).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let free = text.ok().and_then(|text| free_of(&text));
    match free {
        None => (Health::Warn, format!("the free space of {place} is not known")),
        Some(kib) => {
            let health = if kib < FREE_MIN_KIB { Health::Warn } else { Health::Ok };
            (health, format!("{} MiB free in {place}", kib >> 10))
        }
    }
}

/// Reads the fourth column of the second line, in KiB.
fn free_of(df: &str) -> Option<u64> {
    df.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}

/// Forces a few small writes and takes the median.
fn sync_latency(folder: &Path) -> (Health, String) {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let times = sync_times(&path);
    let _ = std::fs::remove_file(&path);
    match times {
        Err(error) => (Health::Warn, format!("cannot write there: {error}")),
        Ok(mut times) => {
            times.sort_unstable();
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            let health = if median > SYNC_MAX { Health::Warn } else { Health::Ok };
            (health, format!("a forced write takes {:.2} ms", ms(median)))
        }
    }
}

fn sync_times(path: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = OpenOptions::new().create_new(true).write(true).open(path)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn print(
    findings: &[Finding],
    output: OutputFormat,
    out: &mut dyn Write,
) -> Result<(), ClientError> {
    let word = |health| match health {
        Health::Ok => "ok",
        Health::Warn => "warn",
        Health::Bad => "BAD",
    };
    let records: Vec<Value> = findings
        .iter()
        .map(|it| {
            json!({"what": it.what, "health": word(it.health).to_lowercase(), "text": it.text})
        })
        .collect();
    let text = commands::shown(&json!({ "findings": records }), output, |_| {
        let width = findings.iter().map(|it| it.what.len() + 2).max().unwrap_or(0);
        let line = |it: &Finding| format!("{:<5}{:<width$}{}\n", word(it.health), it.what, it.text);
        findings.iter().map(line).collect()
    });
    out.write_all(text.as_bytes()).map_err(ClientError::Output)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn findings_are_judged() {
        let df =
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 9 4 5000 1% /\n";
        assert_eq!(free_of(df), Some(5000));
        assert_eq!(free_of("df: no such file\n"), None);
        let here = DateTime::parse_from_rfc3339("2026-01-01T00:00:10Z").unwrap().to_utc();
        let behind = here - chrono::TimeDelta::milliseconds(2500);
        let late = (Health::Warn, "the server's clock is 2500 ms behind".to_owned());
        assert_eq!(clock(behind, here), late);
        assert_eq!(clock(here, here).0, Health::Ok);
        let alerts = json!({"alerts": [{"result": "delivered"}, {"result": "failed"}]});
        assert_eq!(alerts_of(&alerts).0, Health::Warn);
        assert_eq!(readiness(&json!({"ready": false, "not_ready": "full"})).0, Health::Bad);
        let dir = tempfile::tempdir().unwrap();
        assert!(sync_latency(dir.path()).1.starts_with("a forced write takes"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
        assert_eq!(sync_latency(Path::new("/nowhere/at/all")).0, Health::Warn);
        assert!(free_space(&dir.path().to_string_lossy()).1.contains("MiB free"));
    }
}
