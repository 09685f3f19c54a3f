//! Totals, gauges and keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use dtmd_protocol::{Global, GlobalStatus, Timestamp, TransType};
use dtmd_store::{Kv, KvPage, Oldest, StoreError, Totals};

use crate::conn::Row;
use crate::inner::Inner;
use crate::mark::{self, Mark};
use crate::rows::select_globals;
use crate::text::Dialect;

/// Rows that one select of keys returns, at most.
const KEYS_PAGE_MAX: usize = 10_000;
/// The statuses that something is still to be done in.
pub(crate) const UNFINISHED: &str = "('prepared','submitted','aborting')";

impl Inner {
    /// Returns how many globals there are.
    pub(crate) async fn totals(&self) -> Result<Totals, StoreError> {
        if let Some(known) = self.counts.known() {
            return Ok(known);
        }
        let begun = Instant::now();
        let table = &self.dialect.globals;
        let select =
            format!("select trans_type,status,count(*) from {table} group by trans_type,status");
        let results = self.pool.read_slowly(&select).await;
        let results = results.map_err(|error| error.into_store("counting globals"))?;
        let mut counts = BTreeMap::new();
        for row in results.iter().flatten() {
            let kind = TransType::parse(&row.text(0));
            if let (Some(kind), Some(status)) = (kind, GlobalStatus::parse(&row.text(1))) {
                counts.insert((kind, status), row.number(2).unwrap_or(0));
            }
        }
        Ok(self.counts.take(counts, begun.elapsed()))
    }

    /// Returns what has waited longest.
    pub(crate) async fn oldest(&self) -> Result<Oldest, StoreError> {
        let dialect = &self.dialect;
        let table = &dialect.globals;
        let due = self.due_select("", 1);
        // The sum keeps planners from walking the primary key through all that is finished.
        let first = format!(
            "select {} from {table} g where g.id=(select min(o.id+0) from {table} o \
             where o.status in {UNFINISHED})",
            select_globals(dialect)
        );
        let results = self.pool.read_slowly(&format!("{due};{first}")).await;
        let mut results = results.map_err(|error| error.into_store("looking for the oldest"))?;
        let first = results.pop().unwrap_or_default();
        let due = results.iter().flatten().map(|row| Mark::read(row).wake(dialect)).min();
        let due = due.map(|wake| self.pool.clock.to_ours(wake));
        let first = self.globals(vec![first]).into_iter().next().transpose()?;
        Ok(Oldest { created: first.map(|stored| stored.global.created), due })
    }

    /// Returns a select of the marks of unfinished globals, first due first, so many of each
    /// status: each part reads no more of its index than it returns.
    pub(crate) fn due_select(&self, condition: &str, limit: usize) -> String {
        let (columns, table) = (mark::select(&self.dialect), &self.dialect.globals);
        let part = |status: &str| {
            format!(
                "(select {columns} from {table} g where g.status='{status}'{condition} \
                 order by g.next_cron_time limit {limit})"
            )
        };
        ["prepared", "submitted", "aborting"].map(part).join(" union all ")
    }

    /// Returns one key.
    pub(crate) async fn load_kv(&self, cat: &str, key: &str) -> Result<Option<Kv>, StoreError> {
        let mut select = self.kv_select();
        self.dialect.text(&mut select, cat);
        select.push_str(" and k=");
        self.dialect.text(&mut select, key);
        let results = self.pool.read(&select).await;
        let results = results.map_err(|error| error.into_store("loading a key"))?;
        let mut found = results.iter().flatten().map(|row| self.kv(row));
        Ok(found.find(|kv| kv.cat == cat && kv.key == key))
    }

    /// Returns a page of keys, in the order of their bytes.
    pub(crate) async fn list_kv(
        &self,
        cat: &str,
        position: &str,
        limit: usize,
    ) -> Result<KvPage, StoreError> {
        let order = self.dialect.by_bytes("k");
        let mut select = self.kv_select();
        self.dialect.text(&mut select, cat);
        if !position.is_empty() {
            select.push_str(&format!(" and {order}>"));
            self.dialect.text(&mut select, position);
        }
        let wanted = limit.saturating_add(1).min(KEYS_PAGE_MAX);
        select.push_str(&format!(" order by {order} limit {wanted}"));
        let results = self.pool.read(&select).await;
        let results = results.map_err(|error| error.into_store("listing keys"))?;
        let mut entries: Vec<Kv> = results.iter().flatten().map(|row| self.kv(row)).collect();
        let more = entries.len() > limit || entries.len() == KEYS_PAGE_MAX;
        entries.truncate(limit.min(KEYS_PAGE_MAX - 1));
        let next_position = match entries.last() {
            Some(kv) if more => kv.key.clone(),
            _ => String::new(),
        };
        Ok(KvPage { entries, next_position })
    }

    fn kv_select(&self) -> String {
        let dialect = &self.dialect;
        format!(
            "select cat,k,v,version,dtmd_created,dtmd_updated,{},{} from {} where cat=",
            dialect.seconds("create_time"),
            dialect.seconds("update_time"),
            dialect.kv
        )
    }

    fn kv(&self, row: &Row) -> Kv {
        // The exact time is ours; if a DTM server changed the row, its column says so.
        let time = |exact: Option<i64>, column: Option<i64>| {
            let seconds = column.map(|seconds| self.dialect.seconds_of(seconds));
            let same =
                |micros: &i64| seconds == Some(crate::text::clamp(micros.div_euclid(1_000_000)));
            let coarse = seconds.unwrap_or(0).saturating_mul(1_000_000);
            Timestamp(exact.filter(same).unwrap_or(coarse))
        };
        Kv {
            cat: row.text(0).into_owned(),
            key: row.text(1).into_owned(),
            value: row.text(2).into_owned(),
            version: row.number(3).unwrap_or(0).cast_unsigned(),
            created: time(row.number(4), row.number(6)),
            updated: time(row.number(5), row.number(7)),
        }
    }
}

/// What the claimer returns: globals in the order of `gids`.
pub(crate) fn in_order(
    mut globals: std::collections::HashMap<String, Arc<Global>>,
    gids: &[String],
) -> Vec<Arc<Global>> {
    gids.iter().filter_map(|gid| globals.remove(gid)).collect()
}

impl Dialect {
    /// Appends a condition on `next_cron_time`: not after a time of the database, in microseconds,
    /// to the second.
    pub(crate) fn due_condition(&self, due: i64) -> String {
        let seconds = due.div_euclid(1_000_000) + i64::from(due.rem_euclid(1_000_000) > 0);
        let mut out = " and g.next_cron_time<=".to_owned();
        self.time(&mut out, Some(seconds));
        out
    }
}
