use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::net::TcpListener;

use super::client::{GrpcClient, GrpcConnection, GrpcError};
use super::server::{GrpcCall, GrpcReply, GrpcService, serve};
use super::{framed, status, unframed};
use crate::client::Outcome;

/// Answers as the path says.
struct Echo;

impl GrpcService for Echo {
    async fn call(&self, call: GrpcCall) -> GrpcReply {
        match call.path.as_str() {
            "/t.Echo/Message" => {
                let gid = call.metadata.get("dtm-gid").map(HeaderValue::as_bytes);
                GrpcReply::Message([gid.unwrap_or_default(), &call.message].concat().into())
            }
            "/t.Echo/Refuse" => GrpcReply::Status(status::ABORTED, "100 % zu spät".to_owned()),
            "/t.Echo/Wait" => GrpcReply::Status(status::FAILED_PRECONDITION, String::new()),
            "/t.Echo/Hang" => std::future::pending().await,
            "/t.Echo/Drop" => GrpcReply::Drop,
            _ => GrpcReply::Status(status::UNIMPLEMENTED, String::new()),
        }
    }
}

async fn echo() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, tokio::spawn(async move { match serve(listener, Arc::new(Echo)).await {} }))
}

#[tokio::test]
async fn calls_carry_messages_and_metadata_and_bring_statuses() {
    let (address, serving) = echo().await;
    let client = GrpcClient::default();
    let call = |method: &str| {
        let mut metadata = HeaderMap::new();
        metadata.insert("dtm-gid", HeaderValue::from_static("g1:"));
        let url = format!("{address}/t.Echo/{method}");
        let client = &client;
        async move { client.call(&url, metadata, b"hello").await }
    };
    let answer = call("Message").await.unwrap();
    assert_eq!((answer.status, &answer.message[..]), (status::OK, &b"g1:hello"[..]));
    assert_eq!(answer.outcome(), Outcome::Success);
    let refused = call("Refuse").await.unwrap();
    assert_eq!(refused.outcome(), Outcome::Failure("100 % zu spät".to_owned()));
    assert!(matches!(call("Wait").await.unwrap().outcome(), Outcome::Ongoing(_)));
    assert!(matches!(call("None").await.unwrap().outcome(), Outcome::Unknown(_)));
    assert!(matches!(call("Drop").await, Err(GrpcError::Broken { .. })));
    serving.abort();
}

#[tokio::test]
async fn large_messages_arrive_and_many_calls_share_a_connection() {
    let (address, serving) = echo().await;
    let connection = GrpcConnection::open(address.parse().unwrap()).await.unwrap();
    let large = vec![7; 1 << 20];
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (connection, frame) = (connection.clone(), framed(&large));
        let uri = connection.uri("/t.Echo/Message").unwrap();
        calls.spawn(async move { connection.unary(uri, HeaderMap::new(), frame).await });
    }
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.unwrap().unwrap().message, large);
    }
    serving.abort();
}

#[tokio::test]
async fn what_cannot_be_called_and_what_does_not_answer_is_an_error() {
    let (address, serving) = echo().await;
    let quick = GrpcClient::new(Duration::from_millis(30));
    for url in ["http://127.0.0.1:1/a/b", "127.0.0.1:1", "somewhere:1/a/b"] {
        let called = quick.call(url, HeaderMap::new(), b"").await;
        assert!(matches!(called, Err(GrpcError::Url(_))), "{url}");
    }
    let hanging = quick.call(&format!("{address}/t.Echo/Hang"), HeaderMap::new(), b"").await;
    assert!(matches!(hanging, Err(GrpcError::Deadline { .. })));
    serving.abort();
}

#[test]
fn a_frame_has_one_whole_message() {
    assert_eq!(&unframed(framed(b"abc")).unwrap()[..], b"abc");
    assert!(unframed(bytes::Bytes::new()).unwrap().is_empty());
    for wrong in [&b"\0\0"[..], b"\x01\0\0\0\0", b"\0\0\0\0\x02a", b"\0\0\0\0\x01ab"] {
        assert!(unframed(bytes::Bytes::copy_from_slice(wrong)).is_err(), "{wrong:?}");
    }
}
