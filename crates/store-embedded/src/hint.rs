//! What is in a sealed segment, in short, so that opening need not read it. A hint that is
//! missing, old or broken costs time and nothing else.

use std::collections::BTreeSet;
use std::io;

use dtmd_store::record::RecordError;

use crate::disk::{Disk, read_all};
use crate::event::{self, Event, Placed};
use crate::format::{SegmentHeader, hint_name};
use crate::index::QuickMap;

const MAGIC: &[u8; 8] = b"dtmdhint";
const VERSION: u32 = 1;
const HEADER: usize = 48;

/// The events of a segment as bytes, to be written without those that a later one of the same
/// segment makes void.
#[derive(Debug, Default)]
pub(crate) struct HintBuilder {
    bytes: Vec<u8>,
    /// The number of the global that each event is of, if it is of one, and where its bytes end.
    events: Vec<(Option<u64>, usize)>,
    /// Where the last whole record of each global is among them; before it, nothing of it counts.
    last: QuickMap<u64, usize>,
    deleted: BTreeSet<u64>,
}

impl HintBuilder {
    /// Adds the next event.
    pub(crate) fn add(&mut self, placed: &Placed<'_>) -> Result<(), RecordError> {
        let global = match &placed.event {
            Event::Close => return Ok(()),
            Event::Put(put) => {
                self.last.insert(put.number, self.events.len());
                self.deleted.remove(&put.number);
                Some(put.number)
            }
            Event::Delta { number } => Some(*number),
            Event::Delete { numbers } => {
                self.deleted.extend(numbers);
                None
            }
            _ => None,
        };
        self.bytes = event::encode(placed, std::mem::take(&mut self.bytes))?;
        self.events.push((global, self.bytes.len()));
        Ok(())
    }

    /// Returns the bytes of the events that count.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let (mut kept, mut start) = (0, 0);
        for (at, (global, end)) in self.events.iter().enumerate() {
            let counts = global.is_none_or(|number| {
                !self.deleted.contains(&number)
                    && self.last.get(&number).is_none_or(|last| at >= *last)
            });
            if counts {
                self.bytes.copy_within(start..*end, kept);
                kept += end - start;
            }
            start = *end;
        }
        self.bytes.truncate(kept);
        self.bytes
    }
}

/// Writes the hint of a sealed segment whose batches end before `end_seq`, at byte `end`; `body` are
/// its events, as [`HintBuilder::finish`] returns them.
pub(crate) fn write(
    disk: &dyn Disk,
    header: &SegmentHeader,
    end_seq: u64,
    end: u64,
    body: &[u8],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(header.id.to_le_bytes());
    bytes.extend(header.salt.to_le_bytes());
    bytes.extend(end_seq.to_le_bytes());
    bytes.extend(end.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes);
    hasher.update(body);
    bytes.extend(hasher.finalize().to_le_bytes());
    bytes.resize(HEADER, 0);
    bytes.extend(body);
    let name = hint_name(header.id);
    let temporary = format!("{name}.tmp");
    let file = disk.create(&temporary)?;
    if let Err(error) = file.write_at(&bytes, 0).and_then(|()| file.sync()) {
        // Best effort: what stays is removed when the store is opened.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.rename(&temporary, &name)?;
    disk.sync_names()
}

/// The bytes of a verified hint.
pub(crate) struct Hint {
    bytes: Vec<u8>,
    /// Where the segment's batches end.
    pub(crate) end: u64,
}

/// Reads a segment's hint, if there is one and it is this segment's.
pub(crate) fn read(disk: &dyn Disk, header: &SegmentHeader, end_seq: u64) -> Option<Hint> {
    let bytes = read_all(&*disk.open(&hint_name(header.id)).ok()?).ok()?;
    let (head, body) = bytes.split_at_checked(HEADER)?;
    let mut expected = Vec::with_capacity(HEADER);
    expected.extend(MAGIC);
    expected.extend(VERSION.to_le_bytes());
    expected.extend(header.id.to_le_bytes());
    expected.extend(header.salt.to_le_bytes());
    expected.extend(end_seq.to_le_bytes());
    if head.get(..32)? != expected {
        return None;
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..40]);
    hasher.update(body);
    let crc = u32::from_le_bytes(head.get(40..44)?.try_into().ok()?);
    let end = u64::from_le_bytes(head.get(32..40)?.try_into().ok()?);
    (hasher.finalize() == crc).then_some(Hint { bytes, end })
}

impl Hint {
    /// Returns its events, one by one.
    pub(crate) fn events(&self) -> impl Iterator<Item = Result<Placed<'_>, RecordError>> {
        let mut rest = self.bytes.get(HEADER..).unwrap_or(&[]);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            match postcard::take_from_bytes(rest) {
                Ok((placed, left)) => {
                    rest = left;
                    Some(Ok(placed))
                }
                Err(error) => {
                    rest = &[];
                    Some(Err(RecordError::Malformed(Box::new(error))))
                }
            }
        })
    }
}
