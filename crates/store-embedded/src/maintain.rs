//! What goes on behind commits: spare segments, hints, the bound of the history, compaction.
//!
//! Segments die from the oldest on, never in the middle: so a record that deletes something is
//! never needed longer than what it deletes, and what is missing in the row of segments is an
//! error. Every step can be interrupted; what a step leaves is finished or cleared at the next
//! opening.

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dtmd_store::{StoreError, record};

use crate::batches::Batches;
use crate::error::OpenError;
use crate::format::{BatchBuilder, Kind, Place, hint_name, segment_name};
use crate::hint::{self, HintBuilder};
use crate::index::Index;
use crate::load;
use crate::segment::SegmentFile;
use crate::shared::{Shared, Writer};
use crate::slots::Use;
use crate::stage::{push_kv, push_value};
use crate::store::delete_batch;

/// A commit waits for at most so much of a clean-up.
const MOVE_BYTES: usize = 512 * 1024;
/// So many entries are looked at before others get their turn.
const STEP: usize = 16 * 1024;
/// So many globals are deleted at once.
const DELETE_MAX: usize = 4096;
/// After a failure, for instance of a full disk.
const RETRY: Duration = Duration::from_secs(5);

/// Starts the thread.
pub(crate) fn spawn(shared: &Arc<Shared>) -> Result<JoinHandle<()>, OpenError> {
    let shared = shared.clone();
    let dir = shared.disk.location();
    let thread = std::thread::Builder::new().name("store-maintain".to_owned());
    let spawned = thread.spawn(move || {
        loop {
            let retry = match run(&shared) {
                Ok(()) => None,
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "the store's maintenance failed; it is tried again");
                    Some(RETRY)
                }
            };
            if !shared.signal.wait(retry) {
                return;
            }
        }
    });
    spawned.map_err(|source| OpenError::Io { dir, doing: "starting the maintenance", source })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Does all that is due.
pub(crate) fn run(shared: &Shared) -> Result<(), StoreError> {
    let _maintaining = shared.maintaining.lock().unwrap_or_else(PoisonError::into_inner);
    // What frees room comes before what takes it.
    bound_history(shared)?;
    while !shared.signal.is_stopped() && compact_oldest(shared)? {}
    if shared.spares.is_empty() {
        shared.spares.prepare().map_err(failed("preparing a segment"))?;
    }
    write_hints(shared)
}

fn unavailable(
    doing: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    StoreError::Unavailable { doing, source: Box::new(source) }
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full { doing, source: Box::new(source) }
        }
        _ => unavailable(doing, source),
    }
}

/// Deletes finished globals: a record first, then from memory.
pub(crate) fn delete(
    shared: &Shared,
    writer: &mut Writer,
    numbers: &[u64],
) -> Result<(), StoreError> {
    if numbers.is_empty() {
        return Ok(());
    }
    let mut batch = delete_batch(numbers)?;
    let next_number = shared.index().next_number;
    shared.append(writer, &mut batch, next_number, "deleting finished globals")?;
    let mut index = shared.index_mut();
    for number in numbers {
        index.remove(*number);
    }
    shared.signal.want();
    Ok(())
}

fn bound_history(shared: &Shared) -> Result<(), StoreError> {
    let Some(max) = shared.options.history_max_count else { return Ok(()) };
    loop {
        let mut writer = shared.writer()?;
        let numbers: Vec<u64> = {
            let index = shared.index();
            let excess = index.slots.finished().saturating_sub(max).min(DELETE_MAX);
            let finished = index.slots.from(0).filter(|(_, slot)| slot.used == Use::Finished);
            finished.take(excess).map(|(number, _)| number).collect()
        };
        if numbers.is_empty() {
            return Ok(());
        }
        delete(shared, &mut writer, &numbers)?;
        shared.stats_mut().history_dropped += numbers.len() as u64;
    }
}

