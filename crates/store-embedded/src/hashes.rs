//! Finished globals by the hash of their gid.

use hashbrown::HashTable;

/// So many tables: one that grows moves a few thousand entries, not a million, while commits wait.
const TABLES: usize = 256;

/// A set of hashes, each with the number of the global that it is of. Different gids may have the
/// same hash.
#[derive(Debug)]
pub(crate) struct Hashes {
    /// By bits of the hash that no table uses itself: it takes a place by the lowest ones, as many
    /// as it is large, and tells entries apart by the highest seven.
    tables: Box<[HashTable<Entry>; TABLES]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    hash: u64,
    number: u64,
}

impl Default for Hashes {
    fn default() -> Self {
        Self { tables: Box::new([const { HashTable::new() }; TABLES]) }
    }
}

impl Hashes {
    /// Returns an empty set with room for so many entries.
    pub(crate) fn with_capacity(entries: usize) -> Self {
        let mut hashes = Self::default();
        // They are not spread quite evenly.
        let each = entries / TABLES + entries / TABLES / 16;
        for table in hashes.tables.iter_mut() {
            table.reserve(each, |entry| entry.hash);
        }
        hashes
    }

    /// Adds an entry, which must not be there.
    pub(crate) fn insert(&mut self, hash: u64, number: u64) {
        let table = &mut self.tables[table_of(hash)];
        table.insert_unique(hash, Entry { hash, number }, |entry| entry.hash);
    }

    /// Removes an entry, if it is there.
    pub(crate) fn remove(&mut self, hash: u64, number: u64) {
        let entry = Entry { hash, number };
        if let Ok(found) = self.tables[table_of(hash)].find_entry(hash, |other| *other == entry) {
            found.remove();
        }
    }

    /// Returns the numbers of all globals whose gids have this hash.
    pub(crate) fn numbers(&self, hash: u64) -> impl Iterator<Item = u64> {
        let entries = self.tables[table_of(hash)].iter_hash(hash);
        entries.filter(move |entry| entry.hash == hash).map(|entry| entry.number)
    }
}

fn table_of(hash: u64) -> usize {
    usize::from(hash.to_le_bytes()[6])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sim::Random;

    /// Whatever is added and removed, hashes that differ in a few bits only and equal ones
    /// included, it holds what a plain set holds.
    #[test]
    fn entries_are_those_of_a_plain_set() {
        let mut random = Random(1);
        let (mut hashes, mut plain) = (Hashes::with_capacity(100), BTreeSet::new());
        let hash_of = |number: usize| {
            ((number % 7) as u64) << 61 | ((number % 3) as u64) << 48 | (number % 97) as u64
        };
        for _ in 0..20_000 {
            let number = random.below(2000);
            let entry = (hash_of(number), number as u64);
            if random.below(3) == 0 {
                hashes.remove(entry.0, entry.1);
                plain.remove(&entry);
            } else if plain.insert(entry) {
                hashes.insert(entry.0, entry.1);
            }
            let asked = hash_of(random.below(2000));
            let mut found: Vec<u64> = hashes.numbers(asked).collect();
            found.sort_unstable();
            let expected = plain.range((asked, 0)..=(asked, u64::MAX));
            assert_eq!(found, expected.map(|(_, number)| *number).collect::<Vec<u64>>());
        }
    }
}
