//! Calls over real sockets.

#[path = "../../tests/grpc/service.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the whole crate")]
mod service;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dtmd_protocol::{BranchId, Call, Gid, Op, Target as Whom, TransType};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use self::service::{FAR, Service, at_once};
use super::*;

fn call_of(url: &str) -> BranchCall {
    BranchCall {
        gid: Gid::new("gid-1").unwrap(),
        trans_type: TransType::Saga,
        call: Call {
            target: Whom::Branch(0),
            branch_id: BranchId::of_step(0),
            op: Op::Action,
            url: Arc::from(url),
            data: Arc::from(*b"\x0a\x00\xff"),
            always_post: false,
            protocol: CallProtocol::Grpc,
            timeout: FAR,
            attempt: 1,
        },
        headers: Arc::default(),
    }
}

fn caller() -> GrpcCaller {
    GrpcCaller::new(OutboundOptions::default())
}

async fn word(caller: &GrpcCaller, url: &str) -> String {
    caller.call(&call_of(url)).await.outcome.as_str().to_owned()
}

#[tokio::test]
async fn what_a_service_gets() {
    let service = Service::grpc(at_once(|_| (0, ""))).await;
    let mut call = call_of(&service.method("Out"));
    call.call.timeout = Duration::from_millis(19_999);
    call.headers = Arc::new(BTreeMap::from(
        [
            ("Tenant", " blue "),
            ("dtm-gid", "forged"),
            ("GRPC-Timeout", "1m"),
            ("connection", "close"),
            ("trace-bin", "AAEC"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    ));
    let answer = caller().call(&call).await;
    assert_eq!(answer, Answer { outcome: Outcome::Success, unreachable: false });
    let heard = &service.heard()[0];
    assert_eq!(heard.path, "/test.Service/Out");
    assert_eq!(&heard.message[..], b"\x0a\x00\xff");
    let table = [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-timeout", "19999m"),
        ("dtm-gid", "gid-1"),
        ("dtm-trans_type", "saga"),
        ("dtm-branch_id", "01"),
        ("dtm-op", "action"),
        ("dtm-dtm", ""),
        ("tenant", "blue"),
        ("trace-bin", "AAEC"),
        ("connection", ""),
    ];
    for (name, value) in table {
        assert_eq!(heard.header(name), value, "{name}");
        assert!(heard.headers.get_all(name).iter().count() <= 1, "{name}");
    }
    assert!(heard.headers.contains_key("dtm-dtm"));
}

#[tokio::test]
async fn statuses_and_numbers_that_are_none() {
    let table = [
        (0, "", "success"),
        (10, "no money FAILURE", "failure"),
        (10, "ONGOING", "ongoing"),
        (9, "x", "ongoing"),
        (409, "错 %", "failure"),
        (425, "x", "ongoing"),
        (14, "x", "unknown"),
        (500, "x", "unknown"),
    ];
    let service = Service::grpc(at_once(move |heard| (table[heard.nth].0, table[heard.nth].1)));
    let service = service.await;
    let caller = caller();
    for (number, text, word) in table {
        let Answer { outcome, unreachable } = caller.call(&call_of(&service.method("M"))).await;
        assert_eq!(outcome.as_str(), word, "{number}");
        assert_eq!(unreachable, number == 14, "{number}");
        if let Outcome::Failure(told) = outcome {
            assert_eq!(&*told, text, "the text arrives whole");
        }
    }
    assert_eq!(service.connections(), 1);
}

#[tokio::test]
async fn what_is_no_grpc_service_is_unknown() {
    let service = Service::http(at_once(|_| (200, "hello"))).await;
    let answer = caller().call(&call_of(&service.method("M"))).await;
    assert!(matches!(answer.outcome, Outcome::Unknown(_)), "{answer:?}");

    // The port of a listener that is gone.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let answer = caller().call(&call_of(&format!("grpc://{free}/S/M"))).await;
    assert!(answer.unreachable && matches!(answer.outcome, Outcome::Unknown(_)), "{answer:?}");
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_given_up() {
    let service = Service::grpc(|heard| {
        Box::pin(async move {
            if heard.name() == "Never" {
                std::future::pending::<()>().await;
            }
            (0, String::new())
        })
    })
    .await;
    let caller = caller();
    assert_eq!(word(&caller, &service.method("M")).await, "success");
    let mut call = call_of(&service.method("Never"));
    call.call.timeout = Duration::from_millis(30);
    let answer = caller.call(&call).await;
    assert!(answer.unreachable, "{answer:?}");
    assert!(matches!(&answer.outcome, Outcome::Unknown(text) if text.contains("30 ms")));
    assert_eq!(service.heard()[1].header("grpc-timeout"), "30m");
    // It said nothing at all meanwhile, so the connection is not trusted any more.
    assert_eq!(word(&caller, &service.method("M")).await, "success");
    assert_eq!(service.connections(), 2);
}

#[tokio::test]
async fn many_calls_share_one_connection() {
    let service = Service::grpc(at_once(|_| (0, ""))).await;
    let caller = caller();
    let url = service.method("M");
    let calls = (0..50).map(|_| word(&caller, &url));
    let words = futures_util::future::join_all(calls).await;
    assert!(words.iter().all(|word| word == "success"));
    assert_eq!((service.connections(), caller.connector.open_count()), (1, 1));
}

#[tokio::test]
async fn a_service_that_goes_away_is_called_on_a_new_connection() {
    let service = Service::grpc(at_once(|_| (0, ""))).await;
    let caller = caller();
    let leaving = async {
        for turn in 1..=5 {
            // A call that comes before the service's word is still served by the old connection.
            while service.connections() < turn {
                assert_eq!(word(&caller, &service.method("M")).await, "success", "{turn}");
            }
            service.go_away();
        }
    };
    assert!(timeout(FAR, leaving).await.is_ok(), "no new connection is made");
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let service = Service::grpc(at_once(|_| (0, ""))).await;
    let idle_timeout = Duration::from_millis(20);
    let caller = GrpcCaller::new(OutboundOptions { idle_timeout, ..OutboundOptions::default() });
    assert_eq!(word(&caller, &service.method("M")).await, "success");
    let closed = async {
        while caller.connector.open_count() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(FAR, closed).await.is_ok(), "the connection stays open");
    assert_eq!(word(&caller, &service.method("M")).await, "success");
    assert_eq!(service.connections(), 2);
}

#[tokio::test]
async fn connections_are_bounded() {
    let service = Service::grpc(at_once(|_| (0, ""))).await;
    let other = Service::grpc(at_once(|_| (0, ""))).await;
    let caller =
        GrpcCaller::new(OutboundOptions { connections_max: 1, ..OutboundOptions::default() });
    assert_eq!(word(&caller, &service.method("M")).await, "success");
    let answer = caller.call(&call_of(&other.method("M"))).await;
    assert!(matches!(&answer.outcome, Outcome::Unknown(text) if text.contains("limit")));
    assert!(!answer.unreachable, "it is not the service's fault");
}

/// Two services on one port of two addresses of this machine.
async fn twins(script: fn(&service::Heard) -> (i32, &'static str)) -> (Service, Service) {
    // Another process may have the second one's port; then another one is tried.
    for _ in 0..50 {
        let first = Service::grpc(at_once(script)).await;
        let second = SocketAddr::new("127.0.0.2".parse().unwrap(), first.address.port());
        if std::net::TcpListener::bind(second).is_ok() {
            let second = Service::start(&second.to_string(), true, at_once(script)).await;
            return (first, second);
        }
    }
    panic!("no port is free on both addresses");
}

fn lookup_of(answers: Vec<Vec<&'static str>>) -> Lookup {
    let asked = AtomicUsize::new(0);
    Arc::new(move |_, port| {
        let turn = asked.fetch_add(1, Ordering::SeqCst);
        let answer = answers.get(turn).or(answers.last()).cloned().unwrap_or_default();
        Ok(answer.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
    })
}

#[tokio::test]
async fn a_names_addresses_are_called_in_turn() {
    let (first, second) = twins(|_| (0, "")).await;
    let both = vec!["127.0.0.1", "127.0.0.2"];
    let lookup = lookup_of(vec![both]);
    let caller = GrpcCaller::with_lookup(OutboundOptions::default(), lookup);
    let url = format!("grpc://svc.test:{}/S/M", first.address.port());
    for _ in 0..10 {
        assert_eq!(word(&caller, &url).await, "success");
    }
    assert_eq!((first.heard().len(), second.heard().len()), (5, 5));
    assert_eq!((first.connections(), second.connections()), (1, 1));
}

#[tokio::test]
async fn an_address_that_is_down_is_passed_over_and_a_new_one_is_found() {
    let (first, second) = twins(|_| (0, "")).await;
    // 127.0.0.3 has no listener.
    let lookup = lookup_of(vec![vec!["127.0.0.3", "127.0.0.1"], vec!["127.0.0.2"]]);
    let options = OutboundOptions { resolve_cache: Duration::ZERO, ..OutboundOptions::default() };
    let caller = GrpcCaller::with_lookup(options, lookup);
    let url = format!("svc.test:{}/S/M", first.address.port());
    assert_eq!(word(&caller, &url).await, "success");
    assert_eq!(word(&caller, &url).await, "success");
    assert_eq!((first.heard().len(), second.heard().len()), (1, 1));
}

#[tokio::test]
async fn addresses_that_may_not_be_called_are_not() {
    let service = Service::grpc(at_once(|_| (0, ""))).await;
    let port = service.address.port();
    let url = format!("svc.test:{port}/S/M");
    let with = |answer: Vec<&'static str>| {
        GrpcCaller::with_lookup(OutboundOptions::default(), lookup_of(vec![answer]))
    };
    let mixed = with(vec!["fe80::1", "169.254.169.254", "127.0.0.1"]);
    assert_eq!(word(&mixed, &url).await, "success");
    let answer = with(vec!["::ffff:169.254.169.254"]).call(&call_of(&url)).await;
    assert!(matches!(&answer.outcome, Outcome::Unknown(text) if text.contains("metadata")));
    assert!(!answer.unreachable);
    let answer = with(vec![]).call(&call_of(&url)).await;
    assert!(answer.unreachable, "{answer:?}");
}

fn certificate(name: &str) -> PathBuf {
    let folder = "../transport/src/outbound/tests/certs";
    [env!("CARGO_MANIFEST_DIR"), folder, name].iter().collect()
}

/// Starts a service behind TLS that speaks only HTTP/2.
async fn start_tls() -> Service {
    let service = Service::grpc(at_once(|_| (0, ""))).await;
    let chain = CertificateDer::pem_file_iter(certificate("localhost.pem")).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(certificate("localhost.key")).unwrap();
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut secure = service.clone();
    secure.address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(service.clone().serve(stream));
            }
        }
    });
    secure
}

#[tokio::test]
async fn services_behind_tls() {
    let service = start_tls().await;
    let ca_file = Some(certificate("ca.pem"));
    let trusting = GrpcCaller::new(OutboundOptions { ca_file, ..OutboundOptions::default() });
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("grpcs://{host}:{}/S/M", service.address.port());
        assert_eq!(trusting.cannot_call(&url, CallProtocol::Http), None);
        assert_eq!(word(&trusting, &url).await, "success", "{host}");
        let answer = caller().call(&call_of(&url)).await;
        assert!(matches!(answer.outcome, Outcome::Unknown(_)), "not trusted: {answer:?}");
    }
    let plain = format!("grpc://localhost:{}/S/M", service.address.port());
    assert_eq!(word(&trusting, &plain).await, "unknown");

    let ca_file = Some(certificate("none.pem"));
    let broken = GrpcCaller::new(OutboundOptions { ca_file, ..OutboundOptions::default() });
    let why = broken.cannot_call("grpcs://a/S/M", CallProtocol::Grpc).unwrap();
    assert!(why.contains("none.pem"), "{why}");
}
