//! Why a store cannot be opened, and what to do about it.

use std::io;

use dtmd_store::record::RecordError;

use crate::format::segment_name;

/// Why a directory cannot be opened as a store. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the store in {dir} is in use by another process; stop that one, or name another directory"
    )]
    InUse {
        /// The directory.
        dir: String,
    },
    /// The disk did not do what was asked.
    #[error("the store in {dir} cannot be opened: {doing} failed")]
    Io {
        /// The directory.
        dir: String,
        /// What was attempted.
        doing: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// Bytes that were durable are not what they were. The store never skips them: work that was
    /// accepted could be lost without a sign.
    #[error(
        "{segment} is damaged at byte {offset}: {why}; restore the directory from a copy, or see \
         what is readable with `dtmd store check` and `dtmd store export`"
    )]
    Corrupt {
        /// The file.
        segment: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// A file of the log is not there.
    #[error(
        "{segment} is missing; restore the directory from a copy, or see what is readable with \
         `dtmd store export`"
    )]
    Missing {
        /// The file.
        segment: String,
    },
    /// A later release wrote it.
    #[error(
        "{segment} has format version {found}, this release reads up to {}; use the release that \
         wrote it, or a later one",
        crate::format::FORMAT_VERSION
    )]
    NewerFormat {
        /// The file.
        segment: String,
        /// Its version.
        found: u32,
    },
    /// A record is whole, and cannot be understood.
    #[error("a record of {segment} at byte {offset} cannot be read")]
    Record {
        /// The file.
        segment: String,
        /// Where in it.
        offset: u64,
        /// Why.
        source: RecordError,
    },
    /// The options contradict the format.
    #[error("segment_bytes is {segment_bytes}; it must be from 4096 to 1073741824")]
    Options {
        /// What was asked for.
        segment_bytes: u64,
    },
}

impl OpenError {
    pub(crate) fn corrupt(segment: u32, offset: u64, why: impl Into<String>) -> Self {
        Self::Corrupt { segment: segment_name(segment), offset, why: why.into() }
    }
}
