//! Private Redis servers: one, or a cluster of three masters.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Child;

use crate::child::{DeathSignal, find_program};
use crate::home::{Home, PORT_ATTEMPTS, end, free_port, signal};

/// How many masters a private cluster has: the fewest that Redis takes.
const CLUSTER_MASTERS: usize = 3;
/// Slots of a Redis Cluster.
const CLUSTER_SLOTS: usize = 16_384;
/// How long a cluster may take until all its nodes agree.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(30);

/// How a private Redis runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisOptions {
    /// Keep an append-only file, synced with every change: only then a killed process loses nothing.
    pub append_only: bool,
    /// Run as a node of a cluster.
    pub cluster: bool,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self { append_only: true, cluster: false }
    }
}

/// A running Redis server; dropping it kills it and removes its directory.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    options: RedisOptions,
    child: Option<Child>,
    home: Home,
}

impl Redis {
    /// Tells why no server can be started here, if none can.
    ///
    /// # Errors
    /// Names the program that is missing.
    pub fn available() -> Result<(), String> {
        program().map(drop)
    }

    /// Starts a server on a free port, with an append-only file.
    ///
    /// # Errors
    /// The program is missing, or the server does not come up; the error shows its log.
    pub async fn start(options: RedisOptions) -> anyhow::Result<Self> {
        program().map_err(anyhow::Error::msg)?;
        let home = Home::make("redis", DeathSignal::Kill)?;
        let mut server = Self { port: 0, options, child: None, home };
        let mut attempt = 1;
        loop {
            server.port = server.choose_port()?;
            match server.launch().await {
                Ok(()) => return Ok(server),
                Err(error) if attempt == PORT_ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// `redis://127.0.0.1:PORT/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its directory, with its files.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.home.path()
    }

    /// The process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Kills the server as `kill -9` does.
    ///
    /// # Errors
    /// The system cannot kill it.
    pub async fn kill_9(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.context("cannot kill Redis")?;
        }
        Ok(())
    }

    /// Starts the server again on the same directory and port.
    ///
    /// # Errors
    /// It does not come up; the error shows its log.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill_9().await?;
        self.launch().await
    }

    /// Stops the server without its noticing: connections stay open and answer nothing.
    ///
    /// # Errors
    /// It does not run, or the system refuses.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        signal(self.child.as_ref(), "STOP").await
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// It does not run, or the system refuses.
    pub async fn thaw(&self) -> anyhow::Result<()> {
        signal(self.child.as_ref(), "CONT").await
    }

    /// A free port; a node of a cluster also needs the one that is 10 000 higher.
    fn choose_port(&self) -> anyhow::Result<u16> {
        for _ in 0..100 {
            let port = free_port()?;
            if !self.options.cluster {
                return Ok(port);
            }
            let bus = port.checked_add(10_000);
            if bus.is_some_and(|bus| std::net::TcpListener::bind(("127.0.0.1", bus)).is_ok()) {
                return Ok(port);
            }
            // The system gives out high ports; one in the middle leaves room for the second.
            let low = 20_000 + port % 12_000;
            let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
            if free(low) && free(low + 10_000) {
                return Ok(low);
            }
        }
        bail!("no two free ports for a node of a Redis Cluster")
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        let mut command = self.home.command(&program().map_err(anyhow::Error::msg)?)?;
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        command.arg("--dir").arg(self.home.path());
        command.args(["--save", "", "--daemonize", "no"]);
        let append_only = if self.options.append_only { "yes" } else { "no" };
        command.args(["--appendonly", append_only, "--appendfsync", "always"]);
        if self.options.cluster {
            command.args(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]);
            command.args(["--cluster-node-timeout", "2000"]);
        }
        let mut child = command.spawn().context("cannot start redis-server")?;
        let connect = || ping(self.url());
        self.home.wait_ready(&mut child, connect).await?;
        self.child = Some(child);
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        end(self.child.take(), DeathSignal::Kill);
    }
}

