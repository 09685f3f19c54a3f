//! The processes of a run: the server, its participants, and where their files lie.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dtmd_demo::client::HttpClient;
use dtmd_demo::process::{ServerOptions, ServerProcess, find_grpc, find_url};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::connection::Connection;
use crate::metrics::Metrics;
use crate::options::{BenchOptions, Protocol, StoreChoice, Target};
use crate::participant::SERVICE;
use crate::procfs;

/// How long a request that is not part of the load may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The participants, a process of their own. It ends with its handle, or with this process.
#[derive(Debug)]
pub(crate) struct Participants {
    // Its stdin is the leash: the process ends when it is closed.
    child: Child,
    pub(crate) address: SocketAddr,
    grpc: SocketAddr,
}

impl Participants {
    /// Starts them.
    pub(crate) async fn start(binary: &Path) -> Result<Self> {
        let mut child = Command::new(binary)
            .arg("bench-participant")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let stdout = child.stdout.take().context("the participants have no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut next = async || {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
            line.context("the participants do not start")??
                .context("the participants ended before they were ready")
        };
        let (first, second) = (next().await?, next().await?);
        let url = find_url(&first).with_context(|| format!("participants said: {first}"))?;
        let grpc = find_grpc(&second).with_context(|| format!("participants said: {second}"))?;
        Ok(Self { child, address: address_of(&url)?, grpc })
    }

    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("the participants have ended")
    }

    /// Returns what the URL of every branch begins with.
    pub(crate) fn base(&self, protocol: Protocol) -> String {
        match protocol {
            Protocol::Http => format!("http://{}", self.address),
            Protocol::Grpc => format!("{}{SERVICE}", self.grpc),
        }
    }

    pub(crate) fn address_for(&self, protocol: Protocol) -> SocketAddr {
        match protocol {
            Protocol::Http => self.address,
            Protocol::Grpc => self.grpc,
        }
    }
}

/// The server that is measured.
pub(crate) struct Measured {
    pub(crate) process: Option<ServerProcess>,
    pub(crate) pid: Option<u32>,
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    grpc: Option<SocketAddr>,
    http: HttpClient,
}

impl Measured {
    /// Starts a server, or looks at the one that is there.
    pub(crate) async fn start(options: &BenchOptions, folder: &Folder) -> Result<Self> {
        let http = HttpClient::new(PATIENCE);
        if let Some(Target { url, grpc, pid }) = &options.target {
            if let Some(pid) = pid {
                procfs::usage(*pid)?;
            }
            if options.protocol == Protocol::Grpc && grpc.is_none() {
                bail!("--target-grpc ADDRESS:PORT is needed to drive {url} over gRPC");
            }
            let url = url.trim_end_matches('/').to_owned();
            let address = address_of(&url)?;
            return Ok(Self { process: None, pid: *pid, address, grpc: *grpc, url, http });
        }
        let mut server = ServerOptions::new(&options.server, folder.store());
        // The usual port may be another server's.
        server.grpc_port = Some(0);
        server = match &options.store {
            StoreChoice::Embedded => server.args(["--store", "embedded"]),
            StoreChoice::Memory => server.args(["--store", "memory"]),
            StoreChoice::Config(file) => server.args([Path::new("--config"), file]),
        };
        let process = ServerProcess::start(server).await?;
        let url = process.url().to_owned();
        let (pid, address) = (process.id(), address_of(&url)?);
        let grpc = Some(process.grpc_address().await?);
        Ok(Self { pid, process: Some(process), address, grpc, url, http })
    }

    /// Returns where transactions are sent to.
    pub(crate) fn address_for(&self, protocol: Protocol) -> SocketAddr {
        match (protocol, self.grpc) {
            (Protocol::Grpc, Some(grpc)) => grpc,
            (Protocol::Http, _) | (Protocol::Grpc, None) => self.address,
        }
    }

    /// Returns its process's peak memory in KiB.
    pub(crate) fn peak_kib(&self) -> Option<u64> {
        procfs::memory(self.pid?).ok().map(|memory| memory.peak)
    }

    pub(crate) async fn metrics(&self) -> Result<Metrics> {
        let answer = self.http.get(&format!("{}/api/metrics", self.url)).await?;
        Ok(Metrics::parse(&answer.body))
    }
}

/// Asks for transactions one by one, over one connection.
pub(crate) struct Asker {
    connection: Connection,
    host: String,
}

impl Asker {
    pub(crate) async fn open(server: &Measured) -> Result<Self> {
        let connection = Connection::open(server.address).await?;
        Ok(Self { connection, host: server.address.to_string() })
    }

    /// Returns the state of a transaction.
    pub(crate) async fn state(&mut self, gid: &str) -> Result<State> {
        let host = &self.host;
        let request = format!("GET /api/dtmsvr/query?gid={gid} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let (status, body) = self.connection.exchange(request.as_bytes()).await?;
        ensure!(status == 200, "query of {gid} answered {status}");
        let json: serde_json::Value = serde_json::from_slice(&body)?;
        let status = json["transaction"]["status"].as_str().unwrap_or("missing").to_owned();
        let branches = json["branches"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_open = |branch: &&serde_json::Value| {
            let is_forward = matches!(branch["op"].as_str(), Some("action" | "confirm" | "commit"));
            is_forward && branch["status"] != "succeed"
        };
        Ok(State { status, open_branches: branches.iter().filter(is_open).count() })
    }
}

impl Asker {
    /// Returns the state of a transaction once it is final; the last that was seen if that takes
    /// longer than `patience`.
    pub(crate) async fn settled(&mut self, gid: &str, patience: Duration) -> Result<State> {
        let deadline = Instant::now() + patience;
        loop {
            let state = self.state(gid).await?;
            let is_final = matches!(state.status.as_str(), "succeed" | "failed" | "missing");
            if is_final || Instant::now() > deadline {
                return Ok(state);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What a query says: the status, and how many forward branches are not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) status: String,
    pub(crate) open_branches: usize,
}

impl State {
    pub(crate) fn is_succeed(&self) -> bool {
        self.status == "succeed" && self.open_branches == 0
    }
}

/// Where a run's files lie.
pub(crate) struct Folder {
    path: PathBuf,
    // Removed with what is in it when the run is over.
    _temporary: TempDir,
}

impl Folder {
    /// Makes a temporary directory, in `parent` if it is given.
    pub(crate) fn new(parent: Option<&Path>) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("dtmd-bench-");
        let temporary = match parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        let temporary = temporary.context("no directory can be made for the store")?;
        Ok(Self { path: temporary.path().to_owned(), _temporary: temporary })
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    pub(crate) fn file_system(&self) -> String {
        procfs::file_system(&self.path)
    }
}

/// Returns the address in `http://ADDRESS:PORT`.
pub(crate) fn address_of(url: &str) -> Result<SocketAddr> {
    let Some(rest) = url.strip_prefix("http://") else {
        bail!("{url}: the load generator speaks plain http only");
    };
    let place = rest.split('/').next().unwrap_or_default().replace("localhost:", "127.0.0.1:");
    place.parse().with_context(|| {
        format!("{url}: give an IP address and a port, such as http://127.0.0.1:36789")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_to_be_an_address() {
        assert_eq!(address_of("http://127.0.0.1:1/x").unwrap().port(), 1);
        assert_eq!(address_of("http://localhost:36789").unwrap().port(), 36789);
        assert!(address_of("https://127.0.0.1:1").is_err());
        assert!(address_of("http://somewhere").unwrap_err().to_string().contains("IP address"));
    }
}
