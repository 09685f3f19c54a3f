//! Pages of globals, newest first.
//!
//! Each shard has a list by arrival for every type and status. A page merges the heads of those
//! that the filter admits; its position is the arrival of its last global and a number that orders
//! those of one microsecond.

use std::cmp::Reverse;
use std::sync::Arc;

use dtmd_protocol::{Gid, Timestamp};
use dtmd_store::{ListFilter, ListPage, Oldest, StoreError};

use crate::claim::share_of;
use crate::header::Code;
use crate::keys::tie_of;
use crate::shared::{Shared, global_of};

const DOING: &str = "listing";
/// So many steps are made for one page; a page may then be short, or empty, and its position goes on.
const STEPS_MAX: usize = 10;
/// By how much a global may have arrived, by Redis's clock, before it was created by its server's, in
/// microseconds: more than any clock is wrong.
const AHEAD_MAX: i64 = 24 * 3600 * 1_000_000;
/// Entries to look at in one step, where most may be left out.
const FILTERED_STEP: usize = 2000;
/// Records that are read at once.
const READ_AT_ONCE: usize = 256;

/// Where in the order of arrival: arrival, and tie of one microsecond.
type Place = (i64, u64);

/// An entry of the lists.
#[derive(Debug)]
struct Listed {
    place: Place,
    gid: String,
}

/// What one step found.
struct Step {
    /// Newest first; none newer is left out.
    listed: Vec<Listed>,
    /// Whether this is all there is.
    is_last: bool,
}

