//! How a client is set up.

use std::sync::Arc;
use std::time::Duration;

use super::{Client, Inner, Server};
use crate::error::{Error, Result};
use crate::outcome::Words;
use crate::transport::Tls;

/// The server if nothing says otherwise: dtmd and DTM on this machine.
const SERVER_DEFAULT: &str = "http://127.0.0.1:36789";
/// How long the server may take to answer; a branch called from here as well.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Sets up a [`Client`]. Made by [`Client::builder`].
#[derive(Clone)]
pub struct ClientBuilder {
    url: String,
    token: Option<String>,
    timeout: Duration,
    json_rpc: bool,
    words: Words,
    tls: Tls,
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("ClientBuilder").field("url", &self.url).finish_non_exhaustive()
    }
}

impl ClientBuilder {
    pub(super) fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: None,
            timeout: TIMEOUT_DEFAULT,
            json_rpc: false,
            words: Words::Exact,
            tls: Tls::default(),
        }
    }

    /// From `DTM_SERVER` and `DTM_TOKEN`; what is not set, or empty, is the default.
    pub(super) fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let builder = Self::new(set("DTM_SERVER").unwrap_or_else(|| SERVER_DEFAULT.to_owned()));
        Self { token: set("DTM_TOKEN"), ..builder }
    }

    /// Sends this token with every request to the server, as `Authorization: Bearer`. Branches do
    /// not get it.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// How long the server may take to answer, and a branch that is called from here unless its
    /// transaction has a `request_timeout`. 10 s if not set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Speaks JSON-RPC with the server instead of plain HTTP, as services do that want their
    /// branches called by JSON-RPC: those whose URL names a `method`.
    ///
    /// Branches that are called from here are still called by plain HTTP, as DTM's SDKs do.
    #[must_use]
    pub fn json_rpc(mut self) -> Self {
        self.json_rpc = true;
        self
    }

    /// Takes the words `FAILURE` and `ONGOING` for a branch's result wherever they are in its
    /// answer, as DTM's own SDKs do. Needed for services that were written before DTM v1.10 and
    /// answer 200 with such a text; harmless business data with those words is then misread.
    #[must_use]
    pub fn match_words_anywhere(mut self) -> Self {
        self.words = Words::Anywhere;
        self
    }

    /// Trusts these certificates, in PEM, beside the system's: for servers and services with a
    /// certificate authority of your own.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.ca_pem = Some(pem.into());
        self
    }

    /// Makes the client. It connects when it is first used.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: the URL cannot be used, its scheme needs a feature that is off, or the
    /// certificate or the token is none.
    pub fn build(self) -> Result<Client> {
        let url = self.url.trim().to_owned();
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(self.unusable("it has no scheme: http://, https://, grpc:// or grpcs://"));
        };
        let rest = rest.trim_end_matches('/');
        if rest.is_empty() {
            return Err(self.unusable("it has no host"));
        }
        #[cfg(feature = "http")]
        let http = crate::transport::http::HttpCaller::new(&self.tls)?;
        #[cfg(feature = "grpc")]
        let grpc = crate::transport::grpc::GrpcCaller::new(self.tls.clone());
        let server = match scheme {
            #[cfg(feature = "http")]
            "http" | "https" => self.http_server(&http, scheme, rest)?,
            #[cfg(feature = "grpc")]
            "grpc" | "grpcs" => self.grpc_server(&grpc, scheme, rest)?,
            #[cfg(not(feature = "http"))]
            "http" | "https" => return Err(self.unusable("the feature `http` is off")),
            #[cfg(not(feature = "grpc"))]
            "grpc" | "grpcs" => return Err(self.unusable("the feature `grpc` is off")),
            _ => return Err(self.unusable("the scheme must be http, https, grpc or grpcs")),
        };
        Ok(Client {
            inner: Arc::new(Inner {
                server,
                #[cfg(feature = "http")]
                http,
                #[cfg(feature = "grpc")]
                grpc,
                timeout: self.timeout,
                words: self.words,
            }),
        })
    }

    #[cfg(feature = "http")]
    fn http_server(
        &self,
        http: &crate::transport::http::HttpCaller,
        scheme: &str,
        rest: &str,
    ) -> Result<Server> {
        if scheme == "https" && cfg!(not(feature = "tls")) {
            return Err(self.unusable("the feature `tls` is off"));
        }
        let uri: http::Uri =
            format!("{scheme}://{rest}").parse().map_err(|_| self.unusable("it is not a URL"))?;
        if uri.query().is_some() {
            return Err(self.unusable("it has a query string"));
        }
        // Whoever gives a path means it: a server behind a proxy, say.
        let prefix = match rest.contains('/') {
            true => format!("{scheme}://{rest}"),
            false => format!("{scheme}://{rest}/api/dtmsvr"),
        };
        let token = self.bearer()?.map(http::HeaderValue::from_maybe_shared);
        let token = token.transpose().map_err(|_| Error::invalid(TOKEN_UNUSABLE))?;
        let token = token.map(|mut token| {
            token.set_sensitive(true);
            token
        });
        let server = crate::transport::server::HttpServer::new(
            http.clone(),
            prefix,
            self.json_rpc,
            token,
            self.timeout,
        );
        Ok(Server::Http(Box::new(server)))
    }

    #[cfg(feature = "grpc")]
    fn grpc_server(
        &self,
        grpc: &crate::transport::grpc::GrpcCaller,
        scheme: &str,
        rest: &str,
    ) -> Result<Server> {
        if rest.contains(['/', '?']) {
            return Err(self.unusable("over gRPC it has a host and a port only"));
        }
        if scheme == "grpcs" && cfg!(not(feature = "tls")) {
            return Err(self.unusable("the feature `tls` is off"));
        }
        let origin = format!("{}://{rest}", if scheme == "grpcs" { "https" } else { "http" });
        let channel = grpc.channel(&origin).map_err(|_| self.unusable("it is not a URL"))?;
        let token = match self.bearer()? {
            None => None,
            Some(text) => {
                let text = std::str::from_utf8(&text).unwrap_or_default();
                Some(text.parse().map_err(|_| Error::invalid(TOKEN_UNUSABLE))?)
            }
        };
        let server = crate::transport::grpc_server::GrpcServer::new(
            channel,
            rest.to_owned(),
            token,
            self.timeout,
        );
        Ok(Server::Grpc(server))
    }

    fn bearer(&self) -> Result<Option<bytes::Bytes>> {
        let Some(token) = &self.token else { return Ok(None) };
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid(TOKEN_UNUSABLE));
        }
        Ok(Some(format!("Bearer {token}").into()))
    }

    fn unusable(&self, why: &str) -> Error {
        Error::invalid(format!("the server's URL '{}' cannot be used: {why}", self.url))
    }
}

