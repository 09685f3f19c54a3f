//! What is kept in memory of every global, in the order of arrival: about 40 bytes each.

use std::collections::BTreeMap;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Location {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// Whether a number is in use, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Use {
    #[default]
    Free,
    /// The global is in memory.
    Live,
    /// The global is read from its location when it is asked for.
    Finished,
}

/// The entry of one global.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slot {
    /// Of the gid; the gid itself is in the record.
    pub(crate) hash: u64,
    pub(crate) created: i64,
    pub(crate) ended: i64,
    /// Of a finished one.
    pub(crate) at: Location,
    pub(crate) used: Use,
    pub(crate) status: u8,
    pub(crate) trans_type: u8,
}

/// Numbers per chunk: small enough that one old unfinished global holds little else.
const CHUNK: u64 = 64;

#[derive(Debug)]
struct Chunk {
    slots: [Slot; CHUNK as usize],
    used: u32,
    /// No finished one ended before this.
    ended_min: i64,
}

impl Chunk {
    fn first_end(&self) -> i64 {
        let finished = self.slots.iter().filter(|slot| slot.used == Use::Finished);
        finished.map(|slot| slot.ended).min().unwrap_or(i64::MAX)
    }
}

/// A sparse table by number, kept in chunks that go when they are empty.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    chunks: BTreeMap<u64, Box<Chunk>>,
    finished: usize,
}

impl Slots {
    pub(crate) fn get(&self, number: u64) -> Option<&Slot> {
        let slot = &self.chunks.get(&(number / CHUNK))?.slots[within(number)];
        (slot.used != Use::Free).then_some(slot)
    }

    /// Returns how many are finished.
    pub(crate) fn finished(&self) -> usize {
        self.finished
    }

    /// Sets an entry; returns what was there.
    pub(crate) fn set(&mut self, number: u64, slot: Slot) -> Option<Slot> {
        let chunk = self.chunks.entry(number / CHUNK).or_insert_with(|| {
            let slots = [Slot::default(); CHUNK as usize];
            Box::new(Chunk { slots, used: 0, ended_min: i64::MAX })
        });
        let old = std::mem::replace(&mut chunk.slots[within(number)], slot);
        if old.used == Use::Free {
            chunk.used += 1;
        }
        if old.used == Use::Finished {
            self.finished -= 1;
            chunk.ended_min = chunk.first_end();
        }
        if slot.used == Use::Finished {
            self.finished += 1;
            chunk.ended_min = chunk.ended_min.min(slot.ended);
        }
        (old.used != Use::Free).then_some(old)
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Slot> {
        let chunk = self.chunks.get_mut(&(number / CHUNK))?;
        let slot = std::mem::take(&mut chunk.slots[within(number)]);
        if slot.used == Use::Free {
            return None;
        }
        chunk.used -= 1;
        if slot.used == Use::Finished {
            self.finished -= 1;
            chunk.ended_min = chunk.first_end();
        }
        if chunk.used == 0 {
            self.chunks.remove(&(number / CHUNK));
        }
        Some(slot)
    }

    /// Walks from `from` upwards.
    pub(crate) fn from(&self, from: u64) -> impl Iterator<Item = (u64, &Slot)> {
        let chunks = self.chunks.range(from / CHUNK..);
        chunks
            .flat_map(|(at, chunk)| numbered(*at, chunk))
            .filter(move |(number, _)| *number >= from)
    }

    /// Walks from below `before` downwards.
    pub(crate) fn before(&self, before: u64) -> impl Iterator<Item = (u64, &Slot)> {
        let chunks = self.chunks.range(..=before / CHUNK).rev();
        chunks
            .flat_map(|(at, chunk)| numbered(*at, chunk).rev())
            .filter(move |(number, _)| *number < before)
    }

    /// Walks over the finished ones that ended before a time.
    pub(crate) fn ended_before(&self, time: i64) -> impl Iterator<Item = (u64, &Slot)> {
        let chunks = self.chunks.iter().filter(move |(_, chunk)| chunk.ended_min < time);
        chunks
            .flat_map(|(at, chunk)| numbered(*at, chunk))
            .filter(move |(_, slot)| slot.used == Use::Finished && slot.ended < time)
    }
}

fn within(number: u64) -> usize {
    // Below CHUNK.
    (number % CHUNK) as usize
}

fn numbered<'a>(
    at: u64,
    chunk: &'a Chunk,
) -> impl DoubleEndedIterator<Item = (u64, &'a Slot)> + use<'a> {
    let first = at * CHUNK;
    let slots = chunk.slots.iter().enumerate();
    slots
        .map(move |(within, slot)| (first + within as u64, slot))
        .filter(|(_, slot)| slot.used != Use::Free)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::sim::Random;

    /// Whatever is set and removed, every walk is that of a plain map.
    #[test]
    fn walks_are_those_of_a_plain_map() {
        let mut random = Random(1);
        let (mut slots, mut plain) = (Slots::default(), BTreeMap::new());
        for _ in 0..3000 {
            let number = random.below(500) as u64;
            if random.below(3) == 0 {
                let removed = slots.remove(number).map(|slot| slot.ended);
                assert_eq!(removed, plain.remove(&number).map(|(ended, _)| ended));
            } else {
                let ended = i64::try_from(random.below(100)).unwrap();
                let used = if random.below(2) == 0 { Use::Live } else { Use::Finished };
                slots.set(number, Slot { ended, used, ..Slot::default() });
                plain.insert(number, (ended, used));
            }
            let at = random.below(520) as u64;
            let numbers = |walk: &mut dyn Iterator<Item = (u64, &Slot)>| -> Vec<u64> {
                walk.map(|(number, _)| number).collect()
            };
            let up: Vec<u64> = plain.range(at..).map(|(number, _)| *number).collect();
            let down: Vec<u64> = plain.range(..at).rev().map(|(number, _)| *number).collect();
            assert_eq!(numbers(&mut slots.from(at)), up);
            assert_eq!(numbers(&mut slots.before(at)), down);
            let is_finished = |used: &Use| *used == Use::Finished;
            let old = plain.iter().filter(|(_, (ended, used))| *ended < 50 && is_finished(used));
            let old: Vec<u64> = old.map(|(number, _)| *number).collect();
            assert_eq!(numbers(&mut slots.ended_before(50)), old);
            assert_eq!(
                slots.finished(),
                plain.values().filter(|(_, used)| is_finished(used)).count()
            );
        }
        assert_eq!(slots.before(u64::MAX).count(), plain.len());
    }

    /// A million finished globals must not take more than 100 MB; the hashes take 20 to 40 beside
    /// this.
    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Slot>() <= 40);
    }
}
