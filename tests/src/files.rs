//! The store's files, looked at and damaged from outside.

use std::fs;
use std::path::{Path, PathBuf};

/// The file of a store's folder that holds the most, which is a segment of its log: trailing
/// zeros do not count, for segments are made in advance.
///
/// # Panics
/// There is none.
#[must_use]
pub fn largest_segment(folder: &Path) -> (PathBuf, usize) {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let held = entries.filter_map(|entry| {
        let bytes = fs::read(entry.path()).ok()?;
        let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
        Some((entry.path(), used))
    });
    held.max_by_key(|(_, used)| *used).unwrap()
}

/// Flips one bit of a file.
pub fn flip_bit(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x10;
    fs::write(file, bytes).unwrap();
}
