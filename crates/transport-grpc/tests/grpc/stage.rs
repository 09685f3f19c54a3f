//! A server with everything in it, in this process.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dtmd_engine::{Engine, EngineOptions};
use dtmd_protocol::{Gid, Global, Policy};
use dtmd_store::MemoryStore;
use dtmd_transport::inbound::{self as http, InboundOptions};
use dtmd_transport::outbound::OutboundOptions;
use dtmd_transport_grpc::inbound::{self as grpc, GrpcOptions};
use dtmd_transport_grpc::outbound::Callers;
use dtmd_transport_grpc::proto::admin::admin_client::AdminClient;
use dtmd_transport_grpc::proto::dtmgimp::dtm_client::DtmClient;
use dtmd_transport_grpc::proto::dtmgimp::{DtmBranchRequest, DtmRequest, DtmTransOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use crate::service::FAR;

pub struct Stage {
    pub engine: Engine,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub dtm: DtmClient<Channel>,
    pub admin: AdminClient<Channel>,
    pub shutdown: watch::Sender<bool>,
}

impl Stage {
    pub async fn start() -> Self {
        Self::with(EngineOptions::default(), GrpcOptions::default()).await
    }

    /// Retries after `millis`.
    pub async fn retrying(millis: u64) -> Self {
        let retry_interval = Duration::from_millis(millis);
        let policy = Policy { retry_interval, ..Policy::default() };
        Self::with(EngineOptions { policy, ..EngineOptions::default() }, GrpcOptions::default())
            .await
    }

    pub async fn with(engine_options: EngineOptions, grpc_options: GrpcOptions) -> Self {
        let caller = Arc::new(Callers::new(OutboundOptions::default()));
        let engine = Engine::start(Arc::new(MemoryStore::new()), caller, engine_options).unwrap();
        engine.register_runtime(false);
        let (shutdown, watch) = watch::channel(false);
        let any = || http::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let (grpc_listener, http_listener) = (any(), any());
        let grpc_at = grpc_listener.local_addr().unwrap();
        let http_at = http_listener.local_addr().unwrap();
        tokio::spawn(grpc::serve(grpc_listener, engine.clone(), grpc_options, watch.clone()));
        let options = InboundOptions::default();
        tokio::spawn(http::serve(http_listener, engine.clone(), options, watch));
        let channel = channel(grpc_at);
        Self {
            engine,
            grpc: grpc_at,
            http: http_at,
            dtm: DtmClient::new(channel.clone()),
            admin: AdminClient::new(channel),
            shutdown,
        }
    }

    pub async fn global(&self, gid: &str) -> Arc<Global> {
        self.engine.query(&Gid::new(gid).unwrap()).await.unwrap().expect("the gid is known")
    }

    /// Waits until a transaction has a status; returns it.
    pub async fn becomes(&self, gid: &str, status: &str) -> Arc<Global> {
        let waiting = async {
            loop {
                let global = self.global(gid).await;
                if global.status.as_str() == status {
                    return global;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        match timeout(FAR, waiting).await {
            Ok(global) => global,
            Err(_) => panic!("{gid} is {} and not {status}", self.global(gid).await.status),
        }
    }

    /// Posts to DTM's HTTP interface; returns status and body.
    pub async fn post(&self, route: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let head = format!(
            "POST /api/dtmsvr/{route} HTTP/1.1\r\nhost: dtm\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(FAR, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(json!(body)))
    }
}

pub fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

/// Returns the statuses of a transaction's rows, in order.
pub fn rows(global: &Arc<Global>) -> Vec<&str> {
    global.branches.iter().map(|row| row.status.as_str()).collect()
}

/// Returns a saga or message of these steps, with a payload that is not text in each.
pub fn request(trans_type: &str, gid: &str, steps: &[(&str, &str)]) -> DtmRequest {
    let payloads = (1..=steps.len()).map(|nth| payload(u8::try_from(nth).unwrap()).into());
    let steps: Vec<Value> = steps
        .iter()
        .map(|(action, compensate)| json!({"action": action, "compensate": compensate}))
        .collect();
    DtmRequest {
        gid: gid.to_owned(),
        trans_type: trans_type.to_owned(),
        bin_payloads: payloads.collect(),
        steps: Value::from(steps).to_string(),
        trans_options: Some(waiting()),
        ..DtmRequest::default()
    }
}

/// Options of a caller who waits.
pub fn waiting() -> DtmTransOptions {
    DtmTransOptions { wait_result: true, ..DtmTransOptions::default() }
}

/// Bytes that are not text.
pub fn payload(nth: u8) -> Vec<u8> {
    vec![0x08, nth, 0xff, 0x00]
}

pub fn registration(
    trans_type: &str,
    gid: &str,
    branch_id: &str,
    data: &[(&str, &str)],
) -> DtmBranchRequest {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    DtmBranchRequest {
        gid: gid.to_owned(),
        trans_type: trans_type.to_owned(),
        branch_id: branch_id.to_owned(),
        op: "ignored".to_owned(),
        data: data.iter().map(own).collect::<BTreeMap<_, _>>(),
        busi_payload: payload(7).into(),
    }
}

/// Returns a map for `ReqExtra`.
pub fn extra(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs: HashMap<_, _> = pairs.iter().copied().collect();
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
