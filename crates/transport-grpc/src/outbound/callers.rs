//! Which caller a URL is for (spec 02 §4.1).

use std::pin::Pin;
use std::sync::Arc;

use dtmd_engine::{Answer, BranchCall, BranchCaller};
use dtmd_protocol::{CallProtocol, Scheme};
use dtmd_transport::outbound::{HttpCaller, OutboundOptions};
use dtmd_transport::socket::Network;

use super::GrpcCaller;

/// Calls branches over HTTP or gRPC, as their URLs say: a gRPC transaction may have HTTP branches
/// and the reverse.
pub struct Callers {
    http: HttpCaller,
    grpc: GrpcCaller,
}

impl Callers {
    /// Returns callers without any connection yet.
    pub fn new(options: OutboundOptions) -> Self {
        Self { http: HttpCaller::new(options.clone()), grpc: GrpcCaller::new(options) }
    }

    /// Returns callers in a simulation; there is no TLS in it.
    pub fn simulated(options: OutboundOptions, network: Arc<dyn Network>) -> Self {
        Self {
            http: HttpCaller::simulated(options.clone(), network.clone()),
            grpc: GrpcCaller::simulated(options, network),
        }
    }

    /// Reads the certificates that services behind TLS are verified with; done at the first such
    /// call otherwise.
    ///
    /// # Errors
    ///
    /// A text that names the file, or says that the system has no certificates.
    pub fn check_tls(&self) -> Result<(), String> {
        self.http.check_tls().and_then(|()| self.grpc.check_tls())
    }
}

impl BranchCaller for Callers {
    // Not an `async fn`: what is passed on needs no box of this layer's own.
    fn call<'s, 'c, 'f>(
        &'s self,
        call: &'c BranchCall,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'f>>
    where
        's: 'f,
        'c: 'f,
        Self: 'f,
    {
        match Scheme::of(&call.call.url) {
            Scheme::Grpc => self.grpc.call(call),
            Scheme::Empty | Scheme::Http | Scheme::Topic(_) | Scheme::Other(_) => {
                self.http.call(call)
            }
        }
    }

    fn cannot_call(&self, url: &str, protocol: CallProtocol) -> Option<String> {
        match Scheme::of(url) {
            // A forgotten http:// is the likelier mistake, and DTM calls nothing like it over HTTP.
            // What was registered over gRPC may all the same be such a URL, and is called.
            Scheme::Grpc if protocol == CallProtocol::Http && !url.contains("://") => Some(
                "the URL does not begin with http:// or https:// (or grpc:// for a gRPC method)"
                    .to_owned(),
            ),
            Scheme::Grpc => self.grpc.cannot_call(url, protocol),
            Scheme::Empty | Scheme::Http | Scheme::Topic(_) | Scheme::Other(_) => {
                self.http.cannot_call(url, protocol)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_called() {
        use CallProtocol::{Grpc, Http, JsonRpc};
        let callers = Callers::new(OutboundOptions::default());
        let table = [
            ("", Http, true),
            ("", Grpc, true),
            ("http://a/x", Http, true),
            ("http://a/x", Grpc, true),
            ("HTTP://a/x", Http, true),
            ("grpc://a:1/S/M", Http, true),
            ("grpc://a:1/S/M", JsonRpc, true),
            ("grpcs://a/S/M", Http, true),
            ("a:1/S/M", Grpc, true),
            ("a:1/S/M", JsonRpc, true),
            ("a:1/S/M", Http, false),
            ("localhost:8081/api/TransOut", Http, false),
            ("a:1", Grpc, false),
            ("grpc://a:1/x", Http, false),
            ("nacos://a/S/M", Grpc, false),
            ("topic://t", Grpc, false),
            ("grpc://169.254.169.254:1/S/M", Http, false),
        ];
        for (url, protocol, can) in table {
            let why = callers.cannot_call(url, protocol);
            assert_eq!(why.is_none(), can, "{url} {protocol:?}: {why:?}");
        }
    }
}
