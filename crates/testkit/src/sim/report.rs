//! The sum of many worlds, and what it must hold to count as a proof.

use std::collections::BTreeMap;
use std::fmt;

use super::{Absorbed, Coverage, FaultKind, Played};

/// The sum of many worlds.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Worlds played.
    pub worlds: u64,
    /// Of them with one server and its journal.
    pub embedded: u64,
    /// Transactions begun.
    pub transactions: u64,
    /// Events that happened.
    pub events: u64,
    /// Faults that happened.
    pub faults: BTreeMap<FaultKind, u64>,
    /// What barriers absorbed.
    pub absorbed: Absorbed,
    /// What was reached.
    pub coverage: Coverage,
    /// The longest time any world took to end after its last fault, in microseconds.
    pub settled_in: u64,
    /// All hashes folded into one.
    pub hash: u64,
}

impl Report {
    /// Adds a world.
    pub fn add(&mut self, played: &Played) {
        self.worlds += 1;
        self.embedded += u64::from(played.embedded);
        self.transactions += played.transactions;
        self.events += played.events;
        for (_, kind) in &played.injected {
            *self.faults.entry(*kind).or_default() += 1;
        }
        self.absorbed.null_compensations += played.absorbed.null_compensations;
        self.absorbed.hanging += played.absorbed.hanging;
        self.absorbed.duplicates += played.absorbed.duplicates;
        self.absorbed.commits_refused += played.absorbed.commits_refused;
        self.absorbed.xa_waits += played.absorbed.xa_waits;
        self.coverage.add(&played.coverage);
        self.settled_in = self.settled_in.max(played.settled_in);
        self.hash ^= played.hash.rotate_left(u32::try_from(played.seed % 64).unwrap_or(0));
    }

    /// Adds the sum of other worlds.
    pub fn merge(&mut self, other: &Report) {
        self.worlds += other.worlds;
        self.embedded += other.embedded;
        self.transactions += other.transactions;
        self.events += other.events;
        for (kind, count) in &other.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        self.absorbed.null_compensations += other.absorbed.null_compensations;
        self.absorbed.hanging += other.absorbed.hanging;
        self.absorbed.duplicates += other.absorbed.duplicates;
        self.absorbed.commits_refused += other.absorbed.commits_refused;
        self.absorbed.xa_waits += other.absorbed.xa_waits;
        self.coverage.add(&other.coverage);
        self.settled_in = self.settled_in.max(other.settled_in);
        self.hash ^= other.hash;
    }

    /// Returns how many servers died.
    pub fn crashes(&self) -> u64 {
        let count = |kind| self.faults.get(&kind).copied().unwrap_or(0);
        count(FaultKind::Crash) + count(FaultKind::CrashAfterWrite)
    }

    /// Returns the report as a few long lines: totals, faults, absorbed, rows, calls.
    pub fn lines(&self) -> Vec<String> {
        let listed = |pairs: Vec<(String, u64)>| {
            let pairs: Vec<String> =
                pairs.into_iter().map(|(what, count)| format!("{what} {count}")).collect();
            pairs.join(", ")
        };
        let faults = FaultKind::ALL
            .iter()
            .map(|kind| (kind.name().to_owned(), self.faults.get(kind).copied().unwrap_or(0)));
        let moves =
            self.coverage.moves.iter().map(|((trans_type, from, to), count)| {
                (format!("{trans_type} {from}->{to}"), *count)
            });
        let calls = self.coverage.calls.iter();
        let calls = calls.map(|((trans_type, op), count)| (format!("{trans_type} {op}"), *count));
        let absorbed = &self.absorbed;
        vec![
            format!(
                "{} transactions in {} worlds ({} with a journal), {} events, {} server crashes",
                self.transactions,
                self.worlds,
                self.embedded,
                self.events,
                self.crashes()
            ),
            format!("faults: {}", listed(faults.collect())),
            format!(
                "absorbed: {} null compensations, {} hanging actions, {} duplicates, {} local \
                 commits refused, {} xa rollbacks waited",
                absorbed.null_compensations,
                absorbed.hanging,
                absorbed.duplicates,
                absorbed.commits_refused,
                absorbed.xa_waits
            ),
            format!("rows: {}", listed(moves.collect())),
            format!("calls: {}", listed(calls.collect())),
        ]
    }

    /// Returns what should have been reached and was not: kinds of faults that never happened, rows
    /// of tables and calls that were not seen, barrier cases that did not occur.
    pub fn missing(&self) -> Vec<String> {
        let kinds = FaultKind::ALL.iter().filter(|kind| !self.faults.contains_key(kind));
        let mut missing: Vec<String> =
            kinds.map(|kind| format!("fault never injected: {}", kind.name())).collect();
        let Absorbed { null_compensations, hanging, duplicates, commits_refused, xa_waits } =
            self.absorbed;
        for (what, count) in [
            ("null compensation", null_compensations),
            ("hanging action", hanging),
            ("duplicate", duplicates),
            ("refused local commit", commits_refused),
            ("xa rollback that waits", xa_waits),
        ] {
            if count == 0 {
                missing.push(format!("barrier case never seen: {what}"));
            }
        }
        missing.extend(self.coverage.missing());
        missing
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} transactions in {} worlds ({} embedded), {} events, {} server crashes",
            self.transactions,
            self.worlds,
            self.embedded,
            self.events,
            self.crashes()
        )?;
        writeln!(f, "faults:")?;
        for kind in FaultKind::ALL {
            let count = self.faults.get(kind).copied().unwrap_or(0);
            writeln!(f, "  {:<30} {count:>12}", kind.name())?;
        }
        let absorbed = &self.absorbed;
        writeln!(f, "absorbed:")?;
        writeln!(f, "  {:<30} {:>12}", "null compensations", absorbed.null_compensations)?;
        writeln!(f, "  {:<30} {:>12}", "hanging actions blocked", absorbed.hanging)?;
        writeln!(f, "  {:<30} {:>12}", "duplicates", absorbed.duplicates)?;
        writeln!(f, "  {:<30} {:>12}", "local commits refused", absorbed.commits_refused)?;
        writeln!(f, "  {:<30} {:>12}", "xa rollbacks that waited", absorbed.xa_waits)?;
        writeln!(f, "  {:<30} {:>12}", "taken over by the claimer", self.coverage.claimed)?;
        writeln!(f, "moves:")?;
        for ((trans_type, from, to), count) in &self.coverage.moves {
            let row = format!("{trans_type}: {from} -> {to}");
            writeln!(f, "  {row:<30} {count:>12}")?;
        }
        writeln!(f, "calls:")?;
        for ((trans_type, op), count) in &self.coverage.calls {
            writeln!(f, "  {:<30} {count:>12}", format!("{trans_type}: {op}"))?;
        }
        writeln!(f, "ends:")?;
        for ((trans_type, status), count) in &self.coverage.ends {
            writeln!(f, "  {:<30} {count:>12}", format!("{trans_type}: {status}"))?;
        }
        let minutes = self.settled_in / 60_000_000;
        writeln!(f, "longest quiet phase: {minutes} simulated minutes; hash {:016x}", self.hash)
    }
}
