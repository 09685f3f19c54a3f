//! Reading a directory: which segments there are, what they hold, where the log ends.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;

use dtmd_protocol::{Global, Timestamp};
use dtmd_store::Kv;
use dtmd_store::record::{self, Delta, RecordError};

use crate::batches::Batches;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::event::{Event, Placed};
use crate::format::{
    self, BatchBuilder, Kind, SEGMENT_HEADER, SegmentHeader, hint_name, id_of, segment_name,
};
use crate::hint;
use crate::index::{Index, KvEntry, Live, SegmentUse, slot};
use crate::segment::{ReadError, SegmentFile};
use crate::slots::{Location, Slots, Use};

/// How to read a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Sealed segments by their hints where there are good ones.
    Hints,
    /// Every byte of every segment, going on behind damage. Never for a store that is to work.
    Salvage,
}

/// What a directory holds.
pub(crate) struct Loaded {
    pub(crate) index: Index,
    /// Where the log goes on; `None` for an empty directory.
    pub(crate) tail: Option<Tail>,
    /// The oldest segment that is needed.
    pub(crate) oldest: u32,
    /// Files that a clean-up did not finish to remove.
    pub(crate) leftovers: Vec<String>,
    /// What each segment held, in their order.
    pub(crate) scans: Vec<SegmentScan>,
    /// What is wrong; empty unless salvaging.
    pub(crate) damages: Vec<OpenError>,
}

/// What reading one segment found.
#[derive(Debug, Clone)]
pub(crate) struct SegmentScan {
    pub(crate) id: u32,
    pub(crate) batches: u64,
    pub(crate) records: u64,
    /// Where its batches end.
    pub(crate) end: u64,
    /// It was taken from its hint.
    pub(crate) hinted: bool,
    /// A batch that was never acknowledged was cut off.
    pub(crate) torn: bool,
}

/// The end of the log.
pub(crate) struct Tail {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) offset: u64,
    pub(crate) next_seq: u64,
    /// The last batch and its offset: it may not have been synced yet.
    last: Option<(u64, Vec<u8>)>,
}

impl Tail {
    /// Writes the last batch once more and syncs it.
    ///
    /// A process that died before its sync leaves a batch that reads well and is not on the
    /// device; if that sync even failed, another one alone would do nothing.
    pub(crate) fn make_durable(&self) -> io::Result<()> {
        if let Some((offset, bytes)) = &self.last {
            self.file.file.write_at(bytes, *offset)?;
        }
        self.file.file.sync()
    }

    /// Returns the last batch as one to be written elsewhere, and its sequence number.
    pub(crate) fn last_batch(&self) -> Option<(u64, BatchBuilder)> {
        let (offset, bytes) = self.last.as_ref()?;
        let seq = self.next_seq - 1;
        let batch = format::read_batch(bytes, self.file.seed, *offset, seq)?;
        let mut copy = BatchBuilder::new();
        for record in batch.records {
            copy.push_bytes(record.kind, record.number, record.payload);
        }
        Some((seq, copy))
    }
}

/// What is wrong: an error at once, or noted when salvaging.
struct Damages {
    reading: Reading,
    noted: Vec<OpenError>,
}

impl Damages {
    /// Returns the value, `None` if it is damaged and that was noted.
    fn note<T>(&mut self, result: Result<T, OpenError>) -> Result<Option<T>, OpenError> {
        match (result, self.reading) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(error), Reading::Hints) => Err(error),
            (Err(error), Reading::Salvage) => {
                self.noted.push(error);
                Ok(None)
            }
        }
    }
}

