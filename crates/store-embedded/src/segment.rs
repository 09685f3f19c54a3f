//! One open segment, and reading single records from it.

use std::fmt;
use std::io;

use dtmd_protocol::Global;
use dtmd_store::record::{self, RecordError};

use crate::disk::DiskFile;
use crate::format::{self, Kind, SegmentHeader, segment_name};
use crate::slots::Location;

/// An open segment. Whoever reads holds a reference, so that the file is not recycled meanwhile.
pub(crate) struct SegmentFile {
    pub(crate) header: SegmentHeader,
    pub(crate) seed: u32,
    pub(crate) file: Box<dyn DiskFile>,
}

impl fmt::Debug for SegmentFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentFile({})", self.header.id)
    }
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("reading {segment} at byte {offset} failed")]
    Io { segment: String, offset: u32, source: io::Error },
    #[error(
        "{segment} is damaged at byte {offset}; restore the directory from a copy, or see what is readable with `dtmd store check`"
    )]
    Damaged { segment: String, offset: u32 },
    #[error("the record in {segment} at byte {offset} cannot be read")]
    Record { segment: String, offset: u32, source: RecordError },
}

impl SegmentFile {
    pub(crate) fn new(header: SegmentHeader, file: Box<dyn DiskFile>) -> Self {
        Self { header, seed: header.seed(), file }
    }

    /// Returns the kind and the payload of a record.
    pub(crate) fn read(&self, at: Location) -> Result<(Kind, Vec<u8>), ReadError> {
        let segment = || segment_name(self.header.id);
        let mut bytes = vec![0; at.len as usize];
        let offset = at.offset;
        let read = self.file.read_at(&mut bytes, u64::from(offset));
        let read = read.map_err(|source| ReadError::Io { segment: segment(), offset, source })?;
        let record = format::read_record(&bytes[..read], self.seed, u64::from(offset))
            .filter(|record| record.len == bytes.len())
            .ok_or_else(|| ReadError::Damaged { segment: segment(), offset })?;
        let (kind, head) = (record.kind, bytes.len() - record.payload.len());
        bytes.drain(..head);
        Ok((kind, bytes))
    }

    /// Returns the global of a whole record.
    pub(crate) fn read_global(&self, at: Location) -> Result<Global, ReadError> {
        let (_, payload) = self.read(at)?;
        record::decode(&payload).map_err(|source| ReadError::Record {
            segment: segment_name(self.header.id),
            offset: at.offset,
            source,
        })
    }
}
