//! What an operator wants to know of the database.

use dtmd_store::{Check, Health};

use crate::error::DbError;
use crate::inner::Inner;
use crate::migrate;
use crate::options::Driver;

/// Clocks further apart than this are worth a word, in milliseconds.
const SKEW_WARN_MS: i64 = 1_000;
/// Packets smaller than this may be too small for payloads.
const PACKET_MIN: i64 = 16 * 1024 * 1024;

fn found(name: &'static str, health: Health, text: impl Into<String>) -> Check {
    Check { name, health, text: text.into() }
}

pub(crate) fn bad(name: &'static str, text: impl Into<String>) -> Check {
    found(name, Health::Bad, text)
}

pub(crate) async fn examine(inner: &Inner) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Err(error) = reach(inner, &mut checks).await {
        let text = format!("{}: {}", inner.options.location(), error.source);
        checks.push(bad("reachable", text));
        return checks;
    }
    match migrate::plan(&inner.options).await {
        Ok(missing) if missing.is_empty() => {
            checks.push(found("schema", Health::Good, "up to date"));
        }
        Ok(missing) => {
            let text = format!("run `dtmd migrate`; missing: {}", missing.join("; "));
            checks.push(bad("schema", text));
        }
        Err(error) => checks.push(bad("schema", error.to_string())),
    }
    match inner.ping().await {
        Ok(()) => checks.push(found("writable", Health::Good, "takes writes")),
        Err(error) => checks.push(bad("writable", crate::inner::chain(&error))),
    }
    checks
}

async fn reach(inner: &Inner, checks: &mut Vec<Check>) -> Result<(), DbError> {
    let mut lent = inner.pool.reader().await?;
    let version = lent.conn.run("select version()").await?;
    let version = version.iter().flatten().map(|row| row.text(0).into_owned()).next();
    let location = inner.options.location();
    checks.push(found("reachable", Health::Good, location));
    checks.push(found("version", Health::Good, version.unwrap_or_default()));
    let settings: &[(&str, &[&str])] = match inner.options.driver {
        Driver::Mysql => &[
            ("innodb_flush_log_at_trx_commit", &["1"]),
            ("sync_binlog", &["1"]),
            ("max_allowed_packet", &[]),
        ],
        Driver::Postgres => &[
            ("fsync", &["on"]),
            ("full_page_writes", &["on"]),
            ("synchronous_commit", &["on", "remote_apply", "remote_write", "local"]),
        ],
    };
    for (name, durable) in settings {
        let statement = match inner.options.driver {
            Driver::Mysql => format!("show global variables where variable_name='{name}'"),
            Driver::Postgres => {
                format!("select name,setting from pg_settings where name='{name}'")
            }
        };
        // Relatives of the two databases lack some.
        let Ok(found) = lent.conn.run(&statement).await else { continue };
        let Some(row) = found.iter().flatten().next() else { continue };
        checks.push(judge(name, &row.text(1), durable));
    }
    if let Ok(log) = lent.conn.run("show global variables where variable_name='log_bin'").await
        && log.iter().flatten().any(|row| row.text(1).eq_ignore_ascii_case("off"))
    {
        // Without a binary log it does not matter how that is written.
        checks.retain(|check| check.name != "sync_binlog");
    }
    let micros = inner.pool.clock.measure(&mut lent.conn, inner.options.driver).await?;
    let millis = micros / 1_000;
    let (level, hint) = if millis.abs() > SKEW_WARN_MS {
        (Health::Warning, "; it is allowed for, but set the clocks")
    } else {
        (Health::Good, "")
    };
    let text = format!("the database's clock is {millis} ms ahead of this machine's{hint}");
    checks.push(found("clock", level, text));
    inner.pool.give_back(lent);
    Ok(())
}

fn judge(name: &str, value: &str, durable: &[&str]) -> Check {
    if name == "max_allowed_packet" {
        let bytes: i64 = value.parse().unwrap_or(0);
        let (level, hint) = if bytes < PACKET_MIN {
            (Health::Warning, "; raise it to 16 MB or more, or large payloads are refused")
        } else {
            (Health::Good, "")
        };
        return found("max_allowed_packet", level, format!("{bytes}{hint}"));
    }
    let is_durable = durable.iter().any(|word| word.eq_ignore_ascii_case(value));
    let label = if name == "sync_binlog" { "sync_binlog" } else { "durability" };
    if is_durable {
        found(label, Health::Good, format!("{name} = {value}"))
    } else {
        let text = format!(
            "{name} = {value}: what was acknowledged may be lost with the machine's power; set it \
             to {}",
            durable.first().unwrap_or(&"on")
        );
        found(label, Health::Warning, text)
    }
}
