//! The statements that write: rows of many globals in each.

use std::collections::HashMap;

use dtmd_protocol::{Branch, Global, GlobalStatus, Timestamp};
use dtmd_store::{BoxError, Lease, record};

use crate::clock::Clock;
use crate::error::DbError;
use crate::fold::{Change, KvChange};
use crate::mark::{Mark, seal};
use crate::options_json;
use crate::rows::{op_key, owner_key};
use crate::text::{Dialect, clamp};

/// A statement longer than this is ended, and another begun.
const STATEMENT_BYTES: usize = 512 * 1024;

/// Every column of a global but `id`.
const ALL: &[&str] = &[
    "gid",
    "trans_type",
    "query_prepared",
    "protocol",
    "create_time",
    "options",
    "custom_data",
    "ext_data",
    "status",
    "update_time",
    "finish_time",
    "rollback_time",
    "next_cron_interval",
    "result",
    "rollback_reason",
    "dtmd_revision",
    "dtmd_ended",
    "dtmd_record",
    "next_cron_time",
    "owner",
    "dtmd_epoch",
    "dtmd_write",
    "dtmd_seal",
    "dtmd_wake",
];
/// What nearly every change writes; the columns before it in [`ALL`] hardly ever change.
const SELDOM: usize = 8;
/// What a lease writes: the end of [`ALL`].
const LEASE: usize = 18;
/// DTM's columns that must not be null; an insert names them although the row exists.
const PLACEHOLDERS: usize = 4;

const BRANCH: &[&str] = &[
    "gid",
    "branch_id",
    "op",
    "url",
    "bin_data",
    "status",
    "create_time",
    "update_time",
    "finish_time",
];

/// Rows for one statement at a time.
struct Rows {
    head: String,
    tail: String,
    statements: Vec<String>,
}

impl Rows {
    fn new(table: &str, columns: &[&str], tail: String) -> Self {
        let head = format!("insert into {table} ({}) values ", columns.join(","));
        Self { head, tail, statements: Vec::new() }
    }

    /// Begins a row; what is appended to the result, up to `)`, is its values.
    fn row(&mut self) -> &mut String {
        let full = self.statements.last().is_none_or(|last| last.len() > STATEMENT_BYTES);
        if full {
            self.statements.push(self.head.clone());
        }
        let at = self.statements.len() - 1;
        let statement = &mut self.statements[at];
        statement.push_str(if full { "(" } else { ",(" });
        statement
    }

    fn finish(self, out: &mut Vec<String>) {
        out.extend(self.statements.into_iter().map(|statement| statement + &self.tail));
    }
}

