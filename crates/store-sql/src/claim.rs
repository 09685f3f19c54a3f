//! Taking what is due, by compare-and-set on what was read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtmd_protocol::Global;
use dtmd_store::{Claim, Lease, StoreError};

use crate::commit::KEYS_MAX;
use crate::conn::Conn;
use crate::error::DbError;
use crate::fold::{Change, leased};
use crate::inner::{Inner, chain};
use crate::mark::Mark;
use crate::read::in_order;
use crate::rows::{Stored, select_globals};
use crate::write::Writer;

/// How often another server may be quicker before the claim ends without anything.
const ROUNDS_MAX: usize = 16;
/// How long a global that cannot be read is left alone.
const PUT_OFF: Duration = Duration::from_secs(3600);

impl Inner {
    /// Takes due globals.
    ///
    /// A claim whose commit was not answered is not looked into: what it took, if anything, is due
    /// again when its lease ends.
    pub(crate) async fn claim(&self, claim: &Claim) -> Result<Vec<Arc<Global>>, StoreError> {
        let unavailable = |error: DbError| error.into_store("claiming due globals");
        if claim.limit == 0 {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        for _ in 0..ROUNDS_MAX {
            let mut lent = self.pool.writer().await.map_err(unavailable)?;
            if self.pool.clock.is_due() {
                let measured = self.pool.clock.measure(&mut lent.conn, self.options.driver).await;
                measured.map_err(unavailable)?;
            }
            match self.claim_once(&mut lent.conn, claim).await {
                Ok(Some(claimed)) => {
                    self.pool.give_back(lent);
                    return Ok(claimed);
                }
                // Others took them all: there may be more.
                Ok(None) => self.pool.give_back(lent),
                // The claimer comes again soon; commits wait behind it.
                Err(error)
                    if error.is_worth_another_try() && begun.elapsed() < self.options.retry_for =>
                {
                    if lent.conn.recover(error.kind).await {
                        self.pool.give_back(lent);
                    } else {
                        self.pool.forget_idle();
                    }
                }
                Err(error) => return Err(unavailable(error)),
            }
        }
        Ok(Vec::new())
    }

    /// Returns what was taken; none if there was something, but others took it.
    async fn claim_once(
        &self,
        conn: &mut Conn,
        claim: &Claim,
    ) -> Result<Option<Vec<Arc<Global>>>, DbError> {
        let candidates = self.candidates(conn, claim).await?;
        if candidates.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let mut locking = "begin".to_owned();
        let mut sorted: Vec<&str> = candidates.iter().map(|mark| mark.gid.as_str()).collect();
        sorted.sort_unstable();
        for gids in sorted.chunks(KEYS_MAX) {
            let (columns, table) = (select_globals(&self.dialect), &self.dialect.globals);
            locking.push_str(&format!(";select {columns} from {table} g where g.gid in "));
            self.dialect.texts(&mut locking, gids.iter().copied());
            locking.push_str(" order by g.gid for update");
        }
        let heads = conn.run(&locking).await?;
        let believed: HashMap<&str, &Mark> =
            candidates.iter().map(|mark| (mark.gid.as_str(), mark)).collect();
        let unchanged: Vec<_> = heads
            .into_iter()
            .flatten()
            .filter(|row| {
                let mark = Mark::read(row);
                believed.get(mark.gid.as_str()).is_some_and(|believed| **believed == mark)
            })
            .collect();
        if unchanged.is_empty() {
            conn.run("rollback").await?;
            return Ok(None);
        }
        let gids: Vec<String> = unchanged.iter().map(|row| row.text(1).into_owned()).collect();
        let mut branches = Vec::new();
        for gids in gids.chunks(KEYS_MAX) {
            let gids: Vec<&str> = gids.iter().map(String::as_str).collect();
            branches.extend(conn.run(&self.select_branches(&gids)).await?.into_iter().flatten());
        }
        let ids: Vec<i64> = unchanged.iter().map(|row| row.number(0).unwrap_or(0)).collect();
        let stored = self.globals(vec![unchanged, branches]);
        let taken = self.take(conn, claim, ids.into_iter().zip(stored).collect()).await?;
        if taken.is_empty() {
            // None of them could be read, and all were put off: the next ones are behind them.
            return Ok(None);
        }
        let order: Vec<String> = candidates.into_iter().map(|mark| mark.gid).collect();
        Ok(Some(in_order(taken, &order)))
    }

    /// Returns the marks of what is due, oldest first.
    async fn candidates(&self, conn: &mut Conn, claim: &Claim) -> Result<Vec<Mark>, DbError> {
        let due = self.pool.clock.to_database(claim.due);
        let select = self.due_select(&self.dialect.due_condition(due), claim.limit);
        let results = conn.run(&select).await?;
        let mut marks: Vec<Mark> = results.iter().flatten().map(Mark::read).collect();
        // The database compares seconds.
        marks.retain(|mark| mark.wake(&self.dialect) <= due && !mark.is_final());
        marks.sort_by_key(|mark| (mark.wake(&self.dialect), mark.id));
        marks.truncate(claim.limit);
        Ok(marks)
    }

    /// Writes the leases and commits.
    async fn take(
        &self,
        conn: &mut Conn,
        claim: &Claim,
        stored: Vec<(i64, Result<Stored, StoreError>)>,
    ) -> Result<HashMap<String, Arc<Global>>, DbError> {
        let mut writer = Writer::new(&self.dialect, &self.pool.clock, self.nonce());
        let mut taken = HashMap::with_capacity(stored.len());
        for (id, stored) in stored {
            let stored = match stored {
                Ok(stored) => stored,
                Err(error) => {
                    tracing::error!(error = %chain(&error), "a due global cannot be read");
                    // It must not stand at the head of the queue in every claim.
                    writer.put_off(id, claim.until.after(PUT_OFF));
                    continue;
                }
            };
            let before = Arc::new(stored.global);
            let lease = Lease {
                gid: before.gid.clone(),
                revision: before.revision,
                epoch: before.epoch,
                owner: claim.owner.clone(),
                new_epoch: before.epoch + 1,
                wake_at: claim.until,
            };
            let after = leased(&before, &lease);
            let change = if stored.mark.is_ours() {
                Change::Lease(lease)
            } else {
                Change::Update { before, after: after.clone() }
            };
            writer.change(&change, Some(&stored.mark))?;
            taken.insert(stored.mark.gid, after);
        }
        for exchange in conn.exchanges(writer.statements(false)) {
            conn.run(&exchange).await?;
        }
        Ok(taken)
    }
}
