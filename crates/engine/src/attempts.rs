//! The last calls of each branch, for people who ask why a transaction does not go on.
//!
//! In memory and bounded: what is forgotten here is in no way part of a transaction. A call that
//! decided nothing costs a look-up and a short text; a success at the first try goes to a ring that
//! overwrites itself, so that the usual case costs next to nothing.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dtmd_protocol::{BranchId, Call, Gid, Op, Outcome, Timestamp};

use crate::hash::{QuickMap, RandomState};

/// Attempts kept of one branch operation.
const PER_BRANCH_MAX: usize = 5;
/// Attempts kept of one transaction.
const PER_GID_MAX: usize = 50;
/// Transactions kept with their attempts; those touched least recently make room.
const GIDS_MAX: usize = 100_000;
/// Attempts kept in all: with the longest texts about 100 MB.
const ATTEMPTS_MAX: usize = 250_000;
/// First-time successes kept in all.
const SUCCESSES_MAX: usize = 8192;
/// Bytes of an error that are kept.
const ERROR_MAX_BYTES: usize = 256;
const SHARDS: usize = 16;

/// One call of one branch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The branch.
    pub branch_id: BranchId,
    /// What it was asked.
    pub op: Op,
    /// Where. It may hold a query or a user name: show it with care.
    pub url: Arc<str>,
    /// When the call began.
    pub at: Timestamp,
    /// Which attempt it was, from 1; starts anew when the branch has answered.
    pub number: u32,
    /// The outcome's word.
    pub outcome: &'static str,
    /// How long it took, waiting for its turn not included.
    pub elapsed: Duration,
    /// The first bytes of what is known of a failure, without control characters.
    pub error: Option<Box<str>>,
}

impl Attempt {
    pub(crate) fn new(call: Call, outcome: &Outcome, at: Timestamp, elapsed: Duration) -> Self {
        let Call { branch_id, op, url, attempt, .. } = call;
        let error = match outcome {
            Outcome::Failure(text) | Outcome::Unknown(text) => Some(first_bytes(text)),
            Outcome::Success | Outcome::Ongoing | Outcome::Postponed(_) => None,
        };
        let outcome = outcome.as_str();
        Self { branch_id, op, url, at, number: attempt, outcome, elapsed, error }
    }

    /// Returns the HTTP status that the service answered, where the error names one.
    pub fn status(&self) -> Option<u16> {
        let rest = self.error.as_deref()?.strip_prefix("HTTP status ")?;
        rest.get(..3)?.parse().ok()
    }

    fn is_of(&self, other: &Self) -> bool {
        self.branch_id == other.branch_id && self.op == other.op
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Attempts {
    // Std mutexes: a look-up and a push each, on one call of many.
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    by_gid: QuickMap<Gid, Kept>,
    /// Who makes room, first to last; a gid is here exactly if it is in `by_gid`.
    queue: VecDeque<Gid>,
    /// Attempts in `by_gid`.
    count: usize,
    successes: VecDeque<(Gid, Attempt)>,
}

#[derive(Debug, Default)]
struct Kept {
    attempts: VecDeque<Attempt>,
    /// Added to since it came to the queue's end: it may stay for another round.
    touched: bool,
}

impl Default for Attempts {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::default() }
    }
}

impl Attempts {
    /// Keeps what a call came to.
    pub(crate) fn record(&self, gid: Gid, attempt: Attempt) {
        let mut shard = self.shard(&gid);
        if attempt.outcome == "success" && attempt.number <= 1 {
            if shard.successes.len() >= SUCCESSES_MAX / SHARDS {
                shard.successes.pop_front();
            }
            shard.successes.push_back((gid, attempt));
        } else {
            shard.keep(gid, attempt);
        }
    }

    /// Returns what is kept of a transaction, oldest first.
    pub(crate) fn of(&self, gid: &Gid) -> Vec<Attempt> {
        let shard = self.shard(gid);
        let kept = shard.by_gid.get(gid).into_iter().flat_map(|kept| kept.attempts.iter());
        let successes = shard.successes.iter().filter(|(of, _)| of == gid).map(|(_, it)| it);
        let mut attempts: Vec<Attempt> = kept.chain(successes).cloned().collect();
        drop(shard);
        attempts.sort_by_key(|attempt| attempt.at);
        attempts.drain(..attempts.len().saturating_sub(PER_GID_MAX));
        attempts
    }

    fn shard(&self, gid: &Gid) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(gid.as_str());
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn keep(&mut self, gid: Gid, attempt: Attempt) {
        match self.by_gid.get_mut(&gid) {
            Some(kept) => {
                kept.touched = true;
                self.count += 1;
                self.count -= kept.push(attempt);
            }
            None => {
                let kept = Kept { attempts: VecDeque::from([attempt]), touched: false };
                self.by_gid.insert(gid.clone(), kept);
                self.queue.push_back(gid);
                self.count += 1;
            }
        }
        self.make_room();
    }

