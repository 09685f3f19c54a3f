//! What SDKs and people read (spec 02 §1.2, §2.5–§2.9).

use std::collections::BTreeMap;
use std::time::Duration;

use dtmd_protocol::{Branch, Gid, Global, Options, Timestamp, TransType};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::base64;
use crate::time::{Rfc3339, Zone};

/// The body of every success without a value. SDKs compare it.
pub const SUCCESS: &[u8] = br#"{"dtm_result":"SUCCESS"}"#;

/// A record of the key-value store, to be shown.
#[derive(Debug, Clone, Copy)]
pub struct KvRecord<'a> {
    /// Category.
    pub cat: &'a str,
    /// Key.
    pub key: &'a str,
    /// Value.
    pub value: &'a str,
    /// Counts its changes, from 1.
    pub version: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it changed last.
    pub updated: Timestamp,
}

/// Returns the body of a failure; the text gets the word that SDKs search for.
pub fn failure(text: &str) -> Vec<u8> {
    dtm_result("FAILURE", text)
}

/// Returns the body of "not decided yet"; the text gets the word that SDKs search for.
pub fn ongoing(text: &str) -> Vec<u8> {
    dtm_result("ONGOING", text)
}

/// Returns a text that holds the word that SDKs search for.
pub fn with_word(text: &str, word: &str) -> String {
    match text {
        text if text.contains(word) => text.to_owned(),
        "" => word.to_owned(),
        text => format!("{text} {word}"),
    }
}

fn dtm_result(word: &str, text: &str) -> Vec<u8> {
    let message = with_word(text, word);
    json(&BTreeMap::from([("dtm_result", word), ("message", &message)]))
}

/// Returns the body of any other error.
pub fn message(text: &str) -> Vec<u8> {
    json(&BTreeMap::from([("message", text)]))
}

/// Returns the answer to `newGid`: string members only, for one SDK decodes it into such a map.
pub fn new_gid(gid: &Gid) -> Vec<u8> {
    json(&BTreeMap::from([("dtm_result", "SUCCESS"), ("gid", gid.as_str())]))
}

/// Returns the answer to `version`.
pub fn version(version: &str) -> Vec<u8> {
    json(&BTreeMap::from([("version", version)]))
}

/// Returns the answer to `resetCronTime`.
pub fn reset_count(succeed_count: usize, has_remaining: bool) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct ResetCount {
        succeed_count: usize,
        has_remaining: bool,
    }
    json(&ResetCount { succeed_count, has_remaining })
}

/// Returns the answer to `query`. An unknown gid has a null transaction and no branches.
pub fn query(global: Option<&Global>, zone: Zone) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Answer<'a> {
        transaction: Option<GlobalRecord<'a>>,
        branches: BranchRecords<'a>,
    }
    json(&Answer {
        transaction: global.map(|global| GlobalRecord { global, zone }),
        branches: BranchRecords { global, zone },
    })
}

/// Returns the answer to `prepareWorkflow`. `progresses` is never null.
pub fn prepare_workflow(global: &Global, zone: Zone) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Answer<'a> {
        transaction: GlobalRecord<'a>,
        progresses: BranchRecords<'a>,
    }
    json(&Answer {
        transaction: GlobalRecord { global, zone },
        progresses: BranchRecords { global: Some(global), zone },
    })
}

/// Returns the answer to `all`. `None`, for a gid that is unknown, is shown as null.
pub fn list<'a, I>(globals: Option<I>, next_position: &str, zone: Zone) -> Vec<u8>
where
    I: IntoIterator<Item = &'a Global>,
{
    #[derive(serde::Serialize)]
    struct Answer<'a> {
        transactions: Option<Vec<GlobalRecord<'a>>>,
        next_position: &'a str,
    }
    let records =
        |globals: I| globals.into_iter().map(|global| GlobalRecord { global, zone }).collect();
    json(&Answer { transactions: globals.map(records), next_position })
}

/// Returns the answer to `queryKV` (without a position) and to `scanKV`.
pub fn kv_list(records: &[KvRecord<'_>], next_position: Option<&str>, zone: Zone) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Shown<'a> {
        id: u64,
        create_time: Rfc3339,
        update_time: Rfc3339,
        cat: &'a str,
        k: &'a str,
        v: &'a str,
        version: u64,
    }
    #[derive(serde::Serialize)]
    struct Answer<'a> {
        kv: Vec<Shown<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_position: Option<&'a str>,
    }
    let shown = records.iter().map(|record| Shown {
        id: 0,
        create_time: Rfc3339(record.created, zone),
        update_time: Rfc3339(record.updated, zone),
        cat: record.cat,
        k: record.key,
        v: record.value,
        version: record.version,
    });
    json(&Answer { kv: shown.collect(), next_position })
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("a record with string keys is JSON")
}

/// A global as DTM shows it: members that are empty are left out.
struct GlobalRecord<'a> {
    global: &'a Global,
    zone: Zone,
}

