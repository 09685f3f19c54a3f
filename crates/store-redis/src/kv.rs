//! Keys and their values.

use dtmd_protocol::Timestamp;
use dtmd_store::{Kv, KvPage, StoreError};
use redis::Value;

use crate::error::unavailable;
use crate::keys::shard_of_cat;
use crate::shared::{Shared, array, bytes};

const DOING: &str = "reading keys";

pub(crate) async fn load(shared: &Shared, cat: &str, key: &str) -> Result<Option<Kv>, StoreError> {
    let mut cmd = redis::cmd("HGET");
    cmd.arg(shared.keys().values(cat)).arg(key);
    let value = shared.ask_one(DOING, shard_of_cat(cat), cmd).await?;
    Ok(parse(cat, key.to_owned(), value))
}

pub(crate) async fn list(
    shared: &Shared,
    cat: &str,
    position: &str,
    limit: usize,
) -> Result<KvPage, StoreError> {
    let shard = shard_of_cat(cat);
    let mut cmd = redis::cmd("ZRANGEBYLEX");
    let from = if position.is_empty() { "-".to_owned() } else { format!("({position}") };
    cmd.arg(shared.keys().names(cat)).arg(from).arg("+");
    cmd.arg("LIMIT").arg(0).arg(limit.saturating_add(1));
    let names = shared.ask_one(DOING, shard, cmd).await?;
    let names = array(names).map_err(|error| unavailable(DOING, error))?;
    let mut names: Vec<String> = names
        .into_iter()
        .filter_map(|name| bytes(name).and_then(|bytes| String::from_utf8(bytes).ok()))
        .collect();
    let more = names.len() > limit;
    names.truncate(limit);
    let mut page = KvPage::default();
    let Some(last) = names.last() else { return Ok(page) };
    if more {
        page.next_position.clone_from(last);
    }
    let mut cmd = redis::cmd("HMGET");
    cmd.arg(shared.keys().values(cat)).arg(&names);
    let values = shared.ask_one(DOING, shard, cmd).await?;
    let values = array(values).map_err(|error| unavailable(DOING, error))?;
    // Keys that have gone meanwhile are left out.
    let pairs = names.into_iter().zip(values);
    page.entries = pairs.filter_map(|(name, value)| parse(cat, name, value)).collect();
    Ok(page)
}

/// Takes a stored value apart: version, created, updated, value.
fn parse(cat: &str, key: String, value: Value) -> Option<Kv> {
    let stored = String::from_utf8(bytes(value)?).ok()?;
    let mut parts = stored.splitn(4, ' ');
    let version = parts.next()?.parse().ok()?;
    let created = Timestamp(parts.next()?.parse().ok()?);
    let updated = Timestamp(parts.next()?.parse().ok()?);
    let value = parts.next()?.to_owned();
    Some(Kv { cat: cat.to_owned(), key, value, version, created, updated })
}
