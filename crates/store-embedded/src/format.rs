//! The bytes of a segment: its header, batches, records. No I/O here.
//!
//! ```text
//! segment = header (512 bytes) · batch · batch · …           each batch starts at a multiple of 8
//! batch   = header (32 bytes) · record · record · … · padding
//! record  = length u32 · crc u32 · kind u8 · number varint · payload
//! ```
//!
//! All numbers are little-endian. Every checksum starts from a seed of the segment's id and salt,
//! so the bytes that a recycled file still holds from its earlier life never verify.

use crate::error::OpenError;

/// Where the first batch of a segment starts.
pub(crate) const SEGMENT_HEADER: usize = 512;
/// Length of a batch's header.
pub(crate) const BATCH_HEADER: usize = 32;
/// Length of what stands before a record's kind.
const RECORD_HEADER: usize = 8;
/// Batches start at multiples of this.
pub(crate) const ALIGN: usize = 8;
/// Version of the format of segments. A later one is refused by name.
pub(crate) const FORMAT_VERSION: u32 = 1;

const SEGMENT_MAGIC: &[u8; 8] = b"dtmd-log";
const BATCH_MAGIC: u32 = 0x6274_6d64;

/// What a record is. The numbers are the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A whole global; everything before it of the same number is superseded.
    Put = 1,
    /// A change of an unfinished global.
    Delta = 2,
    /// Globals that were purged.
    Delete = 3,
    /// A key and its value.
    KvPut = 4,
    /// A key that is gone.
    KvDelete = 5,
    /// Segments before the number are not needed any more.
    Retire = 6,
    /// Everything before is void.
    Reset = 7,
    /// The store was closed; proves that what stands before had been synced.
    Close = 8,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        let all = [
            Self::Put,
            Self::Delta,
            Self::Delete,
            Self::KvPut,
            Self::KvDelete,
            Self::Retire,
            Self::Reset,
            Self::Close,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: u32,
    /// Different for every life of a file.
    pub(crate) salt: u64,
    /// The sequence number of its first batch: what earlier segments hold from there on is void.
    pub(crate) first_seq: u64,
    /// The oldest segment that was needed when this one was made.
    pub(crate) oldest: u32,
    /// The number of the next new global when this one was made.
    pub(crate) next_number: u64,
}

impl SegmentHeader {
    /// Returns the header's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER);
        bytes.extend(SEGMENT_MAGIC);
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.salt.to_le_bytes());
        bytes.extend(self.first_seq.to_le_bytes());
        bytes.extend(self.oldest.to_le_bytes());
        bytes.extend(self.next_number.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.resize(SEGMENT_HEADER, 0);
        bytes
    }

    /// Reads the header of the segment `id`.
    ///
    /// # Errors
    ///
    /// [`OpenError::NewerFormat`] or [`OpenError::Corrupt`].
    pub(crate) fn decode(bytes: &[u8], id: u32) -> Result<Self, OpenError> {
        let corrupt = |why| OpenError::corrupt(id, 0, why);
        let short = || corrupt("the header is incomplete");
        if bytes.get(..8).ok_or_else(short)? != SEGMENT_MAGIC {
            return Err(corrupt("it does not begin like a segment"));
        }
        let u32_at = |at| u32_at(bytes, at).ok_or_else(short);
        let u64_at = |at| u64_at(bytes, at).ok_or_else(short);
        let version = u32_at(8)?;
        if version > FORMAT_VERSION {
            return Err(OpenError::NewerFormat { segment: segment_name(id), found: version });
        }
        let header = Self {
            id: u32_at(12)?,
            salt: u64_at(16)?,
            first_seq: u64_at(24)?,
            oldest: u32_at(32)?,
            next_number: u64_at(36)?,
        };
        if crc32fast::hash(&bytes[..44]) != u32_at(44)? {
            return Err(corrupt("the header's checksum is wrong"));
        }
        if header.id != id {
            return Err(corrupt("it holds another segment than its name says"));
        }
        Ok(header)
    }

    /// Returns what every checksum of the segment starts from.
    pub(crate) fn seed(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.id.to_le_bytes());
        hasher.update(&self.salt.to_le_bytes());
        hasher.finalize()
    }
}

