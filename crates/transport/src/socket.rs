//! What carries bytes: TCP on a machine, something else in a simulation.
//!
//! Serving is generic over it. Calling knows TCP by name and takes a simulation's sockets beside it,
//! so that its connections stay what they are, in one pool.

use std::io::{self, Write};
use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connection's socket.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Has what is written sent at once.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    fn set_nodelay(&self) -> io::Result<()>;

    /// Writes what can be written without waiting, and closes.
    fn write_last(self, bytes: &[u8]);
}

/// Where connections come in.
pub trait Listener: Send + 'static {
    /// What comes in.
    type Socket: Socket;

    /// Waits for the next connection. Losing the future loses no connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

/// The network of a simulation, as a caller sees it.
pub trait Network: Send + Sync + 'static {
    /// Returns the addresses of a name, without waiting.
    ///
    /// # Errors
    ///
    /// When the name has none.
    fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// Opens a connection.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
}

/// A stream of bytes both ways, of whatever kind.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Socket for TcpStream {
    fn set_nodelay(&self) -> io::Result<()> {
        TcpStream::set_nodelay(self, true)
    }

    fn write_last(self, bytes: &[u8]) {
        // What it cannot be told at once it is not told: the close says enough.
        if let Ok(mut stream) = self.into_std() {
            let _ = stream.write(bytes);
        }
    }
}

impl Listener for TcpListener {
    type Socket = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(stream, _)| stream)
    }
}
