//! Calls over TLS.

use std::path::PathBuf;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::*;

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "src/outbound/tests/certs", name].iter().collect()
}

async fn start() -> (SocketAddr, Arc<AtomicUsize>) {
    let chain = CertificateDer::pem_file_iter(file("localhost.pem")).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(file("localhost.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = counter.fetch_add(1, Ordering::SeqCst);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, connection, Arc::new(|_| keep(OK)), Arc::default()).await;
                }
            });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn a_trusted_service_is_called_and_its_connection_kept() {
    let (address, connections) = start().await;
    let options = OutboundOptions { ca_file: Some(file("ca.pem")), ..Default::default() };
    let caller = HttpCaller::new(options);
    assert_eq!(caller.check_tls(), Ok(()));
    for host in ["127.0.0.1", "127.0.0.1", "localhost", "localhost"] {
        let url = format!("https://{host}:{}/x", address.port());
        assert_eq!(caller.cannot_call(&url, CallProtocol::Http), None);
        let answer = call_url(&caller, url).await;
        assert_eq!(answer, Answer { outcome: Outcome::Success, unreachable: false });
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2, "one for each host as it is spelled");
}

#[tokio::test]
async fn an_unknown_issuer_or_another_name_is_no_answer() {
    let (address, _) = start().await;
    // Trusts the leaf's key for nothing: the file holds a certificate that issued none.
    let options = OutboundOptions { ca_file: Some(file("localhost.pem")), ..Default::default() };
    let answer = call_url(&HttpCaller::new(options), format!("https://{address}/")).await;
    assert!(text_of(&answer).starts_with(&format!("TLS with {address}: ")), "{answer:?}");
    assert!(answer.unreachable);

    let options = OutboundOptions { ca_file: Some(file("ca.pem")), ..Default::default() };
    let url = format!("https://127.0.0.2:{}/", address.port());
    let refused = call_url(&HttpCaller::new(options.clone()), url).await;
    assert!(refused.unreachable);

    // A service that does not speak TLS.
    let plain = Service::start(|_| keep(OK)).await;
    let mut call = branch_call(format!("https://{}/", plain.address), "{}");
    call.call.timeout = SHORT;
    let answer = HttpCaller::new(options).call(&call).await;
    assert!(answer.unreachable, "{answer:?}");
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_named() {
    for (name, why) in [("missing.pem", "missing.pem"), ("localhost.key", "the file has none")] {
        let options = OutboundOptions { ca_file: Some(file(name)), ..Default::default() };
        let caller = HttpCaller::new(options);
        let error = caller.check_tls().unwrap_err();
        assert!(error.contains(why), "{error}");
        let refusal = caller.cannot_call("https://127.0.0.1:1/", CallProtocol::Http);
        assert_eq!(refusal.as_deref(), Some(&*error));
        assert_eq!(caller.cannot_call("http://127.0.0.1:1/", CallProtocol::Http), None);
    }
}
