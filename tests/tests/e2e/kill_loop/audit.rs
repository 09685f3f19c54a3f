//! Balances and barrier rows, read from the banks' own files.
//!
//! Barrier rows are only ever added, so each look reads on where the last one ended and keeps what
//! the balances must be.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::book::{ACCOUNTS, BALANCE, Book, Kind, Plan};

/// Balance, frozen, incoming.
type Holdings = [i64; 3];

#[derive(Debug)]
struct Books {
    file: Connection,
    read_to: i64,
    /// (gid, branch id, op) to the op that wrote the row.
    rows: HashMap<(String, String, String), String>,
    expected: BTreeMap<&'static str, Holdings>,
}

/// Both banks.
#[derive(Debug)]
pub(super) struct Audit {
    banks: [Books; 2],
}

impl Audit {
    pub(super) fn open(a: &Path, b: &Path) -> Self {
        let open = |path: &Path| Books {
            file: Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap(),
            read_to: 0,
            rows: HashMap::new(),
            expected: ACCOUNTS.iter().map(|name| (*name, [BALANCE, 0, 0])).collect(),
        };
        Self { banks: [open(a), open(b)] }
    }

    /// Reads on, and checks that every account holds what the barrier rows amount to, at this
    /// moment, in whatever state the transactions are.
    pub(super) fn read(&mut self, book: &Book) {
        for (at, bank) in self.banks.iter_mut().enumerate() {
            bank.read(at, book);
        }
    }

    /// Checks what a quiet phase must have come to (reliability.md I1–I7, I13).
    ///
    /// # Errors
    /// Names the first transaction that did not, and what is wrong with it.
    pub(super) fn check_settled(&self, book: &Book) -> Result<(), (String, String)> {
        let mut wrong = None;
        book.each_accepted(|plan, status| {
            if wrong.is_none()
                && let Err(why) = self.check_one(plan, status)
            {
                wrong = Some((plan.gid.clone(), why));
            }
        });
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        let mut total = 0;
        for bank in &self.banks {
            for (account, [balance, frozen, incoming]) in &bank.expected {
                assert_eq!((*frozen, *incoming), (0, 0), "{account}: a try without an end");
                total += balance;
            }
        }
        let opened = 2 * ACCOUNTS.len() as i64 * BALANCE;
        assert_eq!(total, opened, "money was made or lost");
        Ok(())
    }

    fn check_one(&self, plan: &Plan, status: &str) -> Result<(), String> {
        if !matches!(status, "succeed" | "failed") {
            return Err(format!("it is {status:?}, not final"));
        }
        match plan.must {
            Some(must) if must != status => {
                Err(format!("it is {status}, but {must} was promised: {plan:?}"))
            }
            _ => self.check_effects(plan, status == "succeed"),
        }
    }

    /// Each effect is there once and stays, or is not there or undone.
    fn check_effects(&self, plan: &Plan, is_done: bool) -> Result<(), String> {
        let ids = plan.branch_ids();
        for (leg, branch_id) in plan.legs.iter().zip(ids) {
            let row = |op: &str| {
                let key = (plan.gid.clone(), branch_id.to_owned(), op.to_owned());
                self.banks[leg.bank].rows.get(&key).map(String::as_str)
            };
            let (forward, done, back) = match plan.kind {
                Kind::Saga => ("action", "action", "compensate"),
                Kind::Tcc => ("try", "confirm", "cancel"),
                Kind::Msg if branch_id == "00" => ("msg", "msg", "rollback"),
                Kind::Msg => ("action", "action", "compensate"),
            };
            let ran = row(forward) == Some(forward);
            let undone = row(back) == Some(back);
            let wrong = if is_done && !(ran && row(done) == Some(done) && !undone) {
                "an effect is missing"
            } else if !is_done && plan.kind == Kind::Msg && ran {
                "a message that failed had an effect"
            } else if !is_done && plan.kind != Kind::Msg && ran && !undone {
                "an effect was left"
            } else if !is_done && done != forward && row(done).is_some() {
                "it was confirmed and failed"
            } else {
                continue;
            };
            let rows = [forward, done, back].map(|op| (op, row(op)));
            return Err(format!("{wrong}: branch {branch_id}, rows {rows:?}, {plan:?}"));
        }
        Ok(())
    }
}

impl Books {
    fn read(&mut self, at: usize, book: &Book) {
        // One snapshot for rows and balances.
        self.file.execute_batch("begin").unwrap();
        for (id, key, reason) in self.new_rows() {
            self.read_to = id;
            if self.apply(at, &book.plan(&key.0), &key, &reason).is_none() {
                panic!("bank {at} has a row that no plan explains: {key:?} {reason}");
            }
            assert!(self.rows.insert(key.clone(), reason).is_none(), "{key:?} is there twice");
        }
        let held = self.held();
        self.file.execute_batch("commit").unwrap();
        let expected: Vec<_> =
            self.expected.iter().map(|(name, sums)| ((*name).to_owned(), *sums)).collect();
        assert_eq!(held, expected, "bank {at}: balances and barrier rows do not agree");
    }

    fn new_rows(&self) -> Vec<(i64, (String, String, String), String)> {
        let sql = "select id, gid, branch_id, op, reason from barrier where id > ?1 order by id";
        let mut query = self.file.prepare_cached(sql).unwrap();
        let rows = query.query_map([self.read_to], |row| {
            Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?), row.get(4)?))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn held(&self) -> Vec<(String, Holdings)> {
        let sql = "select name, balance, frozen, incoming from account order by name";
        let mut query = self.file.prepare_cached(sql).unwrap();
        let rows =
            query.query_map([], |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?])));
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// Adds what a barrier row stands for; `None` if there is no such branch at this bank.
    fn apply(
        &mut self,
        at: usize,
        plan: &Plan,
        (_, branch_id, op): &(String, String, String),
        reason: &str,
    ) -> Option<()> {
        let nth = plan.branch_ids().iter().position(|id| id == branch_id)?;
        let leg = plan.legs[nth];
        if leg.bank != at {
            return None;
        }
        let origin = match op.as_str() {
            "compensate" => "action",
            "cancel" => "try",
            _ => "",
        };
        let key = (plan.gid.clone(), branch_id.clone(), origin.to_owned());
        let is_null = !origin.is_empty() && self.rows.get(&key).is_none_or(|by| by != origin);
        if reason != op || is_null {
            // A row that keeps its op out, or the undoing of nothing.
            return Some(());
        }
        let amount = leg.amount;
        let change = match (op.as_str(), leg.is_out) {
            ("action" | "msg", true) | ("compensate", false) => [-amount, 0, 0],
            ("action", false) | ("compensate", true) => [amount, 0, 0],
            ("try", true) => [0, amount, 0],
            ("try", false) => [0, 0, amount],
            ("confirm", true) => [-amount, -amount, 0],
            ("confirm", false) => [amount, 0, -amount],
            ("cancel", true) => [0, -amount, 0],
            ("cancel", false) => [0, 0, -amount],
            _ => return None,
        };
        let sums = self.expected.get_mut(leg.account)?;
        for (sum, by) in sums.iter_mut().zip(change) {
            *sum += by;
        }
        Some(())
    }
}
