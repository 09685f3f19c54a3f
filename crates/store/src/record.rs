//! The versioned form in which globals are written.
//!
//! The way in:
//!
//! 1. [`encode`] and [`decode`]: a whole global as bytes, behind one byte of format version.
//! 2. [`head`]: what an index keeps of a global, from those bytes.
//! 3. [`Delta`]: the difference between two states of one global, for stores that append.
//! 4. [`to_json`] and [`from_json`]: the same record for people, one line each.
//!
//! The bytes are those of the structs in `record/v1.rs`: the order of their members and variants
//! **is** the format. A change of it is a new module `v2` with a conversion from `v1`; version 1
//! stays readable for ever, and a fixture of it stays in the tests.

mod delta;
mod head_v1;
mod payload;
#[cfg(test)]
mod tests;
mod v1;
mod write_v1;

use dtmd_protocol::{Global, GlobalStatus, Timestamp, TransType};

pub use delta::Delta;

/// The version that is written; all up to it are read.
pub const FORMAT_VERSION: u8 = 1;

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// There is not even a version.
    #[error("the record is empty")]
    Empty,
    /// A later release wrote it; use that release, or a later one.
    #[error(
        "the record has format version {found}, this release reads up to {FORMAT_VERSION}; \
         use the release that wrote it, or a later one"
    )]
    NewerVersion {
        /// The version found.
        found: u8,
    },
    /// The bytes are not what their version promises.
    #[error("the record's bytes are not well-formed")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A member holds what no global can hold.
    #[error("the record's {member} is not valid")]
    Invalid {
        /// Which member.
        member: &'static str,
    },
    /// A difference was applied to a state that it does not follow.
    #[error("the change follows revision {expected}, not revision {found}")]
    WrongBase {
        /// The revision it follows.
        expected: u64,
        /// The revision it was applied to.
        found: u64,
    },
}

impl RecordError {
    fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Malformed(Box::new(error))
    }
}

/// Appends a global's record to `out`.
///
/// # Errors
///
/// [`RecordError::Malformed`] if it cannot be written; no global of the protocol is such.
pub fn encode(global: &Global, mut out: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    out.push(FORMAT_VERSION);
    write_v1::global(&mut out, global);
    Ok(out)
}

/// Returns the global of a record, whatever version it was written in.
///
/// # Errors
///
/// [`RecordError`], saying whether the bytes are broken or from a later release.
pub fn decode(bytes: &[u8]) -> Result<Global, RecordError> {
    read::<v1::GlobalV1>(bytes)?.try_into()
}

/// What an index keeps of a global.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// The global's name, as it was accepted.
    pub gid: &'a str,
    /// Its type.
    pub trans_type: TransType,
    /// Its status.
    pub status: GlobalStatus,
    /// When it was accepted.
    pub created: Timestamp,
    /// When it came to its end, if it did.
    pub ended: Option<Timestamp>,
}

impl<'a> Head<'a> {
    /// Returns the head of a global.
    pub fn of(global: &'a Global) -> Self {
        Self {
            gid: global.gid.as_str(),
            trans_type: global.trans_type(),
            status: global.status,
            created: global.created,
            ended: global.finished.or(global.rolled_back),
        }
    }
}

/// Returns the head of the global of a record, whatever version it was written in. It costs a small
/// part of what [`decode`] does: nothing is allocated, and what comes after it is not looked at.
///
/// # Errors
///
/// [`RecordError`], as [`decode`].
pub fn head(bytes: &[u8]) -> Result<Head<'_>, RecordError> {
    head_v1::head(body(bytes)?)
}

/// Returns a global as one line of JSON. Payloads are shown as text where they are UTF-8, as
/// base64 otherwise; times are microseconds since the epoch.
///
/// # Errors
///
/// [`RecordError::Malformed`] if it cannot be written; no global of the protocol is such.
pub fn to_json(global: &Global) -> Result<String, RecordError> {
    serde_json::to_string(&v1::GlobalV1::from(global)).map_err(RecordError::malformed)
}

/// Returns the global of a line that [`to_json`] wrote.
///
/// # Errors
///
/// [`RecordError::Malformed`] or [`RecordError::Invalid`].
pub fn from_json(json: &str) -> Result<Global, RecordError> {
    let record: v1::GlobalV1 = serde_json::from_str(json).map_err(RecordError::malformed)?;
    record.try_into()
}

/// Appends the version and a record to `out`.
fn write<T: serde::Serialize>(record: &T, mut out: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    out.push(FORMAT_VERSION);
    postcard::serialize_with_flavor(record, Appending(out)).map_err(RecordError::malformed)
}

/// Appends to a vector, pieces as pieces: the library's own way copies byte by byte.
struct Appending(Vec<u8>);

impl postcard::ser_flavors::Flavor for Appending {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Reads a record of a known version, to its last byte.
fn read<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RecordError> {
    let (record, rest) = postcard::take_from_bytes(body(bytes)?).map_err(RecordError::malformed)?;
    if rest.is_empty() { Ok(record) } else { Err(RecordError::Invalid { member: "length" }) }
}

/// Returns what stands behind the version, if it is one that is read.
fn body(bytes: &[u8]) -> Result<&[u8], RecordError> {
    match bytes {
        [] => Err(RecordError::Empty),
        [1, body @ ..] => Ok(body),
        [found, ..] => Err(RecordError::NewerVersion { found: *found }),
    }
}
