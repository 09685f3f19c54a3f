//! What a branch's answer means (spec 02 §4.3, §5.2).

use std::sync::Arc;

use dtmd_protocol::Outcome;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest text kept of an answer, in bytes; the rest is cut.
pub const TEXT_MAX_BYTES: usize = 4096;

const FAILURE: &str = "FAILURE";
const ONGOING: &str = "ONGOING";

/// The code of a JSON-RPC error that says FAILURE.
const JSONRPC_FAILURE: f64 = -32901.0;
/// The code of a JSON-RPC error that says ONGOING.
const JSONRPC_ONGOING: f64 = -32902.0;

/// Where in an HTTP answer the words FAILURE and ONGOING count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SubstringRule {
    /// Anywhere in the body, whatever the status, as DTM does. Services written for DTM before
    /// v1.10, and several SDKs' samples, answer 200 with the word in the body.
    #[default]
    Dtm,
    /// Only as a JSON body's `dtm_result`, or as the whole body; and every 2xx is a success.
    Exact,
}

/// Returns what an HTTP answer means. The order of the rules is DTM's.
pub fn http_outcome(status: u16, body: &[u8], rule: SubstringRule) -> Outcome {
    let says = |word: &str| match rule {
        SubstringRule::Dtm => contains(body, word.as_bytes()),
        SubstringRule::Exact => is_word(body, word),
    };
    let is_success = match rule {
        SubstringRule::Dtm => status == 200,
        SubstringRule::Exact => (200..300).contains(&status),
    };
    if status == 425 || says(ONGOING) {
        Outcome::Ongoing
    } else if status == 409 || says(FAILURE) {
        Outcome::Failure(Arc::from(clean(body)))
    } else if is_success {
        Outcome::Success
    } else {
        Outcome::Unknown(Arc::from(format!("HTTP status {status}: {}", clean(body))))
    }
}

/// Returns what the answer to a JSON-RPC call means: the rules of HTTP first, then the error code.
pub fn jsonrpc_outcome(status: u16, body: &[u8], rule: SubstringRule) -> Outcome {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Error {
        code: f64,
    }

    let outcome = http_outcome(status, body, rule);
    if outcome != Outcome::Success {
        return outcome;
    }
    // A derived decoder would take an array for an object.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    let error = match serde_json::from_slice(body) {
        Ok(Envelope { error }) if is_object => error,
        _ => {
            let text = format!("not a JSON-RPC response: {}", clean(body));
            return Outcome::Unknown(Arc::from(text));
        }
    };
    let Some(error) = error else { return Outcome::Success };
    // The code is compared as a number however it is written: some encoders write -32901.0.
    let code = serde_json::from_str(error.get()).map(|Error { code }| code);
    match code {
        Ok(JSONRPC_FAILURE) => Outcome::Failure(Arc::from(clean(body))),
        Ok(JSONRPC_ONGOING) => Outcome::Ongoing,
        _ => Outcome::Unknown(Arc::from(format!("JSON-RPC error: {}", clean(body)))),
    }
}

