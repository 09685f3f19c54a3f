//! The participants of a benchmark: one thread that says yes to everything, as cheaply as it can.
//!
//! Whatever is asked of it over HTTP is answered 200 `{}`, over gRPC OK with an empty message. A call
//! of `/tell` or of the method `Tell` is besides reported to whoever holds an HTTP connection to
//! `/watch`: eight bytes each, the spread number of the gid. That is how the load generator learns
//! that a transaction is over when it does not wait for the result.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use dtmd_demo::grpc::server::{self as grpc, GrpcCall, GrpcReply, GrpcService};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

use crate::http1;
use crate::plan::{GID_BYTES, spread_of};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
/// The gRPC service; its methods are Act, Tell and Undo.
pub(crate) const SERVICE: &str = "/bench.Participant";
/// The longest request that is read.
const REQUEST_MAX_BYTES: usize = 1 << 20;
/// What is not yet told is bounded: past it the watcher has long given up.
const UNTOLD_MAX_BYTES: usize = 64 << 20;

/// Calls that are to be told of.
#[derive(Default)]
struct Tells {
    pending: Mutex<Vec<u8>>,
    some: Notify,
}

impl Tells {
    fn tell(&self, spread: u64) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < UNTOLD_MAX_BYTES {
            pending.extend_from_slice(&spread.to_le_bytes());
        }
        drop(pending);
        self.some.notify_one();
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl GrpcService for Tells {
    async fn call(&self, call: GrpcCall) -> GrpcReply {
        if call.path.ends_with("/Tell")
            && let Some(gid) = call.metadata.get("dtm-gid")
            && let Some(spread) = spread_of(gid.as_bytes())
        {
            self.tell(spread);
        }
        GrpcReply::Message(Bytes::new())
    }
}

/// Serves on free loopback ports, which are printed, until stdin is closed: who started this
/// process holds the other end, so it does not outlive them.
///
/// # Errors
///
/// No port can be had, or stdout is closed.
pub async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no free port")?;
    let grpc_listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no free port")?;
    {
        let mut out = std::io::stdout().lock();
        writeln!(out, "listening on http://{}", listener.local_addr()?)?;
        writeln!(out, "grpc on http://{}", grpc_listener.local_addr()?)?;
        out.flush()?;
    }
    let (end, ended) = oneshot::channel::<()>();
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut ignored = [0; 64];
        while std::io::stdin().read(&mut ignored).is_ok_and(|count| count > 0) {}
        drop(end);
    })?;
    let tells = Arc::new(Tells::default());
    tokio::select! {
        result = serve(listener, tells.clone()) => result,
        never = grpc::serve(grpc_listener, tells) => match never {},
        _ = ended => Ok(()),
    }
}

async fn serve(listener: TcpListener, tells: Arc<Tells>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept connections")?;
        stream.set_nodelay(true)?;
        // Bounded by the callers' own limits on connections.
        tokio::spawn(answer(stream, tells.clone()));
    }
}

/// Answers a connection's requests until it is closed or not understood.
async fn answer(mut stream: TcpStream, tells: Arc<Tells>) {
    let (mut input, mut output) = (Vec::with_capacity(4096), Vec::with_capacity(256));
    loop {
        let mut done = 0;
        while let Ok(Some(head)) = http1::head(&input[done..]) {
            if done + head.message_bytes() > input.len() {
                break;
            }
            if head.target() == b"/watch" {
                return watch(stream, &tells).await;
            }
            if head.target().starts_with(b"/tell")
                && let Some(spread) = gid_of(head.target()).and_then(spread_of)
            {
                tells.tell(spread);
            }
            output.extend_from_slice(ANSWER);
            done += head.message_bytes();
        }
        input.drain(..done);
        if !output.is_empty() {
            if stream.write_all(&output).await.is_err() {
                return;
            }
            output.clear();
        }
        let is_readable = http1::head(&input).is_ok() && input.len() < REQUEST_MAX_BYTES;
        match stream.read_buf(&mut input).await {
            Ok(count) if count > 0 && is_readable => {}
            _ => return,
        }
    }
}

/// Writes what there is to tell, as much at once as has gathered.
async fn watch(mut stream: TcpStream, tells: &Tells) {
    loop {
        tells.some.notified().await;
        let pending = tells.take();
        if stream.write_all(&pending).await.is_err() {
            return;
        }
    }
}

/// Returns the gid that a target's query names.
fn gid_of(target: &[u8]) -> Option<&[u8]> {
    let at = target.windows(5).position(|bytes| matches!(bytes, b"?gid=" | b"&gid="))?;
    target.get(at + 5..at + 5 + GID_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{gid, number_of};

    #[test]
    fn the_gid_is_found_wherever_it_stands_in_the_query() {
        let gid = gid(1, 42);
        for target in
            [format!("/tell?branch_id=01&gid={gid}&op=action"), format!("/tell?gid={gid}")]
        {
            let found = gid_of(target.as_bytes()).and_then(spread_of).map(number_of);
            assert_eq!(found, Some(42), "{target}");
        }
        assert_eq!(gid_of(b"/tell?gid=short"), None);
        assert_eq!(gid_of(b"/tell"), None);
    }

    #[tokio::test]
    async fn requests_are_answered_also_in_pieces_and_tells_arrive() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tells = Arc::new(Tells::default());
        let serving = tokio::spawn(serve(listener, tells.clone()));
        let mut watcher = TcpStream::connect(address).await.unwrap();
        watcher.write_all(b"GET /watch HTTP/1.1\r\n\r\n").await.unwrap();
        let mut caller = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "POST /tell?gid={} HTTP/1.1\r\ncontent-length: 2\r\n\r\n{{}}POST /act HTTP/1.1\r\n\r\n",
            gid(1, 7)
        );
        for piece in request.as_bytes().chunks(30) {
            caller.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answers = vec![0; 2 * ANSWER.len()];
        caller.read_exact(&mut answers).await.unwrap();
        assert_eq!(answers, [ANSWER, ANSWER].concat());
        assert_eq!(watcher.read_u64_le().await.map(number_of).unwrap(), 7);
        let (path, mut metadata) = (format!("{SERVICE}/Tell"), http::HeaderMap::new());
        metadata.insert("dtm-gid", gid(1, 8).parse().unwrap());
        let reply = tells.call(GrpcCall { path, metadata, message: Bytes::new() }).await;
        assert_eq!(reply, GrpcReply::Message(Bytes::new()));
        assert_eq!(watcher.read_u64_le().await.map(number_of).unwrap(), 8);
        serving.abort();
    }
}
