//! A single POST to an operator's URL (webhooks): the same addresses, certificates and limits as
//! for branches, on a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use http_body_util::Full;
use tokio::time::timeout;

use super::HttpCaller;
use super::target::Target;

impl HttpCaller {
    /// Posts a JSON body and returns the answer's status, within `limit`.
    ///
    /// Redirects are not followed, the answer's body is not read.
    ///
    /// # Errors
    ///
    /// A text for people: why there was no answer. It holds neither path nor query of the URL.
    pub async fn post(
        &self,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        limit: Duration,
    ) -> Result<u16, String> {
        let target = Target::parse(url, self.alias())?;
        let path = PathAndQuery::from_maybe_shared(Bytes::from(target.path.clone()))
            .map_err(|_| "the URL's path cannot be sent".to_owned())?;
        let length = HeaderValue::from(body.len());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(path);
        let to = request.headers_mut();
        to.insert(header::HOST, target.host_header.clone());
        to.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        to.insert(header::CONTENT_LENGTH, length);
        to.insert(header::CONNECTION, HeaderValue::from_static("close"));
        to.extend(headers.iter().cloned());
        let send = async {
            let mut fresh = Box::pin(self.connector.connect(&target, &self.options))
                .await
                .map_err(|error| error.text)?;
            let answer = fresh.send.send_request(request).await;
            answer.map(|answer| answer.status().as_u16()).map_err(|error| error.to_string())
        };
        match timeout(limit, send).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
        }
    }
}
