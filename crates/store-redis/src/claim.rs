//! Taking what is due.
//!
//! Three steps: look into the indexes of all shards at once, read the oldest, and change each if
//! it is still due as it was seen to be, and its header what was read. Of two claimers one changes
//! it; the other's comparison fails.

use std::sync::Arc;

use dtmd_protocol::{Gid, Global};
use dtmd_store::{Claim, StoreError};
use redis::Value;

use crate::header::Header;
use crate::keys::{SHARDS, shard_of_gid_text};
use crate::plan::Made;
use crate::shared::{Entry, Found, Shared, global_of, parts_of};

const DOING: &str = "claiming";
/// A claim that others are quicker at, or that meets one crowded shard, looks so often again.
const ROUNDS_MAX: usize = 16;

pub(crate) async fn claim_due(
    shared: &Shared,
    claim: &Claim,
) -> Result<Vec<Arc<Global>>, StoreError> {
    let mut claimed: Vec<Arc<Global>> = Vec::new();
    shared.compare_clocks().await;
    for _ in 0..ROUNDS_MAX {
        let want = claim.limit.saturating_sub(claimed.len());
        if want == 0 {
            break;
        }
        let oldest = oldest_due(shared, claim, want).await?;
        if oldest.is_empty() {
            break;
        }
        claimed.extend(take(shared, claim, &oldest).await?);
    }
    Ok(claimed)
}

/// Returns how many entries to ask each shard for, so that all together are enough in general.
pub(crate) fn share_of(want: usize) -> usize {
    want.min(2 * want / usize::from(SHARDS) + 8)
}

/// Returns entries that are due, oldest first, none older left out.
async fn oldest_due(shared: &Shared, claim: &Claim, want: usize) -> Result<Vec<Entry>, StoreError> {
    let share = share_of(want);
    let keys = shared.of_all_shards(|keys, shard| keys.due(shard));
    let until = shared.clock.score(claim.due).to_string();
    let found = shared.look(DOING, &keys, &["up", &until, &share.to_string()]).await?;
    // A shard that gave its whole share may hold more, none of them before its last.
    let full = found.iter().filter(|found| found.entries.len() >= share);
    let known_until = full.filter_map(|found| found.entries.last()).map(|last| last.score).min();
    let mut due: Vec<Entry> = found
        .into_iter()
        .flat_map(|Found { entries, .. }| entries)
        .filter(|entry| known_until.is_none_or(|until| entry.score <= until))
        .collect();
    due.sort_by(|left, right| (left.score, &left.gid).cmp(&(right.score, &right.gid)));
    due.truncate(want);
    Ok(due)
}

/// Takes entries, as far as nobody else has.
async fn take(
    shared: &Shared,
    claim: &Claim,
    due: &[Entry],
) -> Result<Vec<Arc<Global>>, StoreError> {
    let asks: Vec<_> = due.iter().map(|entry| shared.about_global(&entry.gid)).collect();
    let values = shared.ask(DOING, &asks).await?;
    let until = shared.clock.score(claim.until);
    let mut plan = shared.plan();
    let mut picked = Vec::new();
    for (entry, value) in due.iter().zip(values) {
        picked.push(match read(entry, value) {
            Ok(Some((header, global))) => {
                let next = header.claimed(&claim.owner, claim.until);
                plan.pick(&entry.gid, &header, &next, (entry.score, until));
                Some(Global {
                    owner: claim.owner.clone(),
                    epoch: header.epoch + 1,
                    wake_at: claim.until,
                    ..global
                })
            }
            Ok(None) => {
                // Redis evicted it, or somebody deleted it by hand, or it has ended.
                tracing::warn!(gid = entry.gid, "a due entry has no unfinished transaction");
                let index = shared.keys().due(shard_of_gid_text(&entry.gid));
                plan.drop_entry(&entry.gid, index, true);
                None
            }
            Err(unreadable) => {
                let Unreadable { header, error } = *unreadable;
                tracing::error!(gid = entry.gid, error = %error, "an unfinished transaction is \
                    unreadable; an operator has to look");
                // It stays, but must not keep what comes after it from being claimed.
                match header {
                    Some(header) => {
                        let scores = (entry.score, until);
                        plan.pick(&entry.gid, &header, header.bytes(), scores);
                    }
                    None => plan.postpone(&entry.gid, until),
                }
                None
            }
        });
    }
    let made = shared.make(DOING, plan).await?;
    let taken = picked.into_iter().zip(made).filter(|(_, made)| *made == Made::Yes);
    Ok(taken.filter_map(|(global, _)| global.map(Arc::new)).collect())
}

/// An entry whose global cannot be read.
struct Unreadable {
    header: Option<Header>,
    error: StoreError,
}

/// Returns header and global of an entry; nothing if there is none, or it has ended.
fn read(entry: &Entry, value: Value) -> Result<Option<(Header, Global)>, Box<Unreadable>> {
    let Ok(gid) = Gid::new(entry.gid.as_str()) else { return Ok(None) };
    let parts =
        parts_of(&gid, value).map_err(|error| Box::new(Unreadable { header: None, error }))?;
    let Some((header, record)) = parts else { return Ok(None) };
    if header.code.is_final() {
        return Ok(None);
    }
    match header.global(&gid, &record) {
        Ok(global) => Ok(Some((header, global))),
        Err(error) => Err(Box::new(Unreadable { header: Some(header), error })),
    }
}

/// Reads one global.
pub(crate) async fn load(shared: &Shared, gid: &Gid) -> Result<Option<Arc<Global>>, StoreError> {
    let asks = [shared.about_global(gid.as_str())];
    let values = shared.ask("loading", &asks).await?;
    global_of(gid, values.into_iter().next().unwrap_or(Value::Nil))
}
