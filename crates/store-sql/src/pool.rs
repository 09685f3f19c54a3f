//! Connections that wait to be used again: some for writes, the others for reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Clock;
use crate::conn::{Conn, Results};
use crate::error::{DbError, Kind};
use crate::options::SqlOptions;
use crate::outage::Outage;

/// How long a connection may lie unused before it is no more trusted.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// How long a read is tried again while the database does not answer. A restart may pass unseen;
/// in a longer outage every read is refused at once.
const READ_AGAIN: Duration = Duration::from_secs(2);
/// The pause between two tries of a read.
const READ_PAUSE: Duration = Duration::from_millis(50);
/// How long counting, listing and cleaning up may take.
const SLOW: Duration = Duration::from_secs(20);

pub(crate) struct Pool {
    options: SqlOptions,
    idle: Mutex<Vec<Conn>>,
    /// Commits, claims and clean-ups: a few at a time, and never behind readers.
    writers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    outage: Arc<Outage>,
    pub(crate) clock: Clock,
}

/// A connection in use. Dropping it closes it; [`Pool::give_back`] keeps it.
pub(crate) struct Lent {
    pub(crate) conn: Conn,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(options: SqlOptions) -> Self {
        let writers = options.writers();
        let readers = options.max_open_conns.saturating_sub(writers).max(1);
        Self {
            clock: Clock::new(options.clock_ahead_micros),
            options,
            idle: Mutex::default(),
            writers: Arc::new(Semaphore::new(writers)),
            readers: Arc::new(Semaphore::new(readers)),
            outage: Arc::default(),
        }
    }

    /// Returns a connection for a write.
    pub(crate) async fn writer(&self) -> Result<Lent, DbError> {
        self.lend(&self.writers).await
    }

    /// Returns a connection for a read.
    pub(crate) async fn reader(&self) -> Result<Lent, DbError> {
        self.lend(&self.readers).await
    }

    async fn lend(&self, permits: &Arc<Semaphore>) -> Result<Lent, DbError> {
        let waiting = permits.clone().acquire_owned();
        let permit = tokio::time::timeout(self.options.timeout, waiting).await;
        let busy = || DbError::lost("all connections are in use; raise Store.MaxOpenConns");
        let permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
        self.outage.admit()?;
        if self.outage.lasts() > Duration::ZERO {
            // They are of the server that does not answer.
            self.forget_idle();
        }
        let conn = match self.take_idle() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        Ok(Lent { conn, _permit: permit })
    }

    async fn connect(&self) -> Result<Conn, DbError> {
        let mut conn = Conn::open_under(&self.options, true, self.outage.clone()).await?;
        self.clock.measure(&mut conn, self.options.driver).await?;
        Ok(conn)
    }

    fn take_idle(&self) -> Option<Conn> {
        let mut idle = self.idle();
        loop {
            // The one used last, so that what is not needed grows old.
            let conn = idle.pop()?;
            if self.is_fresh(&conn) {
                return Some(conn);
            }
        }
    }

    fn is_fresh(&self, conn: &Conn) -> bool {
        let minutes = self.options.conn_max_life_time;
        let age = Instant::now().duration_since(conn.born);
        !conn.is_closed()
            && conn.used.elapsed() < IDLE_FOR
            && (minutes == 0 || age < Duration::from_secs(minutes * 60))
    }

    /// Keeps a connection for the next one who needs one.
    pub(crate) fn give_back(&self, lent: Lent) {
        let mut idle = self.idle();
        idle.retain(|conn| self.is_fresh(conn));
        if idle.len() < self.options.max_idle_conns.max(1) && self.is_fresh(&lent.conn) {
            idle.push(lent.conn);
        }
    }

    /// Runs selects on a reader's connection; again if the connection had died, or the database
    /// is away for a moment.
    pub(crate) async fn read(&self, statements: &str) -> Result<Results, DbError> {
        self.read_within(statements, self.options.timeout).await
    }

    /// As [`Pool::read`], for what looks at many rows.
    pub(crate) async fn read_slowly(&self, statements: &str) -> Result<Results, DbError> {
        self.read_within(statements, SLOW.max(self.options.timeout)).await
    }

    async fn read_within(&self, statements: &str, timeout: Duration) -> Result<Results, DbError> {
        let begun = Instant::now();
        loop {
            let error = match self.read_once(statements, timeout).await {
                Ok(results) => return Ok(results),
                Err(error) => error,
            };
            let is_over = begun.elapsed() >= READ_AGAIN || self.outage.lasts() >= READ_AGAIN;
            if is_over || !error.is_worth_another_try() {
                return Err(error);
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
    }

    /// Runs selects on a reader's connection.
    pub(crate) async fn read_once(
        &self,
        statements: &str,
        timeout: Duration,
    ) -> Result<Results, DbError> {
        let mut lent = self.reader().await?;
        match lent.conn.run_within(statements, timeout).await {
            Ok(results) => {
                self.give_back(lent);
                Ok(results)
            }
            Err(error) => {
                drop(lent);
                if error.kind == Kind::Lost {
                    // The others that lay beside it are of the same server.
                    self.forget_idle();
                }
                Err(error)
            }
        }
    }

    /// Closes what lies unused: after a lost connection the others are lost too.
    pub(crate) fn forget_idle(&self) {
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Conn>> {
        // Held for a few vector operations that do not panic.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