/// Writes the hints of sealed segments that have none.
fn write_hints(shared: &Shared) -> Result<(), StoreError> {
    loop {
        let next = {
            let index = shared.index();
            let mut segments = index.segments.values();
            let next = segments.find(|segment| segment.sealed && !segment.hinted);
            next.map(|segment| {
                let after = index.segments.get(&(segment.file.header.id + 1));
                (segment.file.clone(), segment.written, after.map(|after| after.file.header))
            })
        };
        let Some((file, end, Some(after))) = next else { return Ok(()) };
        write_hint(shared, &file, after.first_seq, end)?;
        dtmd_failpoint::hit("hint-written");
        if let Some(segment) = shared.index_mut().segments.get_mut(&file.header.id) {
            segment.hinted = true;
        }
    }
}

fn write_hint(
    shared: &Shared,
    file: &SegmentFile,
    end_seq: u64,
    end: u64,
) -> Result<(), StoreError> {
    let doing = "writing a hint";
    let mut batches = Batches::of(file).map_err(failed(doing))?;
    let mut hint = HintBuilder::default();
    // A segment that cannot be read gets no hint: opening will say what is wrong with it.
    load::scan(&*shared.disk, &mut batches, Some(end_seq), |placed| hint.add(&placed))
        .map_err(|error| unavailable(doing, error))?;
    hint::write(&*shared.disk, &file.header, end_seq, end, &hint.finish()).map_err(failed(doing))
}

/// Retires the oldest segment, or moves some of what is needed out of it. Returns whether there
/// may be more to do.
fn compact_oldest(shared: &Shared) -> Result<bool, StoreError> {
    let (id, needed) = {
        let index = shared.index();
        let Some((id, oldest)) = index.segments.iter().next() else { return Ok(false) };
        if !oldest.sealed || !is_worth_it(&index, oldest.needed, oldest.written) {
            return Ok(false);
        }
        (*id, oldest.needed)
    };
    if needed > 0 {
        empty(shared, id)?;
        dtmd_failpoint::hit("segment-emptied");
    }
    retire(shared, id)
}

/// A segment goes when little of it is needed, or when little of the whole log is.
fn is_worth_it(index: &Index, needed: u64, written: u64) -> bool {
    /// Below it, there is nothing to gain.
    const SEGMENTS_MIN: usize = 4;
    let percent = dtmd_failpoint::value("compaction_percent").unwrap_or(25);
    if needed.saturating_mul(100) <= written.saturating_mul(percent) {
        return true;
    }
    let all_needed: u64 = index.segments.values().map(|segment| segment.needed).sum();
    let all_written: u64 = index.segments.values().map(|segment| segment.written).sum();
    index.segments.len() > SEGMENTS_MIN && all_needed.saturating_mul(4) < all_written
}

/// Something that is needed.
enum Needed {
    Global(u64),
    Key((String, String)),
}

/// Moves everything that is needed out of a segment.
fn empty(shared: &Shared, id: u32) -> Result<(), StoreError> {
    let mut others: Vec<Needed> = {
        let index = shared.index();
        let live = index.live.iter();
        let live = live.filter(|(_, live)| live.chain.iter().any(|at| at.segment == id));
        let keys = index.kv.iter().filter(|(_, entry)| entry.at.segment == id);
        let keys = keys.map(|(slot, _)| Needed::Key(slot.clone()));
        live.map(|(number, _)| Needed::Global(*number)).chain(keys).collect()
    };
    // The order of a hash map is not repeatable, and tests repeat.
    others.sort_by_key(|needed| match needed {
        Needed::Global(number) => (*number, None),
        Needed::Key(slot) => (u64::MAX, Some(slot.clone())),
    });
    move_all(shared, id, others)?;
    let mut from = 0;
    loop {
        let (finished, next) = {
            let index = shared.index();
            let mut last = None;
            let step =
                index.slots.from(from).take(STEP).inspect(|(number, _)| last = Some(*number));
            let here = step.filter(|(_, slot)| slot.used == Use::Finished && slot.at.segment == id);
            let finished: Vec<Needed> = here.map(|(number, _)| Needed::Global(number)).collect();
            (finished, last)
        };
        move_all(shared, id, finished)?;
        match next {
            Some(last) => from = last + 1,
            None => return Ok(()),
        }
    }
}

