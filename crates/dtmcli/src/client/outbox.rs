//! The server as the place where messages of the local message table go.

use dtmcli_barrier::outbox::{Message, Sink, SinkError};

use super::Client;
use crate::error::{Error, Result};
use crate::transaction::GlobalStatus;
use crate::{Delivery, TransType};

/// Hands each message to the server, which calls its destination until it is done: a URL of a
/// branch, or `topic://` with a topic's name. The message's gid is the global transaction's, so what
/// is handed over twice is delivered once.
///
/// A message with a key is taken for delivered when its destination has answered, not when the
/// server has it: only then does the next one of its key come after it. Give the relay a lease that
/// is longer than the destination may take.
///
/// ```no_run
/// # async fn example<D>(dtm: dtmcli::Client, pool: D, shutdown: impl Future<Output = ()>)
/// # where D: dtmcli::BarrierDb<Tx: dtmcli::barrier::SqlTx> + Clone + Send + 'static {
/// use dtmcli::outbox::{Relay, RelayOptions};
///
/// let relay = Relay::new(pool, dtm, RelayOptions::default());
/// relay.run(shutdown).await;
/// # }
/// ```
impl Sink for Client {
    async fn deliver(&self, message: &Message) -> Result<(), SinkError> {
        let delivery = Delivery::at(message.destination()).body(message.payload().to_vec());
        let submit = self.msg().gid(message.gid()).deliver(delivery).submit();
        let submit = if message.ordered_by().is_some() { submit.wait() } else { submit };
        match submit.await {
            Ok(_) => Ok(()),
            // Also said of a gid that was used before, as by an earlier attempt whose answer was
            // lost; what became of that one decides.
            Err(refused @ Error::Failure { .. }) => self.end_of_refused(message, refused).await,
            Err(error @ (Error::Invalid(_) | Error::RolledBack { .. })) => {
                Err(SinkError::Refused(error.to_string()))
            }
            Err(error) => Err(SinkError::Retry(error.into())),
        }
    }
}

impl Client {
    async fn end_of_refused(&self, message: &Message, refused: Error) -> Result<(), SinkError> {
        match self.status(message.gid(), Some(TransType::Msg)).await {
            Ok(Some(found)) if found.status != GlobalStatus::Failed => Ok(()),
            Ok(_) => Err(SinkError::Refused(refused.to_string())),
            Err(error) => Err(SinkError::Retry(error.into())),
        }
    }
}