/// Returns the file name of a segment.
pub(crate) fn segment_name(id: u32) -> String {
    format!("{id:08}.log")
}

/// Returns the file name of a segment's hint.
pub(crate) fn hint_name(id: u32) -> String {
    format!("{id:08}.hint")
}

/// Returns the id in a file name with this ending.
pub(crate) fn id_of(name: &str, ending: &str) -> Option<u32> {
    let digits = name.strip_suffix(ending)?;
    let plain = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// Where a record is within its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// A batch that is being put together. Its checksums are made when its segment is known.
#[derive(Debug, Default)]
pub(crate) struct BatchBuilder {
    bytes: Vec<u8>,
    records: Vec<Place>,
}

impl BatchBuilder {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; BATCH_HEADER], records: Vec::new() }
    }

    /// Returns a batch with room for so many records of the usual length.
    pub(crate) fn for_records(records: usize) -> Self {
        /// A whole record of a saga of two steps has about 700 bytes, a change about 60. A batch of
        /// whole ones only should not have to be moved to a larger place.
        const USUAL_BYTES: usize = 768;
        let mut bytes = Vec::with_capacity(BATCH_HEADER + records * USUAL_BYTES);
        bytes.resize(BATCH_HEADER, 0);
        Self { bytes, records: Vec::with_capacity(records) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn records(&self) -> usize {
        self.records.len()
    }

    /// Returns how many bytes it takes in a segment.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len().next_multiple_of(ALIGN)
    }

    /// Adds a record whose payload `write` appends.
    pub(crate) fn push<E>(
        &mut self,
        kind: Kind,
        number: u64,
        write: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, E>,
    ) -> Result<Place, E> {
        let start = self.bytes.len();
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.extend_from_slice(&[0; RECORD_HEADER]);
        bytes.push(kind as u8);
        push_varint(&mut bytes, number);
        self.bytes = write(bytes)?;
        let place = Place { start, len: self.bytes.len() - start };
        self.records.push(place);
        Ok(place)
    }

    /// Adds a record with this payload.
    pub(crate) fn push_bytes(&mut self, kind: Kind, number: u64, payload: &[u8]) -> Place {
        let pushed = self.push::<std::convert::Infallible>(kind, number, |mut bytes| {
            bytes.extend(payload);
            Ok(bytes)
        });
        match pushed {
            Ok(place) => place,
        }
    }

    /// Returns the bytes of the batch for one place in the log.
    pub(crate) fn seal(&mut self, seed: u32, seq: u64, offset: u64) -> &[u8] {
        let body_len = truncated(self.bytes.len() - BATCH_HEADER);
        for place in &self.records {
            let record = &mut self.bytes[place.start..place.start + place.len];
            record[..4].copy_from_slice(&truncated(place.len).to_le_bytes());
            let crc = record_crc(seed, offset + place.start as u64, record);
            record[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        let header = &mut self.bytes[..BATCH_HEADER];
        header[..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&body_len.to_le_bytes());
        header[8..16].copy_from_slice(&seq.to_le_bytes());
        header[16..20].copy_from_slice(&truncated(self.records.len()).to_le_bytes());
        header[20..28].fill(0);
        let crc = batch_crc(seed, offset, header);
        header[28..32].copy_from_slice(&crc.to_le_bytes());
        let padded = self.len();
        self.bytes.resize(padded, 0);
        &self.bytes
    }
}

/// The writer refuses batches beyond four gigabytes before they are sealed.
fn truncated(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The offset is part of it, so a record that a disk wrote to the wrong place does not verify.
fn record_crc(seed: u32, offset: u64, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&offset.to_le_bytes());
    hasher.update(&record[..4]);
    hasher.update(&record[RECORD_HEADER..]);
    hasher.finalize()
}

fn batch_crc(seed: u32, offset: u64, header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&offset.to_le_bytes());
    hasher.update(&header[..28]);
    hasher.finalize()
}

/// A verified record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// Offset within the segment.
    pub(crate) offset: u64,
    /// Length, with everything.
    pub(crate) len: usize,
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    pub(crate) payload: &'a [u8],
}