fn parse_position(text: &str) -> Option<Place> {
    let (arrival, tie) = text.split_once('.')?;
    // What we write, and nothing else: no signs.
    if !arrival.bytes().chain(tie.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((arrival.parse().ok()?, tie.parse().ok()?))
}

pub(crate) async fn list(
    shared: &Shared,
    filter: &ListFilter,
    position: &str,
    limit: usize,
) -> Result<ListPage, StoreError> {
    let mut page = ListPage::default();
    let mut before = match position {
        "" => None,
        text => match parse_position(text) {
            Some(place) => Some(place),
            None => return Ok(page),
        },
    };
    if limit == 0 {
        return Ok(page);
    }
    let lists = shared.filled_lists(DOING, |code| admits(filter, code)).await?;
    let mut last: Option<Place> = before;
    for _ in 0..STEPS_MAX {
        let want = limit + 1 - page.globals.len();
        let step = next_step(shared, filter, &lists, before, want).await?;
        before = step.listed.last().map(|listed| listed.place).or(before);
        for part in step.listed.chunks(READ_AT_ONCE) {
            for (place, global) in read(shared, filter, part).await? {
                if page.globals.len() == limit {
                    page.next_position = position_of(last);
                    return Ok(page);
                }
                last = Some(place);
                page.globals.push(global);
            }
        }
        if step.is_last {
            return Ok(page);
        }
    }
    // So much was left out that others must have their turn.
    page.next_position = position_of(before);
    Ok(page)
}

fn position_of(place: Option<Place>) -> String {
    place.map(|(arrival, tie)| format!("{arrival}.{tie}")).unwrap_or_default()
}

fn admits(filter: &ListFilter, code: Code) -> bool {
    filter.status.is_none_or(|status| code.status == status)
        && filter.trans_type.is_none_or(|wanted| code.trans_type == wanted)
        && (filter.wakes_after.is_none() || !code.is_final())
}

/// Returns whether the lists alone cannot tell what is admitted.
fn needs_headers(filter: &ListFilter) -> bool {
    filter.created_from.is_some() || filter.created_to.is_some() || filter.wakes_after.is_some()
}

async fn next_step(
    shared: &Shared,
    filter: &ListFilter,
    lists: &[(u16, String)],
    before: Option<Place>,
    want: usize,
) -> Result<Step, StoreError> {
    let want = if needs_headers(filter) { want.max(FILTERED_STEP) } else { want };
    // One more than the entry of the position itself, so that every step gets on.
    let share = share_of(want).max(3);
    let from = before.map_or_else(|| "+inf".to_owned(), |(arrival, _)| arrival.to_string());
    let found = shared.look(DOING, lists, &["down", &from, &share.to_string()]).await?;
    // A list that gave its whole share may hold more, none of them newer than its last.
    let full = found.iter().filter(|found| found.entries.len() >= share);
    let known_from = full.filter_map(|found| found.entries.last()).map(|last| last.score).max();
    let mut listed: Vec<Listed> = found
        .into_iter()
        .flat_map(|found| found.entries)
        .map(|entry| Listed { place: (entry.score, tie_of(&entry.gid)), gid: entry.gid })
        .filter(|listed| before.is_none_or(|before| listed.place < before))
        .collect();
    listed.sort_by_key(|listed| Reverse(listed.place));
    if let Some(known_from) = known_from {
        let known = listed.partition_point(|listed| listed.place.0 > known_from);
        // None only if a whole share arrived in one microsecond; then some of them may be missed
        // rather than all that follow.
        listed.truncate(if known == 0 { listed.len() } else { known });
    }
    // What is older was created earlier, too.
    let earliest = filter.created_from.map(|from| from.0.saturating_sub(AHEAD_MAX));
    let is_past = |listed: &Listed| earliest.is_some_and(|at| listed.place.0 < at);
    let is_last = known_from.is_none() || listed.last().is_none_or(is_past);
    Ok(Step { listed, is_last })
}

/// Reads entries; returns those that the filter admits.
async fn read(
    shared: &Shared,
    filter: &ListFilter,
    listed: &[Listed],
) -> Result<Vec<(Place, Arc<dtmd_protocol::Global>)>, StoreError> {
    let mut wanted: Vec<(&Listed, Gid)> = Vec::with_capacity(listed.len());
    let known =
        listed.iter().filter_map(|listed| Some((listed, Gid::new(listed.gid.as_str()).ok()?)));
    if needs_headers(filter) {
        let known: Vec<_> = known.collect();
        let gids = known.iter().map(|(listed, _)| listed.gid.as_str());
        let headers = shared.headers(DOING, gids).await?;
        let pairs = known.into_iter().zip(headers);
        let admitted = pairs
            .filter(|(_, header)| header.as_ref().is_some_and(|header| header.admitted_by(filter)));
        wanted.extend(admitted.map(|(pair, _)| pair));
    } else {
        wanted.extend(known);
    }
    let asks: Vec<_> = wanted.iter().map(|(listed, _)| shared.about_global(&listed.gid)).collect();
    let values = shared.ask(DOING, &asks).await?;
    let mut globals = Vec::with_capacity(wanted.len());
    for ((listed, gid), value) in wanted.into_iter().zip(values) {
        match global_of(&gid, value) {
            // It may have changed since the lists were read.
            Ok(Some(global)) if filter.admits(&global) => globals.push((listed.place, global)),
            Ok(_) => {}
            // One broken record must not hide all others from the people who have to look.
            Err(error) => tracing::error!(%gid, %error, "left out of a list"),
        }
    }
    Ok(globals)
}

/// How many of the oldest arrivals are looked at for the oldest creation.
const OLDEST_MAX: usize = 16;

pub(crate) async fn oldest(shared: &Shared) -> Result<Oldest, StoreError> {
    let doing = "asking for the oldest";
    let due_keys = shared.of_all_shards(|keys, shard| keys.due(shard));
    let due = shared.look(doing, &due_keys, &["first"]).await?;
    let due = due.iter().filter_map(|found| found.entries.first()).map(|entry| entry.score).min();
    let lists = shared.filled_lists(doing, |code| !code.is_final()).await?;
    let firsts = shared.look(doing, &lists, &["first"]).await?;
    let mut firsts: Vec<_> = firsts.into_iter().flat_map(|found| found.entries).collect();
    firsts.sort_by_key(|entry| entry.score);
    firsts.truncate(OLDEST_MAX);
    let headers = shared.headers(doing, firsts.iter().map(|entry| entry.gid.as_str())).await?;
    let created: Option<Timestamp> =
        headers.into_iter().flatten().map(|header| header.created).min();
    Ok(Oldest { created, due: due.map(|score| shared.clock.wake_up(score)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_two_numbers() {
        assert_eq!(parse_position("5.7"), Some((5, 7)));
        assert_eq!(position_of(Some((5, u64::MAX))), format!("5.{}", u64::MAX));
        for wrong in ["5", "-5.7", "5.-7", "+5.7", ".", "5.", "1e9.1", "5.7.9"] {
            assert_eq!(parse_position(wrong), None, "{wrong}");
        }
    }
}
