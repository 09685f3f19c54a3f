//! HTTP/1.1 with kept connections, one deadline a request, and bounded answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::{CallError, Tls};
use crate::error::Result;

/// Largest answer that is read.
const ANSWER_MAX_BYTES: usize = 16 << 20;
/// How long a connection is kept that nobody uses: less than servers keep theirs.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Connections to one host that are kept while nobody uses them.
const IDLE_PER_HOST_MAX: usize = 64;

#[cfg(feature = "tls")]
type Connector = hyper_rustls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "tls"))]
type Connector = HttpConnector;

/// An answer of any status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// Sends requests; clones share the connections.
#[derive(Debug, Clone)]
pub(crate) struct HttpCaller {
    pool: Pool<Connector, Full<Bytes>>,
}

impl HttpCaller {
    pub(crate) fn new(tls: &Tls) -> Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(super::CONNECT_TIMEOUT));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .build(connector(tcp, tls)?);
        Ok(Self { pool })
    }

    /// Sends a request and reads the answer, within the timeout. Redirects are not followed.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let uri: Uri = url.parse().map_err(|_| CallError::Url(url.to_owned()))?;
        if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(CallError::Url(url.to_owned()));
        }
        if cfg!(not(feature = "tls")) && uri.scheme_str() == Some("https") {
            return Err(CallError::Url(format!("{url} (without the feature `tls`)")));
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().entry(header::CONTENT_TYPE).or_insert_with(|| json.clone());
        request.headers_mut().entry(header::ACCEPT).or_insert(json);
        match tokio::time::timeout(timeout, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::timeout(timeout)),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, CallError> {
        let response = self.pool.request(request).await.map_err(|error| {
            let is_connect = error.is_connect();
            let source = Box::new(error);
            if is_connect { CallError::Connect(source) } else { CallError::Broken(source) }
        })?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await;
        Ok(Answer { status, body: body.map_err(CallError::Broken)?.to_bytes() })
    }
}

#[cfg(feature = "tls")]
fn connector(mut tcp: HttpConnector, tls: &Tls) -> Result<Connector> {
    tcp.enforce_http(false);
    Ok(hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls.rustls()?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp))
}

#[cfg(not(feature = "tls"))]
fn connector(tcp: HttpConnector, _tls: &Tls) -> Result<Connector> {
    Ok(tcp)
}
