//! gRPC: channels that are kept, and calls of any method with any bytes.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Mutex;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::{CallError, Tls};
use crate::BranchError;

/// Channels to services that are kept; past this all are given up and made anew.
const CHANNELS_MAX: usize = 256;
/// A connection that says nothing for this long is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Largest answer that is read, as over HTTP.
const ANSWER_MAX_BYTES: usize = 16 << 20;

/// Calls gRPC methods. One channel a target.
#[derive(Debug)]
pub(crate) struct GrpcCaller {
    tls: Tls,
    channels: Mutex<HashMap<String, Channel>>,
}

/// Why a call has no reply.
#[derive(Debug)]
pub(crate) enum GrpcError {
    /// The call did not happen, or nobody knows.
    Call(CallError),
    /// The service answered with an error.
    Status(Status),
}

impl GrpcCaller {
    pub(crate) fn new(tls: Tls) -> Self {
        Self { tls, channels: Mutex::new(HashMap::new()) }
    }

    /// A channel to `http://host:port` or `https://host:port`. It connects when it is used.
    pub(crate) fn channel(&self, origin: &str) -> Result<Channel, CallError> {
        let mut channels = self.channels.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(channel) = channels.get(origin) {
            return Ok(channel.clone());
        }
        let not_usable = |_| CallError::Url(origin.to_owned());
        let endpoint = Endpoint::from_shared(origin.to_owned()).map_err(not_usable)?;
        let endpoint = endpoint
            .connect_timeout(super::CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let endpoint = if origin.starts_with("https://") {
            self.with_tls(endpoint).map_err(|_| CallError::Url(origin.to_owned()))?
        } else {
            endpoint
        };
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        let channel = endpoint.connect_lazy();
        channels.insert(origin.to_owned(), channel.clone());
        Ok(channel)
    }

    #[cfg(feature = "tls")]
    fn with_tls(&self, endpoint: Endpoint) -> Result<Endpoint, tonic::transport::Error> {
        let mut tls = tonic::transport::ClientTlsConfig::new().with_native_roots();
        if let Some(pem) = &self.tls.ca_pem {
            tls = tls.ca_certificate(tonic::transport::Certificate::from_pem(pem));
        }
        endpoint.tls_config(tls)
    }

    #[cfg(not(feature = "tls"))]
    fn with_tls(&self, _: Endpoint) -> Result<Endpoint, &'static str> {
        let _ = &self.tls;
        Err("without the feature `tls`")
    }

    /// Calls `<host:port>/<package.Service>/<Method>` with these bytes, and returns the reply's.
    pub(crate) async fn call(
        &self,
        url: &str,
        metadata: MetadataMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, GrpcError> {
        let not_usable = || GrpcError::Call(CallError::Url(url.to_owned()));
        let (scheme, rest) = match url.split_once("://") {
            None => ("http", url),
            Some(("grpc", rest)) => ("http", rest),
            Some(("grpcs", rest)) => ("https", rest),
            Some(_) => return Err(not_usable()),
        };
        let (authority, method) = rest.split_once('/').ok_or_else(not_usable)?;
        let path: PathAndQuery = format!("/{method}").parse().map_err(|_| not_usable())?;
        let channel = self.channel(&format!("{scheme}://{authority}")).map_err(GrpcError::Call)?;
        unary(channel, path, metadata, body, timeout, RawCodec).await
    }
}

/// One unary call within the timeout.
pub(crate) async fn unary<M, R, C>(
    channel: Channel,
    path: PathAndQuery,
    metadata: MetadataMap,
    message: M,
    timeout: Duration,
    codec: C,
) -> Result<R, GrpcError>
where
    M: Send + Sync + 'static,
    R: Send + Sync + 'static,
    C: Codec<Encode = M, Decode = R>,
{
    let exchange = async {
        let mut client = Grpc::new(channel).max_decoding_message_size(ANSWER_MAX_BYTES);
        client
            .ready()
            .await
            .map_err(|error| GrpcError::Call(CallError::Connect(Box::new(error))))?;
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = metadata;
        request.set_timeout(timeout);
        let reply = client.unary(request, path, codec).await.map_err(GrpcError::from)?;
        Ok(reply.into_inner())
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(reply) => reply,
        Err(_) => Err(GrpcError::Call(CallError::timeout(timeout))),
    }
}

impl From<Status> for GrpcError {
    fn from(status: Status) -> Self {
        // A status with a cause was made here: the service did not answer.
        let mut cause = status.source();
        if cause.is_none() {
            return Self::Status(status);
        }
        while let Some(error) = cause {
            if error.is::<tonic::ConnectError>() {
                return Self::Call(CallError::Connect(Box::new(status)));
            }
            cause = error.source();
        }
        Self::Call(CallError::Broken(Box::new(status)))
    }
}

/// What a status means (spec 03 §2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    Failure,
    Ongoing,
    Unknown,
}

/// What a status means. Services older than DTM v1.10 said ABORTED with the message ONGOING.
pub(crate) fn meaning(status: &Status) -> Meaning {
    match status.code() {
        Code::Aborted if status.message() == "ONGOING" => Meaning::Ongoing,
        Code::Aborted => Meaning::Failure,
        Code::FailedPrecondition => Meaning::Ongoing,
        _ => Meaning::Unknown,
    }
}

impl GrpcError {
    /// What this means to the business that made the call.
    pub(crate) fn into_branch_error(self, url: &str) -> BranchError {
        match self {
            Self::Call(error) => error.into_branch_error(url),
            Self::Status(status) => match meaning(&status) {
                Meaning::Failure => BranchError::failure(status.message()),
                Meaning::Ongoing => BranchError::ongoing(status.message()),
                Meaning::Unknown => BranchError::retry(status),
            },
        }
    }
}

/// Passes bytes through: a payload was encoded by who knows its type.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_mean_what_the_protocol_says() {
        let table = [
            (Status::aborted("no money FAILURE"), Meaning::Failure),
            (Status::aborted("ONGOING"), Meaning::Ongoing),
            (Status::failed_precondition("later"), Meaning::Ongoing),
            (Status::internal("boom"), Meaning::Unknown),
            (Status::unknown("FAILURE"), Meaning::Unknown),
        ];
        for (status, expected) in table {
            assert_eq!(meaning(&status), expected, "{status}");
        }
    }

    #[tokio::test]
    async fn a_url_that_cannot_be_called_is_an_error() {
        let caller = GrpcCaller::new(Tls::default());
        for url in ["", "host:1", "http://h:1/a.B/C", "nacos://h/a.B/C", "h h/a.B/C"] {
            let answer =
                caller.call(url, MetadataMap::new(), Bytes::new(), Duration::from_secs(1)).await;
            assert!(matches!(answer, Err(GrpcError::Call(CallError::Url(_)))), "{url}");
        }
    }
}
