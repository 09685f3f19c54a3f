//! How far the database's clock is from ours.
//!
//! Servers that share a database agree on its clock: what is stored as a wake-up is the database's
//! time. A small difference is taken for none, so that what is read is what was written; a larger
//! one is taken into account, and again when it has changed by as much.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use dtmd_protocol::Timestamp;

use crate::conn::Conn;
use crate::error::DbError;
use crate::options::Driver;

/// The difference that is taken for none, in microseconds.
const TOLERANCE: i64 = 500_000;
/// How often it is measured.
const EVERY_SECONDS: u64 = 30;
/// A measurement that took longer says too little.
const ROUND_TRIP_MAX: i64 = 1_000_000;

pub(crate) struct Clock {
    /// Database's time minus ours, in microseconds.
    offset: AtomicI64,
    begun: Instant,
    /// When it was measured last, in seconds since `begun`, plus one.
    measured: AtomicU64,
    /// For tests: by how much our clock is taken to be ahead.
    ahead: i64,
}

impl Clock {
    pub(crate) fn new(ahead: i64) -> Self {
        let (offset, measured) = (AtomicI64::new(0), AtomicU64::new(0));
        Self { offset, begun: Instant::now(), measured, ahead }
    }

    /// Returns the database's time of a time of ours, in microseconds.
    pub(crate) fn to_database(&self, ours: Timestamp) -> i64 {
        ours.0.saturating_add(self.offset())
    }

    /// Returns our time of a time of the database.
    pub(crate) fn to_ours(&self, database: i64) -> Timestamp {
        Timestamp(database.saturating_sub(self.offset()))
    }

    /// Returns the database's time minus ours, in microseconds.
    pub(crate) fn offset(&self) -> i64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// Whether it is time to measure again.
    pub(crate) fn is_due(&self) -> bool {
        let measured = self.measured.load(Ordering::Relaxed);
        self.begun.elapsed().as_secs() + 1 >= measured + EVERY_SECONDS
    }

    /// Asks the database for the time; returns the difference as measured.
    pub(crate) async fn measure(&self, conn: &mut Conn, driver: Driver) -> Result<i64, DbError> {
        let before = self.now();
        let results = conn.run(now(driver)).await?;
        let after = self.now();
        let micros = results.first().and_then(|rows| rows.first()?.number(0));
        let Some(database) = micros else {
            return Err(DbError::other("the database does not tell the time"));
        };
        let measured = database - (before + (after - before) / 2);
        self.measured.store(self.begun.elapsed().as_secs() + 1, Ordering::Relaxed);
        if (0..ROUND_TRIP_MAX).contains(&(after - before)) {
            self.take(measured);
        }
        Ok(measured)
    }

    fn take(&self, measured: i64) {
        if measured.abs() <= TOLERANCE {
            self.offset.store(0, Ordering::Relaxed);
        } else if (measured - self.offset()).abs() > TOLERANCE {
            let seconds = measured / 1_000_000;
            tracing::warn!(seconds, "the database's clock differs from this machine's");
            self.offset.store(measured, Ordering::Relaxed);
        }
    }

    fn now(&self) -> i64 {
        dtmd_store::wall::now().0.saturating_add(self.ahead)
    }
}

/// The select of the database's time in microseconds.
pub(crate) fn now(driver: Driver) -> &'static str {
    match driver {
        Driver::Mysql => "select timestampdiff(microsecond,'1970-01-01',utc_timestamp(6))",
        Driver::Postgres => "select (extract(epoch from clock_timestamp())*1000000)::bigint",
    }
}