    fn make_room(&mut self) {
        let (gids_max, attempts_max) = (GIDS_MAX / SHARDS, ATTEMPTS_MAX / SHARDS);
        while self.by_gid.len() > gids_max || self.count > attempts_max {
            let Some(gid) = self.queue.pop_front() else { return };
            match self.by_gid.get_mut(&gid) {
                Some(kept) if kept.touched => {
                    kept.touched = false;
                    self.queue.push_back(gid);
                }
                Some(kept) => {
                    self.count -= kept.attempts.len();
                    self.by_gid.remove(&gid);
                }
                None => {}
            }
        }
    }
}

impl Kept {
    /// Adds an attempt; returns how many others it pushed out.
    fn push(&mut self, attempt: Attempt) -> usize {
        let before = self.attempts.len();
        if self.attempts.iter().filter(|kept| kept.is_of(&attempt)).count() >= PER_BRANCH_MAX {
            let oldest = self.attempts.iter().position(|kept| kept.is_of(&attempt));
            oldest.and_then(|index| self.attempts.remove(index));
        } else if before >= PER_GID_MAX {
            self.attempts.pop_front();
        }
        self.attempts.push_back(attempt);
        before + 1 - self.attempts.len()
    }
}

/// Returns the beginning of a text without control characters.
fn first_bytes(text: &str) -> Box<str> {
    let longest = ERROR_MAX_BYTES.min(text.len());
    let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let cut = &text[..end];
    cut.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dtmd_protocol::{CallProtocol, Target};

    use super::*;

    fn gid(text: &str) -> Gid {
        Gid::new(text).unwrap()
    }

    fn call(branch: usize, attempt: u32) -> Call {
        Call {
            target: Target::Branch(branch),
            branch_id: BranchId::new(format!("{branch:02}")).unwrap(),
            op: Op::Action,
            url: Arc::from("http://rm/a"),
            data: Arc::from([]),
            always_post: false,
            protocol: CallProtocol::Http,
            timeout: Duration::from_secs(1),
            attempt,
        }
    }

    fn unknown(branch: usize, attempt: u32, at: i64, text: &str) -> Attempt {
        let outcome = Outcome::Unknown(Arc::from(text));
        Attempt::new(call(branch, attempt), &outcome, Timestamp(at), Duration::ZERO)
    }

    #[test]
    fn the_last_ones_of_each_branch_are_kept() {
        let attempts = Attempts::default();
        for number in 1..=9 {
            attempts.record(gid("g"), unknown(1, number, number.into(), "down"));
        }
        attempts.record(gid("g"), unknown(2, 1, 100, "HTTP status 503: a\nb"));
        let success = Attempt::new(call(3, 1), &Outcome::Success, Timestamp(4), Duration::ZERO);
        attempts.record(gid("g"), success);
        let kept: Vec<_> =
            attempts.of(&gid("g")).iter().map(|a| (a.branch_id.to_string(), a.number)).collect();
        let one = |number| ("01".to_owned(), number);
        let (two, three) = (("02".to_owned(), 1), ("03".to_owned(), 1));
        assert_eq!(kept, [three, one(5), one(6), one(7), one(8), one(9), two]);
        let last = attempts.of(&gid("g")).pop().unwrap();
        assert_eq!(last.error.as_deref(), Some("HTTP status 503: a b"));
        assert_eq!(last.status(), Some(503));
        assert!(attempts.of(&gid("other")).is_empty());
    }

    #[test]
    fn everything_is_bounded() {
        let attempts = Attempts::default();
        for branch in 0..80 {
            attempts.record(gid("wide"), unknown(branch, 1, 1, "x"));
        }
        assert_eq!(attempts.of(&gid("wide")).len(), PER_GID_MAX);
        let long = "ä".repeat(4000);
        attempts.record(gid("long"), unknown(1, 1, 1, &long));
        assert_eq!(attempts.of(&gid("long"))[0].error.as_deref().unwrap().len(), ERROR_MAX_BYTES);
        // One shard is as good as all: what it holds is its share.
        let mut shard = Shard::default();
        let share = GIDS_MAX / SHARDS;
        shard.keep(gid("busy"), unknown(1, 1, 1, "x"));
        for number in 0..share + 100 {
            shard.keep(gid(&format!("g{number}")), unknown(1, 1, 1, "x"));
            shard.keep(gid("busy"), unknown(1, 1, 1, "x"));
        }
        assert_eq!((shard.by_gid.len(), shard.queue.len()), (share, share));
        assert!(shard.by_gid.contains_key(&gid("busy")), "what goes on stays");
        assert!(!shard.by_gid.contains_key(&gid("g0")));
        let counted: usize = shard.by_gid.values().map(|kept| kept.attempts.len()).sum();
        assert_eq!(shard.count, counted);
        for number in 0..1000 {
            for branch in 0..40 {
                shard.keep(gid(&format!("many{number}")), unknown(branch, 1, 1, "x"));
            }
        }
        assert!(shard.count <= ATTEMPTS_MAX / SHARDS);
        for _ in 0..2 * SUCCESSES_MAX {
            let success = Attempt::new(call(1, 1), &Outcome::Success, Timestamp(1), Duration::ZERO);
            attempts.record(gid("s"), success);
        }
        let ring: usize = attempts.shards.iter().map(|s| s.lock().unwrap().successes.len()).sum();
        assert!(ring <= SUCCESSES_MAX);
    }
}
