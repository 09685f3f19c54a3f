//! The server as a process, and its command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use dtmd_demo::client::{Answer, DtmClient};
use dtmd_demo::process::{ServerOptions, ServerProcess};
use serde_json::Value;
use tempfile::TempDir;

use crate::until;

/// The longest a command may run.
const CLI_TIMEOUT: Duration = Duration::from_secs(30);

/// The server's binary: `DTMD_BIN`, or the one built beside the tests.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("DTMD_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("dtmd");
    assert!(path.is_file(), "{} is missing: run `cargo build -p dtmd`", path.display());
    path
}

/// The store's folder within a test's own.
#[must_use]
pub fn data_folder(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// The environment that makes a server use a store on this machine, of DTM's driver.
#[must_use]
pub fn store_env(driver: &str, port: u16, user: &str, db: &str) -> Vec<(String, String)> {
    let port = port.to_string();
    let pairs = [
        ("STORE_DRIVER", driver),
        ("STORE_HOST", "127.0.0.1"),
        ("STORE_PORT", &port),
        ("STORE_USER", user),
        ("STORE_DB", db),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// An environment as [`Server::start_with`] takes it.
#[must_use]
pub fn pairs(env: &[(String, String)]) -> Vec<(&str, &str)> {
    env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// A server of a test's own, on a free port and a temporary folder.
#[derive(Debug)]
pub struct Server {
    /// The process, to be killed, ended and started again.
    pub process: ServerProcess,
    /// Its application.
    pub client: DtmClient,
    folder: TempDir,
}

impl Server {
    /// Starts one with the defaults.
    pub async fn start() -> Self {
        Self::start_with(&[], &[]).await
    }

    /// Starts one with more arguments and environment variables.
    pub async fn start_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::try_start(TempDir::new().unwrap(), args, env).await.unwrap()
    }

    /// Starts one on a given port instead of any that is free.
    pub async fn start_at(port: u16, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::launch(TempDir::new().unwrap(), port, args, env).await.unwrap()
    }

    /// Starts one in a folder that may hold a store.
    ///
    /// # Errors
    /// It does not become ready; the error holds its output.
    pub async fn try_start(
        folder: TempDir,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::launch(folder, 0, args, env).await
    }

    async fn launch(
        folder: TempDir,
        port: u16,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let mut options =
            ServerOptions::new(binary(), data_folder(folder.path())).args(args.iter().copied());
        options.http_port = port;
        let any_port = [("GRPC_PORT", "0")];
        let env = any_port.iter().chain(env);
        options.env = env.map(|(name, value)| (name.into(), value.into())).collect();
        let process = ServerProcess::start(options).await?;
        let client = DtmClient::new(process.url());
        Ok(Self { process, client, folder })
    }

    /// Kills it as `kill -9` does, and keeps its folder.
    pub async fn stop(mut self) -> TempDir {
        self.process.kill_9().await.unwrap();
        self.folder
    }

    /// The store's folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        data_folder(self.folder.path())
    }

    /// All it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data().with_extension("log")).unwrap_or_default()
    }

    /// The URL of a path of the server.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.process.url())
    }

    /// The host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        self.process.url().trim_start_matches("http://")
    }

    /// Gets a path below `/api/dtmsvr/`.
    pub async fn get(&self, path: &str) -> Answer {
        self.client.http().get(&format!("{}/{path}", self.client.base())).await.unwrap()
    }

    /// Posts to an operation below `/api/dtmsvr/`.
    pub async fn post(&self, operation: &str, body: &Value) -> Answer {
        self.client.post(operation, body).await.unwrap()
    }

    /// Posts and expects the answer of a plain success.
    ///
    /// # Panics
    /// There is another.
    pub async fn post_ok(&self, operation: &str, body: &Value) {
        let answer = self.post(operation, body).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, r#"{"dtm_result":"SUCCESS"}"#),
            "{operation} {body}"
        );
    }

    /// What `query` tells about a gid.
    pub async fn query(&self, gid: &str) -> Value {
        let answer = self.get(&format!("query?gid={gid}")).await;
        assert_eq!(answer.status, 200, "query {gid}: {}", answer.body);
        answer.json()
    }

    /// A transaction's status; empty if the server does not know it.
    pub async fn status(&self, gid: &str) -> String {
        let query = self.query(gid).await;
        query["transaction"]["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the transaction has the status, and returns the query's answer.
    pub async fn wait_status(&self, gid: &str, status: &str) -> Value {
        until(&format!("{gid} with status {status}"), async || {
            let query = self.query(gid).await;
            (query["transaction"]["status"] == status).then_some(query)
        })
        .await
    }

    /// All metrics, as they are printed.
    pub async fn metrics(&self) -> String {
        self.client.http().get(&self.at("/api/metrics")).await.unwrap().body
    }

    /// Asserts that it still serves: a saga without calls succeeds.
    pub async fn assert_serves(&self, gid: &str) {
        let body = serde_json::json!({
            "gid": gid, "trans_type": "saga", "wait_result": true,
            "steps": [{ "action": "", "compensate": "" }], "payloads": [""],
        });
        self.post_ok("submit", &body).await;
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cli {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it was asked for.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Runs `dtmd` with these arguments to its end.
pub async fn cli(args: &[&str]) -> Cli {
    cli_at(None, args).await
}

/// Runs `dtmd` as a client of a server.
pub async fn cli_at(server: Option<&str>, args: &[&str]) -> Cli {
    let mut command = tokio::process::Command::new(binary());
    command.args(args.iter().map(OsString::from)).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(server) = server {
        command.env("DTMD_SERVER", server);
    }
    let output = tokio::time::timeout(CLI_TIMEOUT, command.output());
    let output = output.await.unwrap_or_else(|_| panic!("dtmd {args:?} does not end")).unwrap();
    Cli {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
