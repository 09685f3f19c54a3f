//! The mark of a stored global: what a writer must know of it to be sure that nobody changed it.

use std::hash::Hasher as _;

use dtmd_protocol::GlobalStatus;
use xxhash_rust::xxh3::Xxh3;

use crate::conn::Row;
use crate::text::Dialect;

/// How many columns [`select`] has.
pub(crate) const COLUMNS: usize = 11;

/// Returns the columns of a mark, of the table called `g`.
pub(crate) fn select(dialect: &Dialect) -> String {
    format!(
        "g.id,g.gid,g.status,g.owner,{},{},g.dtmd_revision,g.dtmd_epoch,g.dtmd_write,\
         g.dtmd_seal,g.dtmd_wake",
        dialect.seconds("g.next_cron_time"),
        dialect.seconds("g.update_time"),
    )
}

/// What identifies the state of a stored global.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) id: i64,
    pub(crate) gid: String,
    pub(crate) status: String,
    pub(crate) owner: String,
    /// `next_cron_time` as the column says, not yet moved to UTC.
    pub(crate) cron: Option<i64>,
    pub(crate) updated: Option<i64>,
    revision: Option<i64>,
    epoch: Option<i64>,
    /// The nonce of the batch that wrote it last.
    pub(crate) write: Option<i64>,
    seal: Option<i64>,
    wake: Option<i64>,
}

impl Mark {
    pub(crate) fn read(row: &Row) -> Self {
        Self {
            id: row.number(0).unwrap_or(0),
            gid: row.text(1).into_owned(),
            status: row.text(2).into_owned(),
            owner: row.text(3).into_owned(),
            cron: row.number(4),
            updated: row.number(5),
            revision: row.number(6),
            epoch: row.number(7),
            write: row.number(8),
            seal: row.number(9),
            wake: row.number(10),
        }
    }

    /// Whether status, owner and next_cron_time are as we wrote them last. A DTM server that works
    /// on the global changes one of them; a row that we never wrote has no seal.
    pub(crate) fn is_ours(&self) -> bool {
        self.seal == Some(seal(&self.status, &self.owner, self.cron))
    }

    /// Returns the revision: the stored one, or, if a DTM server changed the row, one that stands
    /// for what it wrote. So a writer that knows the row as it was is refused.
    pub(crate) fn revision(&self) -> u64 {
        let stored = self.revision.unwrap_or(0).cast_unsigned();
        if self.is_ours() {
            return stored;
        }
        let mut hash = Xxh3::new();
        hash.write(self.status.as_bytes());
        hash.write_u8(0);
        hash.write(self.owner.as_bytes());
        hash.write_i64(self.cron.unwrap_or(i64::MIN));
        hash.write_i64(self.updated.unwrap_or(i64::MIN));
        hash.write_u64(stored);
        // The count stays in its half, the rest is a tag like a writer's.
        (stored >> 32) << 32 | hash.finish() >> 32
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.unwrap_or(0).cast_unsigned()
    }

    /// Returns the wake-up in the database's time, in microseconds.
    pub(crate) fn wake(&self, dialect: &Dialect) -> i64 {
        match (self.wake, self.cron) {
            (Some(wake), _) if self.is_ours() => wake,
            (_, Some(cron)) => dialect.seconds_of(cron).saturating_mul(1_000_000),
            (_, None) => 0,
        }
    }

    pub(crate) fn is_final(&self) -> bool {
        GlobalStatus::parse(&self.status).is_some_and(GlobalStatus::is_final)
    }
}

/// Returns the seal of three of DTM's columns.
pub(crate) fn seal(status: &str, owner: &str, cron: Option<i64>) -> i64 {
    let mut hash = Xxh3::new();
    hash.write(status.as_bytes());
    hash.write_u8(0);
    hash.write(owner.as_bytes());
    hash.write_u8(0);
    hash.write_i64(cron.unwrap_or(i64::MIN));
    hash.finish().cast_signed()
}
