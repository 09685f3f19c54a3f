//! What every operation needs: asking, looking, and having writes made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use dtmd_protocol::{Gid, Global};
use dtmd_store::{StoreError, Totals};
use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::error::{Trouble, unavailable, unexpected};
use crate::header::{CODES, Code, Header};
use crate::keys::{Keys, SHARDS, shard_of_gid_text};
use crate::link::{Ask, Line};
use crate::plan::{Made, Plan};
use crate::script::{Args, LOOK, Script, ScriptCall};
use crate::writer::{Core, Job};

/// The first wait before a question is asked again; it doubles, up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_millis(10);
const WAIT_MAX: Duration = Duration::from_millis(300);
/// A script looks into no more indexes at once: it keeps Redis from everything else.
const LOOK_MAX_KEYS: usize = 256;
/// How often the clocks are compared.
const COMPARE_EVERY_US: i64 = 10_000_000;

pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) clock: Clock,
    pub(crate) jobs: mpsc::Sender<Job>,
    compared_us: AtomicI64,
}

/// An entry of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) gid: String,
    pub(crate) score: i64,
}

/// What an index gave.
#[derive(Debug)]
pub(crate) struct Found {
    /// Which of the keys that were asked for.
    pub(crate) index: usize,
    pub(crate) entries: Vec<Entry>,
}

impl Shared {
    pub(crate) fn new(core: Arc<Core>, jobs: mpsc::Sender<Job>) -> Self {
        let clock = Clock::new(core.options.clock_shift_ms);
        Self { core, clock, jobs, compared_us: AtomicI64::new(i64::MIN) }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.core.keys
    }

    pub(crate) fn plan(&self) -> Plan {
        Plan::new(&self.core.keys, self.core.link.is_cluster())
    }

    /// Returns a question about a shard's keys.
    pub(crate) fn about(&self, shard: u16, cmd: Cmd) -> Ask {
        Ask { slot: self.keys().slot(shard), cmd }
    }

