//! A single POST to an operator's URL (webhooks): the same addresses, certificates and limits as
//! for branches, on a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use tokio::time::timeout;

use super::HttpCaller;
use super::answer::Reader;
use super::exchange::broken;
use super::request::post_request;
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
        let request = post_request(&target, headers, &body);
        let send = async {
            let connected = Box::pin(self.connector.connect(&target, &self.options)).await;
            let mut fresh = connected.map_err(|error| error.text)?;
            let answer = fresh.exchange(&request, Reader::head_only(), || {}).await;
            answer.map(|answer| answer.status).map_err(|failed| broken(&target, failed).text)
        };
        match timeout(limit, send).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
        }
    }
}
