//! Reading a segment's batches through a window: a segment is far larger than what one needs of it
//! at a time.

use std::io;

use crate::format::{self, ALIGN, BATCH_HEADER, Batch};
use crate::segment::SegmentFile;

/// What is read at once, unless a batch is longer.
const WINDOW_BYTES: usize = 1024 * 1024;

/// The part of a segment that was read last.
pub(crate) struct Batches<'f> {
    pub(crate) segment: &'f SegmentFile,
    length: u64,
    bytes: Vec<u8>,
    /// Where in the segment they stand.
    from: u64,
}

impl<'f> Batches<'f> {
    /// Returns a reader of all batches of a segment.
    pub(crate) fn of(segment: &'f SegmentFile) -> io::Result<Self> {
        Ok(Self { segment, length: segment.file.length()?, bytes: Vec::new(), from: 0 })
    }

    /// Returns `len` bytes from `at` on, fewer at the segment's end.
    pub(crate) fn bytes(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let have = self.from + self.bytes.len() as u64;
        if at < self.from || have < at + len as u64 {
            self.bytes.resize(len.max(WINDOW_BYTES).min(left), 0);
            let read = self.segment.file.read_at(&mut self.bytes, at)?;
            self.bytes.truncate(read);
            self.from = at;
        }
        let start = usize::try_from(at - self.from).unwrap_or(usize::MAX).min(self.bytes.len());
        Ok(&self.bytes[start..(start + len).min(self.bytes.len())])
    }

    /// Returns the batch that begins at `at`, if it verifies and its sequence number is `seq`.
    pub(crate) fn batch(&mut self, at: u64, seq: u64) -> io::Result<Option<Batch<'_>>> {
        let Some(len) = self.batch_len(at, seq)? else { return Ok(None) };
        let seed = self.segment.seed;
        Ok(format::read_batch(self.bytes(at, len)?, seed, at, seq))
    }

    /// Returns whether the batch `seq` was begun at `at`, whole or not.
    pub(crate) fn is_begun(&mut self, at: u64, seq: u64) -> io::Result<bool> {
        Ok(self.batch_len(at, seq)?.is_some())
    }

    fn batch_len(&mut self, at: u64, seq: u64) -> io::Result<Option<usize>> {
        let seed = self.segment.seed;
        Ok(format::batch_len(self.bytes(at, BATCH_HEADER)?, seed, at, seq))
    }

    /// Returns where after `at`, which is the place of a batch, a later one begins than `seq`.
    pub(crate) fn later(&mut self, at: u64, seq: u64) -> io::Result<Option<u64>> {
        let seed = self.segment.seed;
        let mut from = at + ALIGN as u64;
        loop {
            let bytes = self.bytes(from, WINDOW_BYTES)?;
            if let Some(found) = format::later_batch(bytes, seed, from, seq) {
                return Ok(Some(from + found as u64));
            }
            if bytes.len() < WINDOW_BYTES {
                return Ok(None);
            }
            // The first place whose header did not end in these bytes.
            from += ((bytes.len() - BATCH_HEADER) / ALIGN * ALIGN + ALIGN) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::disk::Disk as _;
    use crate::format::{BatchBuilder, Kind, SEGMENT_HEADER, SegmentHeader};
    use crate::sim::SimDisk;

    /// A segment with batches of these payloads, and where each batch begins; its end at last.
    fn segment(payloads: &[usize]) -> (SegmentFile, Vec<u64>) {
        let header = SegmentHeader { id: 1, salt: 7, first_seq: 10, oldest: 1, next_number: 1 };
        let file = SimDisk::new().create("a").unwrap();
        file.write_at(&header.encode(), 0).unwrap();
        let segment = SegmentFile::new(header, file);
        let mut places = vec![SEGMENT_HEADER as u64];
        for (seq, len) in (10..).zip(payloads) {
            let mut batch = BatchBuilder::new();
            batch.push_bytes(Kind::Put, seq, &vec![seq as u8; *len]);
            let at = *places.last().unwrap();
            let bytes = batch.seal(segment.seed, seq, at);
            segment.file.write_at(bytes, at).unwrap();
            places.push(at + bytes.len() as u64);
        }
        segment.file.write_at(&[0; 3 * WINDOW_BYTES], *places.last().unwrap()).unwrap();
        (segment, places)
    }

    #[test]
    fn every_batch_is_found_wherever_windows_end() {
        let lengths = [1, WINDOW_BYTES - 600, 3, 2 * WINDOW_BYTES, 100_000, 0, WINDOW_BYTES, 77];
        let (segment, places) = segment(&lengths);
        let mut batches = Batches::of(&segment).unwrap();
        for (at, (place, len)) in places.iter().zip(lengths).enumerate() {
            let seq = 10 + at as u64;
            let batch = batches.batch(*place, seq).unwrap().unwrap();
            assert_eq!((batch.records.len(), batch.records[0].payload.len()), (1, len));
            assert_eq!(place + batch.len as u64, places[at + 1]);
            assert!(batches.batch(*place, seq + 1).unwrap().is_none());
        }
        assert!(batches.batch(*places.last().unwrap(), 18).unwrap().is_none());
        // Backwards, too.
        assert!(batches.batch(places[0], 10).unwrap().is_some());
    }

    #[test]
    fn a_later_batch_is_found_wherever_windows_end() {
        // The search goes in steps of a window from the first batch on: this way the header of the
        // second one begins in one step and ends in another, or ends just before the step does.
        for gap in (0..=64).step_by(8) {
            let (segment, places) = segment(&[WINDOW_BYTES - 100 + gap, 5]);
            let mut batches = Batches::of(&segment).unwrap();
            let later = batches.later(places[0], 10).unwrap();
            assert_eq!(later, Some(places[1]), "{gap}");
            assert_eq!(batches.later(places[0], 11).unwrap(), None);
            assert_eq!(batches.later(places[1], 11).unwrap(), None);
        }
    }
}
