//! The server beside its services: reflection, health, limits, shutdown.

use std::time::Duration;

use dtmd_engine::EngineOptions;
use dtmd_protocol::Limits;
use dtmd_transport_grpc::inbound::GrpcOptions;
use dtmd_transport_grpc::proto::dtmgimp::DtmRequest;
use http::uri::PathAndQuery;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::service::{FAR, Service, at_once};
use crate::stage::{Stage, channel, request};

const SERVICES: [&str; 5] = [
    "dtmd.v1.Admin",
    "dtmgimp.Dtm",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

macro_rules! lists_services {
    ($name:ident, $version:ident) => {
        #[tokio::test]
        async fn $name() {
            use tonic_reflection::pb::$version::server_reflection_client::*;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version::*;

            let stage = Stage::start().await;
            let mut client = ServerReflectionClient::new(channel(stage.grpc));
            let asks = [
                MessageRequest::ListServices(String::new()),
                MessageRequest::FileContainingSymbol("dtmgimp.DtmRequest".into()),
            ];
            let asks = asks.map(|ask| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(ask),
            });
            let asked = client.server_reflection_info(futures_util::stream::iter(asks)).await;
            let mut answers = asked.unwrap().into_inner();
            let mut next =
                async || answers.message().await.unwrap().unwrap().message_response.unwrap();
            let MessageResponse::ListServicesResponse(listed) = next().await else {
                panic!("not a list")
            };
            let mut names: Vec<_> = listed.service.into_iter().map(|found| found.name).collect();
            names.sort();
            let own = SERVICES.iter().filter(|name| names.iter().any(|found| found == *name));
            assert!(own.count() >= 4, "{names:?}");
            for name in &SERVICES[..3] {
                assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
            }
            let MessageResponse::FileDescriptorResponse(found) = next().await else {
                panic!("not a file")
            };
            let file = found.file_descriptor_proto.concat();
            let has = |text: &[u8]| file.windows(text.len()).any(|window| window == text);
            assert!(has(b"CustomedData") && has(b"dtmgimp"), "DTM's names are told");
        }
    };
}

lists_services!(reflection_lists_the_services, v1);
lists_services!(the_older_reflection_does_too, v1alpha);