const TOKEN_UNUSABLE: &str = "the token has characters that a header cannot hold";

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(builder: ClientBuilder) -> String {
        match builder.build() {
            Err(Error::Invalid(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn urls_that_cannot_be_used() {
        for (url, why) in [
            ("127.0.0.1:36789", "no scheme"),
            ("http://", "no host"),
            ("ftp://host", "must be http"),
            ("http://ho st", "not a URL"),
            ("http://host?x=1", "query string"),
        ] {
            assert!(refused(ClientBuilder::new(url)).contains(why), "{url}");
        }
        let text = refused(ClientBuilder::new("http://host").token("a\nb"));
        assert!(text.contains("token"), "{text}");
    }

    #[cfg(feature = "http")]
    #[tokio::test]
    async fn the_prefix_is_completed() {
        for (url, prefix) in [
            ("http://host:1", "http://host:1/api/dtmsvr"),
            ("http://host:1/", "http://host:1/api/dtmsvr"),
            ("http://host/dtm/api/dtmsvr", "http://host/dtm/api/dtmsvr"),
        ] {
            assert_eq!(ClientBuilder::new(url).build().unwrap().server_address(), prefix);
        }
    }

    #[tokio::test]
    async fn the_environment_is_read() {
        let set = |name: &str| match name {
            "DTM_SERVER" => Some("http://other:1".to_owned()),
            "DTM_TOKEN" => Some(" ".to_owned()),
            _ => None,
        };
        let builder = ClientBuilder::from_variables(set);
        assert_eq!((builder.url.as_str(), builder.token.as_deref()), ("http://other:1", None));
        assert_eq!(ClientBuilder::from_variables(|_| None).url, SERVER_DEFAULT);
    }

    #[test]
    fn the_token_is_not_shown() {
        let builder = ClientBuilder::new("http://h").token("s3cret");
        assert!(!format!("{builder:?}").contains("s3cret"));
    }
}