/// Collects what a transaction writes.
pub(crate) struct Writer<'a> {
    dialect: &'a Dialect,
    clock: &'a Clock,
    /// Names the batch in every row that it writes.
    nonce: i64,
    inserts: Rows,
    updates: Rows,
    seldom: Rows,
    leases: Rows,
    branches: Rows,
    statuses: Rows,
    contents: Rows,
    deletes: Vec<String>,
    keys: Vec<String>,
    clears_branches: bool,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(dialect: &'a Dialect, clock: &'a Clock, nonce: i64) -> Self {
        let globals = |columns: &[&str], changed: &[&str]| {
            let tail = match changed {
                [] => String::new(),
                changed => dialect.on_conflict("gid", changed),
            };
            Rows::new(&dialect.globals, columns, tail)
        };
        let usual: Vec<&str> = ALL[..PLACEHOLDERS].iter().chain(&ALL[SELDOM..]).copied().collect();
        let lease: Vec<&str> =
            ALL[..PLACEHOLDERS].iter().chain(&["status"]).chain(&ALL[LEASE..]).copied().collect();
        // `ext_data` stays as it is.
        let changed: Vec<&str> =
            ALL[1..].iter().filter(|name| **name != "ext_data").copied().collect();
        let on_branch = |changed: &[&str]| dialect.on_conflict("gid,branch_id,op", changed);
        let branches = |tail| Rows::new(&dialect.branches, BRANCH, tail);
        Self {
            dialect,
            clock,
            nonce,
            inserts: globals(ALL, &[]),
            updates: globals(&usual, &ALL[SELDOM..]),
            seldom: globals(ALL, &changed),
            leases: globals(&lease, &ALL[LEASE..]),
            branches: branches(String::new()),
            statuses: branches(on_branch(&["status", "update_time", "finish_time"])),
            contents: branches(on_branch(&BRANCH[3..])),
            deletes: Vec::new(),
            keys: Vec::new(),
            clears_branches: false,
        }
    }

    /// Deletes the branches that lie under the gid of a new global, left over from another one.
    pub(crate) fn clears_branches(&mut self, clears: bool) {
        self.clears_branches = clears;
    }

    /// Puts off a global that cannot be read: only its `next_cron_time` moves.
    pub(crate) fn put_off(&mut self, id: i64, until: Timestamp) {
        let mut statement = format!("update {} set next_cron_time=", self.dialect.globals);
        let seconds = self.clock.to_database(until).div_euclid(1_000_000);
        self.dialect.time(&mut statement, Some(seconds));
        statement.push_str(&format!(" where id={id}"));
        self.deletes.push(statement);
    }

    /// Adds a change of a global.
    ///
    /// # Errors
    ///
    /// If its record cannot be written; no global of the protocol is such.
    pub(crate) fn change(&mut self, change: &Change, mark: Option<&Mark>) -> Result<(), DbError> {
        match change {
            Change::Insert(global) => {
                self.head(Kind::Insert, global)?;
                if self.clears_branches {
                    let mut statement = format!("delete from {} where gid=", self.dialect.branches);
                    self.dialect.text(&mut statement, global.gid.as_str());
                    self.deletes.push(statement);
                }
                for branch in &global.branches {
                    let row = self.branches.row();
                    write_branch(self.dialect, row, global.gid.as_str(), branch, true);
                }
            }
            Change::Update { before, after } => {
                let kind = if is_seldom(before, after) { Kind::Seldom } else { Kind::Usual };
                self.head(kind, after)?;
                self.change_branches(before, after);
            }
            Change::Lease(lease) => self.lease(lease, mark.map_or("", |mark| &mark.status)),
        }
        Ok(())
    }

    fn head(&mut self, kind: Kind, global: &Global) -> Result<(), DbError> {
        let (dialect, clock, nonce) = (self.dialect, self.clock, self.nonce);
        let record = slim(global).map_err(|error| DbError::other(error.to_string()))?;
        let out = match kind {
            Kind::Insert => self.inserts.row(),
            Kind::Usual => self.updates.row(),
            Kind::Seldom => self.seldom.row(),
        };
        dialect.text(out, global.gid.as_str());
        out.push(',');
        dialect.text(out, global.trans_type().as_str());
        match kind {
            Kind::Usual => out.push_str(",'',''"),
            Kind::Insert | Kind::Seldom => {
                out.push(',');
                dialect.text(out, &global.query_prepared);
                out.push(',');
                dialect.text(out, global.protocol.as_str());
                out.push(',');
                dialect.time(out, Some(global.created.seconds()));
                out.push(',');
                dialect.text(out, &options_json::write(&global.options));
                out.push(',');
                dialect.text(out, &global.custom_data);
                out.push_str(",''");
            }
        }
        out.push(',');
        dialect.text(out, global.status.as_str());
        for time in [Some(global.updated), global.finished, global.rolled_back] {
            out.push(',');
            dialect.time(out, time.map(|time| time.seconds()));
        }
        out.push(',');
        Dialect::number(out, whole_seconds(global.interval));
        for text in [&global.result, &global.rollback_reason] {
            out.push(',');
            dialect.text(out, text);
        }
        out.push(',');
        Dialect::number(out, global.revision.0.cast_signed());
        out.push(',');
        match ended_at(global) {
            Some(ended) => Dialect::number(out, ended),
            None => out.push_str("null"),
        }
        out.push(',');
        dialect.bytes(out, &record);
        let wake = clock.to_database(global.wake_at);
        let held = Held { status: global.status.as_str(), owner: &global.owner, wake };
        held.write(dialect, out, global.epoch, nonce);
        Ok(())
    }

    fn lease(&mut self, lease: &Lease, status: &str) {
        let (dialect, wake) = (self.dialect, self.clock.to_database(lease.wake_at));
        let out = self.leases.row();
        dialect.text(out, lease.gid.as_str());
        out.push_str(",'','','',");
        dialect.text(out, status);
        let held = Held { status, owner: &lease.owner, wake };
        held.write(dialect, out, lease.new_epoch, self.nonce);
    }

    /// Writes the branches that differ. They are found by their key, (branch id, op); in practice
    /// they are where they were.
    fn change_branches(&mut self, before: &Global, after: &Global) {
        let gid = after.gid.as_str();
        let key = |branch: &Branch| (branch.branch_id.clone(), branch.op.clone());
        let is_same =
            |old: &Branch, new: &Branch| old.branch_id == new.branch_id && old.op == new.op;
        let in_place = before.branches.len() <= after.branches.len()
            && before.branches.iter().zip(&after.branches).all(|(old, new)| is_same(old, new));
        if in_place {
            let (kept, added) = after.branches.split_at(before.branches.len());
            for (old, new) in before.branches.iter().zip(kept) {
                self.change_branch(gid, old, new);
            }
            for new in added {
                write_branch(self.dialect, self.branches.row(), gid, new, true);
            }
            return;
        }
        let mut old: HashMap<_, &Branch> =
            before.branches.iter().map(|one| (key(one), one)).collect();
        for new in &after.branches {
            match old.remove(&key(new)) {
                Some(old) => self.change_branch(gid, old, new),
                None => write_branch(self.dialect, self.branches.row(), gid, new, true),
            }
        }
        for gone in old.into_values() {
            let mut statement = format!("delete from {} where gid=", self.dialect.branches);
            self.dialect.text(&mut statement, gid);
            statement.push_str(" and branch_id=");
            self.dialect.text(&mut statement, gone.branch_id.as_str());
            statement.push_str(" and op=");
            self.dialect.text(&mut statement, &op_key(&gone.op));
            self.deletes.push(statement);
        }
    }

    fn change_branch(&mut self, gid: &str, old: &Branch, new: &Branch) {
        if old.url != new.url || old.data != new.data || old.created != new.created {
            write_branch(self.dialect, self.contents.row(), gid, new, true);
        } else if (old.status, old.updated, old.finished) != (new.status, new.updated, new.finished)
        {
            write_branch(self.dialect, self.statuses.row(), gid, new, false);
        }
    }

    /// Adds a change of a key.
    pub(crate) fn key(&mut self, cat: &str, key: &str, change: &KvChange<'_>) {
        let (dialect, nonce) = (self.dialect, self.nonce);
        let mut out = String::new();
        let condition = |out: &mut String| {
            out.push_str(" where cat=");
            dialect.text(out, cat);
            out.push_str(" and k=");
            dialect.text(out, key);
        };
        match change {
            KvChange::Insert { value, version, now } => {
                out.push_str(&format!(
                    "insert into {} (cat,k,v,version,create_time,update_time,dtmd_created,\
                     dtmd_updated,dtmd_write) values (",
                    dialect.kv
                ));
                dialect.texts_in_row(&mut out, &[cat, key, value]);
                out.push_str(&format!(",{version}"));
                for _ in 0..2 {
                    out.push(',');
                    dialect.time(&mut out, Some(now.seconds()));
                }
                out.push_str(&format!(",{},{},{nonce})", now.0, now.0));
            }
            KvChange::Replace { value, version, now, created } => {
                out.push_str(&format!("update {} set v=", dialect.kv));
                dialect.text(&mut out, value);
                out.push_str(&format!(",version={version},update_time="));
                dialect.time(&mut out, Some(now.seconds()));
                out.push_str(&format!(",dtmd_updated={},dtmd_write={nonce}", now.0));
                if let Some(created) = created {
                    out.push_str(",create_time=");
                    dialect.time(&mut out, Some(created.seconds()));
                    out.push_str(&format!(",dtmd_created={}", created.0));
                }
                condition(&mut out);
            }
            KvChange::Delete => {
                out.push_str(&format!("delete from {}", dialect.kv));
                condition(&mut out);
            }
        }
        self.keys.push(out);
    }

    /// Returns the statements that write everything; `begin` opens the transaction if it is not
    /// open yet. The last one is the commit.
    pub(crate) fn statements(self, begin: bool) -> Vec<String> {
        let mut statements = Vec::new();
        if begin {
            statements.push("begin".to_owned());
        }
        for rows in [self.inserts, self.updates, self.seldom, self.leases] {
            rows.finish(&mut statements);
        }
        statements.extend(self.deletes);
        for rows in [self.branches, self.statuses, self.contents] {
            rows.finish(&mut statements);
        }
        statements.extend(self.keys);
        statements.push("commit".to_owned());
        statements
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Insert,
    Usual,
    Seldom,
}

