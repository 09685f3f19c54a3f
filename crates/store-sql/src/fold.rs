//! What a batch does to each global and key: several writes of one become one.

use std::collections::BTreeMap;
use std::sync::Arc;

use dtmd_protocol::{Global, GlobalStatus, Timestamp};
use dtmd_store::{Lease, Write, WriteError};

use crate::mark::Mark;

/// The result of one write, with its place in the batch.
pub(crate) type Answer = (usize, Result<(), WriteError>);

/// The writes of a batch, in the order in which rows are locked: of every batch of every server
/// the same, so that two never wait for one another.
pub(crate) struct Batch<'a> {
    pub(crate) globals: BTreeMap<&'a str, Vec<(usize, &'a Write)>>,
    pub(crate) keys: BTreeMap<(&'a str, &'a str), Vec<(usize, &'a Write)>>,
}

impl<'a> Batch<'a> {
    pub(crate) fn of(writes: &'a [Write]) -> Self {
        let mut batch = Self { globals: BTreeMap::new(), keys: BTreeMap::new() };
        for (index, write) in writes.iter().enumerate() {
            let gid = match write {
                Write::Create(global) => global.gid.as_str(),
                Write::Update { before, .. } => before.gid.as_str(),
                Write::Lease(lease) => lease.gid.as_str(),
                Write::Kv { cat, key, .. } => {
                    batch.keys.entry((cat, key)).or_default().push((index, write));
                    continue;
                }
            };
            batch.globals.entry(gid).or_default().push((index, write));
        }
        batch
    }
}

/// Whether the first write of a global is its creation: then nothing needs to be read before.
pub(crate) fn creates(writes: &[(usize, &Write)]) -> bool {
    matches!(writes.first(), Some((_, Write::Create(_))))
}

/// Returns how many branches the first change of a global that is still prepared believes in.
/// A DTM server registers branches without touching the global's row.
pub(crate) fn believed_branches(writes: &[(usize, &Write)]) -> Option<usize> {
    let updates = writes.iter().find_map(|(_, write)| match write {
        Write::Update { before, .. } => Some(before),
        Write::Create(_) | Write::Lease(_) | Write::Kv { .. } => None,
    });
    updates
        .filter(|before| before.status == GlobalStatus::Prepared)
        .map(|before| before.branches.len())
}

/// What is to be written for one global.
#[derive(Debug)]
pub(crate) enum Change {
    /// A new row with its branches.
    Insert(Arc<Global>),
    /// A later state of a row.
    Update { before: Arc<Global>, after: Arc<Global> },
    /// Owner, epoch and wake-up only.
    Lease(Lease),
}

impl Change {
    pub(crate) fn gid(&self) -> &str {
        match self {
            Self::Insert(global) => global.gid.as_str(),
            Self::Update { after, .. } => after.gid.as_str(),
            Self::Lease(lease) => lease.gid.as_str(),
        }
    }
}

/// A global while the writes of a batch go over it.
struct Folded {
    revision: u64,
    epoch: u64,
    change: Option<Change>,
}

/// Folds the writes of one global, given what is stored; returns the change, if there is any, and
/// the answers.
///
/// `branches` is how many branches are stored; it counts for a global that is still prepared.
pub(crate) fn fold(
    writes: &[(usize, &Write)],
    stored: Option<&Mark>,
    branches: usize,
) -> (Option<Change>, Vec<Answer>) {
    let mut folded =
        stored.map(|mark| Folded { revision: mark.revision(), epoch: mark.epoch(), change: None });
    let strangers = believed_branches(writes).is_some_and(|believed| believed != branches);
    let mut answers = Vec::with_capacity(writes.len());
    for &(index, write) in writes {
        answers.push((index, apply(write, &mut folded, strangers)));
    }
    (folded.and_then(|folded| folded.change), answers)
}