/// Reads a directory. Changes nothing.
pub(crate) fn load(disk: &dyn Disk, reading: Reading) -> Result<Loaded, OpenError> {
    let names = disk.names().map_err(|source| io_error(disk, "listing the files", source))?;
    let mut damages = Damages { reading, noted: Vec::new() };
    let files = open_segments(disk, &names, &mut damages)?;
    let mut replay = Replay::default();
    let mut scans = Vec::with_capacity(files.len());
    let mut tail = None;
    for (at, file) in files.iter().enumerate() {
        let next = files.get(at + 1).filter(|next| next.header.id == file.header.id + 1);
        let end_seq = next.map(|next| next.header.first_seq);
        let by_hint = match (end_seq, reading) {
            (Some(end_seq), Reading::Hints) => replay.read_hint(disk, file, end_seq)?,
            _ => None,
        };
        if let Some(scan) = by_hint {
            scans.push(scan);
            continue;
        }
        let scanned = replay.scan(disk, file, end_seq);
        if let Some((scan, end)) = damages.note(scanned)? {
            scans.push(scan);
            tail = (at + 1 == files.len()).then_some(end);
        }
    }
    let last = files.last().map(|last| last.header);
    let oldest = replay.oldest.max(last.map_or(1, |last| last.oldest)).max(1);
    let first = files.first().map(|first| first.header.id);
    damages.note(check_ends(&names, first, last.map(|last| last.id), oldest))?;
    let mut index = replay.finish(&files, &scans, &mut damages)?;
    if reading == Reading::Hints {
        // Their clean-up was interrupted; nothing in them is needed.
        index.segments.retain(|id, _| *id >= oldest);
    }
    let leftovers = names.into_iter().filter(|name| {
        let id = id_of(name, ".log").or_else(|| id_of(name, ".hint"));
        id.is_some_and(|id| id < oldest) || name.ends_with(".hint.tmp")
    });
    let leftovers = leftovers.collect();
    Ok(Loaded { index, tail, oldest, leftovers, scans, damages: damages.noted })
}

fn io_error(disk: &dyn Disk, doing: &'static str, source: io::Error) -> OpenError {
    OpenError::Io { dir: disk.location(), doing, source }
}

/// Opens the segments up to the last one, from where they have no gap.
///
/// What is before a gap is left over from a clean-up, or the gap is an error: that shows when it
/// is known which segment is the oldest that is needed.
fn open_segments(
    disk: &dyn Disk,
    names: &[String],
    damages: &mut Damages,
) -> Result<Vec<Arc<SegmentFile>>, OpenError> {
    let mut ids: Vec<u32> = names.iter().filter_map(|name| id_of(name, ".log")).collect();
    ids.sort_unstable();
    let gap = match damages.reading {
        Reading::Hints => ids.windows(2).rposition(|pair| pair[0] + 1 != pair[1]),
        Reading::Salvage => None,
    };
    let mut files = Vec::with_capacity(ids.len());
    for id in &ids[gap.map_or(0, |gap| gap + 1)..] {
        let opened = open_segment(disk, *id);
        files.extend(damages.note(opened)?.map(Arc::new));
    }
    Ok(files)
}

fn open_segment(disk: &dyn Disk, id: u32) -> Result<SegmentFile, OpenError> {
    let read = || {
        let file = disk.open(&segment_name(id))?;
        let mut bytes = vec![0; SEGMENT_HEADER];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok((file, bytes))
    };
    let (file, bytes) =
        read().map_err(|source| io_error(disk, "reading a segment's header", source))?;
    Ok(SegmentFile::new(SegmentHeader::decode(&bytes, id)?, file))
}

/// Checks that no segment is missing at either end of the row.
///
/// A hint is written when the segment after it exists: a hint without one shows that the end of
/// the log is gone.
fn check_ends(
    names: &[String],
    first: Option<u32>,
    last: Option<u32>,
    oldest: u32,
) -> Result<(), OpenError> {
    if let Some(first) = first.filter(|first| *first > oldest) {
        return Err(OpenError::Missing { segment: segment_name(first - 1) });
    }
    let last = last.unwrap_or(0);
    match names.iter().filter_map(|name| id_of(name, ".hint")).max() {
        Some(hinted) if hinted >= last => {
            Err(OpenError::Missing { segment: segment_name(last + 1) })
        }
        _ => Ok(()),
    }
}

/// The state that events are applied to.
#[derive(Default)]
struct Replay {
    hasher: RandomState,
    slots: Slots,
    /// The records of unfinished globals.
    chains: HashMap<u64, Vec<Location>>,
    kv: BTreeMap<(String, String), (Kv, Location)>,
    next_number: u64,
    oldest: u32,
}

