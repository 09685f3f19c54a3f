//! The local message table: messages written with the business data, relayed afterwards.
//!
//! [`enqueue`] writes a message in the caller's own local transaction, so it is there if and only
//! if the business data is. A [`Relay`] hands it to a [`Sink`] right after the commit (when told
//! through a [`Doorbell`]) or, at the latest, at its next look. The gid of the message is the
//! row's id, so a sink that passes it on is idempotent: what is delivered twice counts once.
//!
//! # How rows are found
//!
//! By their state, never by "an id greater than the last one seen". Numbers are given when a row
//! is inserted, not when it is committed; whoever remembers the greatest number skips the rows of
//! slower transactions for ever.
//!
//! # Several instances
//!
//! Each relay claims rows by a conditional update: owner and time until which they are its own,
//! by the clock of the database. One that dies loses its rows to the others when that time is
//! over. One that is slow stops before it: a delivery may not take longer than the lease.
//!
//! # Order
//!
//! Messages with the same key are delivered one after another, in the order in which they were
//! enqueued; those without a key in any order. Where two transactions enqueue for one key, let
//! them lock something that belongs to the key (the order's row) first: then the order of
//! numbers is the order of commits. A dead letter no longer holds up the messages behind it.

mod relay;
mod table;

use uuid::Uuid;

pub use relay::{Delivery, Doorbell, Relay, RelayOptions, Sink, SinkError};
pub use table::{DeadLetter, create_table, dead_letters, purge_delivered, requeue};

use crate::error::BoxError;
use crate::sql::{SqlTx, Value};
use crate::table::TableName;

/// The table used unless another is named: in the schema of the business data.
pub const DEFAULT_TABLE: &str = "dtm_outbox";
/// Longest destination, in characters.
pub const DESTINATION_MAX_CHARS: usize = 1024;
/// Longest key, in characters.
pub const KEY_MAX_CHARS: usize = 191;
/// Largest payload, in bytes.
pub const PAYLOAD_MAX_BYTES: usize = 4 << 20;

/// A message to be delivered after the local transaction it was written in has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    gid: String,
    destination: String,
    key: Option<String>,
    payload: Vec<u8>,
}

impl Message {
    /// A message for `destination`, which the sink understands: a URL, a topic.
    pub fn new(destination: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            // Ordered by time, so that inserts go to the end of the index.
            gid: Uuid::now_v7().simple().to_string(),
            destination: destination.into(),
            key: None,
            payload: payload.into(),
        }
    }

    /// Keeps this message in order with others of the same key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The row's id and the gid of the message: the same at every delivery.
    pub fn gid(&self) -> &str {
        &self.gid
    }

    /// Where it goes.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// The key it is ordered by.
    pub fn ordered_by(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The body.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn check(&self) -> Result<(), EnqueueError> {
        let longer = |text: &str, chars: usize| text.chars().nth(chars).is_some();
        if self.destination.is_empty() || longer(&self.destination, DESTINATION_MAX_CHARS) {
            return Err(EnqueueError::Destination);
        }
        if self.key.as_deref().is_some_and(|key| key.is_empty() || longer(key, KEY_MAX_CHARS)) {
            return Err(EnqueueError::Key);
        }
        if self.payload.len() > PAYLOAD_MAX_BYTES {
            return Err(EnqueueError::Payload);
        }
        Ok(())
    }
}

/// Why a message was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The destination is empty or longer than [`DESTINATION_MAX_CHARS`].
    #[error("the destination is empty or too long")]
    Destination,
    /// The key is empty or longer than [`KEY_MAX_CHARS`].
    #[error("the key is empty or too long")]
    Key,
    /// The payload is larger than [`PAYLOAD_MAX_BYTES`]. Send a reference to it.
    #[error("the payload is too large")]
    Payload,
    /// The database did not do it. Roll the local transaction back.
    #[error("cannot write the message")]
    Database(#[source] BoxError),
}

/// Writes the message into [`DEFAULT_TABLE`], in the caller's local transaction.
///
/// Ring the [`Doorbell`] after the commit, so that the message does not wait for the relay's next
/// look.
///
/// # Errors
///
/// [`EnqueueError`]; the local transaction should be rolled back.
pub async fn enqueue<X: SqlTx>(tx: &mut X, message: &Message) -> Result<(), EnqueueError> {
    enqueue_in(tx, None, message).await
}

/// As [`enqueue`], into another table.
///
/// # Errors
///
/// As [`enqueue`].
pub async fn enqueue_in<X: SqlTx>(
    tx: &mut X,
    table: Option<&TableName>,
    message: &Message,
) -> Result<(), EnqueueError> {
    message.check()?;
    let now = tx.dialect().now_ms();
    let table = table_name(table);
    let sql = format!(
        "insert into {table} (gid, destination, message_key, payload, wake_at, created_at) \
         values (?, ?, ?, ?, {now}, {now})"
    );
    let values = [
        Value::Text(&message.gid),
        Value::Text(&message.destination),
        message.key.as_deref().map_or(Value::NullText, Value::Text),
        Value::Bytes(&message.payload),
    ];
    tx.execute(&sql, &values).await.map_err(EnqueueError::Database)?;
    Ok(())
}

fn table_name(table: Option<&TableName>) -> &str {
    table.map_or(DEFAULT_TABLE, TableName::as_str)
}
