//! A keep-alive connection that has one request at a time: as lean as a client can be.

use std::borrow::Cow;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http1;

/// The longest answer that is read.
const ANSWER_MAX_BYTES: usize = 16 << 20;

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
