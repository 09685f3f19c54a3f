//! The end of the log: where batches are appended.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;

use crate::disk::Disk;
use crate::format::{BatchBuilder, Place, SEGMENT_HEADER, SegmentHeader, segment_name};
use crate::segment::SegmentFile;
use crate::slots::Location;
use crate::spares::Spares;

/// No batch is longer: offsets within a segment are 32 bits.
const BATCH_MAX: u64 = 1 << 30;

/// Why a batch was not appended.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// There is no room. Nothing was written, and the log can go on.
    Full(io::Error),
    /// It is not known what was written. The log must be read again before it is written to.
    Unknown(io::Error),
}

/// Where a batch is.
#[derive(Debug)]
pub(crate) struct Appended {
    segment: u32,
    offset: u64,
    /// The segment that was begun for it.
    pub(crate) begun: Option<Arc<SegmentFile>>,
    /// Where the batches of the segment end now.
    pub(crate) end: u64,
}

impl Appended {
    /// Returns where a record of the batch is.
    pub(crate) fn at(&self, place: Place) -> Location {
        let offset = self.offset + place.start as u64;
        // Both are below BATCH_MAX plus the length of a segment, which is at most 1 GiB.
        Location {
            segment: self.segment,
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            len: u32::try_from(place.len).unwrap_or(u32::MAX),
        }
    }
}

/// The log, ready to be appended to. One thread at a time.
pub(crate) struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) spares: Arc<Spares>,
    pub(crate) current: Option<Arc<SegmentFile>>,
    /// Where the next batch goes.
    pub(crate) offset: u64,
    pub(crate) next_seq: u64,
    pub(crate) segment_bytes: u64,
    /// The oldest segment that is needed.
    pub(crate) oldest: u32,
}

impl Log {
    /// Appends a batch and makes it durable.
    ///
    /// After [`AppendError::Unknown`] this log must not be used any more.
    pub(crate) fn append(
        &mut self,
        batch: &mut BatchBuilder,
        next_number: u64,
    ) -> Result<Appended, AppendError> {
        let length = batch.len() as u64;
        if length > BATCH_MAX {
            return Err(AppendError::Full(io::Error::other("the batch is longer than 1 GiB")));
        }
        let fits = self.offset + length <= self.segment_bytes;
        let (current, begun) = match &self.current {
            Some(current) if fits || self.offset == SEGMENT_HEADER as u64 => {
                (current.clone(), None)
            }
            last => {
                let id = last.as_ref().map_or(1, |last| last.header.id + 1);
                let header = self.header(id, next_number);
                let current = Arc::new(self.begin(header, None)?);
                self.current = Some(current.clone());
                self.offset = SEGMENT_HEADER as u64;
                (current.clone(), Some(current))
            }
        };
        let bytes = batch.seal(current.seed, self.next_seq, self.offset);
        // A batch that was cut off by a full disk is not whole, and the next one is written over
        // it with the same sequence number.
        current.file.write_at(bytes, self.offset).map_err(unknown_unless_full)?;
        dtmd_failpoint::hit("log-written");
        current.file.sync().map_err(AppendError::Unknown)?;
        dtmd_failpoint::hit("log-synced");
        let segment = current.header.id;
        let appended = Appended { segment, offset: self.offset, begun, end: self.offset + length };
        self.offset += length;
        self.next_seq += 1;
        Ok(appended)
    }

    pub(crate) fn header(&self, id: u32, next_number: u64) -> SegmentHeader {
        SegmentHeader {
            id,
            salt: salt(id),
            first_seq: self.next_seq,
            oldest: self.oldest,
            next_number,
        }
    }

    /// Makes a segment durable under its name, with the batch `first` in it if one is given.
    pub(crate) fn begin(
        &self,
        header: SegmentHeader,
        first: Option<&mut BatchBuilder>,
    ) -> Result<SegmentFile, AppendError> {
        let (name, file) = self.spares.take().map_err(unknown_unless_full)?;
        let segment = SegmentFile::new(header, file);
        let write = || {
            segment.file.write_at(&header.encode(), 0)?;
            if let Some(first) = first {
                let offset = SEGMENT_HEADER as u64;
                let bytes = first.seal(segment.seed, header.first_seq, offset);
                segment.file.write_at(bytes, offset)?;
            }
            segment.file.sync()?;
            dtmd_failpoint::hit("segment-written");
            self.disk.rename(&name, &segment_name(header.id))
        };
        if let Err(error) = write() {
            // Best effort: a file that stays is taken over or removed when the store is opened.
            let _ = self.disk.remove(&name);
            return Err(unknown_unless_full(error));
        }
        dtmd_failpoint::hit("segment-renamed");
        self.disk.sync_names().map_err(AppendError::Unknown)?;
        dtmd_failpoint::hit("segment-begun");
        Ok(segment)
    }
}

fn unknown_unless_full(error: io::Error) -> AppendError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::Full(error),
        _ => AppendError::Unknown(error),
    }
}

/// Returns a number that differs for every life of a file, and that nobody outside can foresee.
fn salt(id: u32) -> u64 {
    RandomState::new().hash_one(id)
}
