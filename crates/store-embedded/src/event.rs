//! What a record means to the index. Segments and hints are both read as a row of events.

use std::borrow::Cow;

use dtmd_protocol::{GlobalStatus, Timestamp, TransType};
use dtmd_store::Kv;
use dtmd_store::record::{self, Head, RecordError};
use serde::{Deserialize, Serialize};

use crate::format::{Kind, Record};

/// A record without what only its own reader needs. The order of variants and members is the
/// format of hints.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event<'a> {
    Put(#[serde(borrow)] PutEvent<'a>),
    Delta { number: u64 },
    Delete { numbers: Vec<u64> },
    KvPut(#[serde(borrow)] KvRecord<'a>),
    KvDelete { cat: Cow<'a, str>, key: Cow<'a, str> },
    Retire { below: u32 },
    Reset,
    Close,
}

/// What the index keeps of a global.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PutEvent<'a> {
    pub(crate) number: u64,
    #[serde(borrow)]
    pub(crate) gid: Cow<'a, str>,
    pub(crate) status: u8,
    pub(crate) trans_type: u8,
    pub(crate) created: i64,
    pub(crate) ended: i64,
}

/// A key and its value, as written in the log.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KvRecord<'a> {
    #[serde(borrow)]
    cat: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
    version: u64,
    created: i64,
    updated: i64,
}

/// An event and where its record is within the segment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Placed<'a> {
    pub(crate) offset: u32,
    pub(crate) len: u32,
    #[serde(borrow)]
    pub(crate) event: Event<'a>,
}

const STATUSES: [GlobalStatus; 5] = [
    GlobalStatus::Prepared,
    GlobalStatus::Submitted,
    GlobalStatus::Aborting,
    GlobalStatus::Succeed,
    GlobalStatus::Failed,
];

const TYPES: [TransType; 5] =
    [TransType::Saga, TransType::Tcc, TransType::Xa, TransType::Msg, TransType::Workflow];

/// Returns the number that stands for a status in hints and in the index.
pub(crate) fn status_code(status: GlobalStatus) -> u8 {
    match status {
        GlobalStatus::Prepared => 0,
        GlobalStatus::Submitted => 1,
        GlobalStatus::Aborting => 2,
        GlobalStatus::Succeed => 3,
        GlobalStatus::Failed => 4,
    }
}

/// Returns the number that stands for a type in hints and in the index.
pub(crate) fn type_code(trans_type: TransType) -> u8 {
    match trans_type {
        TransType::Saga => 0,
        TransType::Tcc => 1,
        TransType::Xa => 2,
        TransType::Msg => 3,
        TransType::Workflow => 4,
    }
}

/// Returns the status of a number.
pub(crate) fn status_of(code: u8) -> Option<GlobalStatus> {
    STATUSES.get(usize::from(code)).copied()
}

/// Returns the type of a number.
pub(crate) fn type_of(code: u8) -> Option<TransType> {
    TYPES.get(usize::from(code)).copied()
}

impl<'a> PutEvent<'a> {
    pub(crate) fn of(number: u64, head: Head<'a>) -> Self {
        Self {
            number,
            gid: Cow::Borrowed(head.gid),
            status: status_code(head.status),
            trans_type: type_code(head.trans_type),
            created: head.created.0,
            // What its age in the history counts from.
            ended: head.ended.unwrap_or_default().0,
        }
    }

    /// Returns whether the global has ended.
    pub(crate) fn is_final(&self) -> bool {
        status_of(self.status).is_some_and(GlobalStatus::is_final)
    }
}

impl<'a> KvRecord<'a> {
    pub(crate) fn of(kv: &'a Kv) -> Self {
        Self {
            cat: Cow::Borrowed(&kv.cat),
            key: Cow::Borrowed(&kv.key),
            value: Cow::Borrowed(&kv.value),
            version: kv.version,
            created: kv.created.0,
            updated: kv.updated.0,
        }
    }

    pub(crate) fn into_kv(self) -> Kv {
        Kv {
            cat: self.cat.into_owned(),
            key: self.key.into_owned(),
            value: self.value.into_owned(),
            version: self.version,
            created: Timestamp(self.created),
            updated: Timestamp(self.updated),
        }
    }
}

/// Appends `value` to `out` in the log's form.
pub(crate) fn encode<T: Serialize>(value: &T, out: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    postcard::to_extend(value, out).map_err(|error| RecordError::Malformed(Box::new(error)))
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RecordError> {
    postcard::from_bytes(bytes).map_err(|error| RecordError::Malformed(Box::new(error)))
}

impl<'a> Event<'a> {
    /// Returns what a verified record means.
    pub(crate) fn of(record: &Record<'a>) -> Result<Self, RecordError> {
        let number = record.number;
        Ok(match record.kind {
            Kind::Put => Self::Put(PutEvent::of(number, record::head(record.payload)?)),
            Kind::Delta => Self::Delta { number },
            Kind::Delete => Self::Delete { numbers: decode(record.payload)? },
            Kind::KvPut => Self::KvPut(decode(record.payload)?),
            Kind::KvDelete => {
                let (cat, key) = decode(record.payload)?;
                Self::KvDelete { cat, key }
            }
            Kind::Retire => Self::Retire { below: decode(record.payload)? },
            Kind::Reset => Self::Reset,
            Kind::Close => Self::Close,
        })
    }
}
