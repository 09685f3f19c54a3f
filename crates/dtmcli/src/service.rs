//! What a service answers when it is called as a branch (spec 04 §8), for any framework.

use serde_json::json;

use crate::BranchError;

/// The body of a success without a value: some SDKs want one that is not empty.
pub const SUCCESS_BODY: &str = r#"{"dtm_result":"SUCCESS"}"#;

/// The HTTP status and the JSON body that tell an error of a branch: 409 with `FAILURE`, 425 with
/// `ONGOING`, 500 without a result.
///
/// For frameworks that the SDK has no feature for. A success is 200 with any body; use
/// [`SUCCESS_BODY`] if there is nothing to say.
///
/// ```
/// use dtmcli::{BranchError, http_answer};
///
/// let (status, body) = http_answer(&BranchError::failure("no money"));
/// assert_eq!(status, 409);
/// assert_eq!(body, r#"{"dtm_result":"FAILURE","message":"no money FAILURE"}"#);
/// ```
#[must_use]
pub fn http_answer(error: &BranchError) -> (u16, String) {
    let text = message(error);
    let body = match error.word() {
        Some(word) => json!({ "dtm_result": word, "message": text }),
        None => json!({ "message": text }),
    };
    (error.http_status(), body.to_string())
}

/// The text that goes out with an error. DTM looks for the two words wherever they are, `ONGOING`
/// first, so each error has its own and no other.
pub(crate) fn message(error: &BranchError) -> String {
    let with = |reason: &str, word: &str, other: &str| {
        let text = reason.replace(other, &other.to_ascii_lowercase());
        if text.contains(word) { text } else { format!("{text} {word}").trim_start().to_owned() }
    };
    match error {
        BranchError::Failure(reason) => with(reason, "FAILURE", "ONGOING"),
        BranchError::Ongoing(reason) => with(reason, "ONGOING", "FAILURE"),
        other => other.to_string().replace("FAILURE", "failure").replace("ONGOING", "ongoing"),
    }
}

/// Logs an error of a branch where it is handled: with the chain of causes, which callers do not
/// get to see.
#[cfg(any(feature = "axum", feature = "tonic-server"))]
pub(crate) fn log(error: &BranchError) {
    if let BranchError::Retry(source) = error {
        let mut chain = source.to_string();
        let mut cause = source.source();
        while let Some(error) = cause {
            chain = format!("{chain}: {error}");
            cause = error.source();
        }
        tracing::warn!(error = chain, "a branch is to be called again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_own_word() {
        let table = [
            (
                BranchError::failure("no money"),
                (409, r#"{"dtm_result":"FAILURE","message":"no money FAILURE"}"#),
            ),
            (
                BranchError::failure("FAILURE: ONGOING audit"),
                (409, r#"{"dtm_result":"FAILURE","message":"FAILURE: ongoing audit"}"#),
            ),
            (BranchError::failure(""), (409, r#"{"dtm_result":"FAILURE","message":"FAILURE"}"#)),
            (
                BranchError::ongoing("FAILURE is possible"),
                (425, r#"{"dtm_result":"ONGOING","message":"failure is possible ONGOING"}"#),
            ),
            (
                BranchError::retry("disk FAILURE"),
                (500, r#"{"message":"to be called again: disk failure"}"#),
            ),
        ];
        for (error, (status, body)) in table {
            assert_eq!(http_answer(&error), (status, body.to_owned()));
        }
    }
}
