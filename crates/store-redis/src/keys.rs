//! Names of keys, and where they live.
//!
//! Every key of ours is `<prefix>{<tag>}:<kind>…`. The tag decides the hash slot, so that all keys
//! of one shard live on one node and one script may change them together.

use std::sync::Arc;

use dtmd_protocol::Gid;
use xxhash_rust::xxh3::xxh3_64;

use crate::header::{CODES, Code};

/// How many shards there are. Written into the store's `meta` key; another number is another
/// layout.
pub(crate) const SHARDS: u16 = 64;
/// Hash slots of a Redis Cluster.
const SLOTS: u16 = 16_384;

/// Returns the shard of a global.
pub(crate) fn shard_of(gid: &Gid) -> u16 {
    shard_of_gid_text(gid.as_str())
}

/// Returns the shard of a global, by its gid as text.
pub(crate) fn shard_of_gid_text(text: &str) -> u16 {
    shard_of_text(text)
}

fn shard_of_text(text: &str) -> u16 {
    // The upper bits: the lower ones order a list's ties.
    (xxh3_64(text.as_bytes()) >> 58) as u16 % SHARDS
}

/// Returns the shard of a category of keys.
pub(crate) fn shard_of_cat(cat: &str) -> u16 {
    shard_of_text(cat)
}

/// Builds the names of one store's keys.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// `<prefix>{<tag>}:` of each shard.
    bases: Arc<[String]>,
    /// The hash slot of each shard.
    slots: Arc<[u16]>,
}

impl Keys {
    /// Braces in the prefix would be taken for the hash tag, so they are left out: DTM's default
    /// prefix `{a}` becomes `a`.
    pub(crate) fn new(prefix: &str) -> Self {
        let prefix: String = prefix.chars().filter(|c| !matches!(c, '{' | '}')).collect();
        let (mut bases, mut slots) = (Vec::new(), Vec::new());
        for shard in 0..SHARDS {
            let tag = tag_of(shard);
            slots.push(slot_of(&tag.to_string()));
            bases.push(format!("{prefix}{{{tag}}}:"));
        }
        Self { bases: bases.into(), slots: slots.into() }
    }

    fn base(&self, shard: u16) -> &str {
        // Shards come from `shard_of` and `0..SHARDS` only.
        self.bases.get(usize::from(shard)).map_or("", String::as_str)
    }

    /// Returns a shard's hash slot.
    pub(crate) fn slot(&self, shard: u16) -> u16 {
        self.slots.get(usize::from(shard)).copied().unwrap_or(0)
    }

    fn key(&self, shard: u16, kind: &str, rest: &str) -> String {
        let base = self.base(shard);
        let mut key = String::with_capacity(base.len() + kind.len() + rest.len());
        key.push_str(base);
        key.push_str(kind);
        key.push_str(rest);
        key
    }

    /// A global: a hash of its header `h` and its record `d`.
    pub(crate) fn global(&self, shard: u16, gid: &str) -> String {
        self.key(shard, "g:", gid)
    }

    /// Unfinished globals by wake-up, in Redis's time.
    pub(crate) fn due(&self, shard: u16) -> String {
        self.key(shard, "due", "")
    }

    /// Finished globals by their end.
    pub(crate) fn ended(&self, shard: u16) -> String {
        self.key(shard, "ended", "")
    }

    /// The index by time that a global of this status is in.
    pub(crate) fn times(&self, shard: u16, code: Code) -> String {
        if code.is_final() { self.ended(shard) } else { self.due(shard) }
    }

    /// Globals of one type and status by arrival.
    pub(crate) fn list(&self, shard: u16, code: Code) -> String {
        self.key(shard, "l:", code.as_str())
    }

    /// How many globals each list of a shard holds: a hash of codes; those of empty lists are not
    /// in it.
    pub(crate) fn totals(&self, shard: u16) -> String {
        self.key(shard, "totals", "")
    }

    /// What a store's last call of a shard did.
    pub(crate) fn marker(&self, shard: u16, instance: &str) -> String {
        self.key(shard, "c:", instance)
    }

    /// The keys of a category and their values: a hash.
    pub(crate) fn values(&self, cat: &str) -> String {
        self.key(shard_of_cat(cat), "k:", cat)
    }

    /// The keys of a category in order: a sorted set with equal scores.
    pub(crate) fn names(&self, cat: &str) -> String {
        self.key(shard_of_cat(cat), "n:", cat)
    }

    /// The categories of a shard: a set.
    pub(crate) fn cats(&self, shard: u16) -> String {
        self.key(shard, "cats", "")
    }

    /// The layout that the store was made with.
    pub(crate) fn meta(&self) -> String {
        self.key(0, "meta", "")
    }

    /// What a ping writes.
    pub(crate) fn ping(&self, shard: u16) -> String {
        self.key(shard, "ping", "")
    }

    /// All lists of a shard.
    pub(crate) fn lists(&self, shard: u16) -> impl Iterator<Item = (Code, String)> + '_ {
        CODES.iter().map(move |code| (*code, self.list(shard, *code)))
    }
}

/// Returns the smallest number whose slot is in the shard's part of all slots, so that nodes that
/// have equal ranges of slots have equally many shards.
fn tag_of(shard: u16) -> u32 {
    let width = SLOTS / SHARDS;
    let part = shard * width..(shard + 1) * width;
    // Every part is hit within a few thousand numbers; a test walks over all of them.
    (0u32..1_000_000).find(|tag| part.contains(&slot_of(&tag.to_string()))).unwrap_or(0)
}

/// Returns the hash slot of a key, or of its hash tag if it has one.
pub(crate) fn slot_of(key: &str) -> u16 {
    let tagged = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let text = tagged.map_or(key, |(tag, _)| if tag.is_empty() { key } else { tag });
    crc16(text.as_bytes()) % SLOTS
}

/// The CRC of Redis Cluster: polynomial 0x1021, start 0, not reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// Orders globals that arrived in one microsecond.
pub(crate) fn tie_of(gid: &str) -> u64 {
    xxh3_64(gid.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // The check value of the cluster specification, and what CLUSTER KEYSLOT says.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of("foo"), 12_182);
        assert_eq!(slot_of("x{foo}y"), 12_182);
        assert_eq!(slot_of("{}foo"), crc16(b"{}foo") % SLOTS);
    }

    #[test]
    fn every_shard_has_a_tag_in_its_own_part_of_the_slots() {
        let keys = Keys::new("{a}");
        for shard in 0..SHARDS {
            let width = SLOTS / SHARDS;
            assert_eq!(keys.slot(shard) / width, shard);
            assert_eq!(slot_of(&keys.global(shard, "x{y}z")), keys.slot(shard));
            assert!(keys.due(shard).starts_with("a{"));
        }
    }

    #[test]
    fn globals_spread_over_the_shards() {
        let mut counts = [0u32; SHARDS as usize];
        for index in 0..6400 {
            counts[usize::from(shard_of_text(&format!("gid-{index}")))] += 1;
        }
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
    }
}
