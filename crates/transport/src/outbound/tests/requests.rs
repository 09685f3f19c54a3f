//! What services receive.

use super::*;

const IDS: &str = "branch_id=01&gid=g%201%2F%C3%BC&op=action&trans_type=saga";

fn agent() -> String {
    format!("dtmd/{}", env!("CARGO_PKG_VERSION"))
}

async fn received(change: impl FnOnce(&str) -> BranchCall) -> String {
    let service = Service::always(OK).await;
    let call = change(&service.url(""));
    let answer = caller().call(&call).await;
    assert_eq!(answer.outcome, Outcome::Success);
    service.seen().remove(0).replace(&service.address.to_string(), "ADDR")
}

fn request_line(request: &str) -> &str {
    request.lines().next().unwrap()
}

#[tokio::test]
async fn a_post_byte_for_byte() {
    let request = received(|base| branch_call(format!("{base}/api/TransOut"), r#"{"amount":30}"#));
    let expected = format!(
        "POST /api/TransOut?{IDS} HTTP/1.1\r\nHost: ADDR\r\nContent-Type: application/json\r\n\
         Accept: application/json\r\nUser-Agent: {}\r\nContent-Length: 13\r\n\r\n{{\"amount\":30}}",
        agent()
    );
    assert_eq!(request.await, expected);
}

#[tokio::test]
async fn a_get_byte_for_byte() {
    let request = received(|base| branch_call(format!("{base}/query"), ""));
    let expected = format!(
        "GET /query?{IDS} HTTP/1.1\r\nHost: ADDR\r\nContent-Type: application/json\r\n\
         Accept: application/json\r\nUser-Agent: {}\r\n\r\n",
        agent()
    );
    assert_eq!(request.await, expected);
}

#[tokio::test]
async fn an_empty_post_says_that_it_is_empty() {
    let request = received(|base| {
        let mut call = branch_call(format!("{base}/xa"), "");
        call.call.always_post = true;
        call.call.op = Op::Commit;
        call.trans_type = TransType::Xa;
        call
    });
    let request = request.await;
    assert!(request.starts_with("POST /xa?branch_id=01&gid="), "{request}");
    assert!(request.contains("&op=commit&trans_type=xa HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("Content-Length: 0\r\n\r\n"), "{request}");
}

#[tokio::test]
async fn paths_and_queries() {
    let table = [
        ("", "/?"),
        ("/", "/?"),
        ("?a=1", "/?a=1&"),
        ("/x?", "/x?"),
        ("/x?a=1&b=%20#part", "/x?a=1&b=%20&"),
        ("/x#part?no", "/x?"),
        ("/x?gid=theirs", "/x?gid=theirs&"),
        ("/a b/{id}?q=\"v\"", "/a%20b/%7Bid%7D?q=%22v%22&"),
        ("/路?q=值", "/%E8%B7%AF?q=%E5%80%BC&"),
        ("/a%2fb/../c;v=1?x=@:/?", "/a%2fb/../c;v=1?x=@:/?"),
    ];
    for (given, sent) in table {
        let request = received(|base| branch_call(format!("{base}{given}"), "x")).await;
        assert_eq!(request_line(&request), format!("POST {sent}{IDS} HTTP/1.1"), "{given}");
    }
}

#[tokio::test]
async fn bodies_are_passed_on_untouched() {
    let odd = "\u{0}\r\n\r\n{not json ü";
    let request = received(|base| branch_call(base, odd)).await;
    assert_eq!(request.split_once("\r\n\r\n").unwrap().1, odd);
}

#[tokio::test]
async fn branch_headers_win_but_never_frame_or_redirect() {
    let request = received(|base| {
        let headers = [
            ("Accept", "text/plain"),
            ("Authorization", "Bearer ü"),
            ("Connection", "close"),
            ("Content-Length", "999"),
            ("Host", "metadata.internal"),
            ("Metadata-Flavor", "Google"),
            ("Proxy-Authorization", "x"),
            ("Transfer-Encoding", "chunked"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-aws-ec2-metadata-token", "t"),
            ("accept-encoding", "gzip"),
            ("user-agent", "theirs"),
            ("x-tenant", "7"),
        ];
        with_headers(branch_call(base, "{}"), &headers)
    })
    .await;
    let head = request.split_once("\r\n\r\n").unwrap().0;
    let mut lines: Vec<&str> = head.lines().skip(1).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "Accept: text/plain",
            "Authorization: Bearer ü",
            "Content-Length: 2",
            "Content-Type: application/json",
            "Host: ADDR",
            "User-Agent: theirs",
            "X-Tenant: 7",
        ]
    );
}

#[tokio::test]
async fn headers_that_cannot_be_sent_are_named() {
    let service = Service::always(OK).await;
    let many: Vec<(String, &str)> = (0..33).map(|n| (format!("x-{n}"), "v")).collect();
    let many: Vec<(&str, &str)> =
        many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let big = "v".repeat(9000);
    let table: [(&[(&str, &str)], &str); 4] = [
        (&[("bad name", "v")], "\"bad name\" is not the name of a header"),
        (&[("x-a", "line\r\nX-Evil: 1")], "the branch header x-a has a control character"),
        (&many, "more than 32 branch headers"),
        (&[("x-a", &big)], "branch headers of more than 8192 bytes"),
    ];
    for (headers, expected) in table {
        let call = with_headers(branch_call(service.url(""), "{}"), headers);
        let answer = caller().call(&call).await;
        assert!(text_of(&answer).starts_with(expected), "{answer:?}");
        assert!(!answer.unreachable);
        assert!(crate::outbound::branch_headers_refusal(&call.headers).is_some());
    }
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn localhost_is_renamed_where_the_server_is_in_a_container() {
    let service = Service::always(OK).await;
    let options =
        OutboundOptions { localhost_alias: Some(Arc::from("127.0.0.2")), ..Default::default() };
    // Everything in 127.0.0.0/8 is this host, but the service listens on one address of it.
    let caller = HttpCaller::new(options);
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("http://{host}:{}/x?back=localhost", service.address.port());
        let answer = call_url(&caller, url).await;
        let place = format!("connect to 127.0.0.2:{}", service.address.port());
        assert!(text_of(&answer).starts_with(&place), "{answer:?}");
    }
    let target = super::super::Target::parse("http://localhost:8080/localhost", Some("h.internal"));
    let target = target.unwrap();
    assert_eq!(target.host_header, "h.internal:8080");
    assert_eq!(target.path, "/localhost");
    assert_eq!(target.place(), "h.internal:8080");
}

fn jsonrpc_call(url: String, data: &str) -> BranchCall {
    let mut call = branch_call(url, data);
    call.call.protocol = CallProtocol::JsonRpc;
    call
}

#[tokio::test]
async fn a_jsonrpc_call() {
    let payload = r#"{"amount":12345678901234567890.123456789,"gid":"theirs","n":null}"#;
    let request =
        received(|base| jsonrpc_call(format!("{base}/rpc?method=Trans%2EOut&k=v"), payload));
    let request = request.await;
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(request_line(head), "POST /rpc?method=Trans%2EOut&k=v HTTP/1.1");
    assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
    let id =
        serde_json::from_str::<serde_json::Value>(body).unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 16);
    let expected = format!(
        r#"{{"jsonrpc":"2.0","id":"{id}","method":"Trans.Out","params":{{"amount":12345678901234567890.123456789,"branch_id":"01","gid":"g 1/ü","n":null,"op":"action","trans_type":"saga"}}}}"#
    );
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_jsonrpc_call_without_a_payload_posts_the_ids() {
    for payload in ["", "null", " {} "] {
        let request = received(|base| jsonrpc_call(format!("{base}/?method=m"), payload)).await;
        assert!(request.starts_with("POST /?method=m HTTP/1.1\r\n"), "{request}");
        let params =
            r#""params":{"branch_id":"01","gid":"g 1/ü","op":"action","trans_type":"saga"}}"#;
        assert!(request.ends_with(params), "{request}");
    }
}

#[tokio::test]
async fn the_style_is_chosen_by_protocol_and_url() {
    // The word counts wherever it stands, as in DTM.
    let request = received(|base| jsonrpc_call(format!("{base}/method/x"), "{}")).await;
    assert!(request.contains(r#""method":"","params""#), "{request}");
    let request = received(|base| jsonrpc_call(format!("{base}/plain"), "{}")).await;
    assert_eq!(request_line(&request), format!("POST /plain?{IDS} HTTP/1.1"));
    let request = received(|base| branch_call(format!("{base}/?method=m"), "{}")).await;
    assert_eq!(request_line(&request), format!("POST /?method=m&{IDS} HTTP/1.1"));
    let request = received(|base| {
        let mut call = branch_call(base, "\u{8}\u{1}");
        call.call.protocol = CallProtocol::Grpc;
        call
    });
    assert!(request.await.ends_with("\r\n\r\n\u{8}\u{1}"));
}

#[tokio::test]
async fn a_jsonrpc_payload_must_be_an_object() {
    let service = Service::always(OK).await;
    for payload in ["[1]", "1", "{", "\"x\"", "\u{0}"] {
        let answer = caller().call(&jsonrpc_call(service.url("/?method=m"), payload)).await;
        assert_eq!(text_of(&answer), "the payload of a JSON-RPC branch is not a JSON object");
        assert!(!answer.unreachable);
    }
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn an_empty_url_is_done() {
    let answer = caller().call(&branch_call("", "{}")).await;
    assert_eq!(answer, Answer { outcome: Outcome::Success, unreachable: false });
}