#[tokio::test]
async fn health_says_whether_transactions_are_accepted() {
    let stage = Stage::start().await;
    let mut client = HealthClient::new(channel(stage.grpc));
    let service = |name: &str| HealthCheckRequest { service: name.into() };
    for name in ["", "dtmgimp.Dtm"] {
        let health = client.check(service(name)).await.unwrap().into_inner();
        assert_eq!(health.status(), ServingStatus::Serving);
    }
    assert_eq!(client.check(service("nobody")).await.unwrap_err().code(), Code::NotFound);
    let mut unknown = client.watch(service("nobody")).await.unwrap().into_inner();
    let said = unknown.message().await.unwrap().unwrap();
    assert_eq!(said.status(), ServingStatus::ServiceUnknown);

    let mut watched = client.watch(service("")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    stage.engine.shutdown(Duration::ZERO).await;
    let next = timeout(FAR, watched.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(next.status(), ServingStatus::NotServing);
    // A caller is told the same, in its own words.
    let mut dtm = stage.dtm.clone();
    let status = dtm.submit(request("saga", "g", &[])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn large_messages_are_refused_while_memory_is_short() {
    let mut stage = Stage::start().await;
    let of_size = |gid: &str, bytes: usize| {
        let mut saga = request("saga", gid, &[("", "")]);
        saga.bin_payloads = vec![vec![7; bytes].into()];
        saga
    };
    stage.engine.note_memory(100, 100);
    for (gid, bytes) in [("large", 200 << 10), ("small", 1)] {
        let status = stage.dtm.submit(of_size(gid, bytes)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("memory is short"), "{status:?}");
    }
    stage.engine.note_memory(10, 100);
    stage.dtm.submit(of_size("large", 200 << 10)).await.unwrap();
}

#[tokio::test]
async fn messages_have_a_limit() {
    let limits = Limits { payload_max_bytes: 8 << 20, ..Limits::default() };
    let engine_options = EngineOptions { limits, ..EngineOptions::default() };
    let mut stage = Stage::with(engine_options, GrpcOptions::default()).await;
    let service = Service::grpc(at_once(|_| (0, ""))).await;
    let of_size = |gid: &str, bytes: usize| {
        let mut saga = request("saga", gid, &[(&service.method("Out"), "")]);
        saga.bin_payloads = vec![vec![7; bytes].into()];
        saga
    };
    stage.dtm.submit(of_size("s1", 3 << 20)).await.unwrap();
    assert_eq!(service.heard()[0].message.len(), 3 << 20, "it is passed on whole");
    let status = stage.dtm.submit(of_size("s2", 5 << 20)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");

    let options = GrpcOptions { body_max_bytes: 6 << 20, ..GrpcOptions::default() };
    let limits = Limits { payload_max_bytes: 1000, ..Limits::default() };
    let engine_options = EngineOptions { limits, ..EngineOptions::default() };
    let mut stage = Stage::with(engine_options, options).await;
    let status = stage.dtm.submit(of_size("s2", 5 << 20)).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert!(status.message().contains("1000"), "the payload's own limit: {}", status.message());
}

#[tokio::test]
async fn methods_that_are_not_there_are_unimplemented() {
    let stage = Stage::start().await;
    let mut client = tonic::client::Grpc::new(channel(stage.grpc));
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/dtmgimp.Dtm/Query");
    let codec = tonic_prost::ProstCodec::<DtmRequest, ()>::default();
    let asked = client.unary(Request::new(DtmRequest::default()), path, codec).await;
    assert_eq!(asked.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_callers_deadline_ends_its_wait_and_not_its_transaction() {
    let service = Service::grpc(|heard| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(if heard.nth == 0 { 200 } else { 0 })).await;
            (0, String::new())
        })
    });
    let (mut stage, service) = (Stage::start().await, service.await);
    let mut saga = Request::new(request("saga", "s1", &[(&service.method("Out"), "")]));
    saga.set_timeout(Duration::from_millis(20));
    let status = stage.dtm.submit(saga).await.unwrap_err();
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}");
    stage.becomes("s1", "succeed").await;
    assert_eq!(service.heard().len(), 1, "and it was called once");
}

#[tokio::test]
async fn connections_past_the_limit_are_closed() {
    let options = GrpcOptions { connections_max: 1, ..GrpcOptions::default() };
    let mut stage = Stage::with(EngineOptions::default(), options).await;
    stage.dtm.new_gid(()).await.unwrap();
    let mut other = TcpStream::connect(stage.grpc).await.unwrap();
    let mut read = Vec::new();
    let _ = timeout(FAR, other.read_to_end(&mut read)).await.expect("it is closed");
    assert!(read.is_empty());
    stage.dtm.new_gid(()).await.unwrap();
}

#[tokio::test]
async fn who_connects_and_says_nothing_is_closed() {
    let options =
        GrpcOptions { hello_deadline: Duration::from_millis(20), ..GrpcOptions::default() };
    let mut stage = Stage::with(EngineOptions::default(), options).await;
    let mut silent = TcpStream::connect(stage.grpc).await.unwrap();
    let mut read = Vec::new();
    let _ = timeout(FAR, silent.read_to_end(&mut read)).await.expect("it is closed");
    stage.dtm.new_gid(()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(25)).await;
    stage.dtm.new_gid(()).await.unwrap();
}

#[tokio::test]
async fn an_old_connection_is_told_to_go_and_the_client_does_not_notice() {
    let options = GrpcOptions {
        connection_age_max: Duration::from_millis(20),
        connection_age_grace: Duration::from_millis(20),
        ..GrpcOptions::default()
    };
    let mut stage = Stage::with(EngineOptions::default(), options).await;
    for _ in 0..5 {
        let asked = async {
            // A request that meets the end of a connection may be told so; the next one is not.
            while stage.dtm.new_gid(()).await.is_err() {}
        };
        timeout(FAR, asked).await.unwrap();
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

#[tokio::test]
async fn a_stop_closes_what_is_idle_and_ends() {
    let mut stage = Stage::start().await;
    stage.dtm.new_gid(()).await.unwrap();
    stage.shutdown.send(true).unwrap();
    let refused = async {
        while TcpStream::connect(stage.grpc).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(FAR, refused).await.is_ok(), "the port is still open");
}
