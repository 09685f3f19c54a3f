//! The task that hands messages to a sink.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{debug, warn};
use uuid::Uuid;

use super::Message;
use super::table::{Claimed, Fate, claim, settle};
use crate::db::BarrierDb;
use crate::error::BoxError;
use crate::sql::SqlTx;
use crate::table::TableName;

/// Where messages go: a transaction manager, a broker.
pub trait Sink: Send + Sync + 'static {
    /// Delivers one message. Called again with the same gid after an error, after a crash, and
    /// rarely after a success whose note was lost: the receiver must take the gid as its identity.
    ///
    /// # Errors
    ///
    /// [`SinkError`] says whether another attempt makes sense.
    fn deliver(&self, message: &Message) -> impl Future<Output = Result<(), SinkError>> + Send;
}

/// Why a sink did not take a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// It never will: the message becomes a dead letter at once.
    #[error("refused: {0}")]
    Refused(String),
    /// It may later.
    #[error("not delivered")]
    Retry(#[source] BoxError),
}

/// How a relay works.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// The table, if not [`DEFAULT_TABLE`](super::DEFAULT_TABLE).
    pub table: Option<TableName>,
    /// Pause between looks when nobody rings. Bounds how long a missed message waits.
    pub poll: Duration,
    /// How long a claim lasts. A delivery is given nine tenths of it.
    pub lease: Duration,
    /// Most messages claimed, and delivered at one time.
    pub batch: usize,
    /// Pause after the first failed attempt; doubles with each further one.
    pub backoff: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// Attempts after which a message becomes a dead letter.
    pub attempts_max: u32,
    /// Keep delivered rows (for [`purge_delivered`](super::purge_delivered)) or delete at once.
    pub keep_delivered: bool,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            table: None,
            poll: Duration::from_secs(1),
            lease: Duration::from_secs(30),
            batch: 64,
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
            attempts_max: 20,
            keep_delivered: false,
        }
    }
}

/// Wakes a relay in this process after a commit. Cheap to clone, never blocks; a ring that nobody
/// hears is remembered.
#[derive(Debug, Clone, Default)]
pub struct Doorbell(Arc<Notify>);

impl Doorbell {
    /// Says that there is something to deliver.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// What one look did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Rows claimed.
    pub claimed: usize,
    /// Messages the sink took.
    pub delivered: usize,
    /// Messages to be tried again later.
    pub postponed: usize,
    /// Messages given up.
    pub dead: usize,
}

/// Delivers the messages of one table. Run one per process; all share the work.
#[derive(Debug)]
pub struct Relay<D, S> {
    db: D,
    sink: Arc<S>,
    options: Arc<RelayOptions>,
    doorbell: Doorbell,
    name: String,
}

impl<D, S> Relay<D, S>
where
    D: BarrierDb + Clone + Send + 'static,
    D::Tx: SqlTx,
    S: Sink,
{
    /// A relay from the table in `db` to `sink`.
    pub fn new(db: D, sink: S, options: RelayOptions) -> Self {
        Self {
            db,
            sink: Arc::new(sink),
            options: Arc::new(options),
            doorbell: Doorbell::default(),
            name: Uuid::new_v4().simple().to_string(),
        }
    }

    /// The bell to ring after a commit with messages in it.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    /// Delivers until `shutdown` is done, then finishes what it has claimed and returns.
    ///
    /// An error of the database is logged and tried again after the poll interval.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let look = match self.deliver_due().await {
                // More may be due: further rows, or the next ones of the keys just served.
                Ok(delivery) => delivery.claimed > 0,
                Err(error) => {
                    warn!(error, "cannot read the message table; trying again");
                    false
                }
            };
            // Both futures may be dropped at any time: a ring is remembered, a pause is a pause.
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                () = std::future::ready(()), if look => {}
                () = self.doorbell.0.notified() => {}
                () = tokio::time::sleep(self.options.poll) => {}
            }
        }
    }

    /// Claims one batch of due messages and delivers it.
    ///
    /// # Errors
    ///
    /// The database's. What was claimed is tried again when the claim has ended.
    pub async fn deliver_due(&self) -> Result<Delivery, BoxError> {
        // A name for each claim: a row claimed again by this relay is not mistaken for the old one.
        let owner: Arc<str> = format!("{}{:08x}", self.name, rand_u32()).into();
        let options = &self.options;
        let batch = options.batch.clamp(1, 1000);
        let rows = claim(&self.db, options.table.as_ref(), &owner, batch, options.lease).await?;
        let mut delivery = Delivery { claimed: rows.len(), ..Delivery::default() };
        let mut tasks = JoinSet::new();
        for row in rows {
            tasks.spawn(deliver(
                self.db.clone(),
                Arc::clone(&self.sink),
                Arc::clone(options),
                Arc::clone(&owner),
                row,
            ));
        }
        let mut failed = None;
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(Ok(End::Delivered)) => delivery.delivered += 1,
                Ok(Ok(End::Postponed)) => delivery.postponed += 1,
                Ok(Ok(End::Dead)) => delivery.dead += 1,
                Ok(Err(error)) => failed = Some(error),
                // A sink that panics counts as one that died: the claim ends by itself.
                Err(error) => failed = Some(error.into()),
            }
        }
        failed.map_or(Ok(delivery), Err)
    }
}

/// How the delivery of one message ended.
#[derive(Debug, Clone, Copy)]
enum End {
    Delivered,
    Postponed,
    Dead,
}

async fn deliver<D, S>(
    db: D,
    sink: Arc<S>,
    options: Arc<RelayOptions>,
    owner: Arc<str>,
    row: Claimed,
) -> Result<End, BoxError>
where
    D: BarrierDb,
    D::Tx: SqlTx,
    S: Sink,
{
    // Ended before the claim does: afterwards another relay may deliver the same message, and the
    // next one of its key.
    let limit = options.lease.mul_f64(0.9);
    // More attempts than allowed: the last ones ended without a word, perhaps with the process.
    let answer = if row.attempts > options.attempts_max {
        Err(SinkError::Refused("its last attempts ended without an answer".to_owned()))
    } else {
        tokio::time::timeout(limit, sink.deliver(&row.message)).await.unwrap_or_else(|_| {
            Err(SinkError::Retry("the sink took longer than the claim lasts".into()))
        })
    };
    let text;
    let (end, fate) = match answer {
        Ok(()) => (End::Delivered, Fate::Delivered { keep: options.keep_delivered }),
        Err(SinkError::Refused(reason)) => {
            text = reason;
            (End::Dead, Fate::Dead { error: &text })
        }
        Err(SinkError::Retry(source)) => {
            text = chain(&*source);
            if row.attempts >= options.attempts_max {
                (End::Dead, Fate::Dead { error: &text })
            } else {
                let after = pause(&options, row.attempts);
                (End::Postponed, Fate::Again { after, error: &text })
            }
        }
    };
    if let End::Dead = end {
        warn!(gid = row.message.gid(), attempts = row.attempts, ?fate, "message given up");
    }
    if !settle(&db, options.table.as_ref(), &owner, row.seq, &fate).await? {
        debug!(gid = row.message.gid(), "the claim was lost before its end was noted");
    }
    Ok(end)
}

/// The pause after this many attempts: doubling, up to the longest.
fn pause(options: &RelayOptions, attempts: u32) -> Duration {
    let factor = 1_u32 << attempts.saturating_sub(1).min(20);
    options.backoff.saturating_mul(factor).min(options.backoff_max)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn rand_u32() -> u32 {
    u32::try_from(Uuid::new_v4().as_u128() & 0xffff_ffff).unwrap_or(0)
}
