//! Deleting what has ended, and everything.

use dtmd_protocol::{GlobalStatus, Timestamp, TransType};
use dtmd_store::{Purge, StoreError};

use crate::error::{DbError, Kind};
use crate::inner::Inner;
use crate::text::clamp;

/// Globals deleted in one transaction: their locks are held for a moment only.
const AT_ONCE: usize = 200;

impl Inner {
    /// Deletes globals that ended before a time.
    pub(crate) async fn purge(
        &self,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<Purge, StoreError> {
        let unavailable = |error: DbError| error.into_store("deleting finished globals");
        let found = self.ended(ended_before, limit.saturating_add(1)).await.map_err(unavailable)?;
        let more = found.len() > limit;
        let mut deleted = 0;
        for gids in found[..found.len().min(limit)].chunks(AT_ONCE) {
            match self.delete(gids).await {
                Ok(count) => deleted += count,
                // Another server is at the same ones: they wait for the next time.
                Err(error) if error.kind == Kind::Race => return Ok(Purge { deleted, more: true }),
                Err(error) => return Err(unavailable(error)),
            }
        }
        Ok(Purge { deleted, more })
    }

    /// Returns the gids of what ended before a time: by an index for what we wrote, and for what
    /// DTM servers finished, which has no such time, by its columns.
    async fn ended(&self, before: Timestamp, limit: usize) -> Result<Vec<String>, DbError> {
        let dialect = &self.dialect;
        let table = &dialect.globals;
        let mut parts = Vec::new();
        for status in ["succeed", "failed"] {
            parts.push(format!(
                "(select gid from {table} where status='{status}' and dtmd_ended<{} \
                 order by dtmd_ended limit {limit})",
                before.0
            ));
            let mut adopted = format!(
                "(select gid from {table} where status='{status}' and dtmd_ended is null and \
                 coalesce(finish_time,rollback_time,update_time,create_time)<"
            );
            dialect.time(&mut adopted, Some(clamp(before.seconds())));
            parts.push(adopted + &format!(" limit {limit})"));
        }
        let results = self.pool.read_slowly(&parts.join(" union all ")).await?;
        let mut gids: Vec<String> =
            results.iter().flatten().map(|row| row.text(0).into_owned()).collect();
        gids.truncate(limit);
        Ok(gids)
    }

    async fn delete(&self, gids: &[String]) -> Result<usize, DbError> {
        let dialect = &self.dialect;
        let mut sorted: Vec<&str> = gids.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        let mut list = String::new();
        dialect.texts(&mut list, sorted.iter().copied());
        let mut lent = self.pool.writer().await?;
        // Another server may be purging too; and nothing that is unfinished may go, whatever
        // happened since the gids were read.
        let locked = lent
            .conn
            .run(&format!(
                "begin;select gid,trans_type,status from {} where gid in {list} and \
                 status in ('succeed','failed') order by gid for update",
                dialect.globals
            ))
            .await;
        let locked = match locked {
            Ok(locked) => locked,
            Err(error) => {
                lent.conn.recover(error.kind).await;
                return Err(error);
            }
        };
        let rows: Vec<_> = locked.iter().flatten().collect();
        if rows.is_empty() {
            lent.conn.run("rollback").await?;
            self.pool.give_back(lent);
            return Ok(0);
        }
        let mut list = String::new();
        let gids: Vec<String> = rows.iter().map(|row| row.text(0).into_owned()).collect();
        dialect.texts(&mut list, gids.iter().map(String::as_str));
        let (globals, branches) = (&dialect.globals, &dialect.branches);
        let statements = vec![
            format!("delete from {branches} where gid in {list}"),
            format!("delete from {globals} where gid in {list}"),
            "commit".to_owned(),
        ];
        for exchange in lent.conn.exchanges(statements) {
            lent.conn.run(&exchange).await?;
        }
        self.pool.give_back(lent);
        let keys = rows.iter().filter_map(|row| {
            Some((TransType::parse(&row.text(1))?, GlobalStatus::parse(&row.text(2))?))
        });
        self.counts.deleted(keys);
        Ok(gids.len())
    }

    /// Empties the three tables.
    pub(crate) async fn reset(&self) -> Result<(), StoreError> {
        let unavailable = |error: DbError| error.into_store("emptying the store");
        let dialect = &self.dialect;
        let mut lent = self.pool.writer().await.map_err(unavailable)?;
        for table in [&dialect.branches, &dialect.globals, &dialect.kv] {
            // Truncating needs a right that not every user has.
            if lent.conn.run(&format!("truncate table {table}")).await.is_err() {
                let deleted = lent.conn.run(&format!("delete from {table}")).await;
                deleted.map_err(unavailable)?;
            }
        }
        self.pool.give_back(lent);
        self.counts.forget();
        Ok(())
    }

    /// Answers if the database can be reached and takes writes: a standby does not.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        let statement = format!("update {} set gid=gid where id=-1", self.dialect.globals);
        // Once: who asks wants to know now, and asks again.
        match self.pool.read_once(&statement, self.options.connect_timeout).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.pool.forget_idle();
                Err(error.into_store("asking whether the database takes writes"))
            }
        }
    }
}