impl Serialize for GlobalRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { global, zone } = *self;
        let time = |time| Rfc3339(time, zone);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &0)?;
        map.serialize_entry("create_time", &time(global.created))?;
        map.serialize_entry("update_time", &time(global.updated))?;
        map.serialize_entry("gid", global.gid.as_str())?;
        map.serialize_entry("trans_type", global.trans_type().as_str())?;
        if !global.steps.is_empty() {
            map.serialize_entry("steps", &Steps(global))?;
            if let Some(payloads) = payloads(global) {
                map.serialize_entry("payloads", &payloads)?;
            }
        }
        map.serialize_entry("status", global.status.as_str())?;
        text(&mut map, "query_prepared", &global.query_prepared)?;
        map.serialize_entry("protocol", global.protocol.as_str())?;
        if let Some(finished) = global.finished {
            map.serialize_entry("finish_time", &time(finished))?;
        }
        if let Some(rolled_back) = global.rolled_back {
            map.serialize_entry("rollback_time", &time(rolled_back))?;
        }
        text(&mut map, "result", &global.result)?;
        text(&mut map, "rollback_reason", &global.rollback_reason)?;
        let options = serde_json::to_string(&OptionsRecord(&global.options));
        map.serialize_entry("options", &options.map_err(serde::ser::Error::custom)?)?;
        text(&mut map, "custom_data", &global.custom_data)?;
        if !global.interval.is_zero() {
            map.serialize_entry("next_cron_interval", &seconds(global.interval))?;
        }
        // Always there, as C# cannot decode a record without it.
        map.serialize_entry("next_cron_time", &time(global.wake_at))?;
        text(&mut map, "owner", &global.owner)?;
        options_members(&mut map, &global.options)?;
        map.end()
    }
}

fn text<M: SerializeMap>(map: &mut M, name: &'static str, text: &str) -> Result<(), M::Error> {
    if text.is_empty() { Ok(()) } else { map.serialize_entry(name, text) }
}

/// The option set as one object: DTM keeps it as JSON text.
struct OptionsRecord<'a>(&'a Options);

impl Serialize for OptionsRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        options_members(&mut map, self.0)?;
        map.end()
    }
}

fn options_members<M: SerializeMap>(map: &mut M, options: &Options) -> Result<(), M::Error> {
    if options.wait_result {
        map.serialize_entry("wait_result", &true)?;
    }
    duration(map, "timeout_to_fail", "timeout_to_fail_ms", options.timeout_to_fail)?;
    duration(map, "request_timeout", "request_timeout_ms", options.request_timeout)?;
    duration(map, "retry_interval", "retry_interval_ms", options.retry_interval)?;
    if !options.branch_headers.is_empty() {
        map.serialize_entry("branch_headers", &*options.branch_headers)?;
    }
    map.serialize_entry("concurrent", &options.concurrent)?;
    for (name, count) in
        [("retry_limit", options.retry_limit), ("retry_count", options.retry_count)]
    {
        if count > 0 {
            map.serialize_entry(name, &count)?;
        }
    }
    Ok(())
}

/// Whole seconds are DTM's; what is finer is shown in both, the seconds rounded up.
fn duration<M: SerializeMap>(
    map: &mut M,
    name: &'static str,
    name_ms: &'static str,
    value: Option<Duration>,
) -> Result<(), M::Error> {
    let Some(value) = value else { return Ok(()) };
    map.serialize_entry(name, &seconds(value))?;
    if value.subsec_nanos() > 0 {
        map.serialize_entry(name_ms, &value.as_millis())?;
    }
    Ok(())
}

fn seconds(value: Duration) -> u64 {
    value.as_secs() + u64::from(value.subsec_nanos() > 0)
}

struct Steps<'a>(&'a Global);

impl Serialize for Steps<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Step<'a> {
            action: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            compensate: Option<&'a str>,
        }
        let is_saga = self.0.trans_type() == TransType::Saga;
        let mut seq = serializer.serialize_seq(Some(self.0.steps.len()))?;
        for step in self.0.steps.iter() {
            let compensate = is_saga.then_some(&*step.compensate);
            seq.serialize_element(&Step { action: &step.action, compensate })?;
        }
        seq.end()
    }
}

/// Returns the payload of each step, read back from its first row.
///
/// `None` if one is not text: then it came by gRPC, where DTM does not show payloads either.
fn payloads(global: &Global) -> Option<Vec<&str>> {
    let mut rows = global.branches.iter();
    let payload_of = |index: usize| {
        // Rows are in step order, so each search goes on where the last one ended; `01-01` is the
        // first row of step `01` if that fans out.
        let number = format!("{:02}", index + 1);
        let row = rows.find(|row| {
            let id = row.branch_id.as_str();
            id.strip_prefix(&*number).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        });
        row.map_or(Some(""), |row| std::str::from_utf8(&row.data).ok())
    };
    (0..global.steps.len()).map(payload_of).collect()
}

struct BranchRecords<'a> {
    global: Option<&'a Global>,
    zone: Zone,
}

impl Serialize for BranchRecords<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(global) = self.global else { return serializer.serialize_seq(Some(0))?.end() };
        let zone = self.zone;
        let gid = &global.gid;
        serializer.collect_seq(global.branches.iter().map(|row| BranchRecord { gid, row, zone }))
    }
}

/// A branch row as DTM shows it, with `attempts` and `next_at` of our own while it is retried.
struct BranchRecord<'a> {
    gid: &'a Gid,
    row: &'a Branch,
    zone: Zone,
}

impl Serialize for BranchRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { gid, row, zone } = *self;
        let time = |time| Rfc3339(time, zone);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &0)?;
        map.serialize_entry("create_time", &time(row.created))?;
        map.serialize_entry("update_time", &time(row.updated))?;
        map.serialize_entry("gid", gid.as_str())?;
        text(&mut map, "url", &row.url)?;
        if !row.data.is_empty() {
            map.serialize_entry("bin_data", &base64::encode(&row.data))?;
        }
        map.serialize_entry("branch_id", row.branch_id.as_str())?;
        map.serialize_entry("op", row.op.as_str())?;
        map.serialize_entry("status", row.status.as_str())?;
        if let Some(finished) = row.finished {
            map.serialize_entry("finish_time", &time(finished))?;
        }
        if row.retry.attempts > 0 {
            map.serialize_entry("attempts", &row.retry.attempts)?;
        }
        if row.is_pending() && row.retry.next_at != Timestamp::ZERO {
            map.serialize_entry("next_at", &time(row.retry.next_at))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