impl Replay {
    fn read_hint(
        &mut self,
        disk: &dyn Disk,
        file: &SegmentFile,
        end_seq: u64,
    ) -> Result<Option<SegmentScan>, OpenError> {
        let id = file.header.id;
        let Some(hint) = hint::read(disk, &file.header, end_seq) else { return Ok(None) };
        let mut records = 0;
        for placed in hint.events() {
            let placed = placed.map_err(|source| OpenError::Record {
                segment: hint_name(id),
                offset: 0,
                source,
            })?;
            self.apply(id, placed);
            records += 1;
        }
        self.next_number = self.next_number.max(file.header.next_number);
        let batches = end_seq - file.header.first_seq;
        Ok(Some(SegmentScan { id, batches, records, end: hint.end, hinted: true, torn: false }))
    }

    fn scan(
        &mut self,
        disk: &dyn Disk,
        file: &Arc<SegmentFile>,
        end_seq: Option<u64>,
    ) -> Result<(SegmentScan, Tail), OpenError> {
        self.next_number = self.next_number.max(file.header.next_number);
        let read_failed = |source| io_error(disk, "reading a segment", source);
        let mut batches = Batches::of(file).map_err(read_failed)?;
        let (scan, last, next_seq) = scan(disk, &mut batches, end_seq, |placed| {
            self.apply(file.header.id, placed);
            Ok(())
        })?;
        let last = match last {
            Some(at) => {
                let len = usize::try_from(scan.end - at).unwrap_or(usize::MAX);
                Some((at, batches.bytes(at, len).map_err(read_failed)?.to_vec()))
            }
            None => None,
        };
        let tail = Tail { file: file.clone(), offset: scan.end, next_seq, last };
        Ok((scan, tail))
    }

    fn apply(&mut self, segment: u32, placed: Placed<'_>) {
        let at = Location { segment, offset: placed.offset, len: placed.len };
        match placed.event {
            Event::Put(put) => {
                self.next_number = self.next_number.max(put.number + 1);
                let hash = self.hasher.hash_one(&*put.gid);
                let used = if put.is_final() { Use::Finished } else { Use::Live };
                self.slots.set(put.number, slot(hash, &put, used, at));
                match used {
                    Use::Live => self.chains.insert(put.number, vec![at]),
                    Use::Finished | Use::Free => self.chains.remove(&put.number),
                };
            }
            // A change without its global follows from a record that was superseded and is gone.
            Event::Delta { number } => {
                if let Some(chain) = self.chains.get_mut(&number) {
                    chain.push(at);
                }
            }
            Event::Delete { numbers } => {
                for number in numbers {
                    self.slots.remove(number);
                    self.chains.remove(&number);
                }
            }
            Event::KvPut(record) => {
                let kv = record.into_kv();
                self.kv.insert((kv.cat.clone(), kv.key.clone()), (kv, at));
            }
            Event::KvDelete { cat, key } => {
                self.kv.remove(&(cat.into_owned(), key.into_owned()));
            }
            Event::Retire { below } => self.oldest = self.oldest.max(below),
            Event::Reset => {
                self.slots = Slots::default();
                self.chains.clear();
                self.kv.clear();
            }
            Event::Close => {}
        }
    }

    /// Reads the unfinished globals, and returns the index.
    fn finish(
        mut self,
        files: &[Arc<SegmentFile>],
        scans: &[SegmentScan],
        damages: &mut Damages,
    ) -> Result<Index, OpenError> {
        let last = files.last().map_or(0, |last| last.header.id);
        let mut segments = BTreeMap::new();
        for file in files {
            let id = file.header.id;
            let scan = scans.iter().find(|scan| scan.id == id);
            let segment = SegmentUse {
                file: file.clone(),
                needed: 0,
                written: scan.map_or(0, |scan| scan.end),
                sealed: id != last,
                hinted: scan.is_some_and(|scan| scan.hinted),
            };
            segments.insert(id, segment);
        }
        for number in self.chains.keys() {
            self.slots.remove(*number);
        }
        let mut index = Index::new(self.hasher, self.slots, self.next_number.max(1), segments);
        for (number, chain) in self.chains {
            let read = read_chain(&index.segments, &chain);
            let Some(mut global) = damages.note(read)? else { continue };
            // The lease ended with the process that had it.
            global.owner = Arc::from("");
            let global = Arc::new(global);
            let live = Live { global, due: Timestamp::ZERO, leased: true, chain };
            index.put_live(number, live);
        }
        for (slot, (kv, at)) in self.kv {
            index.set_kv(slot, Some(KvEntry { kv, at }));
        }
        Ok(index)
    }
}