/// Who works on a global, and until when: the end of every row of globals.
struct Held<'a> {
    status: &'a str,
    owner: &'a str,
    /// In the database's time, in microseconds.
    wake: i64,
}

impl Held<'_> {
    fn write(&self, dialect: &Dialect, out: &mut String, epoch: u64, nonce: i64) {
        // Rounded up: whoever reads the seconds only is not early.
        let seconds =
            clamp(self.wake.div_euclid(1_000_000) + i64::from(self.wake.rem_euclid(1_000_000) > 0));
        let owner = owner_key(self.owner);
        out.push(',');
        dialect.time(out, Some(seconds));
        out.push(',');
        dialect.text(out, owner);
        let seal = seal(self.status, owner, Some(seconds + dialect.zone));
        for number in [epoch.cast_signed(), nonce, seal, self.wake] {
            out.push(',');
            Dialect::number(out, number);
        }
        out.push(')');
    }
}

/// Whether something changed that hardly ever does.
fn is_seldom(before: &Global, after: &Global) -> bool {
    before.options != after.options
        || before.custom_data != after.custom_data
        || before.query_prepared != after.query_prepared
        || before.protocol != after.protocol
        || before.created != after.created
        || before.trans_type() != after.trans_type()
}

fn write_branch(dialect: &Dialect, out: &mut String, gid: &str, branch: &Branch, whole: bool) {
    dialect.text(out, gid);
    out.push(',');
    dialect.text(out, branch.branch_id.as_str());
    out.push(',');
    dialect.text(out, &op_key(&branch.op));
    if whole {
        out.push(',');
        dialect.text(out, &branch.url);
        out.push(',');
        dialect.bytes(out, &branch.data);
    } else {
        out.push_str(",'',null");
    }
    out.push(',');
    dialect.text(out, branch.status.as_str());
    for time in [Some(branch.created), Some(branch.updated), branch.finished] {
        out.push(',');
        dialect.time(out, time.map(|time| time.seconds()));
    }
    out.push(')');
}