fn apply(write: &Write, slot: &mut Option<Folded>, strangers: bool) -> Result<(), WriteError> {
    let conflict = |gid: &str| Err(WriteError::Conflict(gid.to_owned()));
    let missing = |gid: &str| Err(WriteError::NotFound(gid.to_owned()));
    match (write, slot.as_mut()) {
        (Write::Create(global), Some(_)) => Err(WriteError::AlreadyExists(global.gid.to_string())),
        (Write::Create(global), None) => {
            let change = Some(Change::Insert(global.clone()));
            *slot = Some(Folded { revision: global.revision.0, epoch: global.epoch, change });
            Ok(())
        }
        (Write::Update { before, .. }, None) => missing(before.gid.as_str()),
        (Write::Update { before, after }, Some(folded)) => {
            let believed = (before.revision.0, before.epoch);
            // Once one change of the batch holds, its branches are known.
            let doubtful = strangers && matches!(folded.change, Some(Change::Lease(_)) | None);
            if believed != (folded.revision, folded.epoch) || doubtful {
                return conflict(before.gid.as_str());
            }
            folded.change = Some(match folded.change.take() {
                Some(Change::Insert(_)) => Change::Insert(after.clone()),
                Some(Change::Update { before: first, .. }) => {
                    Change::Update { before: first, after: after.clone() }
                }
                Some(Change::Lease(_)) | None => {
                    Change::Update { before: before.clone(), after: after.clone() }
                }
            });
            (folded.revision, folded.epoch) = (after.revision.0, after.epoch);
            Ok(())
        }
        (Write::Lease(lease), None) => missing(lease.gid.as_str()),
        (Write::Lease(lease), Some(folded)) => {
            if (lease.revision.0, lease.epoch) != (folded.revision, folded.epoch) {
                return conflict(lease.gid.as_str());
            }
            folded.change = Some(match folded.change.take() {
                Some(Change::Insert(global)) => Change::Insert(leased(&global, lease)),
                Some(Change::Update { before, after }) => {
                    Change::Update { before, after: leased(&after, lease) }
                }
                Some(Change::Lease(_)) | None => Change::Lease(lease.clone()),
            });
            folded.epoch = lease.new_epoch;
            Ok(())
        }
        (Write::Kv { .. }, _) => Ok(()),
    }
}

/// Returns the global under a lease.
pub(crate) fn leased(global: &Arc<Global>, lease: &Lease) -> Arc<Global> {
    let mut global = Global::clone(global);
    global.owner = lease.owner.clone();
    global.epoch = lease.new_epoch;
    global.wake_at = lease.wake_at;
    Arc::new(global)
}

/// A stored key, as far as its writers care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvMark {
    pub(crate) version: u64,
    pub(crate) write: Option<i64>,
}

/// What is to be written for one key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KvChange<'a> {
    /// A key that does not exist.
    Insert {
        value: &'a str,
        version: u64,
        now: Timestamp,
    },
    /// Another value; `created` if the key was deleted and made again.
    Replace {
        value: &'a str,
        version: u64,
        now: Timestamp,
        created: Option<Timestamp>,
    },
    Delete,
}

/// Folds the writes of one key, given what is stored.
pub(crate) fn fold_kv<'a>(
    writes: &[(usize, &'a Write)],
    stored: Option<KvMark>,
) -> (Option<KvChange<'a>>, Vec<Answer>) {
    let mut version = stored.map(|mark| mark.version);
    let mut created = None;
    let mut last: Option<(Option<&str>, Timestamp)> = None;
    let mut answers = Vec::with_capacity(writes.len());
    for &(index, write) in writes {
        let Write::Kv { cat, key, expected, value, now } = write else { continue };
        let name = || format!("{cat}/{key}");
        let answer = match version {
            Some(_) if *expected == 0 => Err(WriteError::AlreadyExists(name())),
            None if *expected != 0 => Err(WriteError::NotFound(name())),
            Some(version) if version != *expected => Err(WriteError::Conflict(name())),
            Some(_) | None => Ok(()),
        };
        if answer.is_ok() {
            created = if version.is_none() { Some(*now) } else { created };
            version = value.as_ref().map(|_| expected + 1);
            last = Some((value.as_deref(), *now));
        }
        answers.push((index, answer));
    }
    let change = match (last, version, stored) {
        (Some((Some(value), now)), Some(version), Some(_)) => {
            Some(KvChange::Replace { value, version, now, created })
        }
        (Some((Some(value), now)), Some(version), None) => {
            Some(KvChange::Insert { value, version, now: created.unwrap_or(now) })
        }
        (Some((None, _)), _, Some(_)) => Some(KvChange::Delete),
        _ => None,
    };
    (change, answers)
}
