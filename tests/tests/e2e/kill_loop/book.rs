//! What was begun, what the server acknowledged, and what must have become of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The accounts of each bank.
pub(super) const ACCOUNTS: [&str; 4] = ["ada", "bo", "cy", "di"];
/// What each begins with; no transfer comes near it.
pub(super) const BALANCE: i64 = 1_000_000_000;

/// Reproducible choices (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// True in `percent` of 100 cases.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let at = self.below(of.len() as u64) as usize;
        of[at]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Saga,
    Tcc,
    Msg,
}

/// One branch: money into or out of an account of a bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leg {
    pub(super) bank: usize,
    pub(super) account: &'static str,
    pub(super) amount: i64,
    pub(super) is_out: bool,
}

/// A transfer: one leg out, two legs in, of the same sum.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) gid: String,
    pub(super) kind: Kind,
    pub(super) legs: [Leg; 3],
    /// Set when only one end is right, whatever is lost on the way.
    pub(super) must: Option<&'static str>,
}

impl Plan {
    pub(super) fn new(gid: String, kind: Kind, dice: &mut Dice) -> Self {
        let from = dice.below(2) as usize;
        let amount = 1 + dice.below(500) as i64;
        let mut leg = |bank, amount, is_out| {
            let account = dice.pick(&ACCOUNTS);
            Leg { bank, account, amount, is_out }
        };
        let legs =
            [leg(from, 2 * amount, true), leg(1 - from, amount, false), leg(from, amount, false)];
        Self { gid, kind, legs, must: None }
    }

    /// The branch ids of the legs. A message's leg out is its local transaction.
    pub(super) fn branch_ids(&self) -> [&'static str; 3] {
        match self.kind {
            Kind::Saga | Kind::Tcc => ["01", "02", "03"],
            Kind::Msg => ["00", "01", "02"],
        }
    }
}

#[derive(Debug)]
struct Entry {
    plan: Plan,
    is_accepted: bool,
    status: String,
}

#[derive(Debug, Default)]
struct Pages {
    entries: BTreeMap<String, Entry>,
    /// Acknowledged and not looked at since.
    news: Vec<String>,
    accepted: usize,
    unknown: u64,
}

/// The test's own record of all transactions.
#[derive(Debug, Default)]
pub(super) struct Book {
    pages: Mutex<Pages>,
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a plan down, before anything of it is sent.
    pub(super) fn begin(&self, plan: &Plan) {
        let entry = Entry { plan: plan.clone(), is_accepted: false, status: String::new() };
        self.pages().entries.insert(plan.gid.clone(), entry);
    }

    /// The server has acknowledged something about it.
    pub(super) fn note_accepted(&self, gid: &str) {
        let mut pages = self.pages();
        let entry = pages.entries.get_mut(gid).unwrap();
        let is_new = !std::mem::replace(&mut entry.is_accepted, true);
        pages.accepted += usize::from(is_new);
        pages.news.push(gid.to_owned());
    }

    /// From now on only one end is right.
    pub(super) fn note_must(&self, gid: &str, end: &'static str) {
        let mut pages = self.pages();
        let must = &mut pages.entries.get_mut(gid).unwrap().plan.must;
        assert!(must.is_none_or(|before| before == end), "{gid}: {must:?} and {end} were promised");
        *must = Some(end);
    }

    pub(super) fn note_unknown(&self) {
        self.pages().unknown += 1;
    }

    /// The server tells a status: what was final must still be the same.
    pub(super) fn note_status(&self, gid: &str, status: &str) {
        let mut pages = self.pages();
        let Some(entry) = pages.entries.get_mut(gid) else {
            panic!("the server tells of {gid}, which nobody has begun")
        };
        let is_final = matches!(entry.status.as_str(), "succeed" | "failed");
        let before = &entry.status;
        assert!(!is_final || before == status, "{gid} was {before} and is {status}");
        status.clone_into(&mut entry.status);
    }

    pub(super) fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut self.pages().news)
    }

    pub(super) fn plan(&self, gid: &str) -> Plan {
        let pages = self.pages();
        pages.entries.get(gid).unwrap_or_else(|| panic!("nobody has begun {gid}")).plan.clone()
    }

    /// Looks at every transaction that was acknowledged, with its last known status.
    pub(super) fn each_accepted(&self, mut look: impl FnMut(&Plan, &str)) {
        for entry in self.pages().entries.values().filter(|entry| entry.is_accepted) {
            look(&entry.plan, &entry.status);
        }
    }

    pub(super) fn begun(&self) -> usize {
        self.pages().entries.len()
    }

    pub(super) fn accepted(&self) -> usize {
        self.pages().accepted
    }

    pub(super) fn unknown(&self) -> u64 {
        self.pages().unknown
    }

    /// How many ended as `succeed` and as `failed`.
    pub(super) fn ends(&self) -> (usize, usize) {
        let pages = self.pages();
        let count = |end: &str| pages.entries.values().filter(|entry| entry.status == end).count();
        (count("succeed"), count("failed"))
    }
}