/// Verifies the record that begins `bytes`, which were read at `offset`.
pub(crate) fn read_record(bytes: &[u8], seed: u32, offset: u64) -> Option<Record<'_>> {
    let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let record = bytes.get(..len).filter(|record| record.len() > RECORD_HEADER)?;
    if record_crc(seed, offset, record) != u32_at(record, 4)? {
        return None;
    }
    let kind = Kind::of(record[RECORD_HEADER])?;
    let (number, payload) = take_varint(&record[RECORD_HEADER + 1..])?;
    Some(Record { offset, len, kind, number, payload })
}

/// A batch's header, verified.
#[derive(Debug, Clone, Copy)]
struct BatchHeader {
    body_len: usize,
    seq: u64,
    records: u32,
}

fn batch_header(bytes: &[u8], seed: u32, offset: u64) -> Option<BatchHeader> {
    let header = bytes.get(..BATCH_HEADER)?;
    let whole =
        u32_at(header, 0)? == BATCH_MAGIC && batch_crc(seed, offset, header) == u32_at(header, 28)?;
    let body_len = usize::try_from(u32_at(header, 4)?).ok()?;
    let batch = BatchHeader { body_len, seq: u64_at(header, 8)?, records: u32_at(header, 16)? };
    whole.then_some(batch)
}

/// A verified batch.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) records: Vec<Record<'a>>,
    /// How far from its start the next one starts.
    pub(crate) len: usize,
}

/// Returns how many bytes the batch has that begins `bytes`, which were read at `offset`; its
/// header must verify and its sequence number be `seq`.
pub(crate) fn batch_len(bytes: &[u8], seed: u32, offset: u64, seq: u64) -> Option<usize> {
    let header = batch_header(bytes, seed, offset).filter(|header| header.seq == seq)?;
    BATCH_HEADER.checked_add(header.body_len)
}

/// Verifies the batch that begins `bytes`, which were read at `offset`; its sequence number must be
/// `seq`.
///
/// A kind of record that this release does not know makes it invalid, too: a later release that
/// adds one raises the format version.
pub(crate) fn read_batch(bytes: &[u8], seed: u32, offset: u64, seq: u64) -> Option<Batch<'_>> {
    let header = batch_header(bytes, seed, offset).filter(|header| header.seq == seq)?;
    let end = BATCH_HEADER.checked_add(header.body_len)?;
    let mut records = Vec::with_capacity(usize::try_from(header.records).ok()?.min(1 << 16));
    let mut next = BATCH_HEADER;
    while next < end {
        let record = read_record(bytes.get(next..end)?, seed, offset + next as u64)?;
        next += record.len;
        records.push(record);
    }
    let complete = records.len() == usize::try_from(header.records).ok()?;
    complete.then_some(Batch { records, len: end.next_multiple_of(ALIGN) })
}

/// Returns where in `bytes`, which were read at `offset`, a batch begins whose sequence number is
/// above `seq`. A header that does not end in them is not found.
///
/// A batch is written only when the one before it has been synced. So such a batch proves that
/// the bytes before it were once whole and durable: they are damaged, not torn.
pub(crate) fn later_batch(bytes: &[u8], seed: u32, offset: u64, seq: u64) -> Option<usize> {
    let magic = BATCH_MAGIC.to_le_bytes();
    let starts = (0..bytes.len().saturating_sub(BATCH_HEADER - 1)).step_by(ALIGN);
    let mut begun = starts.filter(|start| bytes[*start..*start + 4] == magic);
    begun.find(|start| {
        let header = batch_header(&bytes[*start..], seed, offset + *start as u64);
        header.is_some_and(|header| header.seq > seq)
    })
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}