/// Returns an answer's text as it may be stored and shown: cut, and without control characters.
pub fn clean(body: &[u8]) -> String {
    let cut = &body[..body.len().min(TEXT_MAX_BYTES)];
    let mut text = String::with_capacity(cut.len());
    for chunk in cut.utf8_chunks() {
        text.extend(chunk.valid().chars().map(|c| if c.is_control() { ' ' } else { c }));
        // What the cut left of a character is dropped; a byte that is none is shown as such.
        let is_cut = cut.len() < body.len() && cut.ends_with(chunk.invalid());
        if !chunk.invalid().is_empty() && !is_cut {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    truncate(&mut text, TEXT_MAX_BYTES);
    text
}

/// Cuts a text to so many bytes, or a few less, at the end of a character.
pub(crate) fn truncate(text: &mut String, max: usize) {
    let end = (0..=max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
}

fn contains(body: &[u8], word: &[u8]) -> bool {
    body.windows(word.len()).any(|window| window == word)
}

fn is_word(body: &[u8], word: &str) -> bool {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        dtm_result: std::borrow::Cow<'a, str>,
    }

    let body = body.trim_ascii();
    let bare = body.strip_prefix(b"\"").and_then(|body| body.strip_suffix(b"\"")).unwrap_or(body);
    bare == word.as_bytes()
        || body.first() == Some(&b'{')
            && serde_json::from_slice(body).is_ok_and(|Answer { dtm_result }| dtm_result == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(outcome: &Outcome) -> &'static str {
        outcome.as_str()
    }

    #[test]
    fn http_answers() {
        // Status, body, by DTM's rule, by the exact rule.
        let table: &[(u16, &str, &str, &str)] = &[
            (200, "", "success", "success"),
            (200, r#"{"dtm_result":"SUCCESS"}"#, "success", "success"),
            (200, "anything", "success", "success"),
            (200, r#"{"dtm_result":"FAILURE"}"#, "failure", "failure"),
            (200, r#"{"dtm_result":"ONGOING"}"#, "ongoing", "ongoing"),
            (200, "FAILURE", "failure", "failure"),
            (200, " \"ONGOING\"\n", "ongoing", "ongoing"),
            (200, r#"[{"state":"FAILURE"}]"#, "failure", "success"),
            (200, r#"{"message":"x FAILURE"}"#, "failure", "success"),
            (200, r#"{"a":"FAILURE ONGOING"}"#, "ongoing", "success"),
            (201, "", "unknown", "success"),
            (204, "", "unknown", "success"),
            (302, "", "unknown", "unknown"),
            (409, "", "failure", "failure"),
            (409, "ONGOING", "ongoing", "ongoing"),
            (409, "say ONGOING", "ongoing", "failure"),
            (425, "FAILURE", "ongoing", "ongoing"),
            (404, "", "unknown", "unknown"),
            (500, "it was a FAILURE", "failure", "unknown"),
            (500, r#"{"dtm_result":"FAILURE"}"#, "failure", "failure"),
            (500, r#"{"dtm_result":1}"#, "unknown", "unknown"),
            (500, "{", "unknown", "unknown"),
            (503, "failure", "unknown", "unknown"),
        ];
        for (status, body, dtm, exact) in table {
            let outcome = |rule| http_outcome(*status, body.as_bytes(), rule);
            assert_eq!(word(&outcome(SubstringRule::Dtm)), *dtm, "dtm: {status} {body}");
            assert_eq!(word(&outcome(SubstringRule::Exact)), *exact, "exact: {status} {body}");
        }
    }

    #[test]
    fn the_text_of_a_failure_is_the_body_and_that_of_an_unknown_names_the_status() {
        let outcome = |status| http_outcome(status, b"no money", SubstringRule::Dtm);
        assert_eq!(outcome(409), Outcome::Failure("no money".into()));
        assert_eq!(outcome(500), Outcome::Unknown("HTTP status 500: no money".into()));
    }

    #[test]
    fn jsonrpc_answers() {
        let table: &[(u16, &str, &str)] = &[
            (200, r#"{"jsonrpc":"2.0","id":"1","result":{}}"#, "success"),
            (200, r#"{"result":null,"error":null}"#, "success"),
            (200, r#"{"error":{"code":-32901,"message":"no"}}"#, "failure"),
            (200, r#"{"error":{"code":-32901.0,"message":"no"}}"#, "failure"),
            (200, r#"{"error":{"code":-32902}}"#, "ongoing"),
            (200, r#"{"error":{"code":-32603,"message":"x"}}"#, "unknown"),
            (200, r#"{"error":{"code":-32603,"message":"x FAILURE"}}"#, "failure"),
            (200, r#"{"error":{"code":"-32901"}}"#, "unknown"),
            (200, r#"{"error":{}}"#, "unknown"),
            (200, r#"{"error":"no"}"#, "unknown"),
            (200, r#"{"error":[1]}"#, "unknown"),
            (200, "", "unknown"),
            (200, "pong", "unknown"),
            (200, "[null]", "unknown"),
            (409, "", "failure"),
            (425, "", "ongoing"),
            (500, r#"{"error":null}"#, "unknown"),
        ];
        for (status, body, expected) in table {
            let outcome = jsonrpc_outcome(*status, body.as_bytes(), SubstringRule::Dtm);
            assert_eq!(word(&outcome), *expected, "{status} {body}");
        }
    }

    #[test]
    fn texts_are_cut_on_a_character_and_hold_no_control_characters() {
        assert_eq!(clean(b"a\r\nb\0c\x1b[1m\t"), "a  b c [1m ");
        assert_eq!(clean(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(clean(b"a\xff"), "a\u{fffd}");
        let long = "ü".repeat(3000);
        assert_eq!(clean(long.as_bytes()), "ü".repeat(2048));
        let odd = format!("x{long}");
        assert_eq!(clean(odd.as_bytes()), format!("x{}", "ü".repeat(2047)));
        assert!(clean(&[0xff; 9000]).len() <= TEXT_MAX_BYTES);
    }
}
