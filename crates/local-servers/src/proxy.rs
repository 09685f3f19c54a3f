//! An address that can be moved from one server to another, as a virtual address or a balancer is.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A forwarder of connections; dropping it ends it and them.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    moved: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port and forwards to a port of this machine.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no free port")?;
        let address = listener.local_addr()?;
        let target = Arc::new(Mutex::new(SocketAddr::from(([127, 0, 0, 1], port))));
        let (moved, watch) = watch::channel(());
        let task = tokio::spawn(accept(listener, Arc::clone(&target), watch));
        Ok(Self { address, target, moved, task })
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Sends new connections to another port, and cuts those that there are.
    pub fn move_to(&self, port: u16) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) =
            SocketAddr::from(([127, 0, 0, 1], port));
        self.moved.send_replace(());
    }

    /// Cuts all connections, and every new one at once, until [`Proxy::move_to`].
    pub fn cut(&self) {
        // Nobody can be reached at port 0.
        self.move_to(0);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: Arc<Mutex<SocketAddr>>, moved: watch::Receiver<()>) {
    // The connections end with the set, and that with this task.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((mut from, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let target = *target.lock().unwrap_or_else(PoisonError::into_inner);
        let mut moved = moved.clone();
        moved.mark_unchanged();
        connections.spawn(async move {
            let Ok(mut to) = TcpStream::connect(target).await else { return };
            tokio::select! {
                // Either side may end it at any time.
                _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                _ = moved.changed() => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A server that tells its name to whoever connects.
    async fn named(name: &'static [u8]) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(name).await.unwrap();
                open.push(stream);
            }
        });
        port
    }

    #[tokio::test]
    async fn a_moved_address_cuts_old_connections_and_leads_new_ones_elsewhere() {
        let proxy = Proxy::start(named(b"a").await).await.unwrap();
        let mut first = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), b'a');
        proxy.move_to(named(b"b").await);
        assert!(first.read_u8().await.is_err(), "the old connection is cut");
        let mut second = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        assert_eq!(second.read_u8().await.unwrap(), b'b');
        proxy.cut();
        assert!(second.read_u8().await.is_err(), "it is cut");
        let mut third = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        assert!(third.read_u8().await.is_err(), "and so are new ones");
    }
}