/// A running Redis Cluster of three masters; dropping it kills them.
#[derive(Debug)]
pub struct RedisCluster {
    /// Its nodes.
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts three masters and gives each a third of the slots.
    ///
    /// # Errors
    /// The program is missing, a node does not come up, or they do not agree in time.
    pub async fn start() -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..CLUSTER_MASTERS {
            nodes.push(Redis::start(RedisOptions { append_only: true, cluster: true }).await?);
        }
        let size = CLUSTER_SLOTS.div_ceil(CLUSTER_MASTERS);
        for (index, node) in nodes.iter().enumerate() {
            let first = index * size;
            let last = (first + size).min(CLUSTER_SLOTS) - 1;
            let mut connection = connect(&node.url()).await?;
            let () = redis::cmd("CLUSTER")
                .arg(&["ADDSLOTSRANGE".to_owned(), first.to_string(), last.to_string()])
                .query_async(&mut connection)
                .await?;
            let () = redis::cmd("CLUSTER")
                .arg(&["SET-CONFIG-EPOCH".to_owned(), (index + 1).to_string()])
                .query_async(&mut connection)
                .await?;
            if index > 0 {
                let () = redis::cmd("CLUSTER")
                    .arg(&["MEET".to_owned(), "127.0.0.1".to_owned(), nodes[0].port.to_string()])
                    .query_async(&mut connection)
                    .await?;
            }
        }
        let cluster = Self { nodes };
        cluster.wait_ok().await?;
        Ok(cluster)
    }

    /// The nodes' URLs.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// Waits until every node serves every slot.
    ///
    /// # Errors
    /// They do not agree in time.
    pub async fn wait_ok(&self) -> anyhow::Result<()> {
        let begun = std::time::Instant::now();
        while begun.elapsed() < CLUSTER_TIMEOUT {
            let mut agreed = 0;
            for node in &self.nodes {
                let Ok(mut connection) = connect(&node.url()).await else { continue };
                let info: String =
                    redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await?;
                let known = format!("cluster_known_nodes:{}", self.nodes.len());
                agreed += usize::from(
                    info.contains("cluster_state:ok")
                        && info.contains(&format!("cluster_slots_ok:{CLUSTER_SLOTS}"))
                        && info.contains(&known),
                );
            }
            if agreed == self.nodes.len() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the Redis Cluster's nodes did not agree within {} s", CLUSTER_TIMEOUT.as_secs())
    }
}

async fn connect(url: &str) -> anyhow::Result<redis::aio::MultiplexedConnection> {
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection().await?)
}

async fn ping(url: String) -> anyhow::Result<()> {
    let mut connection = connect(&url).await?;
    let () = redis::cmd("PING").query_async(&mut connection).await?;
    Ok(())
}

fn program() -> Result<PathBuf, String> {
    find_program("redis-server", &[]).ok_or_else(|| "redis-server is not installed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_server_comes_back_with_its_data() {
        let mut server = Redis::start(RedisOptions::default()).await.unwrap();
        let mut connection = connect(&server.url()).await.unwrap();
        let () =
            redis::cmd("SET").arg(&["key", "value"]).query_async(&mut connection).await.unwrap();
        server.kill_9().await.unwrap();
        server.restart().await.unwrap();
        let mut connection = connect(&server.url()).await.unwrap();
        let value: String =
            redis::cmd("GET").arg("key").query_async(&mut connection).await.unwrap();
        assert_eq!(value, "value");
    }

    #[tokio::test]
    async fn a_cluster_serves_every_slot() {
        let cluster = RedisCluster::start().await.unwrap();
        let client = redis::cluster::ClusterClient::new(cluster.urls()).unwrap();
        let mut connection = client.get_async_connection().await.unwrap();
        for key in 0..50 {
            let () =
                redis::cmd("SET").arg(key).arg(key).query_async(&mut connection).await.unwrap();
            let read: i64 = redis::cmd("GET").arg(key).query_async(&mut connection).await.unwrap();
            assert_eq!(read, key);
        }
    }
}
