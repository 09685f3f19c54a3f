//! What a branch call costs: calls a service on this machine, 64 at a time, from one thread.
//!
//! `cargo run --release -p dtmd-transport --example outbound_bench [calls] [in_flight]`
//!
//! The service runs on a thread of its own, and its CPU time is not counted. The floor is what the
//! same bytes cost over bare sockets, one write and one read a call: the kernel's share, which
//! differs much between machines.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dtmd_engine::{BranchCall, BranchCaller as _};
use dtmd_protocol::{BranchId, Call, CallProtocol, Gid, Op, Outcome, Target, TransType};
use dtmd_transport::outbound::{HttpCaller, OutboundOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
const BODY: &str = r#"{"amount":30,"transInResult":"","transOutResult":""}"#;

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let calls = arguments.next().transpose()?.unwrap_or(300_000);
    let in_flight = arguments.next().transpose()?.unwrap_or(64);
    let address = start_service()?;
    let runtime = runtime()?;
    // Warms up: opens the connections.
    runtime.block_on(run(address, calls / 10, in_flight))?;
    println!("{calls} calls, {in_flight} in flight");
    for _ in 0..3 {
        measure("floor", calls, || runtime.block_on(run_floor(address, calls, in_flight)))?;
        measure("calls", calls, || runtime.block_on(run(address, calls, in_flight)))?;
    }
    Ok(())
}

fn measure(
    what: &str,
    calls: u64,
    work: impl FnOnce() -> Result<(), Failed>,
) -> Result<(), Failed> {
    let (began, cpu) = (Instant::now(), cpu_of_this_thread()?);
    work()?;
    let (took, cpu) = (began.elapsed(), cpu_of_this_thread()?.saturating_sub(cpu));
    let count = calls as f64;
    println!(
        "{what}: {:.0} a second, {:.2} us CPU each",
        count / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / count,
    );
    Ok(())
}

/// Sends the bytes of a call and reads those of its answer, without any HTTP.
async fn run_floor(address: SocketAddr, calls: u64, in_flight: u64) -> Result<(), Failed> {
    let request = [&[b'x'; 330], BODY.as_bytes()].concat();
    let left = Arc::new(AtomicU64::new(calls));
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (left, request) = (left.clone(), request.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let take = |left: u64| left.checked_sub(1);
                let mut answer = [0; 4096];
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    stream.write_all(&request).await?;
                    if stream.read(&mut answer).await? != ANSWER.len() {
                        return Err(io::Error::other("an answer came in pieces"));
                    }
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Returns the CPU time of this thread, as Linux counts it.
fn cpu_of_this_thread() -> Result<Duration, Failed> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split_whitespace().next().ok_or("schedstat is empty")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

async fn run(address: SocketAddr, calls: u64, in_flight: u64) -> Result<(), Failed> {
    thread_local! {
        static CALLER: Arc<HttpCaller> = Arc::new(HttpCaller::new(OutboundOptions::default()));
    }
    let caller = CALLER.with(Arc::clone);
    let left = Arc::new(AtomicU64::new(calls));
    let call = branch_call(&format!("http://{address}/api/busi/TransOut"))?;
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (caller, left, call) = (caller.clone(), left.clone(), call.clone());
            tokio::spawn(async move {
                let take = |left: u64| left.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    let answer = caller.call(&call).await;
                    if answer.outcome != Outcome::Success {
                        return Err(format!("{answer:?}"));
                    }
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

fn branch_call(url: &str) -> Result<BranchCall, Failed> {
    Ok(BranchCall {
        gid: Gid::new("c0a80005-7a6b-4a3e-9d1f-2b8e5c6d7f80")?,
        trans_type: TransType::Saga,
        call: Call {
            target: Target::Branch(0),
            branch_id: BranchId::new("01")?,
            op: Op::Action,
            url: Arc::from(url),
            data: Arc::from(BODY.as_bytes()),
            always_post: false,
            protocol: CallProtocol::Http,
            timeout: Duration::from_secs(3),
            attempt: 1,
        },
        headers: Arc::default(),
    })
}

fn start_service() -> Result<SocketAddr, Failed> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = runtime()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(serve(stream));
            }
            #[expect(unreachable_code, reason = "names the type of the loop's errors")]
            Ok::<(), io::Error>(())
        })
    });
    Ok(address)
}

/// Answers every request whose body has come.
async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::with_capacity(4096);
    while stream.read_buf(&mut bytes).await? > 0 {
        if bytes.ends_with(BODY.as_bytes()) {
            bytes.clear();
            stream.write_all(ANSWER).await?;
        }
    }
    Ok(())
}
