//! What a network must not see or forge: TLS, and the token.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::IntoResponse;
use dtmcli::{Client, Error, Step, Try};
use dtmcli_test::TestServer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Makes an authority, and a certificate of it for the server, by the `openssl` program.
async fn make_certificates(dir: &Path) {
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
    std::fs::write(dir.join("leaf.ext"), names).unwrap();
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for command in [
        &format!("{new} -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.crt"),
        &format!("{new} -x509 -days 2 -subj /CN=other -keyout other.key -out other.crt"),
        &format!("{new} -subj /CN=localhost -keyout leaf.key -out leaf.csr"),
        "x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
         -extfile leaf.ext -out leaf.crt",
    ] {
        let mut openssl = tokio::process::Command::new("openssl");
        openssl.args(command.split_whitespace()).current_dir(dir);
        let output = openssl.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A gateway that ends TLS before a server; returns its port.
async fn gateway(dir: &Path, target: String, alpn: &[u8]) -> u16 {
    let certificate = CertificateDer::from_pem_file(dir.join("leaf.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("leaf.key")).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, target) = (acceptor.clone(), target.clone());
            tokio::spawn(async move {
                // A client that does not trust the certificate hangs up.
                let Ok(mut client) = acceptor.accept(stream).await else { return };
                let mut server = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn only_the_authority_that_was_named_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path()).await;
    let [ca, other] =
        ["ca.crt", "other.crt"].map(|name| std::fs::read(dir.path().join(name)).unwrap());
    let server = TestServer::start().await;
    let target = |url: &str| url.split_once("://").unwrap().1.to_owned();
    let http = gateway(dir.path(), target(server.url()), b"http/1.1").await;
    let grpc = gateway(dir.path(), target(server.grpc_url()), b"h2").await;
    for url in [format!("https://localhost:{http}"), format!("grpcs://localhost:{grpc}")] {
        let dtm = Client::builder(&url).ca_pem(ca.clone()).build().unwrap();
        let saga = dtm.saga().step(Step::at("").compensate("").json(&1));
        saga.submit().wait().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        for client in [Client::builder(&url), Client::builder(&url).ca_pem(other.clone())] {
            let error = client.build().unwrap().new_gid().await.unwrap_err();
            let unheard = matches!(error, Error::Connect { .. } | Error::Unanswered { .. });
            assert!(unheard, "{url}: {error:?}");
        }
    }
}

/// What a server was asked, and with which authorization.
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Takes everything, over HTTP and over gRPC.
async fn note(State(seen): State<Seen>, uri: Uri, headers: HeaderMap) -> impl IntoResponse {
    let token = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    seen.lock().unwrap().push((uri.path().to_owned(), token));
    // To gRPC this is "not authenticated"; to HTTP it is a success.
    ([("grpc-status", "16"), ("content-type", "application/grpc")], r#"{"dtm_result":"SUCCESS"}"#)
}

async fn noted() -> (String, Seen) {
    let seen = Seen::default();
    let router: Router = Router::new().fallback(note).with_state(Arc::clone(&seen));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, seen)
}

#[tokio::test]
async fn the_server_gets_the_token_and_branches_do_not() {
    let (server, at_server) = noted().await;
    let (branch, at_branch) = noted().await;
    let dtm = Client::builder(format!("http://{server}")).token("s3cret").build().unwrap();
    let url = format!("http://{branch}/hold");
    let held = Try::at(&url).confirm(&url).cancel(&url).json(&1);
    dtm.tcc().run(async |tcc| tcc.branch(held).await).await.unwrap();
    let seen = at_server.lock().unwrap().clone();
    let paths: Vec<&str> = seen.iter().map(|(path, _)| path.rsplit('/').next().unwrap()).collect();
    assert_eq!(paths, ["prepare", "registerBranch", "submit"]);
    assert!(seen.iter().all(|(_, token)| token.as_deref() == Some("Bearer s3cret")), "{seen:?}");
    assert_eq!(*at_branch.lock().unwrap(), [("/hold".to_owned(), None)]);
}

#[tokio::test]
async fn the_token_goes_over_grpc_as_well() {
    let (server, seen) = noted_over_http2().await;
    let dtm = Client::builder(format!("grpc://{server}")).token("s3cret").build().unwrap();
    let error = dtm.new_gid().await.unwrap_err();
    assert!(matches!(error, Error::Unexpected { status: 16, .. }), "{error:?}");
    assert!(!error.is_retryable());
    let seen = seen.lock().unwrap().clone();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|(_, token)| token.as_deref() == Some("Bearer s3cret")), "{seen:?}");
}

async fn noted_over_http2() -> (String, Seen) {
    let seen = Seen::default();
    let router: Router = Router::new().fallback(note).with_state(Arc::clone(&seen));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder()
        .add_routes(tonic::service::Routes::from(router))
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    tokio::spawn(server);
    (address, seen)
}
