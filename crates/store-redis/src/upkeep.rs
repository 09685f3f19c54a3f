//! Deleting what has ended, emptying, and mending what a full Redis or a person took away.

use std::collections::{BTreeMap, BTreeSet};

use dtmd_protocol::Timestamp;
use dtmd_store::{Purge, StoreError};
use redis::Value;

use crate::claim::share_of;
use crate::clock::exact;
use crate::error::unavailable;
use crate::header::CODES;
use crate::keys::{SHARDS, shard_of_gid_text};
use crate::plan::Made;
use crate::shared::{Entry, Shared, array, bytes};

/// Entries that are handled at once.
const AT_ONCE: usize = 500;

pub(crate) async fn purge(
    shared: &Shared,
    ended_before: Timestamp,
    limit: usize,
) -> Result<Purge, StoreError> {
    let doing = "cleaning up";
    let keys = shared.of_all_shards(|keys, shard| keys.ended(shard));
    let share = share_of(limit.saturating_add(1));
    let below = format!("({}", exact(ended_before.0));
    let found = shared.look(doing, &keys, &["up", &below, &share.to_string()]).await?;
    let mut more = found.iter().any(|found| found.entries.len() >= share);
    let mut old: Vec<Entry> = found.into_iter().flat_map(|found| found.entries).collect();
    more |= old.len() > limit;
    old.sort_by_key(|entry| entry.score);
    old.truncate(limit);
    let mut deleted = 0;
    for part in old.chunks(AT_ONCE) {
        let headers = shared.headers(doing, part.iter().map(|entry| entry.gid.as_str())).await?;
        let mut plan = shared.plan();
        let mut deletes = Vec::new();
        for (entry, header) in part.iter().zip(headers) {
            match header {
                Some(header) if header.code.is_final() => {
                    plan.delete(&entry.gid, &header);
                    deletes.push(true);
                }
                // Reopened by nobody: there is no such way. Unreadable ones stay.
                Some(_) => {}
                None => {
                    let index = shared.keys().ended(shard_of_gid_text(&entry.gid));
                    plan.drop_entry(&entry.gid, index, false);
                    deletes.push(false);
                }
            }
        }
        let made = shared.make(doing, plan).await?;
        let pairs = made.into_iter().zip(deletes);
        deleted += pairs.filter(|(made, is_delete)| *made == Made::Yes && *is_delete).count();
    }
    Ok(Purge { deleted, more })
}

/// Deletes every key of ours, and no other.
pub(crate) async fn reset(shared: &Shared) -> Result<(), StoreError> {
    let doing = "emptying the store";
    let keys = shared.keys();
    let mut indexes = shared.lists(|_| true);
    // What only an index of times knows, if a list was lost.
    indexes.extend(shared.of_all_shards(|keys, shard| keys.due(shard)));
    indexes.extend(shared.of_all_shards(|keys, shard| keys.ended(shard)));
    indexes.sort_by_key(|(shard, _)| *shard);
    loop {
        let share = (AT_ONCE / usize::from(SHARDS)).max(1).to_string();
        let found = shared.look(doing, &indexes, &["up", "+inf", &share]).await?;
        if found.is_empty() {
            break;
        }
        let mut asks = Vec::new();
        for found in found {
            let Some((shard, index)) = indexes.get(found.index) else { continue };
            let (mut unlink, mut leave) = (redis::cmd("UNLINK"), redis::cmd("ZREM"));
            leave.arg(index);
            for entry in &found.entries {
                unlink.arg(keys.global(*shard, &entry.gid));
                leave.arg(&entry.gid);
            }
            // The globals first: who is interrupted finds the rest of the index again.
            asks.push(shared.about(*shard, unlink));
            asks.push(shared.about(*shard, leave));
        }
        shared.ask(doing, &asks).await?;
    }
    let totals = (0..SHARDS).map(|shard| {
        let mut cmd = redis::cmd("UNLINK");
        cmd.arg(keys.totals(shard));
        shared.about(shard, cmd)
    });
    shared.ask(doing, &totals.collect::<Vec<_>>()).await?;
    reset_keys(shared, doing).await
}

async fn reset_keys(shared: &Shared, doing: &'static str) -> Result<(), StoreError> {
    let cats: Vec<_> = (0..SHARDS)
        .map(|shard| {
            let mut cmd = redis::cmd("SMEMBERS");
            cmd.arg(shared.keys().cats(shard));
            shared.about(shard, cmd)
        })
        .collect();
    let values = shared.ask(doing, &cats).await?;
    let mut asks = Vec::new();
    for (shard, value) in (0..SHARDS).zip(values) {
        let mut unlink = redis::cmd("UNLINK");
        let cats = array(value).map_err(|error| unavailable(doing, error))?;
        if cats.is_empty() {
            continue;
        }
        for cat in cats.into_iter().filter_map(bytes) {
            let cat = String::from_utf8_lossy(&cat);
            unlink.arg(shared.keys().values(&cat)).arg(shared.keys().names(&cat));
        }
        unlink.arg(shared.keys().cats(shard));
        asks.push(shared.about(shard, unlink));
    }
    shared.ask(doing, &asks).await?;
    Ok(())
}

