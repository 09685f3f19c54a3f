//! Which URLs are called, and which are refused before anything is sent.

use super::super::Resolver;
use super::*;

fn refusal(url: &str, protocol: CallProtocol) -> Option<String> {
    caller().cannot_call(url, protocol)
}

#[test]
fn urls_that_are_called() {
    let table = [
        "",
        "http://127.0.0.1:8081/api",
        "http://localhost",
        "HTTP://LocalHost:80/x",
        "http://my_service.ns.svc.cluster.local:8080/x?y=1#z",
        "http://a:/x",
        "http://a.",
        "http://[::1]:8080/x",
        "http://[::ffff:127.0.0.1]/",
        "http://10.0.0.1/",
        "http://127.1/",
        "http://a?x=user@host",
        "http://a/@b",
        "http://xn--bcher-kva.example/",
        "http://1and1.example/",
        "http://cafe/",
    ];
    for url in table {
        for protocol in [CallProtocol::Http, CallProtocol::JsonRpc, CallProtocol::Grpc] {
            assert_eq!(refusal(url, protocol), None, "{url}");
        }
    }
}

#[test]
fn urls_that_are_refused_with_a_reason() {
    let long = format!("http://a/{}", "x".repeat(9000));
    let table = [
        ("http://", "the URL has no host"),
        ("http:///x", "the URL has no host"),
        ("http://:80/x", "the URL has no host"),
        ("http://?x", "the URL has no host"),
        ("http://user@a/", "the URL contains a user name"),
        ("http://user:secret@a/", "the URL contains a user name"),
        ("http://a:80@b/", "the URL contains a user name"),
        ("http://a\\@b/", "the URL contains a user name"),
        ("http://a\\b/", "the URL's host is neither"),
        ("http://a b/", "the URL's host is neither"),
        ("http://%31%32%37.0.0.1/", "the URL's host is neither"),
        ("http://a..b/", "the URL's host is neither"),
        ("http://./", "the URL's host is neither"),
        ("http://bücher.example/", "the URL's host is neither"),
        ("http://[::1/", "the URL's host is neither"),
        ("http://[fe80::1%25eth0]/", "the URL's host is neither"),
        ("http://[1.2.3.4]/", "the URL's host is neither"),
        ("http://1.2.3.4.5/", "the URL's host is neither"),
        ("http://256.1.1.1/", "the URL's host is neither"),
        ("http://a.1/", "the URL's host is neither"),
        ("http://a:0/", "the URL's port is not between"),
        ("http://a:65536/", "the URL's port is not between"),
        ("http://a:x/", "the URL's port is not a number"),
        ("http://a:80:80/", "the URL's port is not a number"),
        ("http://[::1]x/", "the URL's port is not a number"),
        ("http://a:+80/", "the URL's port is not a number"),
        ("http://a/\r\nX: y", "the URL contains a control character"),
        ("http://a\t/", "the URL contains a control character"),
        (long.as_str(), "the URL is longer than 8192 bytes"),
        ("topic://t", "a topic can only be an action of a message"),
        ("nacos://svc/x", "URLs of the scheme \"nacos\" cannot be called"),
        ("file:///etc/passwd", "URLs of the scheme \"file\" cannot be called"),
        ("gopher://a/", "URLs of the scheme \"gopher\" cannot be called"),
        ("localhost:8080/x", "the URL does not begin with http:// or https://"),
        ("/api/x", "the URL does not begin with http:// or https://"),
        ("http:/a/", "the URL does not begin with http:// or https://"),
        ("grpc://a:1/svc/M", "gRPC branches are not in this build yet: grpc://a:1"),
    ];
    for (url, reason) in table {
        let text = refusal(url, CallProtocol::Http).unwrap_or_default();
        assert!(text.starts_with(reason), "{url}: {text}");
    }
    let text = refusal("grpc://user:secret@a:1/svc/M?token=secret", CallProtocol::Grpc);
    assert_eq!(text.as_deref(), Some("gRPC branches are not in this build yet: a:1"));
    let text = refusal("localhost:58081/busi.Busi/TransIn", CallProtocol::Grpc);
    assert_eq!(text.as_deref(), Some("gRPC branches are not in this build yet: localhost:58081"));
}

