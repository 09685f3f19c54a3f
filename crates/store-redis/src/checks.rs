//! What a person should know of a Redis that is to keep transactions.

use std::collections::BTreeMap;

use dtmd_store::{Check, Health};
use redis::{RedisError, Value};

use crate::error::advice;
use crate::keys::slot_of;
use crate::link::Ask;
use crate::shared::Shared;

/// How far clocks may be apart before it is worth a look, in milliseconds. Wake-ups are translated,
/// so nothing breaks; times that people read differ.
const CLOCKS_APART_MS: i64 = 1000;

fn found(name: &'static str, health: Health, text: impl Into<String>) -> Check {
    Check { name, health, text: text.into() }
}

fn good(name: &'static str, text: impl Into<String>) -> Check {
    found(name, Health::Good, text)
}

fn warning(name: &'static str, text: impl Into<String>) -> Check {
    found(name, Health::Warning, text)
}

/// What one server says of itself.
#[derive(Debug, Default)]
pub(crate) struct ServerFacts {
    node: String,
    info: BTreeMap<String, String>,
    /// When the append-only file is synced; empty if it may not be asked.
    appendfsync: String,
}

impl ServerFacts {
    fn get(&self, name: &str) -> &str {
        self.info.get(name).map_or("", String::as_str)
    }

    pub(crate) fn has_aof(&self) -> bool {
        self.get("aof_enabled") == "1"
    }

    pub(crate) fn syncs_always(&self) -> bool {
        self.has_aof() && self.appendfsync == "always"
    }

