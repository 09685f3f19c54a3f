//! What an outcome looks like on the wire (spec 02 §1.2).

use bytes::Bytes;
use dtmd_engine::EngineError;
use dtmd_protocol::{Refused, RequestKind};
use dtmd_wire::{RequestError, response};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A response before it is one.
#[derive(Debug)]
pub(super) struct Reply {
    status: u16,
    content_type: HeaderValue,
    body: Bytes,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Reply {
    fn new(status: u16, content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, body: body.into(), header: None }
    }

    /// Success without a value.
    pub(super) fn success() -> Self {
        Self::new(200, JSON, response::SUCCESS)
    }

    /// Success with a value.
    pub(super) fn json(body: Vec<u8>) -> Self {
        Self::new(200, JSON, body)
    }

    /// An error without a `dtm_result`.
    pub(super) fn message(status: u16, text: &str) -> Self {
        Self::new(status, JSON, response::message(text))
    }

    /// Plain text.
    pub(super) fn text(status: u16, text: impl Into<Bytes>) -> Self {
        Self::new(status, TEXT, text)
    }

    /// Text of another type.
    pub(super) fn of_type(content_type: &'static str, text: String) -> Self {
        Self::new(200, HeaderValue::from_static(content_type), text)
    }

    /// Another place to go to.
    pub(super) fn redirect(status: u16, location: &str) -> Self {
        match HeaderValue::try_from(location) {
            Ok(location) => Self { header: Some((LOCATION, location)), ..Self::text(status, "") },
            Err(_) => Self::not_found(),
        }
    }

    /// What DTM's router says to what it does not know.
    pub(super) fn not_found() -> Self {
        Self::text(404, "404 page not found")
    }

    /// The same with another status.
    pub(super) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// The same, and the connection is closed after it.
    pub(super) fn and_close(mut self) -> Self {
        self.header = Some((CONNECTION, HeaderValue::from_static("close")));
        self
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }
}

impl From<Reply> for Response<Full<Bytes>> {
    fn from(reply: Reply) -> Self {
        let mut response = Response::new(Full::new(reply.body));
        *response.status_mut() = StatusCode::from_u16(reply.status)
            .expect("statuses are written in this crate, from 200 to 503");
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, reply.content_type);
        if let Some((name, value)) = reply.header {
            headers.insert(name, value);
        }
        response
    }
}

/// Why a request was not done.
#[derive(Debug)]
pub(super) enum Problem {
    /// The engine did not.
    Engine(EngineError),
    /// It was not understood.
    Request(RequestError),
    /// A parameter is missing or wrong; with the status that DTM gives it.
    Parameter(u16, String),
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// What a caller is told beside the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// `dtm_result` is FAILURE.
    Failure,
    /// `dtm_result` is ONGOING.
    Ongoing,
    /// There is only a message.
    None,
    /// As `None`, and to come back in a second.
    Later,
}

impl Problem {
    /// The one table from our errors to DTM's answers.
    pub(super) fn answer(&self) -> (u16, Word) {
        match self {
            Self::Engine(error) => match error {
                EngineError::Refused(Refused::Status {
                    request: RequestKind::FinishWorkflow,
                    ..
                }) => (500, Word::None),
                EngineError::Refused(_)
                | EngineError::RolledBack(_)
                | EngineError::NotPrepared(_) => (409, Word::Failure),
                EngineError::Ongoing(_) => (425, Word::Ongoing),
                EngineError::Invalid(_) => (400, Word::Failure),
                EngineError::NotFound(_)
                | EngineError::NoWorkflow
                | EngineError::TopicNotFound(_)
                | EngineError::Topic(_)
                | EngineError::Branch(_) => (500, Word::None),
                EngineError::Unavailable(_)
                | EngineError::Overloaded(_)
                | EngineError::ShuttingDown => (503, Word::Later),
                // A new kind of error says nothing about the transaction until it is listed here.
                _ => (500, Word::None),
            },
            Self::Request(RequestError::Invalid(_)) => (400, Word::Failure),
            Self::Request(RequestError::Undecodable(_) | RequestError::UnknownType(_)) => {
                (500, Word::None)
            }
            Self::Parameter(status, _) => (*status, Word::None),
        }
    }

