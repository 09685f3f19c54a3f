//! What a gRPC status means (spec 03 §2).

use std::sync::Arc;

use dtmd_protocol::Outcome;
use dtmd_wire::outcome::clean;
use tonic::Code;

/// `ABORTED`: FAILURE.
const ABORTED: i32 = Code::Aborted as i32;
/// `FAILED_PRECONDITION`: ONGOING.
const FAILED_PRECONDITION: i32 = Code::FailedPrecondition as i32;
/// HTTP's numbers, which Hyperf's services put into `grpc-status`. DTM takes them for unknown.
const CONFLICT: i32 = 409;
const TOO_EARLY: i32 = 425;

/// Returns what a status means. `number` is as it came, which need not be a code of gRPC's.
pub(super) fn grpc_outcome(number: i32, message: &[u8]) -> Outcome {
    match number {
        0 => Outcome::Success,
        // Services older than DTM v1.10 said ABORTED for both.
        ABORTED if message == b"ONGOING" => Outcome::Ongoing,
        ABORTED | CONFLICT => Outcome::Failure(Arc::from(clean(message))),
        FAILED_PRECONDITION | TOO_EARLY => Outcome::Ongoing,
        _ => {
            let text = format!("gRPC status {number} ({}): {}", name(number), clean(message));
            Outcome::Unknown(Arc::from(text))
        }
    }
}

/// Returns a status's text as it was before it was made fit for a header.
pub(super) fn decode_message(encoded: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut at = 0;
    while let Some(&byte) = encoded.get(at) {
        let hex = encoded.get(at + 1..at + 3).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let value = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match value {
            Some(value) if byte == b'%' => {
                decoded.push(value);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

fn name(number: i32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let known = usize::try_from(number).ok().and_then(|number| NAMES.get(number));
    known.copied().unwrap_or("no code of gRPC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let table: [(i32, &str, &str); 12] = [
            (0, "", "success"),
            (0, "FAILURE", "success"),
            (10, "", "failure"),
            (10, "no money FAILURE", "failure"),
            (10, "ONGOING", "ongoing"),
            (10, "it is ONGOING", "failure"),
            (9, "", "ongoing"),
            (409, "x", "failure"),
            (425, "x", "ongoing"),
            (2, "FAILURE", "unknown"),
            (14, "", "unknown"),
            (-1, "", "unknown"),
        ];
        for (number, message, word) in table {
            let outcome = grpc_outcome(number, message.as_bytes());
            assert_eq!(outcome.as_str(), word, "{number} {message}");
        }
        let Outcome::Unknown(text) = grpc_outcome(4, b"slow") else { panic!("not unknown") };
        assert_eq!(&*text, "gRPC status 4 (DEADLINE_EXCEEDED): slow");
    }

    #[test]
    fn messages_are_decoded_and_what_is_not_encoded_stays() {
        let table =
            [("", ""), ("a%20b", "a b"), ("%E9%94%99", "错"), ("100%", "100%"), ("%zz%4", "%zz%4")];
        for (encoded, text) in table {
            assert_eq!(decode_message(encoded.as_bytes()), text.as_bytes(), "{encoded}");
        }
    }
}
