//! Connections of the load: over HTTP/1.1 one for each seat, as lean as a client can be; over gRPC
//! one for many seats, as applications have it.

use std::borrow::Cow;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use dtmd_demo::grpc::client::GrpcConnection;
use http::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http1;
use crate::options::Protocol;

/// The longest answer that is read.
const ANSWER_MAX_BYTES: usize = 16 << 20;

/// Seats that share one gRPC connection: 64 of them make four, with which the budgets were set.
const SEATS_PER_CONNECTION: usize = 16;

/// What a seat sends its requests by.
#[derive(Debug)]
pub(crate) enum Line {
    /// A connection of its own.
    Http(Connection),
    /// One it shares with others.
    Grpc(GrpcConnection),
}

impl Line {
    /// Connects one seat.
    pub(crate) async fn open(protocol: Protocol, address: SocketAddr) -> Result<Self> {
        match protocol {
            Protocol::Http => Ok(Self::Http(Connection::open(address).await?)),
            Protocol::Grpc => Ok(Self::Grpc(GrpcConnection::open(address).await?)),
        }
    }

    /// Connects so many seats.
    pub(crate) async fn open_all(
        protocol: Protocol,
        address: SocketAddr,
        count: usize,
    ) -> Result<Vec<Self>> {
        let mut lines: Vec<Self> = Vec::with_capacity(count);
        for seat in 0..count {
            let line = match lines.last() {
                Some(Self::Grpc(shared)) if seat % SEATS_PER_CONNECTION != 0 => {
                    Self::Grpc(shared.clone())
                }
                _ => Self::open(protocol, address).await?,
            };
            lines.push(line);
        }
        Ok(lines)
    }

    /// Sends a whole request, to the method `path` over gRPC, and waits for its answer.
    ///
    /// # Errors
    ///
    /// There was none, or not that it is done.
    pub(crate) async fn ask(&mut self, path: &str, request: &[u8]) -> Result<()> {
        match self {
            Self::Http(connection) => {
                let (status, body) = connection.exchange(request).await?;
                // Older servers say so in the body of a 200 only.
                if status != 200 || says(&body, b"FAILURE") || says(&body, b"ONGOING") {
                    let shown = String::from_utf8_lossy(&body[..body.len().min(200)]);
                    bail!("answered {status}: {shown}");
                }
            }
            Self::Grpc(connection) => {
                let (uri, frame) = (connection.uri(path)?, Bytes::copy_from_slice(request));
                let answer = connection.unary(uri, HeaderMap::new(), frame).await?;
                if answer.status != 0 {
                    bail!("answered gRPC status {}: {}", answer.status, answer.text);
                }
            }
        }
        Ok(())
    }
}

fn says(body: &[u8], word: &[u8]) -> bool {
    body.windows(word.len()).any(|window| window == word)
}

/// A connection and what was read from it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::with_capacity(2048) })
    }

    /// Sends a whole request and reads the whole answer; returns its status and body.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<(u16, Cow<'_, [u8]>)> {
        self.input.clear();
        self.send(request).await?;
        loop {
            // Asked for in two steps, for what is returned borrows the input.
            if let Some(answer) = answer(&self.input)? {
                let (status, from, to) = answer;
                return Ok(match to {
                    Some(to) => (status, Cow::Borrowed(&self.input[from..to])),
                    None => {
                        let body = unreadable(http1::unchunked(&self.input[from..]))?;
                        (status, Cow::Owned(body.unwrap_or_default()))
                    }
                });
            }
            if self.input.len() > ANSWER_MAX_BYTES {
                bail!("an answer is longer than {ANSWER_MAX_BYTES} bytes");
            }
            let count = self.stream.read_buf(&mut self.input).await;
            if count.context("the connection broke")? == 0 {
                bail!("the connection was closed");
            }
        }
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.context("the connection broke")
    }

    /// Reads what there is behind what `input` holds; 0 at the end.
    pub(crate) async fn receive(&mut self, input: &mut Vec<u8>) -> std::io::Result<usize> {
        self.stream.read_buf(input).await
    }
}

/// Returns an answer's status and where its body lies, once it is whole: to the end of the chunks
/// if no end is given.
fn answer(input: &[u8]) -> Result<Option<(u16, usize, Option<usize>)>> {
    let Some(head) = unreadable(http1::head(input))? else { return Ok(None) };
    let status = head.status().context("the answer is not HTTP/1.1")?;
    if head.is_chunked {
        let body = unreadable(http1::unchunked(&input[head.head_bytes..]))?;
        return Ok(body.map(|_| (status, head.head_bytes, None)));
    }
    let end = head.message_bytes();
    Ok((end <= input.len()).then_some((status, head.head_bytes, Some(end))))
}

fn unreadable<T>(result: Result<T, http1::Unreadable>) -> Result<T> {
    result.map_err(|unreadable| anyhow::anyhow!("{}", unreadable.0))
}
