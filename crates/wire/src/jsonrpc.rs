//! The JSON-RPC envelope of the server's own endpoint (spec 02 §5.1).

use std::borrow::Cow;
use std::collections::HashMap;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

/// A request's envelope.
#[derive(Debug, Default)]
pub struct Envelope<'a> {
    /// `id`, as it was written: a string, or a number (spec 07 D42).
    pub id: Option<&'a RawValue>,
    /// `method`.
    pub method: Cow<'a, str>,
    /// `params`, undecoded: the body of the HTTP route of the same name.
    pub params: Option<&'a RawValue>,
}

/// What went wrong, by what DTM's clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The body is not a JSON-RPC request.
    Parse,
    /// The envelope is not one of version 2.0 with an id.
    Envelope,
    /// There is no such method.
    Method,
    /// The answer is FAILURE.
    Failure,
    /// Anything else, ONGOING included.
    Other,
}

impl ErrorKind {
    /// Returns the code on the wire.
    pub fn code(self) -> i32 {
        match self {
            Self::Parse => -32700,
            Self::Envelope => -32600,
            Self::Method => -32601,
            Self::Failure => -32901,
            Self::Other => -32603,
        }
    }
}

/// Why an envelope is not accepted, with its `id` if that could be read.
#[derive(Debug)]
pub struct BadEnvelope<'a> {
    /// The id to echo.
    pub id: Option<&'a RawValue>,
    /// [`ErrorKind::Parse`] or [`ErrorKind::Envelope`].
    pub kind: ErrorKind,
    /// The text for the caller.
    pub message: String,
}

impl<'a> Envelope<'a> {
    /// Decodes an envelope; unknown members are passed over.
    ///
    /// # Errors
    ///
    /// [`BadEnvelope`] for what is not a request of version 2.0 with an id. Batches and
    /// notifications are not supported, as in DTM.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadEnvelope<'a>> {
        let bad = |id, kind, message| Err(BadEnvelope { id, kind, message });
        // Raw members in a map: the last of several with one name wins, as everywhere.
        let members: HashMap<Cow<'a, str>, &'a RawValue> = match serde_json::from_slice(body) {
            Ok(members) => members,
            Err(error) => return bad(None, ErrorKind::Parse, format!("Parse json error: {error}")),
        };
        let id = members.get("id").copied().filter(|id| is_id(id));
        let (Some(version), Some(method)) = (text(&members, "jsonrpc"), text(&members, "method"))
        else {
            let message = "Parse json error: jsonrpc and method are strings".to_owned();
            return bad(None, ErrorKind::Parse, message);
        };
        if version != "2.0" {
            let message = "Bad json request: jsonrpc must be \"2.0\"".to_owned();
            return bad(id, ErrorKind::Envelope, message);
        }
        if id.is_none() {
            let message = "Bad json request: id must be a non-empty string or a number".to_owned();
            return bad(None, ErrorKind::Envelope, message);
        }
        Ok(Self { id, method, params: members.get("params").copied() })
    }

    /// Returns the body that the HTTP route of the method's name would have got.
    pub fn params(&self) -> &'a [u8] {
        self.params.map_or(b"null", |params| params.get().as_bytes())
    }
}

/// Returns a member that is a string; one that is missing or null is empty, another is `None`.
fn text<'a>(members: &HashMap<Cow<'a, str>, &'a RawValue>, name: &str) -> Option<Cow<'a, str>> {
    let raw = members.get(name).map_or("null", |raw| raw.get());
    let text: Option<String> = serde_json::from_str(raw).ok()?;
    Some(Cow::Owned(text.unwrap_or_default()))
}

