//! Waiting for the end of a global transaction.
//!
//! An answer to a submit with `wait_result` that is not success proves nothing: 409 is said of a
//! transaction that was rolled back and of one that is not finished (spec 01 §6). So the status
//! decides, and a transaction that is not final is `Unfinished`, never `RolledBack`.

use std::time::Duration;

use tokio::time::Instant;

use super::Client;
use crate::TransType;
use crate::error::{Error, Result};
use crate::request::TransRequest;
use crate::transaction::{GlobalStatus, Transaction};

/// The first pause between two questions; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Finds out what became of a submit with `wait_result`.
pub(super) async fn settle(
    client: &Client,
    request: &TransRequest,
    submitted: Result<()>,
    at_most: Duration,
) -> Result<GlobalStatus> {
    let error = match submitted {
        Ok(()) => return Ok(GlobalStatus::Succeed),
        Err(error @ (Error::Invalid(_) | Error::Connect { .. } | Error::Unsupported(_))) => {
            return Err(error);
        }
        Err(error) => error,
    };
    // Where there is no query the status is found by a prepare, which would make what is not
    // there; only these two answers prove that it is.
    let is_there = matches!(error, Error::Failure { .. } | Error::Ongoing { .. });
    let probed = is_there.then_some(request.trans_type);
    let end = until_final(client, &request.gid, probed, at_most).await;
    match end {
        Ok(Transaction { status: GlobalStatus::Succeed, .. }) => Ok(GlobalStatus::Succeed),
        Ok(failed) => {
            let reason = match failed.rollback_reason.is_empty() {
                false => failed.rollback_reason,
                true => error.to_string(),
            };
            Err(Error::RolledBack { gid: failed.gid, reason })
        }
        // There is none: then what the server said of the submit is all there is to say.
        Err(Error::Failure { .. } | Error::Unsupported(_)) => Err(error),
        Err(other) => Err(other),
    }
}

/// Asks until the transaction is final. Needs `trans_type` where there is no query.
pub(super) async fn until_final(
    client: &Client,
    gid: &str,
    trans_type: Option<TransType>,
    at_most: Duration,
) -> Result<Transaction> {
    let begun = Instant::now();
    let mut pause = PAUSE_FIRST;
    loop {
        let last = match client.status(gid, trans_type).await {
            Ok(Some(found)) if found.status.is_final() => return Ok(found),
            Ok(Some(found)) => found.status.to_string(),
            Ok(None) => {
                let reason = format!("there is no global transaction {gid}");
                return Err(Error::Failure { what: "query", reason });
            }
            // The server may be back before the time is over.
            Err(error) if error.is_retryable() => error.to_string(),
            Err(error) => return Err(error),
        };
        let waited = begun.elapsed();
        if waited >= at_most {
            return Err(Error::Unfinished { gid: gid.to_owned(), waited, last });
        }
        tokio::time::sleep(pause.min(at_most.saturating_sub(waited))).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
