//! What scripts and lists need to know of a global, in front of its record.
//!
//! A header has fixed places (counted from 1, as Lua does), so that scripts can cut it:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format of the header, `1` |
//! | 2–3 | type and status, a digit each |
//! | 4–11 | revision, big-endian |
//! | 12–19 | epoch, big-endian |
//! | 20–35 | arrival: microseconds, 16 digits |
//! | 36–55 | wake-up: microseconds, 20 characters |
//! | 56–75 | created |
//! | 76–95 | ended; 0 while unfinished |
//! | 96– | owner |
//!
//! Epoch, wake-up and owner are taken from here, not from the record: a lease changes the header
//! alone.

use std::sync::Arc;

use dtmd_protocol::{Gid, Global, GlobalStatus, Timestamp, TransType};
use dtmd_store::{BoxError, ListFilter, StoreError, record};

/// Type and status of a global, as two digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) trans_type: TransType,
    pub(crate) status: GlobalStatus,
    text: &'static str,
}

const fn code(trans_type: TransType, status: GlobalStatus, text: &'static str) -> Code {
    Code { trans_type, status, text }
}

/// All codes there are. A digit, once given, means the same for ever.
pub(crate) const CODES: &[Code] = &[
    code(TransType::Saga, GlobalStatus::Prepared, "00"),
    code(TransType::Saga, GlobalStatus::Submitted, "01"),
    code(TransType::Saga, GlobalStatus::Aborting, "02"),
    code(TransType::Saga, GlobalStatus::Succeed, "03"),
    code(TransType::Saga, GlobalStatus::Failed, "04"),
    code(TransType::Tcc, GlobalStatus::Prepared, "10"),
    code(TransType::Tcc, GlobalStatus::Submitted, "11"),
    code(TransType::Tcc, GlobalStatus::Aborting, "12"),
    code(TransType::Tcc, GlobalStatus::Succeed, "13"),
    code(TransType::Tcc, GlobalStatus::Failed, "14"),
    code(TransType::Xa, GlobalStatus::Prepared, "20"),
    code(TransType::Xa, GlobalStatus::Submitted, "21"),
    code(TransType::Xa, GlobalStatus::Aborting, "22"),
    code(TransType::Xa, GlobalStatus::Succeed, "23"),
    code(TransType::Xa, GlobalStatus::Failed, "24"),
    code(TransType::Msg, GlobalStatus::Prepared, "30"),
    code(TransType::Msg, GlobalStatus::Submitted, "31"),
    code(TransType::Msg, GlobalStatus::Aborting, "32"),
    code(TransType::Msg, GlobalStatus::Succeed, "33"),
    code(TransType::Msg, GlobalStatus::Failed, "34"),
    code(TransType::Workflow, GlobalStatus::Prepared, "40"),
    code(TransType::Workflow, GlobalStatus::Submitted, "41"),
    code(TransType::Workflow, GlobalStatus::Aborting, "42"),
    code(TransType::Workflow, GlobalStatus::Succeed, "43"),
    code(TransType::Workflow, GlobalStatus::Failed, "44"),
];

impl Code {
    /// Returns a global's code; none for a type that this release does not know.
    pub(crate) fn of(global: &Global) -> Option<Self> {
        let trans_type = global.trans_type();
        CODES
            .iter()
            .copied()
            .find(|code| code.trans_type == trans_type && code.status == global.status)
    }

    pub(crate) fn as_str(self) -> &'static str {
        self.text
    }

    pub(crate) fn is_final(self) -> bool {
        self.status.is_final()
    }
}

/// Length of the fixed places.
const FIXED: usize = 95;

/// A header, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) code: Code,
    pub(crate) epoch: u64,
    pub(crate) wake_at: Timestamp,
    pub(crate) created: Timestamp,
    pub(crate) owner: Arc<str>,
    bytes: Vec<u8>,
}

impl Header {
    /// Returns the header, or nothing if the bytes are not one.
    pub(crate) fn parse(bytes: Vec<u8>) -> Option<Self> {
        let fixed = bytes.get(..FIXED)?;
        if fixed.first() != Some(&b'1') {
            return None;
        }
        let text = fixed.get(1..3)?;
        let code = CODES.iter().copied().find(|code| code.text.as_bytes() == text)?;
        let epoch = u64::from_be_bytes(fixed.get(11..19)?.try_into().ok()?);
        let wake_at = time(fixed.get(35..55)?)?;
        let created = time(fixed.get(55..75)?)?;
        let owner = std::str::from_utf8(bytes.get(FIXED..)?).ok()?.into();
        Some(Self { code, epoch, wake_at, created, owner, bytes })
    }

    /// Returns the bytes it was made of.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns type, status, revision and epoch as they are stored.
    pub(crate) fn state(&self) -> &[u8] {
        self.bytes.get(1..19).unwrap_or_default()
    }

