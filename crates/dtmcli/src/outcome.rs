//! What an HTTP answer means (spec 02 §4.3).

use crate::BranchError;

/// The longest text kept of an answer.
const TEXT_MAX_CHARS: usize = 1_000;

/// Where in a body the words `FAILURE` and `ONGOING` count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Words {
    /// As the JSON member `dtm_result`, or as the whole body.
    #[default]
    Exact,
    /// Anywhere, as in DTM's own SDKs.
    Anywhere,
    /// Nowhere: the status alone decides, as in the steps of a workflow (spec 04 §7.2).
    Status,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure(String),
    Ongoing(String),
    Unknown { status: u16, text: String },
}

impl Outcome {
    /// The outcome of an HTTP answer. The order of the rules is DTM's.
    pub(crate) fn of_http(status: u16, body: &[u8], words: Words) -> Self {
        let says = |word: &str| match words {
            Words::Exact => is_word(body, word),
            Words::Anywhere => body.windows(word.len()).any(|part| part == word.as_bytes()),
            Words::Status => false,
        };
        if status == 425 || says("ONGOING") {
            Self::Ongoing(text(body))
        } else if status == 409 || says("FAILURE") {
            Self::Failure(text(body))
        } else if status == 200 {
            Self::Success
        } else {
            Self::Unknown { status, text: text(body) }
        }
    }

    /// What the answer of a branch means to the caller's business.
    ///
    /// # Errors
    ///
    /// Everything but success.
    pub(crate) fn into_branch_result(self, url: &str) -> Result<(), BranchError> {
        match self {
            Self::Success => Ok(()),
            Self::Failure(text) => Err(BranchError::Failure(text)),
            Self::Ongoing(text) => Err(BranchError::Ongoing(text)),
            Self::Unknown { status, text } => {
                Err(BranchError::retry(format!("{url} answered {status}: {text}")))
            }
        }
    }
}

/// A body as it may be shown: the message of DTM's JSON if it is one, cut to a length.
pub(crate) fn text(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Message {
        message: Option<String>,
        error: Option<String>,
    }
    let json = serde_json::from_slice::<Message>(body).ok();
    let told = json.and_then(|json| json.message.or(json.error));
    let text = told.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.chars().take(TEXT_MAX_CHARS).collect()
}

fn is_word(body: &[u8], word: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Answer {
        dtm_result: Option<String>,
    }
    let body = body.trim_ascii();
    if body.trim_ascii_start().starts_with(b"{") {
        let answer = serde_json::from_slice::<Answer>(body).ok();
        return answer.and_then(|answer| answer.dtm_result).is_some_and(|said| said == word);
    }
    body == word.as_bytes() || body == format!("\"{word}\"").as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_the_protocol_says() {
        let success = || Outcome::Success;
        let failure = |text: &str| Outcome::Failure(text.to_owned());
        let ongoing = |text: &str| Outcome::Ongoing(text.to_owned());
        let unknown = |status, text: &str| Outcome::Unknown { status, text: text.to_owned() };
        let old = r#"{"dtm_result":"FAILURE"}"#;
        let table = [
            (200, r#"{"dtm_result":"SUCCESS"}"#, Words::Exact, success()),
            (200, "", Words::Exact, success()),
            (200, old, Words::Exact, failure(old)),
            (200, "FAILURE", Words::Exact, failure("FAILURE")),
            (200, "\"ONGOING\"", Words::Exact, ongoing("\"ONGOING\"")),
            (200, r#"{"note":"no FAILURE here"}"#, Words::Exact, success()),
            (200, r#"{"note":"a FAILURE"}"#, Words::Anywhere, failure(r#"{"note":"a FAILURE"}"#)),
            (200, old, Words::Status, success()),
            (409, r#"{"dtm_result":"FAILURE","message":"x"}"#, Words::Exact, failure("x")),
            (409, r#"{"error":"y"}"#, Words::Status, failure("y")),
            (425, "FAILURE", Words::Exact, ongoing("FAILURE")),
            (
                409,
                r#"{"dtm_result":"ONGOING"}"#,
                Words::Exact,
                ongoing(r#"{"dtm_result":"ONGOING"}"#),
            ),
            (201, "{}", Words::Exact, unknown(201, "{}")),
            (500, r#"{"message":"boom"}"#, Words::Exact, unknown(500, "boom")),
            (404, "404 page not found", Words::Exact, unknown(404, "404 page not found")),
        ];
        for (status, body, words, expected) in table {
            assert_eq!(
                Outcome::of_http(status, body.as_bytes(), words),
                expected,
                "{status} {body}"
            );
        }
    }

    #[test]
    fn a_long_answer_is_cut() {
        assert_eq!(text("é".repeat(5_000).as_bytes()).chars().count(), TEXT_MAX_CHARS);
    }
}
