//! An HTTP/1.1 JSON client: one connection a request, one deadline a request.
//!
//! Connections are not kept: the demo kills the servers it talks to, and a stale connection would
//! only be one more thing to explain.

use std::time::Duration;

use ::http::{Method, Request, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Largest answer that is read.
const ANSWER_SIZE_MAX_BYTES: usize = 16 * 1024 * 1024;
/// The deadline of a request unless another is set.
const DEADLINE: Duration = Duration::from_secs(10);

/// What an answer means (spec 02 §4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Success,
    /// Refused for good; the text says why.
    Failure(String),
    /// Not done yet; ask again.
    Ongoing(String),
    /// Nobody knows; ask again.
    Unknown(String),
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON, [`Value::Null`] if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// What the answer means, by the status and by the words FAILURE and ONGOING (spec 02 §4.3).
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let text = || self.body.clone();
        if self.status == 425 || self.body.contains("ONGOING") {
            Outcome::Ongoing(text())
        } else if self.status == 409 || self.body.contains("FAILURE") {
            Outcome::Failure(text())
        } else if self.status == 200 {
            Outcome::Success
        } else {
            Outcome::Unknown(format!("HTTP {}: {}", self.status, self.body))
        }
    }
}

/// Why there is no answer. The request may or may not have been handled, except for
/// [`HttpError::Url`] and [`HttpError::Connect`], where it was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The URL cannot be used.
    #[error("not a URL this client can call: {0}")]
    Url(String),
    /// Nobody accepts connections there.
    #[error("cannot connect to {url}: {source}")]
    Connect {
        /// The URL of the request.
        url: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke before the answer was whole.
    #[error("no answer from {url}: {text}")]
    Broken {
        /// The URL of the request.
        url: String,
        /// What happened.
        text: String,
    },
    /// No answer in time.
    #[error("no answer from {url} within {} ms", after.as_millis())]
    Deadline {
        /// The URL of the request.
        url: String,
        /// The deadline.
        after: Duration,
    },
}

/// A client; cheap to clone, holds no connection.
#[derive(Debug, Clone)]
pub struct HttpClient {
    deadline: Duration,
}

impl Default for HttpClient {
    fn default() -> Self {
        Self { deadline: DEADLINE }
    }
}

impl HttpClient {
    /// A client whose requests must be answered within `deadline`.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        Self { deadline }
    }

    /// Sends a GET.
    ///
    /// # Errors
    /// There was no answer; an answer of any status is not an error.
    pub async fn get(&self, url: &str) -> Result<Answer, HttpError> {
        self.send(Method::GET, url, Bytes::new()).await
    }

    /// Sends a POST with a JSON body.
    ///
    /// # Errors
    /// There was no answer; an answer of any status is not an error.
    pub async fn post(&self, url: &str, body: &Value) -> Result<Answer, HttpError> {
        self.send(Method::POST, url, Bytes::from(body.to_string())).await
    }

    /// Sends any request; the body, if any, goes as `application/json`, whatever it is.
    ///
    /// # Errors
    /// There was no answer; an answer of any status is not an error.
    pub async fn send(&self, method: Method, url: &str, body: Bytes) -> Result<Answer, HttpError> {
        match tokio::time::timeout(self.deadline, exchange(method, url, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Deadline { url: url.to_owned(), after: self.deadline }),
        }
    }
}

async fn exchange(method: Method, url: &str, body: Bytes) -> Result<Answer, HttpError> {
    let not_usable = || HttpError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| not_usable())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(not_usable)?;
    let port = uri.port_u16().unwrap_or(80);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|_| not_usable())?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
        .await
        .map_err(|source| HttpError::Connect { url: url.to_owned(), source })?;
    let _ = stream.set_nodelay(true);
    let broken = |error: &dyn std::fmt::Display| HttpError::Broken {
        url: url.to_owned(),
        text: error.to_string(),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_SIZE_MAX_BYTES)
            .collect()
            .await
            .map_err(|error| broken(&error))?
            .to_bytes();
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
    .await;
    driver.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_the_protocol_says() {
        let outcome = |status, body: &str| Answer { status, body: body.to_owned() }.outcome();
        assert_eq!(outcome(200, "{}"), Outcome::Success);
        assert!(matches!(outcome(200, r#"{"dtm_result":"FAILURE"}"#), Outcome::Failure(_)));
        assert!(matches!(outcome(409, ""), Outcome::Failure(_)));
        assert!(matches!(outcome(425, "FAILURE"), Outcome::Ongoing(_)));
        assert!(matches!(outcome(201, "{}"), Outcome::Unknown(_)));
        assert!(matches!(outcome(500, "boom"), Outcome::Unknown(_)));
    }

    #[tokio::test]
    async fn a_url_that_cannot_be_called_is_an_error() {
        let client = HttpClient::default();
        for url in ["https://127.0.0.1/", "nonsense", "http://"] {
            assert!(matches!(client.get(url).await, Err(HttpError::Url(_))), "{url}");
        }
    }

    #[tokio::test]
    async fn a_silent_server_meets_the_deadline() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let client = HttpClient::new(Duration::from_millis(30));
        assert!(matches!(client.get(&url).await, Err(HttpError::Deadline { .. })));
    }
}
