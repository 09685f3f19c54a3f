//! The server as its clients see it: over real sockets.

mod api;
mod operating;
mod sockets;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Far longer than anything takes; only a test that fails waits for it.
const FAR: Duration = Duration::from_secs(20);

/// A client that speaks no more HTTP than it is told to.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// Returns a header's value; empty if it is not there.
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v).next().unwrap_or("")
    }
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new() }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: dtm\r\n\r\n")).await;
        self.answer().await
    }

    async fn post(&mut self, path: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: dtm\r\ncontent-length: {length}\r\n\r\n");
        self.send(&(head + body)).await;
        self.answer().await
    }

    /// Reads one answer with a content-length, and leaves what follows.
    async fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().await, "the connection ended within a head: {:?}", self.read);
        };
        let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        let length: usize = answer.header("content-length").parse().unwrap_or(0);
        while self.read.len() < end + length {
            assert!(self.more().await, "the connection ended within a body");
        }
        answer.body = String::from_utf8(self.read[end..end + length].to_vec()).unwrap();
        self.read.drain(..end + length);
        answer
    }

    /// Reads more; false at the end of the connection, however it ended.
    async fn more(&mut self) -> bool {
        let read = timeout(FAR, self.stream.read_buf(&mut self.read));
        matches!(read.await.expect("the server neither answers nor closes"), Ok(count) if count > 0)
    }

    /// Waits until the server closes; what it said before that.
    async fn closed(mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&self.read).into_owned()
    }
}
