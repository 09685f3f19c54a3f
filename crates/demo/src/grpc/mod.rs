//! Just enough of gRPC for participants and applications of a demo or a benchmark: unary calls over
//! plaintext HTTP/2, messages as they are.
//!
//! [`client`] makes calls, [`server`] answers them, [`messages`] is what DTM's own service speaks
//! (spec 03 §1). Statuses are read and written as numbers: a service of DTM's world may answer any.

pub mod client;
pub mod messages;
pub mod server;

use bytes::{BufMut as _, Bytes, BytesMut};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// The longest message that is read.
const MESSAGE_MAX_BYTES: usize = 4 << 20;

/// Statuses that mean something to DTM (spec 03 §1.3), and those the server here needs.
pub mod status {
    /// Done.
    pub const OK: i32 = 0;
    /// Nobody knows; ask again.
    pub const UNKNOWN: i32 = 2;
    /// The request is not understood.
    pub const INVALID_ARGUMENT: i32 = 3;
    /// Not done yet; ask again.
    pub const FAILED_PRECONDITION: i32 = 9;
    /// Refused for good.
    pub const ABORTED: i32 = 10;
    /// There is no such method.
    pub const UNIMPLEMENTED: i32 = 12;
    /// Something broke.
    pub const INTERNAL: i32 = 13;
    /// Too much to do.
    pub const UNAVAILABLE: i32 = 14;
}

/// Returns a message behind its prefix, as it goes over the wire.
#[must_use]
pub fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    // Messages here are written by this program and far below 4 GiB.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// Returns the message of a whole frame; a body of nothing is an empty message.
fn unframed(mut frame: Bytes) -> Result<Bytes, &'static str> {
    let Some(prefix) = frame.first_chunk::<PREFIX_BYTES>() else {
        return if frame.is_empty() { Ok(frame) } else { Err("the message is cut off") };
    };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err("the message is compressed, which this service does not read");
    }
    if frame.len() - PREFIX_BYTES != u32::from_be_bytes(length) as usize {
        return Err("there is not exactly one whole message");
    }
    Ok(frame.split_off(PREFIX_BYTES))
}

/// Reads a body to its end.
async fn read_body(body: &mut h2::RecvStream) -> Result<Bytes, String> {
    let mut whole = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(|error| error.to_string())?;
        if whole.len() + piece.len() > PREFIX_BYTES + MESSAGE_MAX_BYTES {
            return Err(format!("the message is longer than {MESSAGE_MAX_BYTES} bytes"));
        }
        let _ = body.flow_control().release_capacity(piece.len());
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// Encodes a status' text: percent signs for what is not visible ASCII.
fn encode_text(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => encoded.push_str("%25"),
            b' '..=b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