fn move_all(shared: &Shared, id: u32, needed: Vec<Needed>) -> Result<(), StoreError> {
    let mut rest = needed.into_iter().peekable();
    while rest.peek().is_some() {
        let mut writer = shared.writer()?;
        let mut batch = BatchBuilder::new();
        let mut moved = Vec::new();
        {
            let index = shared.index();
            while batch.len() < MOVE_BYTES
                && let Some(needed) = rest.next()
            {
                if let Some(place) = copy(&index, id, &needed, &mut batch)? {
                    moved.push((needed, place));
                }
            }
        }
        if moved.is_empty() {
            continue;
        }
        let next_number = shared.index().next_number;
        let appended = shared.append(&mut writer, &mut batch, next_number, "moving records")?;
        shared.stats_mut().moved += moved.len() as u64;
        let mut index = shared.index_mut();
        for (needed, place) in moved {
            let at = appended.at(place);
            match needed {
                Needed::Global(number) if index.live.contains_key(&number) => {
                    index.move_live(number, at);
                }
                Needed::Global(number) => index.move_finished(number, at),
                Needed::Key(slot) => index.move_kv(&slot, at),
            }
        }
    }
    Ok(())
}

/// Adds a whole record of what is needed to a batch, if it is still in the segment.
fn copy(
    index: &Index,
    id: u32,
    needed: &Needed,
    batch: &mut BatchBuilder,
) -> Result<Option<Place>, StoreError> {
    let doing = "moving records out of an old segment";
    let number = match needed {
        Needed::Global(number) => *number,
        Needed::Key(slot) => {
            let entry = index.kv.get(slot).filter(|entry| entry.at.segment == id);
            let pushed = entry.map(|entry| push_kv(batch, &entry.kv)).transpose();
            return pushed.map_err(|error| unavailable(doing, error));
        }
    };
    if let Some(live) = index.live.get(&number) {
        if live.chain.iter().all(|at| at.segment != id) {
            return Ok(None);
        }
        let pushed = batch.push(Kind::Put, number, |out| record::encode(&live.global, out));
        return pushed.map(Some).map_err(|error| unavailable(doing, error));
    }
    let Some((file, at)) = index.finished(number).filter(|(_, at)| at.segment == id) else {
        return Ok(None);
    };
    let (_, payload) = file.read(at).map_err(|error| unavailable(doing, error))?;
    Ok(Some(batch.push_bytes(Kind::Put, number, &payload)))
}

/// Gives a segment's file up. Returns whether it was dead.
fn retire(shared: &Shared, id: u32) -> Result<bool, StoreError> {
    let doing = "giving up an old segment";
    let mut writer = shared.writer()?;
    let dead = shared.index().segments.get(&id).is_some_and(|segment| segment.needed == 0);
    if !dead {
        return Ok(false);
    }
    let mut batch = BatchBuilder::new();
    push_value(&mut batch, Kind::Retire, &(id + 1))?;
    let next_number = shared.index().next_number;
    shared.append(&mut writer, &mut batch, next_number, doing)?;
    dtmd_failpoint::hit("segment-retired");
    writer.log.oldest = id + 1;
    let Some(segment) = shared.index_mut().segments.remove(&id) else { return Ok(false) };
    drop(writer);
    shared.stats_mut().segments_retired += 1;
    if segment.hinted {
        shared.disk.remove(&hint_name(id)).map_err(failed(doing))?;
    }
    let given_up = match Arc::try_unwrap(segment.file) {
        Ok(segment) => shared.spares.recycle(id, segment.file),
        // Somebody reads from it: the name goes, the file stays until the reader is done.
        Err(_) => shared.disk.remove(&segment_name(id)),
    };
    given_up.map_err(failed(doing))?;
    Ok(true)
}
