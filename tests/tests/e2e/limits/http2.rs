//! Hostile HTTP/2 on the gRPC port, frame by frame.

use std::time::Duration;

use dtmd_demo::client::{DtmClient, TransOptions};
use dtmd_tests::{PATIENCE, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::memory;
use crate::turn;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types (RFC 9113 §6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// Flags.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// A flood.
const CONNECTIONS: u32 = 3;
const STREAMS: u32 = 4000;
/// Error codes (RFC 9113 §7).
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A gRPC request's headers, compressed by hand: nothing enters the dynamic table.
fn head(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let mut literal = |index: &[u8], value: &str| {
        block.extend(index);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    };
    literal(&[0x04], path);
    literal(&[0x01], "localhost");
    literal(&[0x0f, 0x10], "application/grpc");
    literal(&[0x00, 2, b't', b'e'], "trailers");
    block
}

/// What came back: its kind, its stream, and the error code it carries if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Came {
    kind: u8,
    stream: u32,
    code: u32,
}

struct Hostile {
    stream: TcpStream,
}

impl Hostile {
    async fn open(server: &Server) -> Self {
        let address = server.process.grpc_address().await.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
        Self { stream }
    }

    /// Sends what the server takes; it may close in the middle.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await;
        sent.expect("the server neither reads nor closes").is_ok()
    }

    /// Reads frames until one is `wanted`, or the connection ends.
    async fn until(&mut self, mut wanted: impl FnMut(&Came) -> bool) -> (Vec<Came>, bool) {
        let mut all = Vec::new();
        loop {
            let mut head = [0; 9];
            let read = tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut head)).await;
            if read.expect("the server neither answers nor closes").is_err() {
                return (all, false);
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            if self.stream.read_exact(&mut payload).await.is_err() {
                return (all, false);
            }
            let at = match head[3] {
                RST_STREAM => 0,
                GOAWAY => 4,
                _ => usize::MAX,
            };
            let code = payload.get(at..at.saturating_add(4)).unwrap_or(&[0; 4]);
            let came = Came {
                kind: head[3],
                stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                code: u32::from_be_bytes(code.try_into().unwrap()),
            };
            all.push(came);
            if wanted(&came) {
                return (all, true);
            }
        }
    }
}

/// A well-behaved caller over gRPC.
async fn healthy(server: &Server) -> DtmClient {
    let address = server.process.grpc_address().await.unwrap().to_string();
    server.client.clone().over_grpc(&address)
}

const NEW_GID: &str = "/dtmgimp.Dtm/NewGid";

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let client = healthy(&server).await;
    let block = head(NEW_GID);
    let mut ended = 0;
    for nth in 0..CONNECTIONS {
        let mut hostile = Hostile::open(&server).await;
        let mut flood = Vec::new();
        for stream in (1..2 * STREAMS).step_by(2) {
            flood.extend(frame(HEADERS, END_HEADERS, stream, &block));
            flood.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
        }
        hostile.send(&flood).await;
        let (all, _) = hostile.until(|came| came.kind == GOAWAY).await;
        if all.last().is_none_or(|last| last.kind != GOAWAY || last.code == ENHANCE_YOUR_CALM) {
            ended += 1;
        }
        let gid = format!("beside-{nth}");
        client.prepare("tcc", &gid, &TransOptions::default()).await.unwrap();
    }
    assert_eq!(ended, CONNECTIONS, "{STREAMS} streams were opened and reset on one connection");
    let (_, most) = memory(&server);
    assert!(most < 300 * 1024, "{most} KiB");
}

#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let client = healthy(&server).await;
    let mut hostile = Hostile::open(&server).await;
    // A literal header with a long value, again and again, never the last.
    let mut piece = vec![0x00, 1, b'x', 0x7f, 0x81, 0x1e];
    piece.resize(piece.len() + 127 + (0x1e << 7) + 1, b'y');
    let mut flood = frame(HEADERS, 0, 1, &head(NEW_GID));
    for _ in 0..500 {
        flood.extend(frame(CONTINUATION, 0, 1, &piece));
    }
    hostile.send(&flood).await;
    let (all, goes_on) = hostile.until(|came| came.kind == GOAWAY || came.stream == 1).await;
    let last = all.last().copied();
    let is_cut = !goes_on || last.is_some_and(|last| [GOAWAY, RST_STREAM].contains(&last.kind));
    assert!(is_cut, "{all:?}");
    client.prepare("tcc", "beside", &TransOptions::default()).await.unwrap();
    let (_, most) = memory(&server);
    assert!(most < 300 * 1024, "{most} KiB for headers of one request");
}

#[tokio::test]
async fn requests_past_the_limit_of_one_connection_are_refused() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let client = healthy(&server).await;
    let mut hostile = Hostile::open(&server).await;
    // Requests whose messages never come.
    let block = head("/dtmgimp.Dtm/Submit");
    let mut flood = Vec::new();
    for stream in (1..=2401u32).step_by(2) {
        flood.extend(frame(HEADERS, END_HEADERS, stream, &block));
    }
    hostile.send(&flood).await;
    let refuses = |came: &Came| came.kind == RST_STREAM && came.code == REFUSED_STREAM;
    let (all, _) = hostile.until(|came| refuses(came) || came.kind == GOAWAY).await;
    let last = *all.last().expect("the connection was closed without a word");
    assert!(refuses(&last) || last.code == ENHANCE_YOUR_CALM, "{last:?}");
    // The 257th: a client's streams have odd numbers.
    assert!(last.kind == GOAWAY || last.stream == 2 * 256 + 1, "{last:?}");
    client.prepare("tcc", "beside", &TransOptions::default()).await.unwrap();
}

#[tokio::test]
async fn floods_of_settings_and_pings_hurt_nobody() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let client = healthy(&server).await;
    for piece in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[7; 8])] {
        let mut hostile = Hostile::open(&server).await;
        let flood = piece.repeat(1000);
        // Answers are not read; what cannot be sent is not taken for ever.
        for _ in 0..50 {
            let sent =
                tokio::time::timeout(Duration::from_millis(500), hostile.stream.write_all(&flood));
            if !matches!(sent.await, Ok(Ok(()))) {
                break;
            }
        }
        let gid = format!("beside-{}", piece[3]);
        client.prepare("tcc", &gid, &TransOptions::default()).await.unwrap();
    }
    let (_, most) = memory(&server);
    assert!(most < 300 * 1024, "{most} KiB for answers that nobody reads");
}

#[tokio::test]
async fn what_is_not_http2_is_closed() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let address = server.process.grpc_address().await.unwrap();
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0; 64],
        &[PREFACE, &frame(HEADERS, END_STREAM | END_HEADERS, 0, &[0x83])].concat(),
        &[PREFACE, &[0xff; 64]].concat(),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut all = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
        // A reset ends it as well.
        let _ = end.unwrap_or_else(|_| panic!("{:?} was never closed", &bytes[..8]));
    }
    let client = healthy(&server).await;
    client.prepare("tcc", "beside", &TransOptions::default()).await.unwrap();
}
