//! A small client of the HTTP API: one connection a call, a deadline over all of it, and a bound
//! on what is read.

use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, DATE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpStream;

use super::{EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE};

/// The longest answer that is read: a thousand transactions with their payloads fit in.
const ANSWER_MAX_BYTES: usize = 64 << 20;
/// The prefix of the API; SDKs have it in the server's URL, so it may be given or left out.
const API: &str = "/api/dtmsvr";

/// Why a command did not do what was asked. Each text says what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server's URL is not one.
    #[error("`{server}` is not a server's URL: {why}; give one such as http://127.0.0.1:36789")]
    BadServer {
        /// What was given.
        server: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nobody answers there.
    #[error(
        "cannot reach {server}: is dtmd running? start it with `dtmd serve`, or give --server \
         ({cause})"
    )]
    Unreachable {
        /// The server's URL.
        server: String,
        /// What the connection said.
        cause: String,
    },
    /// It takes too long. What was asked may have been done.
    #[error(
        "{server} did not answer within {} s; look with `dtmd tx get` what was done, or give a \
         longer --timeout",
        timeout.as_secs()
    )]
    TimedOut {
        /// The server's URL.
        server: String,
        /// How long it had.
        timeout: Duration,
    },
    /// Something else answers there.
    #[error("{server} answers, but not as dtmd does ({what}); check --server")]
    NotDtmd {
        /// The server's URL.
        server: String,
        /// How it answered.
        what: String,
    },
    /// The answer is longer than any sensible one.
    #[error("the answer of {server} is too long; ask for less with --limit")]
    TooLong {
        /// The server's URL.
        server: String,
    },
    /// The server said no.
    #[error("refused: {message}")]
    Refused {
        /// The server's reason.
        message: String,
    },
    /// The server failed, or does not know what was asked for.
    #[error("the server could not do it: {message} (HTTP {status})")]
    Failed {
        /// The server's reason.
        message: String,
        /// The status of its answer.
        status: u16,
    },
    /// The command line asks for what cannot be, which only showed now.
    #[error("{0}")]
    Usage(String),
    /// What was found cannot be written.
    #[error("cannot write: {0}")]
    Output(std::io::Error),
    /// There is no such transaction.
    #[error("there is no transaction with gid {gid} on {server}; `dtmd tx ls` lists them")]
    NoSuchGid {
        /// What was asked for.
        gid: String,
        /// The server's URL.
        server: String,
    },
}

impl ClientError {
    /// Returns the process's exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::BadServer { .. } | Self::Usage(_) => EXIT_USAGE,
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::NotDtmd { .. } => {
                EXIT_UNREACHABLE
            }
            Self::TooLong { .. }
            | Self::Output(_)
            | Self::Refused { .. }
            | Self::Failed { .. }
            | Self::NoSuchGid { .. } => EXIT_REFUSED,
        }
    }
}

/// A server's HTTP API.
#[derive(Debug, Clone)]
pub struct ApiClient {
    server: String,
    host: String,
    port: u16,
    /// The path before every route, usually empty.
    base: String,
    timeout: Duration,
}

/// An answer before it is judged.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// The server's clock, to the second, if it says.
    pub(super) date: Option<String>,
}

impl ApiClient {
    /// Makes a client of the server at this URL; no connection is made yet.
    ///
    /// # Errors
    ///
    /// [`ClientError::BadServer`] if it is not an `http` URL.
    pub fn new(server: &str, timeout: Duration) -> Result<Self, ClientError> {
        let bad = |why| ClientError::BadServer { server: server.to_owned(), why };
        let url = if server.contains("://") { server.into() } else { format!("http://{server}") };
        let uri: http::Uri = url.parse().map_err(|_| bad("it cannot be read"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("https is not in this build")),
            _ => return Err(bad("its scheme is not http")),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(bad("it has no host"))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(bad("it has a user in it"));
        }
        if uri.port_u16().is_none() && authority != host {
            return Err(bad("its port is not one"));
        }
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            server: url.trim_end_matches('/').to_owned(),
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            base: path.strip_suffix(API).unwrap_or(path).to_owned(),
            timeout,
        })
    }

    /// Returns the server's URL, for messages.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Asks for `route` with these parameters.
    ///
    /// # Errors
    ///
    /// Whatever keeps the server from answering 200 with JSON.
    pub async fn get(&self, route: &str, params: &[(&str, &str)]) -> Result<Value, ClientError> {
        self.call(Method::GET, &with_params(&format!("{API}/{route}"), params), None).await
    }

    /// Posts a JSON body to `route`.
    ///
    /// # Errors
    ///
    /// As [`ApiClient::get`].
    pub async fn post(&self, route: &str, body: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, &format!("{API}/{route}"), Some(body)).await
    }

    /// Deletes what `route` names.
    ///
    /// # Errors
    ///
    /// As [`ApiClient::get`].
    pub async fn delete(&self, route: &str) -> Result<Value, ClientError> {
        self.call(Method::DELETE, &format!("{API}/{route}"), None).await
    }

    /// Asks for `route` of dtmd's own API, which DTM does not have.
    ///
    /// # Errors
    ///
    /// As [`ApiClient::get`].
    pub async fn get_own(&self, route: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, &format!("/dtmd/v1/{route}"), None).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let Answered { status, body, .. } = self.ask(method, path, body).await?;
        self.outcome(status, &body)
    }

    /// Makes a request, within the time there is, and returns whatever is answered.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answered, ClientError> {
        let exchange = self.exchange(method, path, body);
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or_else(|_| {
            Err(ClientError::TimedOut { server: self.server.clone(), timeout: self.timeout })
        })
    }

    /// Returns whether the server is on this machine, as far as its URL says.
    pub(super) fn is_local(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<std::net::IpAddr>();
        bare == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// Makes one connection, one request, and reads the answer.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answered, ClientError> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, self.port))
            .await
            .map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&error))?;
        let connection = tokio::spawn(connection);
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(bytes))
            .map_err(|error| self.unreachable(&error))?;
        let answer =
            sender.send_request(request).await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
        let date = date.map(str::to_owned);
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
        connection.abort();
        match body {
            Ok(body) => Ok(Answered { status, body: body.to_bytes(), date }),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(ClientError::TooLong { server: self.server.clone() })
            }
            Err(error) => Err(self.unreachable(error.as_ref())),
        }
    }

    /// Reads an answer by spec 02 §1.2.
    fn outcome(&self, status: StatusCode, text: &[u8]) -> Result<Value, ClientError> {
        let not_dtmd =
            |what: String| Err(ClientError::NotDtmd { server: self.server.clone(), what });
        let Ok(value) = serde_json::from_slice::<Value>(text) else {
            return not_dtmd(format!("HTTP {}, no JSON", status.as_u16()));
        };
        if status == StatusCode::OK {
            return Ok(value);
        }
        let Some(message) = value.get("message").and_then(Value::as_str) else {
            return not_dtmd(format!("HTTP {}", status.as_u16()));
        };
        let message = message.trim().to_owned();
        match status {
            StatusCode::CONFLICT | StatusCode::TOO_EARLY => Err(ClientError::Refused { message }),
            _ => Err(ClientError::Failed { message, status: status.as_u16() }),
        }
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
        ClientError::Unreachable { server: self.server.clone(), cause: error.to_string() }
    }
}

/// Puts parameters behind a route.
fn with_params(route: &str, params: &[(&str, &str)]) -> String {
    let mut text = String::from(route);
    for (index, (name, value)) in params.iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.push_str(&percent(value));
    }
    text
}

/// Writes a text so that it can stand in a path segment or a parameter.
pub(super) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
