//! A server process.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use dtmd_local_servers::{DeathSignal, spawn_command};
use tokio::process::Child;
use tokio::sync::watch;

use super::output::{Log, Said, drain, wait_drained};
use crate::client::HttpClient;

/// How long a server may take from its start to the first 200 of `/healthz`.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// How often readiness is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long a server may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// How a server process is started: `BINARY serve --data DIR --http-port PORT ARGS…`.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The `dtmd` binary.
    pub binary: PathBuf,
    /// The store's directory.
    pub data_dir: PathBuf,
    /// The HTTP port; 0 takes a free one, which every restart then takes again.
    pub http_port: u16,
    /// The gRPC port; 0 takes a free one, which every restart then takes again, `None` leaves it to
    /// the configuration.
    pub grpc_port: Option<u16>,
    /// More arguments.
    pub args: Vec<OsString>,
    /// More environment variables.
    pub env: Vec<(OsString, OsString)>,
    /// Where the output goes; appended to.
    pub log: PathBuf,
}

impl ServerOptions {
    /// A server on a free port; its log lies beside the data directory.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            binary: binary.into(),
            log: data_dir.with_extension("log"),
            data_dir,
            http_port: 0,
            grpc_port: None,
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
}

/// A running server, or one that was killed and can be started again.
#[derive(Debug)]
pub struct ServerProcess {
    options: ServerOptions,
    url: String,
    said: watch::Receiver<Said>,
    child: Option<Child>,
    log: Log,
}

impl ServerProcess {
    /// Starts a server and waits until `/healthz` answers 200.
    ///
    /// # Errors
    /// It cannot be started, ends, or is not ready in time; the error shows the end of its log.
    pub async fn start(options: ServerOptions) -> anyhow::Result<Self> {
        let log = Log::open(&options.log)
            .with_context(|| format!("cannot open the log {}", options.log.display()))?;
        let said = watch::channel(Said::default()).1;
        let mut server = Self { options, url: String::new(), said, child: None, log };
        server.launch().await?;
        Ok(server)
    }

    /// The server's base URL, without a slash at the end; it stays the same over restarts.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address of the server's gRPC interface, once it has said so.
    ///
    /// # Errors
    /// It does not say so in time, or not at all because it has none.
    pub async fn grpc_address(&self) -> anyhow::Result<SocketAddr> {
        let mut said = self.said.clone();
        let told = said.wait_for(|said| said.grpc.is_some());
        let told = tokio::time::timeout(READY_TIMEOUT, told).await;
        let said = told.context("the server does not say where it serves gRPC")??;
        said.grpc.context("the server does not say where it serves gRPC")
    }

    /// The process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The end of the server's output.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.log.tail()
    }

    /// The exit status if the process has ended by itself.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn has_ended(&mut self) -> std::io::Result<Option<std::process::ExitStatus>> {
        self.child.as_mut().map_or(Ok(None), Child::try_wait)
    }

    /// Kills the process as `kill -9` does and waits until it is gone.
    ///
    /// # Errors
    /// The system cannot kill it.
    pub async fn kill_9(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            self.log.write("--- killed (SIGKILL)");
            child.kill().await.context("cannot kill the server")?;
        }
        Ok(())
    }

    /// Asks the process to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// It does not end in time (it is killed then), or ends with an error.
    pub async fn terminate(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        self.log.write("--- asked to end (SIGTERM)");
        if let Some(id) = child.id() {
            tokio::process::Command::new("kill").arg("-TERM").arg(id.to_string()).status().await?;
        }
        let Ok(status) = tokio::time::timeout(STOP_TIMEOUT, child.wait()).await else {
            child.kill().await.context("cannot kill the server")?;
            let seconds = STOP_TIMEOUT.as_secs();
            bail!("the server did not end within {seconds} s\n{}", self.log_tail());
        };
        let status = status?;
        if !status.success() {
            bail!("the server ended with {status}\n{}", self.log_tail());
        }
        Ok(())
    }

    /// Starts the server again on the same directory and the same port; one that still runs is
    /// killed first.
    ///
    /// # Errors
    /// As [`ServerProcess::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill_9().await?;
        self.log.write("--- started again");
        self.launch().await
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        let options = &self.options;
        let mut command = spawn_command(&options.binary, None, DeathSignal::Kill);
        command.arg("serve").arg("--data").arg(&options.data_dir);
        command.arg("--http-port").arg(options.http_port.to_string());
        if let Some(port) = options.grpc_port {
            command.env("GRPC_PORT", port.to_string());
        }
        command.args(&options.args).envs(options.env.iter().cloned());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", options.binary.display()))?;
        let (sender, receiver) = watch::channel(Said::default());
        let mut drains = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            drains.push(drain(stdout, self.log.clone(), sender.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            drains.push(drain(stderr, self.log.clone(), sender));
        }
        match wait_ready(&mut child, &receiver, options.http_port).await {
            Ok(url) => {
                self.options.http_port =
                    url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
                self.url = url;
                self.said = receiver;
                self.child = Some(child);
                if self.options.grpc_port.is_some() {
                    self.options.grpc_port = Some(self.grpc_address().await?.port());
                }
                Ok(())
            }
            Err(error) => {
                let _ = child.kill().await;
                wait_drained(drains).await;
                Err(error.context(format!("the server's output:\n{}", self.log.tail())))
            }
        }
    }
}

async fn wait_ready(
    child: &mut Child,
    said: &watch::Receiver<Said>,
    port: u16,
) -> anyhow::Result<String> {
    let http = HttpClient::new(Duration::from_secs(1));
    let begun = Instant::now();
    while begun.elapsed() < READY_TIMEOUT {
        if let Some(status) = child.try_wait()? {
            bail!("the server ended with {status} before it was ready");
        }
        // A server on a port that was asked for can be found without its saying so.
        let known = (port != 0).then(|| format!("http://127.0.0.1:{port}"));
        let said = said.borrow().url.clone();
        if let Some(url) = known.or(said)
            && let Ok(answer) = http.get(&format!("{url}/healthz")).await
            && answer.status == 200
        {
            return Ok(url);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    bail!("the server was not ready within {} s", READY_TIMEOUT.as_secs())
}