fn is_id(id: &RawValue) -> bool {
    let text = id.get();
    let is_string = text.starts_with('"') && text != "\"\"";
    is_string || text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// Returns a success: `result` is the value, or null.
pub fn success(id: Option<&RawValue>, result: Option<&impl Serialize>) -> Vec<u8> {
    write(&Response { id, result: Some(result), error: None })
}

/// Returns an error. As in DTM `result` is then an empty object if the method was run.
pub fn error(id: Option<&RawValue>, kind: ErrorKind, message: &str) -> Vec<u8> {
    let error = Some(ErrorMember { code: kind.code(), message });
    match kind {
        ErrorKind::Failure | ErrorKind::Other => {
            write(&Response { id, result: Some(Empty), error })
        }
        ErrorKind::Parse | ErrorKind::Envelope | ErrorKind::Method => {
            write(&Response { id, result: None::<()>, error })
        }
    }
}

fn write(response: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(response).expect("maps of strings and numbers are JSON")
}

struct Empty;

impl Serialize for Empty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_map(Some(0))?.end()
    }
}

#[derive(serde::Serialize)]
struct ErrorMember<'a> {
    code: i32,
    message: &'a str,
}

struct Response<'a, T> {
    id: Option<&'a RawValue>,
    result: Option<T>,
    error: Option<ErrorMember<'a>>,
}

impl<T: Serialize> Serialize for Response<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("jsonrpc", "2.0")?;
        match self.id {
            Some(id) => map.serialize_entry("id", id)?,
            None => map.serialize_entry("id", "")?,
        }
        map.serialize_entry("result", &self.result)?;
        map.serialize_entry("error", &self.error)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes() {
        let body = br#"{"jsonrpc":"2.0","id":"a","method":"submit","params":{"gid":"g"},"x":1}"#;
        let envelope = Envelope::parse(body).unwrap();
        assert_eq!(envelope.method, "submit");
        assert_eq!(envelope.params(), br#"{"gid":"g"}"#);
        assert_eq!(envelope.id.unwrap().get(), "\"a\"");

        let twice = br#"{"jsonrpc":"1.0","jsonrpc":"2.0","id":"","id":"a","method":null}"#;
        assert_eq!(Envelope::parse(twice).unwrap().method, "");
        let numbered = Envelope::parse(br#"{"jsonrpc":"2.0","id":7,"method":"newGid"}"#).unwrap();
        assert_eq!(numbered.id.unwrap().get(), "7");
        assert_eq!(numbered.params(), b"null");
    }

    #[test]
    fn bad_envelopes() {
        let table = [
            ("", -32700, ""),
            ("{", -32700, ""),
            ("[]", -32700, ""),
            (r#"["2.0","1","submit",{}]"#, -32700, ""),
            (r#"{"jsonrpc":2,"id":"1"}"#, -32700, ""),
            (r#"{"id":"1","method":"submit"}"#, -32600, "\"1\""),
            (r#"{"jsonrpc":"1.0","id":"1"}"#, -32600, "\"1\""),
            (r#"{"jsonrpc":"2.0","id":"","method":"m"}"#, -32600, ""),
            (r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, -32600, ""),
            (r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#, -32600, ""),
            (r#"{"jsonrpc":"2.0","method":"m"}"#, -32600, ""),
        ];
        for (body, code, id) in table {
            let bad = Envelope::parse(body.as_bytes()).unwrap_err();
            assert_eq!(bad.kind.code(), code, "{body}");
            assert_eq!(bad.id.map_or("", RawValue::get), id, "{body}");
        }
    }

    #[test]
    fn responses_always_have_both_members() {
        let id: &RawValue = serde_json::from_str("7").unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(
            text(success(Some(id), None::<&()>)),
            r#"{"jsonrpc":"2.0","id":7,"result":null,"error":null}"#
        );
        assert_eq!(
            text(error(None, ErrorKind::Failure, "x FAILURE")),
            r#"{"jsonrpc":"2.0","id":"","result":{},"error":{"code":-32901,"message":"x FAILURE"}}"#
        );
        assert_eq!(
            text(error(Some(id), ErrorKind::Method, "m")),
            r#"{"jsonrpc":"2.0","id":7,"result":null,"error":{"code":-32601,"message":"m"}}"#
        );
    }
}