#[tokio::test]
async fn what_is_refused_is_answered_unknown_and_says_nothing_of_the_service() {
    for url in ["localhost:58081/busi.Busi/TransIn", "http://user@a/", "nacos://a/b", "http://"] {
        let mut call = branch_call(url, "{}");
        call.call.protocol = CallProtocol::Grpc;
        let answer = caller().call(&call).await;
        let expected = refusal(url, CallProtocol::Grpc).unwrap();
        assert_eq!(text_of(&answer), expected, "{url}");
        assert!(!answer.unreachable);
    }
}

/// Every spelling of an address that is never called, as a host in a URL.
const FORBIDDEN_HOSTS: [&str; 48] = [
    "169.254.169.254",
    "169.254.169.254.",
    "169.254.43518",
    "169.16689662",
    "2852039166",
    "0xa9fea9fe",
    "0XA9FEA9FE",
    "0xa9.0xfe.0xa9.0xfe",
    "0xa9.254.0xa9fe",
    "0251.0376.0251.0376",
    "0251.254.169.254",
    "00000251.0376.169.0xfe",
    "025177524776",
    "169.254.0.1",
    "169.254.1",
    "169.254.0",
    "100.100.100.200",
    "100.100.25800",
    "0x646464c8",
    "1684301000",
    "168.63.129.16",
    "0xa83f8110",
    "2822734096",
    "0.0.0.0",
    "0",
    "0x0",
    "0x",
    "00",
    "0.0",
    "0.0.0.1",
    "224.0.0.1",
    "239.1",
    "255.255.255.255",
    "0xffffffff",
    "4294967295",
    "037777777777",
    "[::]",
    "[0:0:0:0:0:0:0:0]",
    "[fe80::1]",
    "[FE80::A9FE:A9FE]",
    "[febf::1]",
    "[fd00:ec2::254]",
    "[fd00:0ec2:0:0:0:0:0:0254]",
    "[ff02::1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::169.254.169.254]",
    "[2002:a9fe:a9fe::]",
];

#[tokio::test]
async fn forbidden_addresses_however_spelled() {
    let caller = caller();
    for host in FORBIDDEN_HOSTS {
        for url in [format!("http://{host}/latest/meta-data"), format!("https://{host}:8443/")] {
            let text = caller.cannot_call(&url, CallProtocol::Http).unwrap_or_default();
            assert!(text.contains("may not be called"), "{url}: {text:?}");
            let answer = call_url(&caller, &url).await;
            assert_eq!(text_of(&answer), text, "{url}");
            assert!(!answer.unreachable);
        }
    }
    assert_eq!(caller.connector.open_count(), 0);
}

#[tokio::test]
async fn a_name_is_checked_when_it_has_become_an_address() {
    let service = Service::always(OK).await;
    let lookup = |host: &str, port: u16| {
        let ip = match host {
            "metadata.test" => "169.254.169.254",
            "mapped.test" => "::ffff:100.100.100.200",
            _ => "127.0.0.1",
        };
        Ok(vec![SocketAddr::new(ip.parse().unwrap(), port)])
    };
    let resolver = Resolver::with_lookup(Duration::from_secs(5), Arc::new(lookup));
    let caller = HttpCaller::with_resolver(OutboundOptions::default(), resolver);
    for host in ["metadata.test", "mapped.test", "METADATA.test"] {
        let url = format!("http://{host}/");
        assert_eq!(caller.cannot_call(&url, CallProtocol::Http), None, "nothing is resolved here");
        let answer = call_url(&caller, url).await;
        assert!(text_of(&answer).contains("a link-local or metadata address"), "{answer:?}");
        assert!(!answer.unreachable);
    }
    let answer = call_url(&caller, format!("http://good.test:{}/", service.address.port())).await;
    assert_eq!(answer.outcome, Outcome::Success);
    assert!(service.seen()[0].contains("\r\nHost: good.test:"), "{:?}", service.seen());
}

#[tokio::test]
async fn the_next_address_of_a_name_is_tried() {
    let service = Service::always(OK).await;
    let lookup = |_: &str, port: u16| {
        // Nothing listens on the first, and the second must not be connected to.
        let ips = ["127.0.0.9", "169.254.169.254", "127.0.0.1"];
        Ok(ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
    };
    let resolver = Resolver::with_lookup(Duration::from_secs(5), Arc::new(lookup));
    let caller = HttpCaller::with_resolver(OutboundOptions::default(), resolver);
    let answer = call_url(&caller, format!("http://a.test:{}/", service.address.port())).await;
    assert_eq!(answer.outcome, Outcome::Success);
}
