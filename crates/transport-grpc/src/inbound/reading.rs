//! What a message asks for, without asking for it: for those who feed it hostile bytes.

use dtmd_protocol::{NewBranch, NewGlobal};
use dtmd_wire::RequestError;

use super::convert::{register_request, trans_request, with_payload};
use super::dtm::new_global;
use crate::proto::dtmgimp::{DtmBranchRequest, DtmRequest};

/// Returns the transaction that a submit or prepare asks for.
///
/// # Errors
///
/// [`RequestError`], as the caller is told it.
pub fn read_transaction(mut message: DtmRequest) -> Result<NewGlobal, RequestError> {
    new_global(trans_request(&mut message, false)?)
}

/// Returns the rows that a registration asks for.
///
/// # Errors
///
/// [`RequestError`], as the caller is told it.
pub fn read_registration(message: &DtmBranchRequest) -> Result<Vec<NewBranch>, RequestError> {
    let request = register_request(message);
    request.gid()?;
    Ok(with_payload(request.rows()?, &message.busi_payload))
}
