//! Rows of DTM's tables, and the globals that they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{
    Branch, BranchId, BranchStatus, CallProtocol, Gid, Global, GlobalStatus, Mode, Op, Retry,
    Revision, StepDef, Timestamp, TransType,
};
use dtmd_store::{StoreError, record};

use crate::clock::Clock;
use crate::conn::Row;
use crate::mark::{self, Mark};
use crate::options_json;
use crate::text::Dialect;

/// The width of DTM's column for ops.
const OP_WIDTH: usize = 45;
/// The width of DTM's column for owners.
const OWNER_WIDTH: usize = 128;

/// Returns the columns of a whole global, of the table called `g`: those of its mark, then these.
pub(crate) fn select_globals(dialect: &Dialect) -> String {
    format!(
        "{},g.trans_type,g.query_prepared,g.protocol,{},{},{},g.options,g.custom_data,\
         g.next_cron_interval,g.ext_data,g.result,g.rollback_reason,g.dtmd_record",
        mark::select(dialect),
        dialect.seconds("g.create_time"),
        dialect.seconds("g.finish_time"),
        dialect.seconds("g.rollback_time"),
    )
}

/// Returns the columns of a branch, of the table called `b`.
pub(crate) fn select_branches(dialect: &Dialect) -> String {
    format!(
        "b.gid,b.branch_id,b.op,b.url,b.status,b.bin_data,b.data,{},{},{}",
        dialect.seconds("b.create_time"),
        dialect.seconds("b.update_time"),
        dialect.seconds("b.finish_time"),
    )
}

/// Returns the op as it is stored: words that the column cannot hold end in their digest.
pub(crate) fn op_key(op: &Op) -> std::borrow::Cow<'_, str> {
    let word = op.as_str();
    if word.len() <= OP_WIDTH && !word.contains('\0') {
        return word.into();
    }
    if word.chars().count() <= OP_WIDTH {
        // PostgreSQL has no such character.
        return word.replace('\0', "\u{FFFD}").into();
    }
    let digest = xxhash_rust::xxh3::xxh3_64(word.as_bytes());
    let begin: String = word.chars().take(OP_WIDTH - 17).collect();
    format!("{}~{digest:016x}", begin.replace('\0', "\u{FFFD}")).into()
}

/// Returns the owner as it is stored.
pub(crate) fn owner_key(owner: &str) -> &str {
    match owner.char_indices().nth(OWNER_WIDTH) {
        Some((end, _)) => &owner[..end],
        None => owner,
    }
}

/// A stored branch.
#[derive(Debug)]
pub(crate) struct BranchRow {
    branch_id: String,
    op: String,
    url: Arc<str>,
    status: String,
    data: Arc<[u8]>,
    created: Option<i64>,
    updated: Option<i64>,
    finished: Option<i64>,
}

/// Sorts the rows of a select of branches by gid.
pub(crate) fn branches_by_gid(rows: &[Row]) -> HashMap<String, Vec<BranchRow>> {
    let mut by_gid: HashMap<String, Vec<BranchRow>> = HashMap::new();
    for row in rows {
        // Until 1.5, DTM kept payloads as text.
        let data = row.bytes(5).filter(|data| !data.is_empty()).or(row.bytes(6));
        let branch = BranchRow {
            branch_id: row.text(1).into_owned(),
            op: row.text(2).into_owned(),
            url: row.text(3).into(),
            status: row.text(4).into_owned(),
            data: data.unwrap_or_default().into(),
            created: row.number(7),
            updated: row.number(8),
            finished: row.number(9),
        };
        by_gid.entry(row.text(0).into_owned()).or_default().push(branch);
    }
    by_gid
}

/// Makes globals of rows.
pub(crate) struct Reader<'a> {
    pub(crate) dialect: &'a Dialect,
    pub(crate) clock: &'a Clock,
}

/// A global that was read.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) mark: Mark,
    pub(crate) global: Global,
    /// The record and the branches' rows do not say the same: either a DTM server changed a row,
    /// or the two were read at different moments.
    pub(crate) is_mixed: bool,
}