fn read_chain(
    segments: &BTreeMap<u32, SegmentUse>,
    chain: &[Location],
) -> Result<Global, OpenError> {
    let mut global: Option<Global> = None;
    for at in chain {
        let offset = u64::from(at.offset);
        let file = segments
            .get(&at.segment)
            .map(|segment| &segment.file)
            .ok_or_else(|| OpenError::Missing { segment: segment_name(at.segment) })?;
        let (kind, payload) = file.read(*at).map_err(|error| match error {
            ReadError::Record { segment, source, .. } => {
                OpenError::Record { segment, offset, source }
            }
            error => OpenError::corrupt(at.segment, offset, error.to_string()),
        })?;
        let next = match (kind, &global) {
            (Kind::Put, _) => record::decode(&payload),
            (Kind::Delta, Some(global)) => {
                Delta::decode(&payload).and_then(|delta| delta.apply(global))
            }
            _ => return Err(OpenError::corrupt(at.segment, offset, "a change of nothing")),
        };
        let segment = segment_name(at.segment);
        let next = next.map_err(|source| OpenError::Record { segment, offset, source })?;
        global = Some(next);
    }
    global.ok_or_else(|| OpenError::corrupt(0, 0, "a global without records"))
}

/// Walks over a segment's batches. Returns what it found, where the last batch begins, and the
/// next sequence number.
///
/// `end_seq` is known for all but the last segment: the walk must reach it. In the last one the
/// log ends where no batch verifies, if nothing after that place proves otherwise.
pub(crate) fn scan(
    disk: &dyn Disk,
    batches: &mut Batches<'_>,
    end_seq: Option<u64>,
    mut apply: impl FnMut(Placed<'_>) -> Result<(), RecordError>,
) -> Result<(SegmentScan, Option<u64>, u64), OpenError> {
    let SegmentHeader { id, first_seq, .. } = batches.segment.header;
    let failed = |source| io_error(disk, "reading a segment", source);
    let (mut at, mut last, mut seq) = (SEGMENT_HEADER as u64, None, first_seq);
    let (mut records, mut torn) = (0, false);
    while end_seq != Some(seq) {
        let Some(batch) = batches.batch(at, seq).map_err(failed)? else {
            if end_seq.is_some() {
                return Err(OpenError::corrupt(id, at, "a batch is not what was written"));
            }
            if let Some(later) = batches.later(at, seq).map_err(failed)? {
                let why = format!("a batch is not what was written, and one follows at {later}");
                return Err(OpenError::corrupt(id, at, why));
            }
            torn = batches.is_begun(at, seq).map_err(failed)?;
            if torn {
                let segment = segment_name(id);
                tracing::warn!(
                    segment,
                    offset = at,
                    "a batch that was never acknowledged was cut off"
                );
            }
            break;
        };
        for record in &batch.records {
            // Segments are at most 1 GiB and a batch long.
            let offset = u32::try_from(record.offset).unwrap_or(u32::MAX);
            let len = u32::try_from(record.len).unwrap_or(u32::MAX);
            let applied = Event::of(record).and_then(|event| apply(Placed { offset, len, event }));
            applied.map_err(|source| OpenError::Record {
                segment: segment_name(id),
                offset: record.offset,
                source,
            })?;
            records += 1;
        }
        last = Some(at);
        at += batch.len as u64;
        seq += 1;
    }
    let batches = seq - first_seq;
    let scan = SegmentScan { id, batches, records, end: at, hinted: false, torn };
    Ok((scan, last, seq))
}