/// Writes something everywhere.
pub(crate) async fn ping(shared: &Shared) -> Result<(), StoreError> {
    let shards = if shared.core.link.is_cluster() { SHARDS } else { 1 };
    let asks: Vec<_> = (0..shards)
        .map(|shard| {
            let mut cmd = redis::cmd("SET");
            cmd.arg(shared.keys().ping(shard)).arg(1).arg("PX").arg(1000);
            shared.about(shard, cmd)
        })
        .collect();
    // Once: who asks wants to know now, and asks again.
    let asked = shared.core.link.ask(crate::link::Line::Write, &asks).await;
    asked.map(drop).map_err(|error| unavailable("asking whether it is there", error))
}

/// Puts unfinished globals that an index of due ones lacks back into it; returns how many.
///
/// Scripts change both together, so this finds nothing, unless Redis evicted the index or somebody
/// deleted it.
pub(crate) async fn mend(shared: &Shared) -> Result<usize, StoreError> {
    let doing = "comparing the indexes";
    recount(shared, doing).await?;
    let mut missing: BTreeMap<usize, i64> = BTreeMap::new();
    let lists = shared.lists(|code| !code.is_final());
    let unfinished = CODES.iter().filter(|code| !code.is_final()).count();
    for (index, value) in shared.look_raw(doing, &lists, &["count"]).await? {
        *missing.entry(index / unfinished).or_default() += count(value);
    }
    let due = shared.of_all_shards(|keys, shard| keys.due(shard));
    for (index, value) in shared.look_raw(doing, &due, &["count"]).await? {
        *missing.entry(index).or_default() -= count(value);
    }
    let mut mended = 0;
    let shards: BTreeSet<usize> =
        missing.into_iter().filter(|(_, count)| *count > 0).map(|(shard, _)| shard).collect();
    for shard in shards {
        let codes = CODES.iter().filter(|code| !code.is_final());
        let keys = lists.iter().skip(shard * unfinished).take(unfinished);
        for (code, key) in codes.zip(keys) {
            mended += mend_list(shared, doing, *code, key.clone()).await?;
        }
    }
    Ok(mended)
}

/// Counts those lists anew whose totals are wrong.
async fn recount(shared: &Shared, doing: &'static str) -> Result<(), StoreError> {
    let lists = shared.lists(|_| true);
    let known = shared.counts(doing).await?.into_iter().map(|(shard, code, count)| {
        (shared.keys().list(shard, code), i64::try_from(count).unwrap_or(i64::MAX))
    });
    let mut wrong: BTreeMap<String, i64> = known.collect();
    for (index, value) in shared.look_raw(doing, &lists, &["count"]).await? {
        if let Some((_, list)) = lists.get(index) {
            *wrong.entry(list.clone()).or_default() -= count(value);
        }
    }
    let mut plan = shared.plan();
    for (shard, list) in lists {
        if wrong.get(&list).is_some_and(|difference| *difference != 0) {
            plan.recount(shard, list);
        }
    }
    shared.make(doing, plan).await?;
    Ok(())
}

async fn mend_list(
    shared: &Shared,
    doing: &'static str,
    code: crate::header::Code,
    key: (u16, String),
) -> Result<usize, StoreError> {
    let mut from = "-inf".to_owned();
    let mut mended = 0;
    loop {
        let mut cmd = redis::cmd("ZRANGEBYSCORE");
        cmd.arg(&key.1).arg(&from).arg("+inf").arg("LIMIT").arg(0).arg(AT_ONCE);
        let gids = shared.ask_one(doing, key.0, cmd).await?;
        let gids = array(gids).map_err(|error| unavailable(doing, error))?;
        let gids: Vec<String> =
            gids.into_iter().filter_map(|gid| String::from_utf8(bytes(gid)?).ok()).collect();
        let headers = shared.headers(doing, gids.iter().map(String::as_str)).await?;
        let mut plan = shared.plan();
        for (gid, header) in gids.iter().zip(headers) {
            let wake_at = header.map_or_else(Timestamp::default, |header| header.wake_at);
            plan.mend(gid, code, shared.clock.score(wake_at));
        }
        let made = shared.make(doing, plan).await?;
        mended += made.into_iter().filter(|made| *made == Made::Yes).count();
        let Some(last) = gids.last().filter(|_| gids.len() == AT_ONCE) else { return Ok(mended) };
        let mut cmd = redis::cmd("ZSCORE");
        cmd.arg(&key.1).arg(last);
        let score = shared.ask_one(doing, key.0, cmd).await?;
        let Some(score) = bytes(score) else { return Ok(mended) };
        // Exclusive: arrivals are all but unique.
        from = format!("({}", String::from_utf8_lossy(&score));
    }
}

fn count(value: Value) -> i64 {
    redis::from_redis_value(value).unwrap_or(0)
}
