//! Making calls.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Uri, Version, header};
use tokio::net::TcpStream;

use super::{framed, read_body, status, unframed};
use crate::client::Outcome;
use crate::serve::percent_decode;

/// The deadline of a call unless another is set.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a call was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcAnswer {
    /// The status' number.
    pub status: i32,
    /// The status' text.
    pub text: String,
    /// The message; empty unless the status is OK.
    pub message: Bytes,
}

impl GrpcAnswer {
    /// What the answer means to DTM (spec 03 §2).
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let text = || self.text.clone();
        match self.status {
            status::OK => Outcome::Success,
            status::FAILED_PRECONDITION => Outcome::Ongoing(text()),
            status::ABORTED if self.text == "ONGOING" => Outcome::Ongoing(text()),
            status::ABORTED => Outcome::Failure(text()),
            number => Outcome::Unknown(format!("gRPC status {number}: {}", self.text)),
        }
    }
}

/// Why there is no answer. The call may or may not have been handled, except for
/// [`GrpcError::Url`] and [`GrpcError::Connect`], where it was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrpcError {
    /// The URL cannot be used.
    #[error("not a gRPC URL this client can call, which is ADDRESS:PORT/Service/Method: {0}")]
    Url(String),
    /// Nobody accepts connections there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection or the call broke before the answer was whole.
    #[error("no answer from {address}: {text}")]
    Broken {
        /// Where.
        address: SocketAddr,
        /// What happened.
        text: String,
    },
    /// No answer in time.
    #[error("no answer from {url} within {} ms", after.as_millis())]
    Deadline {
        /// The URL of the call.
        url: String,
        /// The deadline.
        after: Duration,
    },
}

/// A connection that many calls share; it closes when it is dropped and no call is under way.
#[derive(Debug, Clone)]
pub struct GrpcConnection {
    send: SendRequest<Bytes>,
    address: SocketAddr,
}

impl GrpcConnection {
    /// Connects, without TLS.
    ///
    /// # Errors
    /// Nobody is there, or what is there does not speak HTTP/2.
    pub async fn open(address: SocketAddr) -> Result<Self, GrpcError> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|source| GrpcError::Connect { address, source })?;
        let _ = stream.set_nodelay(true);
        let (send, driver) = h2::client::Builder::new()
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(|error| GrpcError::Broken { address, text: error.to_string() })?;
        // Ends by itself when the last handle is gone or the peer closes.
        tokio::spawn(async move {
            let _ = driver.await;
        });
        Ok(Self { send, address })
    }

    /// Returns the URI of a method at this connection's address; `path` is `/Service/Method`.
    ///
    /// # Errors
    /// The path is none.
    pub fn uri(&self, path: &str) -> Result<Uri, GrpcError> {
        let text = format!("http://{}{path}", self.address);
        text.parse().map_err(|_| GrpcError::Url(text))
    }

    /// Makes a call with a message behind its prefix ([`framed`]) and waits for its end, however
    /// long that takes.
    ///
    /// # Errors
    /// There was no answer; an answer of any status is not an error.
    pub async fn unary(
        &self,
        uri: Uri,
        metadata: HeaderMap,
        frame: Bytes,
    ) -> Result<GrpcAnswer, GrpcError> {
        let broken = |text: String| GrpcError::Broken { address: self.address, text };
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri;
        *request.headers_mut() = metadata;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, header::HeaderValue::from_static("trailers"));
        let send = self.send.clone().ready().await;
        let mut send = send.map_err(|error| broken(error.to_string()))?;
        let (response, mut body) =
            send.send_request(request, false).map_err(|error| broken(error.to_string()))?;
        body.send_data(frame, true).map_err(|error| broken(error.to_string()))?;
        let response = response.await.map_err(|error| broken(error.to_string()))?;
        let (head, mut body) = response.into_parts();
        if let Some((status, text)) = status_of(&head.headers) {
            return Ok(GrpcAnswer { status, text, message: Bytes::new() });
        }
        if head.status != http::StatusCode::OK {
            return Err(broken(format!("HTTP status {}", head.status.as_u16())));
        }
        let frame = read_body(&mut body).await.map_err(broken)?;
        let trailers = body.trailers().await.map_err(|error| broken(error.to_string()))?;
        let (status, text) = trailers
            .as_ref()
            .and_then(status_of)
            .ok_or_else(|| broken("the answer has no status".to_owned()))?;
        let message = unframed(frame).map_err(|text| broken(text.to_owned()))?;
        Ok(GrpcAnswer { status, text, message })
    }
}

fn status_of(headers: &HeaderMap) -> Option<(i32, String)> {
    let number = headers.get("grpc-status")?.to_str().ok()?.trim().parse().unwrap_or(2);
    let text = headers.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default();
    // A plus is one here, unlike in a query.
    Some((number, percent_decode(&text.replace('+', "%2B"))))
}

/// Makes calls to any address, each on a connection of its own: the demo kills the servers it talks
/// to, and a stale connection would only be one more thing to explain.
#[derive(Debug, Clone)]
pub struct GrpcClient {
    deadline: Duration,
}

impl Default for GrpcClient {
    fn default() -> Self {
        Self { deadline: DEADLINE }
    }
}

impl GrpcClient {
    /// A client whose calls must be answered within `deadline`.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        Self { deadline }
    }

    /// Calls `ADDRESS:PORT/Service/Method`.
    ///
    /// # Errors
    /// There was no answer; an answer of any status is not an error.
    pub async fn call(
        &self,
        url: &str,
        metadata: HeaderMap,
        message: &[u8],
    ) -> Result<GrpcAnswer, GrpcError> {
        let not_usable = || GrpcError::Url(url.to_owned());
        let slash = url.find('/').ok_or_else(not_usable)?;
        let (address, path) = url.split_at(slash);
        let address: SocketAddr = address.parse().map_err(|_| not_usable())?;
        let exchange = async {
            let connection = GrpcConnection::open(address).await?;
            connection.unary(connection.uri(path)?, metadata, framed(message)).await
        };
        match tokio::time::timeout(self.deadline, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(GrpcError::Deadline { url: url.to_owned(), after: self.deadline }),
        }
    }
}
