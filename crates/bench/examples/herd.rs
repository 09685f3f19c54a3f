//! Measures B16: many transactions wait for one service, and the service comes back.
//!
//! ```sh
//! cargo build --release -p dtmd
//! cargo run --release -p dtmd-bench --example herd -- [DTMD] [TRANSACTIONS] [DOWN_SECONDS]
//! ```
//!
//! Sagas of one step are submitted while their service answers 503 to everything. After
//! `DOWN_SECONDS` it answers again, 5 ms a call. The service counts how many calls are under way at
//! once, and how many it gets for each transaction once it is back.
//!
//! The budget speaks of ten minutes (`DOWN_SECONDS` 600); a minute is what it takes by default.

#![allow(clippy::print_stdout, reason = "a measurement for people")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use dtmd_demo::client::DtmClient;
use dtmd_demo::process::{ServerOptions, ServerProcess};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// `DestinationConcurrency` of the server.
const LIMIT: usize = 64;
/// B16.
const CALLS_MAX: f64 = 1.2;
/// How long the service takes for a call.
const SERVICE_TIME: Duration = Duration::from_millis(5);
/// Applications that submit.
const CLIENTS: usize = 64;
/// The longest that all may take to end.
const DRAIN_MAX: Duration = Duration::from_secs(3600);

#[derive(Default)]
struct Service {
    up: AtomicBool,
    now: AtomicUsize,
    most: AtomicUsize,
    refused: AtomicU64,
    done: AtomicU64,
    /// Calls of each transaction since the service is back.
    calls: Mutex<HashMap<String, u32>>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let binary = PathBuf::from(arguments.next().unwrap_or_else(|| "target/release/dtmd".into()));
    let count: usize = arguments.next().map_or(Ok(50_000), |text| text.parse())?;
    let down: u64 = arguments.next().map_or(Ok(60), |text| text.parse())?;
    ensure!(binary.is_file(), "{}: run `cargo build --release -p dtmd`", binary.display());
    let service = Arc::new(Service::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/step", listener.local_addr()?);
    tokio::spawn(accept(listener, service.clone()));
    let folder = tempfile::tempdir()?;
    let mut options = ServerOptions::new(&binary, folder.path().join("data"));
    options.grpc_port = Some(0);
    let limit = LIMIT.to_string();
    options.env = vec![("DESTINATION_CONCURRENCY".into(), limit.into())];
    let mut server = ServerProcess::start(options).await?;
    let begun = Instant::now();
    submit(&server, &url, count).await?;
    println!("{count} sagas submitted in {:.1?}; their service is down", begun.elapsed());
    tokio::time::sleep(Duration::from_secs(down).saturating_sub(begun.elapsed())).await;
    println!(
        "after {:.0?} of outage: {} calls were refused, {} at once at most",
        begun.elapsed(),
        service.refused.load(Ordering::Relaxed),
        service.most.load(Ordering::Relaxed),
    );
    service.up.store(true, Ordering::SeqCst);
    let back = Instant::now();
    let ninety = drain(&service, count as u64, back).await?;
    let drained = back.elapsed();
    let most = service.most.load(Ordering::Relaxed);
    let total: u64 = {
        let calls = service.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.values().map(|calls| u64::from(*calls)).sum()
    };
    let each = total as f64 / count as f64;
    println!("90 % ended {ninety:.1?} after the return, all {drained:.1?}");
    let met = |is_met: bool| if is_met { "met" } else { "NOT met" };
    println!("B16: {most} calls at once at most (≤ {LIMIT}: {})", met(most <= LIMIT));
    println!(
        "B16: {each:.3} calls a branch since the return (≤ {CALLS_MAX}: {})",
        met(each <= CALLS_MAX)
    );
    server.terminate().await
}

/// Submits sagas of one step, and waits for none of them.
async fn submit(server: &ServerProcess, url: &str, count: usize) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, url, next) = (DtmClient::new(server.url()), url.to_owned(), next.clone());
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(());
                }
                let body = serde_json::json!({
                    "gid": format!("herd-{number}"), "trans_type": "saga",
                    "steps": [{ "action": url, "compensate": "" }], "payloads": ["{}"],
                });
                let answer = client.post("submit", &body).await?;
                ensure!(answer.status == 200, "submit answered {}", answer.body);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(())
}

/// Waits until every call was made; returns when nine of ten were.
async fn drain(service: &Service, count: u64, back: Instant) -> Result<Duration> {
    let (mut ninety, mut told) = (None, Instant::now());
    loop {
        let done = service.done.load(Ordering::Relaxed);
        if ninety.is_none() && done * 10 >= count * 9 {
            ninety = Some(back.elapsed());
        }
        if done >= count {
            return Ok(ninety.unwrap_or_default());
        }
        if back.elapsed() > DRAIN_MAX {
            bail!("after {DRAIN_MAX:?} only {done} of {count} have ended");
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            println!("  {:.0?} after the return: {done} done", back.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn accept(listener: TcpListener, service: Arc<Service>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, service.clone()));
    }
}

/// Serves one connection: enough of HTTP/1.1 for requests with a known length.
async fn serve(mut stream: TcpStream, service: Arc<Service>) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(Some(0), |text| text.trim().parse().ok())?;
        while buffer.len() < end + length {
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        buffer.drain(..end + length);
        let gid = head.split_once("gid=")?.1.split(['&', ' ']).next()?.to_owned();
        let answer = handle(&service, gid).await;
        stream.write_all(answer).await.ok()?;
    }
}

async fn handle(service: &Service, gid: String) -> &'static [u8] {
    let now = service.now.fetch_add(1, Ordering::SeqCst) + 1;
    service.most.fetch_max(now, Ordering::SeqCst);
    let is_up = service.up.load(Ordering::SeqCst);
    tokio::time::sleep(SERVICE_TIME).await;
    service.now.fetch_sub(1, Ordering::SeqCst);
    if !is_up {
        service.refused.fetch_add(1, Ordering::Relaxed);
        return b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\ndown";
    }
    let mut calls = service.calls.lock().unwrap_or_else(PoisonError::into_inner);
    let calls = calls.entry(gid).or_default();
    *calls += 1;
    if *calls == 1 {
        service.done.fetch_add(1, Ordering::Relaxed);
    }
    b"HTTP/1.1 200 OK\r\ncontent-length: 24\r\n\r\n{\"dtm_result\":\"SUCCESS\"}"
}