    /// Asks until there is an answer, or for as long as the settings say.
    pub(crate) async fn ask(
        &self,
        doing: &'static str,
        asks: &[Ask],
    ) -> Result<Vec<Value>, StoreError> {
        if asks.is_empty() {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        let mut wait = WAIT_FIRST;
        loop {
            let error = match self.core.link.ask(Line::Read, asks).await {
                Ok(values) => return Ok(values),
                Err(error) => error,
            };
            let again =
                matches!(Trouble::of(&error), Trouble::Lost | Trouble::Later | Trouble::Moved);
            let patience = self.core.options.retry_for.saturating_sub(wait);
            let is_over = begun.elapsed() > patience || self.core.link.outage() > patience;
            if !again || is_over {
                return Err(unavailable(doing, error));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    /// Asks one question.
    pub(crate) async fn ask_one(
        &self,
        doing: &'static str,
        shard: u16,
        cmd: Cmd,
    ) -> Result<Value, StoreError> {
        let values = self.ask(doing, &[self.about(shard, cmd)]).await?;
        Ok(values.into_iter().next().unwrap_or(Value::Nil))
    }

    /// Runs a script that changes nothing.
    async fn ask_script(
        &self,
        doing: &'static str,
        script: &Script,
        calls: &[ScriptCall],
    ) -> Result<Vec<Value>, StoreError> {
        let asks = |by_hash| -> Vec<Ask> {
            calls.iter().map(|call| self.about(call.shard, call.command(script, by_hash))).collect()
        };
        match self.core.link.ask(Line::Read, &asks(true)).await {
            Ok(values) => Ok(values),
            Err(error) if Trouble::of(&error) == Trouble::NoScript => {
                self.ask(doing, &asks(false)).await
            }
            Err(error) if Trouble::of(&error) == Trouble::Never => Err(unavailable(doing, error)),
            // With the text, so that a server that has just started knows it too.
            Err(_) => self.ask(doing, &asks(false)).await,
        }
    }

    /// Looks into indexes, which are in the order of their shards; returns what is in those that
    /// hold anything.
    pub(crate) async fn look_raw(
        &self,
        doing: &'static str,
        keys: &[(u16, String)],
        args: &[&str],
    ) -> Result<Vec<(usize, Value)>, StoreError> {
        let is_cluster = self.core.link.is_cluster();
        let groups = keys.chunk_by(|left, right| !is_cluster || left.0 == right.0);
        let mut calls = Vec::new();
        for part in groups.flat_map(|group| group.chunks(LOOK_MAX_KEYS)) {
            let mut list = Args::default();
            for arg in args {
                list.push(arg);
            }
            calls.push(ScriptCall {
                shard: part.first().map_or(0, |(shard, _)| *shard),
                keys: part.iter().map(|(_, key)| key.clone()).collect(),
                args: list,
            });
        }
        let values = self.ask_script(doing, &LOOK, &calls).await?;
        let mut found = Vec::new();
        let mut begin = 0;
        for (call, value) in calls.iter().zip(values) {
            let parts = array(value).map_err(|error| unavailable(doing, error))?;
            let mut parts = parts.into_iter();
            while let (Some(index), Some(here)) = (parts.next(), parts.next()) {
                let index: usize = redis::from_redis_value(index)
                    .map_err(|error| unavailable(doing, error.into()))?;
                // Lua counts from 1.
                found.push((begin + index - 1, here));
            }
            begin += call.keys.len();
        }
        Ok(found)
    }

    /// As [`Shared::look_raw`], for entries and their scores.
    pub(crate) async fn look(
        &self,
        doing: &'static str,
        keys: &[(u16, String)],
        args: &[&str],
    ) -> Result<Vec<Found>, StoreError> {
        let found = self.look_raw(doing, keys, args).await?;
        let found = found.into_iter().map(|(index, value)| {
            let entries = entries(value).map_err(|error| unavailable(doing, error))?;
            Ok(Found { index, entries })
        });
        found.collect()
    }

    /// Has writes made.
    pub(crate) async fn make(
        &self,
        doing: &'static str,
        plan: Plan,
    ) -> Result<Vec<Made>, StoreError> {
        if plan.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, made) = oneshot::channel();
        let closed = || unavailable(doing, unexpected("the store has been closed"));
        self.jobs.send(Job { doing, plan, reply }).await.map_err(|_| closed())?;
        made.await.map_err(|_| closed())?
    }

    /// Compares the clocks, if that was long ago. Who cannot goes on as before.
    pub(crate) async fn compare_clocks(&self) {
        let asked = self.clock.now_us();
        let last = self.compared_us.load(Ordering::Relaxed);
        if last.saturating_add(COMPARE_EVERY_US) > asked && last <= asked {
            return;
        }
        let asks = [self.about(0, redis::cmd("TIME"))];
        let Ok(values) = self.core.link.ask(Line::Read, &asks).await else { return };
        let answered = self.clock.now_us();
        let time = values.into_iter().next().unwrap_or(Value::Nil);
        if let Ok((seconds, micros)) = redis::from_redis_value::<(i64, i64)>(time) {
            self.clock.observe(asked, answered, seconds.saturating_mul(1_000_000) + micros);
            self.compared_us.store(asked, Ordering::Relaxed);
        }
    }

    /// Returns all keys of a kind, in the order of their shards.
    pub(crate) fn of_all_shards(&self, key: impl Fn(&Keys, u16) -> String) -> Vec<(u16, String)> {
        (0..SHARDS).map(|shard| (shard, key(self.keys(), shard))).collect()
    }

    /// Returns the question for a global's header and record.
    pub(crate) fn about_global(&self, gid: &str) -> Ask {
        let shard = shard_of_gid_text(gid);
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(self.keys().global(shard, gid)).arg("h").arg("d");
        self.about(shard, cmd)
    }

    /// Returns the question for a global's header.
    pub(crate) fn about_header(&self, gid: &str) -> Ask {
        let shard = shard_of_gid_text(gid);
        let mut cmd = redis::cmd("HGET");
        cmd.arg(self.keys().global(shard, gid)).arg("h");
        self.about(shard, cmd)
    }

    /// Reads headers; none where there is no such global, or none that this release can read.
    pub(crate) async fn headers(
        &self,
        doing: &'static str,
        gids: impl Iterator<Item = &str>,
    ) -> Result<Vec<Option<Header>>, StoreError> {
        let asks: Vec<Ask> = gids.map(|gid| self.about_header(gid)).collect();
        let values = self.ask(doing, &asks).await?;
        Ok(values.into_iter().map(|value| bytes(value).and_then(Header::parse)).collect())
    }

    /// Reads how many globals there are of each type and status.
    pub(crate) async fn totals(&self) -> Result<Totals, StoreError> {
        let mut counts: BTreeMap<&str, (Code, u64)> = BTreeMap::new();
        for (_, code, count) in self.counts("counting").await? {
            counts.entry(code.as_str()).or_insert((code, 0)).1 += count;
        }
        let counted = counts.into_values();
        Ok(counted.map(|(code, count)| (code.trans_type, code.status, count)).collect())
    }

    /// Reads how many globals there are in each list of each shard, but for the empty ones.
    pub(crate) async fn counts(
        &self,
        doing: &'static str,
    ) -> Result<Vec<(u16, Code, u64)>, StoreError> {
        let asks: Vec<Ask> = (0..SHARDS)
            .map(|shard| {
                let mut cmd = redis::cmd("HGETALL");
                cmd.arg(self.keys().totals(shard));
                self.about(shard, cmd)
            })
            .collect();
        let values = self.ask(doing, &asks).await?;
        let mut counts = Vec::new();
        for (shard, value) in (0..SHARDS).zip(values) {
            let pairs: BTreeMap<String, u64> = redis::from_redis_value(value)
                .map_err(|error| unavailable(doing, RedisError::from(error)))?;
            let code = |text: &str| CODES.iter().copied().find(|code| code.as_str() == text);
            counts.extend(
                pairs.into_iter().filter_map(|(text, count)| Some((shard, code(&text)?, count))),
            );
        }
        Ok(counts)
    }

    /// Returns the lists that hold anything, of all shards, by code.
    pub(crate) async fn filled_lists(
        &self,
        doing: &'static str,
        wanted: impl Fn(Code) -> bool,
    ) -> Result<Vec<(u16, String)>, StoreError> {
        let counts = self.counts(doing).await?.into_iter().filter(|(_, code, _)| wanted(*code));
        Ok(counts.map(|(shard, code, _)| (shard, self.keys().list(shard, code))).collect())
    }

    /// Returns the lists of all shards, by code.
    pub(crate) fn lists(&self, wanted: impl Fn(Code) -> bool) -> Vec<(u16, String)> {
        let keys = self.keys();
        (0..SHARDS)
            .flat_map(|shard| keys.lists(shard).map(move |(code, key)| (shard, code, key)))
            .filter(|(_, code, _)| wanted(*code))
            .map(|(shard, _, key)| (shard, key))
            .collect()
    }
}

/// Takes header and record apart.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if there is something, and it is not both.
pub(crate) fn parts_of(gid: &Gid, value: Value) -> Result<Option<(Header, Vec<u8>)>, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt { gid: gid.clone(), source: what.into() };
    let mut parts = array(value).map_err(|error| corrupt(error.category()))?.into_iter();
    let head = parts.next().and_then(bytes);
    let record = parts.next().and_then(bytes);
    match (head, record) {
        (None, None) => Ok(None),
        (Some(head), Some(record)) => {
            let header = Header::parse(head);
            let header = header.ok_or_else(|| {
                corrupt("its header is not of this release; use the release that wrote it")
            })?;
            Ok(Some((header, record)))
        }
        _ => Err(corrupt("it lacks its header or its record")),
    }
}

/// Returns the global of header and record.
pub(crate) fn global_of(gid: &Gid, value: Value) -> Result<Option<Arc<Global>>, StoreError> {
    match parts_of(gid, value)? {
        None => Ok(None),
        Some((header, record)) => header.global(gid, &record).map(|global| Some(Arc::new(global))),
    }
}

pub(crate) fn array(value: Value) -> RedisResult<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err(unexpected("an answer is not a list")),
    }
}

pub(crate) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// Takes members and scores apart. Members that no gid can be are left out.
fn entries(value: Value) -> RedisResult<Vec<Entry>> {
    let mut values = array(value)?.into_iter();
    let mut entries = Vec::new();
    while let (Some(member), Some(score)) = (values.next(), values.next()) {
        let score: f64 = redis::from_redis_value(score)?;
        let gid = bytes(member).and_then(|bytes| String::from_utf8(bytes).ok());
        // Whole numbers up to 2^53: scores are written so.
        entries.extend(gid.map(|gid| Entry { gid, score: score as i64 }));
    }
    Ok(entries)
}