impl Reader<'_> {
    /// Returns the global of a row and its branches.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the row cannot be understood.
    pub(crate) fn global(
        &self,
        gid: &Gid,
        row: &Row,
        branches: Vec<BranchRow>,
    ) -> Result<Stored, StoreError> {
        let read = self.read(gid, row, branches);
        read.map_err(|source| StoreError::Corrupt { gid: gid.clone(), source })
    }

    fn read(
        &self,
        gid: &Gid,
        row: &Row,
        branches: Vec<BranchRow>,
    ) -> Result<Stored, dtmd_store::BoxError> {
        let mark = Mark::read(row);
        let (mut global, is_mixed) = match row.bytes(mark::COLUMNS + 12) {
            Some(bytes) if !bytes.is_empty() => {
                let mut global = record::decode(bytes)?;
                let is_mixed = self.merge_branches(&mut global, branches)?;
                (global, is_mixed)
            }
            _ => (self.adopt(gid, row, &mark, branches)?, false),
        };
        if !mark.is_ours() {
            self.take_over(&mut global, row, &mark)?;
        }
        global.owner = mark.owner.as_str().into();
        global.epoch = mark.epoch();
        global.revision = Revision(mark.revision());
        global.wake_at = self.clock.to_ours(mark.wake(self.dialect));
        Ok(Stored { mark, global, is_mixed })
    }

    /// Adds to the record's branches what only their rows hold: URL and payload. A status that a
    /// DTM server wrote wins, and so do rows that it added. Returns whether there were such.
    fn merge_branches(
        &self,
        global: &mut Global,
        rows: Vec<BranchRow>,
    ) -> Result<bool, dtmd_store::BoxError> {
        let mut is_mixed = rows.len() != global.branches.len();
        let mut others: HashMap<(String, String), BranchRow> = HashMap::new();
        let mut order = Vec::new();
        let mut rows = rows.into_iter();
        // Rows come in the order in which they were made, which is nearly always the record's.
        for at in 0..global.branches.len() {
            let branch = &global.branches[at];
            let is_of = |row: &BranchRow| {
                row.branch_id == branch.branch_id.as_str() && row.op == op_key(&branch.op)
            };
            let wanted = (branch.branch_id.to_string(), op_key(&branch.op).into_owned());
            let mut found = others.remove(&wanted);
            while found.is_none() {
                match rows.next() {
                    Some(row) if is_of(&row) => found = Some(row),
                    Some(row) => {
                        let key = (row.branch_id.clone(), row.op.clone());
                        order.push(key.clone());
                        others.insert(key, row);
                    }
                    None => break,
                }
            }
            match found {
                Some(row) => is_mixed |= self.merge(&mut global.branches[at], row)?,
                None => is_mixed = true,
            }
        }
        // The branches of a saga and of a message are made with it; others are registered.
        if matches!(global.mode, Mode::Saga { .. } | Mode::Msg { .. }) {
            return Ok(is_mixed);
        }
        let strangers = order.into_iter().filter_map(|key| others.remove(&key)).chain(rows);
        for row in strangers {
            global.branches.push(self.branch(row)?);
        }
        Ok(is_mixed)
    }

    fn merge(&self, branch: &mut Branch, row: BranchRow) -> Result<bool, dtmd_store::BoxError> {
        branch.url = row.url;
        branch.data = row.data;
        if row.status == branch.status.as_str() {
            return Ok(false);
        }
        branch.status = branch_status(&row.status)?;
        branch.finished = self.time(row.finished);
        branch.updated = self.time(row.updated).unwrap_or(branch.updated);
        Ok(true)
    }

    fn branch(&self, row: BranchRow) -> Result<Branch, dtmd_store::BoxError> {
        let created = self.time(row.created).unwrap_or_default();
        Ok(Branch {
            branch_id: BranchId::new(&row.branch_id)?,
            op: Op::parse(&row.op),
            url: row.url,
            data: row.data,
            status: branch_status(&row.status)?,
            retry: Retry::default(),
            created,
            updated: self.time(row.updated).unwrap_or(created),
            finished: self.time(row.finished),
        })
    }

    /// Returns the global of a row that only DTM servers ever wrote.
    fn adopt(
        &self,
        gid: &Gid,
        row: &Row,
        mark: &Mark,
        branches: Vec<BranchRow>,
    ) -> Result<Global, dtmd_store::BoxError> {
        let at = mark::COLUMNS;
        let word = row.text(at);
        let trans_type =
            TransType::parse(&word).ok_or_else(|| format!("trans_type '{word}' is unknown"))?;
        let word = row.text(at + 2);
        let protocol =
            CallProtocol::parse(&word).ok_or_else(|| format!("protocol '{word}' is unknown"))?;
        let branches: Vec<Branch> =
            branches.into_iter().map(|row| self.branch(row)).collect::<Result<_, _>>()?;
        let steps = steps(trans_type, &branches);
        let custom_data = row.text(at + 7);
        let created = self.time(row.number(at + 3)).unwrap_or_default();
        let wake_at = self.clock.to_ours(mark.wake(self.dialect));
        Ok(Global {
            gid: gid.clone(),
            namespace: "default".into(),
            mode: options_json::mode(trans_type, &custom_data, steps.len())?,
            status: GlobalStatus::Prepared,
            protocol,
            query_prepared: row.text(at + 1).into(),
            options: options_json::read(&row.text(at + 6), &row.text(at + 9))?,
            custom_data: custom_data.into(),
            steps: steps.into(),
            content: 0,
            branches,
            created,
            updated: created,
            finished: None,
            rolled_back: None,
            rollback_reason: "".into(),
            result: "".into(),
            query: Retry { attempts: 0, next_at: wake_at },
            wake_at,
            interval: Duration::ZERO,
            owner: "".into(),
            epoch: 0,
            revision: Revision(0),
        })
    }

    /// Lets DTM's columns win over the record in what a DTM server changes.
    fn take_over(
        &self,
        global: &mut Global,
        row: &Row,
        mark: &Mark,
    ) -> Result<(), dtmd_store::BoxError> {
        let at = mark::COLUMNS;
        let status = GlobalStatus::parse(&mark.status);
        global.status = status.ok_or_else(|| format!("status '{}' is unknown", mark.status))?;
        global.updated = self.time(mark.updated).unwrap_or(global.created);
        global.finished = self.time(row.number(at + 4));
        global.rolled_back = self.time(row.number(at + 5));
        // Forced stops of old servers wrote no time.
        let ended = global.finished.or(global.rolled_back);
        match global.status {
            GlobalStatus::Succeed if ended.is_none() => global.finished = Some(global.updated),
            GlobalStatus::Failed if ended.is_none() => global.rolled_back = Some(global.updated),
            _ => {}
        }
        let interval = row.number(at + 8).and_then(|seconds| u64::try_from(seconds).ok());
        global.interval = Duration::from_secs(interval.unwrap_or(0));
        global.result = row.text(at + 10).into();
        global.rollback_reason = row.text(at + 11).into();
        Ok(())
    }

    /// Returns a time of a column.
    fn time(&self, seconds: Option<i64>) -> Option<Timestamp> {
        let micros = |seconds| self.dialect.seconds_of(seconds).saturating_mul(1_000_000);
        seconds.map(|seconds| Timestamp(micros(seconds)))
    }
}

fn branch_status(word: &str) -> Result<BranchStatus, dtmd_store::BoxError> {
    BranchStatus::parse(word).ok_or_else(|| format!("the branch status '{word}' is unknown").into())
}

/// DTM does not keep the steps; its rows say what they were.
fn steps(trans_type: TransType, branches: &[Branch]) -> Vec<StepDef> {
    match trans_type {
        TransType::Saga => branches
            .chunks_exact(2)
            .map(|rows| StepDef { action: rows[1].url.clone(), compensate: rows[0].url.clone() })
            .collect(),
        TransType::Msg => branches
            .iter()
            .map(|row| StepDef { action: row.url.clone(), compensate: "".into() })
            .collect(),
        TransType::Tcc | TransType::Xa | TransType::Workflow => Vec::new(),
    }
}