    /// Returns the header after a claim.
    pub(crate) fn claimed(&self, owner: &str, until: Timestamp) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + owner.len());
        bytes.extend_from_slice(self.bytes.get(..11).unwrap_or_default());
        bytes.extend_from_slice(&(self.epoch + 1).to_be_bytes());
        bytes.extend_from_slice(self.bytes.get(19..35).unwrap_or_default());
        bytes.extend_from_slice(time_text(until).as_bytes());
        bytes.extend_from_slice(self.bytes.get(55..FIXED).unwrap_or_default());
        bytes.extend_from_slice(owner.as_bytes());
        bytes
    }

    /// Returns whether a list may hold the global, as far as the header can tell.
    pub(crate) fn admitted_by(&self, filter: &ListFilter) -> bool {
        filter.created_from.is_none_or(|from| self.created >= from)
            && filter.created_to.is_none_or(|to| self.created <= to)
            && filter.wakes_after.is_none_or(|after| !self.code.is_final() && self.wake_at > after)
    }

    /// Puts header and record together.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`].
    pub(crate) fn global(&self, gid: &Gid, record: &[u8]) -> Result<Global, StoreError> {
        let corrupt = |source: BoxError| StoreError::Corrupt { gid: gid.clone(), source };
        let mut global = record::decode(record).map_err(|error| corrupt(error.into()))?;
        if global.gid != *gid {
            return Err(corrupt(format!("the record is that of {}", global.gid).into()));
        }
        global.owner = self.owner.clone();
        global.epoch = self.epoch;
        global.wake_at = self.wake_at;
        Ok(global)
    }
}

/// Returns a global's header; a script puts the stored arrival into an update's.
pub(crate) fn encode(global: &Global, code: Code, arrival: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED + global.owner.len());
    bytes.push(b'1');
    bytes.extend_from_slice(&state(global, code));
    bytes.extend_from_slice(format!("{arrival:016}").as_bytes());
    for at in [global.wake_at, global.created, ended_at(global)] {
        bytes.extend_from_slice(time_text(at).as_bytes());
    }
    bytes.extend_from_slice(global.owner.as_bytes());
    bytes
}

/// Returns what a writer must find: type, status, revision and epoch.
pub(crate) fn state(global: &Global, code: Code) -> [u8; 18] {
    let mut bytes = [0; 18];
    let (text, rest) = bytes.split_at_mut(2);
    let (revision, epoch) = rest.split_at_mut(8);
    text.copy_from_slice(code.text.as_bytes());
    revision.copy_from_slice(&global.revision.0.to_be_bytes());
    epoch.copy_from_slice(&global.epoch.to_be_bytes());
    bytes
}

/// Returns when a global ended; the epoch's begin while it has not.
pub(crate) fn ended_at(global: &Global) -> Timestamp {
    if global.status.is_final() {
        global.finished.or(global.rolled_back).unwrap_or_default()
    } else {
        Timestamp::default()
    }
}

/// Returns a time in 20 characters.
pub(crate) fn time_text(at: Timestamp) -> String {
    format!("{:020}", at.0)
}

fn time(bytes: &[u8]) -> Option<Timestamp> {
    std::str::from_utf8(bytes).ok()?.parse().ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use dtmd_store::conformance::sample;

    use super::*;

    #[test]
    fn every_type_and_status_has_a_code_of_its_own() {
        let mut seen = HashSet::new();
        for global in sample::all("s") {
            seen.insert(Code::of(&global).unwrap().as_str());
        }
        assert_eq!((seen.len(), CODES.len()), (25, TransType::ALL.len() * GlobalStatus::ALL.len()));
    }

    #[test]
    fn a_header_is_read_back() {
        for mut global in sample::all("s") {
            global.wake_at = Timestamp(i64::MIN);
            let code = Code::of(&global).unwrap();
            let bytes = encode(&global, code, 42);
            let header = Header::parse(bytes.clone()).unwrap();
            assert_eq!((header.code, header.epoch), (code, global.epoch));
            assert_eq!((header.wake_at, header.created), (global.wake_at, global.created));
            assert_eq!((&*header.owner, header.bytes()), (&*global.owner, &bytes[..]));
            assert_eq!(header.state(), state(&global, code));
            let claimed = Header::parse(header.claimed("ö", Timestamp(7))).unwrap();
            assert_eq!((claimed.epoch, claimed.wake_at), (global.epoch + 1, Timestamp(7)));
            assert_eq!((&*claimed.owner, claimed.created), ("ö", global.created));
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let bytes = encode(&sample::saga("a"), CODES[1], 42);
        for broken in [&b""[..], &bytes[..FIXED - 1], &[b"2", &bytes[1..]].concat()] {
            assert_eq!(Header::parse(broken.to_vec()), None);
        }
        let mut unknown = bytes;
        unknown[1] = b'9';
        assert_eq!(Header::parse(unknown), None);
    }
}