/// Returns the record of a global without what the branches' rows hold.
fn slim(global: &Global) -> Result<Vec<u8>, BoxError> {
    let (url, data): (std::sync::Arc<str>, std::sync::Arc<[u8]>) = ("".into(), [].into());
    let slim = |branch: &Branch| Branch { url: url.clone(), data: data.clone(), ..branch.clone() };
    let slim = Global { branches: global.branches.iter().map(slim).collect(), ..shallow(global) };
    Ok(record::encode(&slim, Vec::with_capacity(512))?)
}

/// A copy without the branches.
fn shallow(global: &Global) -> Global {
    Global {
        gid: global.gid.clone(),
        namespace: global.namespace.clone(),
        mode: global.mode.clone(),
        status: global.status,
        protocol: global.protocol,
        query_prepared: global.query_prepared.clone(),
        custom_data: global.custom_data.clone(),
        options: global.options.clone(),
        steps: global.steps.clone(),
        content: global.content,
        branches: Vec::new(),
        created: global.created,
        updated: global.updated,
        finished: global.finished,
        rolled_back: global.rolled_back,
        rollback_reason: global.rollback_reason.clone(),
        result: global.result.clone(),
        query: global.query,
        wake_at: global.wake_at,
        interval: global.interval,
        owner: global.owner.clone(),
        epoch: global.epoch,
        revision: global.revision,
    }
}

fn whole_seconds(interval: std::time::Duration) -> i64 {
    let seconds = interval.as_secs() + u64::from(interval.subsec_nanos() > 0);
    i64::from(i32::try_from(seconds).unwrap_or(i32::MAX))
}

fn ended_at(global: &Global) -> Option<i64> {
    let ended = |global: &Global| global.finished.or(global.rolled_back).unwrap_or_default().0;
    matches!(global.status, GlobalStatus::Succeed | GlobalStatus::Failed).then(|| ended(global))
}
