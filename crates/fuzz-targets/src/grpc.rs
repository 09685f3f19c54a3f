//! Protobuf requests, decoded and mapped as the gRPC interface does.

use dtmd_protocol::Limits;
use dtmd_transport_grpc::inbound::{read_registration, read_transaction};
use dtmd_transport_grpc::proto::admin;
use dtmd_transport_grpc::proto::dtmgimp::{DtmBranchRequest, DtmRequest, DtmTopicRequest};
use prost::Message;

use crate::Bytes;
use crate::requests::accepted;

/// One byte that says which message, then the message.
pub(crate) fn request(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let which = bytes.below(4);
    let body = bytes.rest();
    match which {
        0 => {
            let Some(message) = decoded::<DtmRequest>(body) else { return };
            if let Ok(new) = read_transaction(message.clone()) {
                let again = read_transaction(message);
                assert_eq!(Ok(&new), again.as_ref(), "the same request asks for the same");
                accepted(&new);
            }
        }
        1 => {
            let Some(message) = decoded::<DtmBranchRequest>(body) else { return };
            if let Ok(rows) = read_registration(&message) {
                assert!(rows.iter().all(|row| *row.data == *message.busi_payload));
                let _ = dtmd_protocol::step::validate_rows(&rows, &Limits::default());
            }
        }
        2 => drop(decoded::<DtmTopicRequest>(body)),
        _ => drop(decoded::<admin::ListRequest>(body)),
    }
}

/// Decodes a message; what was decoded can be sent on as it is.
fn decoded<M: Message + Default + PartialEq>(body: &[u8]) -> Option<M> {
    let message = M::decode(body).ok()?;
    let again = M::decode(message.encode_to_vec().as_slice());
    assert!(again.is_ok_and(|again| again == message), "a message changes on its way");
    Some(message)
}
