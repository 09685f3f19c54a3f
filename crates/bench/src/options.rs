//! What a run is asked to do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What kind of transaction is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A saga of so many steps.
    Saga,
    /// A two-phase message to so many targets: prepare, submit, deliveries.
    Msg,
    /// Prepare, so many registrations, submit, confirms. The tries are the application's business
    /// and not made.
    Tcc,
    /// Prepare, so many registrations, submit, commits. What the branches do in their databases is
    /// not the server's and not made.
    Xa,
}

impl Mode {
    /// Returns the word of the wire for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Saga => "saga",
            Self::Msg => "msg",
            Self::Tcc => "tcc",
            Self::Xa => "xa",
        }
    }
}

/// Over which protocol the server is asked and the participants are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 with JSON.
    #[default]
    Http,
    /// gRPC, in and out.
    Grpc,
}

impl Protocol {
    /// Returns its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Grpc => "gRPC",
        }
    }
}

/// Where the measured server keeps transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreChoice {
    /// The embedded store.
    Embedded,
    /// The memory store.
    Memory,
    /// Whatever this configuration file says.
    Config(PathBuf),
}

impl StoreChoice {
    /// Returns its name in reports.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Embedded => "embedded".to_owned(),
            Self::Memory => "memory".to_owned(),
            Self::Config(path) => path.display().to_string(),
        }
    }
}

/// A server that runs already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its base URL, such as `http://127.0.0.1:36789`; host names are not resolved.
    pub url: String,
    /// Where it serves gRPC; needed to drive it over that.
    pub grpc: Option<SocketAddr>,
    /// Its process, if it runs on this machine and its CPU time shall be measured.
    pub pid: Option<u32>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchOptions {
    /// The `dtmd` binary that the participants are started from.
    pub binary: PathBuf,
    /// The `dtmd` binary that is measured: the server is started from it.
    pub server: PathBuf,
    /// What is driven.
    pub mode: Mode,
    /// Over which protocol.
    pub protocol: Protocol,
    /// Steps of a saga, targets of a message, branches of a TCC or of XA.
    pub steps: usize,
    /// Transactions at once.
    pub concurrency: usize,
    /// How long is measured, after a warm-up.
    pub duration: Duration,
    /// Whether the submit waits for the result.
    pub wait: bool,
    /// The store of the server that is started.
    pub store: StoreChoice,
    /// Where the server's files lie; a temporary directory if it is not said.
    pub data: Option<PathBuf>,
    /// So many transactions are finished before the measurement.
    pub preload: u64,
    /// A server to drive instead of starting one.
    pub target: Option<Target>,
}