    /// Returns what the caller reads: the text, with the word that SDKs search for.
    pub(super) fn told(&self) -> String {
        let text = match self {
            Self::Engine(error) => error.to_string(),
            Self::Request(error) => error.to_string(),
            Self::Parameter(_, text) => text.clone(),
        };
        match self.answer() {
            (_, Word::Failure) => response::with_word(&text, "FAILURE"),
            (_, Word::Ongoing) => response::with_word(&text, "ONGOING"),
            (_, Word::None | Word::Later) => text,
        }
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let (status, word) = problem.answer();
        let text = problem.told();
        let body = match word {
            Word::Failure => response::failure(&text),
            Word::Ongoing => response::ongoing(&text),
            Word::None | Word::Later => response::message(&text),
        };
        let mut reply = Self::new(status, JSON, body);
        if word == Word::Later {
            reply.header = Some((RETRY_AFTER, HeaderValue::from_static("1")));
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use dtmd_protocol::{Gid, GlobalStatus, Invalid, TransType};

    use super::*;

    fn refused(request: RequestKind) -> Problem {
        let gid = Gid::new("g").unwrap();
        let (trans_type, status) = (TransType::Saga, GlobalStatus::Succeed);
        EngineError::Refused(Refused::Status { gid, request, trans_type, status }).into()
    }

    #[test]
    fn every_error_has_its_status_and_word() {
        let gid = || Gid::new("g").unwrap();
        let engine = Problem::Engine;
        let table = [
            (refused(RequestKind::Submit), 409, Word::Failure),
            (refused(RequestKind::Prepare), 409, Word::Failure),
            (refused(RequestKind::Abort), 409, Word::Failure),
            (refused(RequestKind::ForceStop), 409, Word::Failure),
            (refused(RequestKind::Register), 409, Word::Failure),
            (refused(RequestKind::RetryNow), 409, Word::Failure),
            (refused(RequestKind::FinishWorkflow), 500, Word::None),
            (engine(EngineError::RolledBack("why".into())), 409, Word::Failure),
            (engine(EngineError::NotPrepared(gid())), 409, Word::Failure),
            (engine(EngineError::Ongoing("x".into())), 425, Word::Ongoing),
            (engine(EngineError::Invalid(Invalid::OrderCycle { step: 1 })), 400, Word::Failure),
            (engine(EngineError::NotFound(gid())), 500, Word::None),
            (engine(EngineError::NoWorkflow), 500, Word::None),
            (engine(EngineError::TopicNotFound("t".into())), 500, Word::None),
            (engine(EngineError::Topic("empty url".into())), 500, Word::None),
            (engine(EngineError::Branch("x".into())), 500, Word::None),
            (engine(EngineError::Unavailable("x".into())), 503, Word::Later),
            (engine(EngineError::Overloaded("x")), 503, Word::Later),
            (engine(EngineError::ShuttingDown), 503, Word::Later),
            (Problem::Request(RequestError::Invalid("x".into())), 400, Word::Failure),
            (Problem::Request(RequestError::Undecodable("x".into())), 500, Word::None),
            (Problem::Request(RequestError::UnknownType("x".into())), 500, Word::None),
            (Problem::Parameter(500, "no gid specified".into()), 500, Word::None),
        ];
        for (problem, status, word) in table {
            assert_eq!(problem.answer(), (status, word), "{problem:?}");
            let text = problem.told();
            let reply = Reply::from(problem);
            let body = String::from_utf8(reply.body.to_vec()).unwrap();
            assert_eq!(reply.status, status);
            assert_eq!(body.contains(r#""dtm_result":"FAILURE""#), word == Word::Failure, "{body}");
            assert_eq!(body.contains(r#""dtm_result":"ONGOING""#), word == Word::Ongoing, "{body}");
            assert_eq!(reply.header.is_some(), word == Word::Later, "{text}");
            if word == Word::Failure {
                assert!(body.contains("FAILURE\"}"), "the message has the word too: {body}");
            }
        }
    }
}