    /// Returns major and minor version.
    pub(crate) fn version(&self) -> (u32, u32) {
        let mut parts = self.get("redis_version").split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    fn version_check(&self) -> Check {
        let text = format!("{}: Redis {}", self.node, self.get("redis_version"));
        if self.version() < (6, 0) {
            warning("version", format!("{text}; tested from Redis 6 on"))
        } else {
            good("version", text)
        }
    }

    fn persistence_check(&self) -> Check {
        let (name, node) = ("persistence", &self.node);
        if !self.has_aof() {
            return warning(
                name,
                format!(
                    "{node}: the append-only file is off: a restart loses acknowledged \
                     transactions; set `appendonly yes`"
                ),
            );
        }
        match self.appendfsync.as_str() {
            "always" => good(name, format!("{node}: AOF, synced before every answer")),
            "everysec" => warning(
                name,
                format!(
                    "{node}: AOF, synced once a second: the loss of its machine loses up to two \
                     seconds; `appendfsync always` does not"
                ),
            ),
            "no" => warning(
                name,
                format!(
                    "{node}: AOF, synced when the system likes: the loss of its machine loses \
                     half a minute; set `appendfsync everysec` or `always`"
                ),
            ),
            _ => {
                warning(name, format!("{node}: AOF is on; when it is synced may not be asked here"))
            }
        }
    }

    fn eviction_check(&self) -> Check {
        let (name, node) = ("eviction", &self.node);
        let policy = self.get("maxmemory_policy");
        let unlimited = self.get("maxmemory") == "0";
        match policy {
            "noeviction" if unlimited => warning(
                name,
                format!(
                    "{node}: maxmemory is not set: a full machine kills Redis; set it, and keep \
                     `noeviction`"
                ),
            ),
            "noeviction" => good(name, format!("{node}: noeviction")),
            "" => warning(name, format!("{node}: the policy may not be asked here")),
            _ => warning(
                name,
                format!(
                    "{node}: maxmemory-policy {policy} deletes keys when memory is short; \
                     unfinished transactions would be lost; set `noeviction`"
                ),
            ),
        }
    }

    fn replicas_check(&self, wanted: usize) -> Check {
        let (name, node) = ("replicas", &self.node);
        let connected: usize = self.get("connected_slaves").parse().unwrap_or(0);
        if connected < wanted {
            return found(
                name,
                Health::Bad,
                format!(
                    "{node}: {connected} replicas, {wanted} must have each change: nothing is \
                     acknowledged; start replicas, or lower the setting"
                ),
            );
        }
        match (connected, wanted) {
            (0, _) => {
                warning(name, format!("{node}: no replica: its loss is the loss of what is on it"))
            }
            (_, 0) => warning(
                name,
                format!(
                    "{node}: {connected}; a failover may lose what was acknowledged last; \
                     waiting for a replica makes that unlikely"
                ),
            ),
            _ => good(name, format!("{node}: {connected}, {wanted} have each change")),
        }
    }
}

/// Asks every master what it is and how it is set.
pub(crate) async fn facts(shared: &Shared) -> Result<Vec<ServerFacts>, RedisError> {
    let link = &shared.core.link;
    let answers = link.ask_masters(&redis::cmd("INFO")).await?;
    let mut get = redis::cmd("CONFIG");
    get.arg("GET").arg("appendfsync");
    // Many hosted servers do not allow it.
    let configs = link.ask_masters(&get).await.unwrap_or_default();
    let mut facts = Vec::new();
    for (node, value) in answers {
        let text: String = redis::from_redis_value(value)?;
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let info = lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        let config = configs.iter().find(|(of, _)| *of == node).map(|(_, value)| value.clone());
        let pair: Vec<String> =
            redis::from_redis_value(config.unwrap_or(Value::Nil)).unwrap_or_default();
        let appendfsync = pair.into_iter().nth(1).unwrap_or_default();
        facts.push(ServerFacts { node, info: info.collect(), appendfsync });
    }
    Ok(facts)
}

/// Counts what DTM's own store has scheduled under the prefix as it was configured (spec 05 §3);
/// none if that cannot be told.
pub(crate) async fn count_of_dtm(shared: &Shared) -> u64 {
    let key = format!("{}_u", shared.core.options.prefix);
    let mut cmd = redis::cmd("ZCARD");
    cmd.arg(&key);
    let asks = [Ask { slot: slot_of(&key), cmd }];
    let values = shared.core.link.ask(crate::link::Line::Read, &asks).await.unwrap_or_default();
    let count = values.into_iter().next().map(redis::from_redis_value);
    count.and_then(Result::ok).unwrap_or(0)
}

/// Looks at everything.
pub(crate) async fn doctor(shared: &Shared) -> Vec<Check> {
    let location = shared.core.options.mode.to_string();
    let facts = match facts(shared).await {
        Ok(facts) => facts,
        Err(error) => {
            let text = format!("{location}: {}: {error}", advice(&error));
            return vec![found("reachable", Health::Bad, text)];
        }
    };
    let mut checks = vec![good("reachable", location)];
    for facts in &facts {
        checks.push(facts.version_check());
        checks.push(facts.persistence_check());
        checks.push(facts.eviction_check());
        checks.push(facts.replicas_check(shared.core.options.wait_replicas));
    }
    shared.compare_clocks().await;
    let ahead = shared.clock.ahead_ms();
    let text = format!("this machine's clock is {ahead} ms ahead of Redis's");
    checks.push(if ahead.abs() < CLOCKS_APART_MS {
        good("clocks", text)
    } else {
        warning(
            "clocks",
            format!("{text}; wake-ups are translated, but synchronise the clocks (NTP)"),
        )
    });
    let of_dtm = count_of_dtm(shared).await;
    if of_dtm > 0 {
        checks.push(warning("data of DTM", dtm_text(of_dtm)));
    }
    checks
}

pub(crate) fn dtm_text(count: u64) -> String {
    format!(
        "{count} unfinished transactions of DTM's own Redis store are under this prefix; dtmd \
         leaves them alone: keep a DTM server running on it until they have ended"
    )
}

/// Tells the log what an operator should know.
pub(crate) fn warn_of(facts: &[ServerFacts]) {
    for facts in facts {
        for check in [facts.persistence_check(), facts.eviction_check()] {
            let loses = !facts.has_aof() || check.name == "eviction";
            if check.health == Health::Warning && loses {
                tracing::warn!(check = check.name, "{}", check.text);
            }
        }
    }
}
