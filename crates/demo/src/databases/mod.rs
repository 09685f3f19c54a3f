//! Private database servers: on a temporary directory and a free port, gone when dropped.
//!
//! MariaDB and PostgreSQL refuse to run as root, so root runs them as their own users.

mod mariadb;
mod postgres;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

pub use mariadb::Mariadb;
pub use postgres::Postgres;

use crate::process::{DeathSignal, User, spawn_command};

/// How long a database may take to accept connections.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server that is not needed any more may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a port is tried that was free when chosen and taken when used.
const PORT_ATTEMPTS: u32 = 3;

/// How a private database runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatabaseOptions {
    /// Force commits to disk. Off is quicker, and safe against a killed process all the same.
    pub fsync: bool,
}

/// A temporary directory and the user a server runs as.
#[derive(Debug)]
struct Home {
    directory: tempfile::TempDir,
    user: Option<User>,
    death: DeathSignal,
}

impl Home {
    /// Makes the directory; as root it belongs to `user`, which must exist.
    fn make(user: &str, death: DeathSignal) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("dtmd-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        let user = if User::is_root() {
            let found = User::find(user)
                .with_context(|| format!("root needs the user {user} to run the database"))?;
            std::os::unix::fs::chown(directory.path(), Some(found.uid), Some(found.gid))
                .with_context(|| format!("cannot give the directory to {user}"))?;
            Some(found)
        } else {
            None
        };
        Ok(Self { directory, user, death })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn log(&self) -> PathBuf {
        self.path().join("server.log")
    }

    /// A command that runs as the database's user, with its output in the log.
    fn command(&self, program: &Path) -> anyhow::Result<Command> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = spawn_command(program, self.user, self.death);
        command.current_dir(self.path());
        command.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        Ok(command)
    }

    /// Runs a command to its end.
    async fn run(&self, mut command: Command, what: &str) -> anyhow::Result<()> {
        let status = command.status().await.with_context(|| format!("cannot start {what}"))?;
        if !status.success() {
            bail!("{what} ended with {status}\n{}", self.log_tail());
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }

    /// Waits until `connect` succeeds.
    async fn wait_ready<F, C>(&self, child: &mut Child, connect: F) -> anyhow::Result<()>
    where
        F: Fn() -> C,
        C: Future<Output = anyhow::Result<()>>,
    {
        let begun = std::time::Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("the database ended with {status}\n{}", self.log_tail());
            }
            match connect().await {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() >= READY_TIMEOUT => {
                    return Err(error.context(format!(
                        "the database was not ready within {} s\n{}",
                        READY_TIMEOUT.as_secs(),
                        self.log_tail()
                    )));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// Ends a server with a signal that lets it remove what it shares with the system, and waits for
/// it shortly, so that its directory can be removed; kills it if that does not help.
fn end(child: Option<Child>, signal: DeathSignal) {
    let Some(mut child) = child else { return };
    if let Some(id) = child.id() {
        // Where there is no `kill`, dropping the handle still kills the server.
        let _ = std::process::Command::new("kill")
            .args(["-s", signal.name(), &id.to_string()])
            .status();
    }
    let begun = std::time::Instant::now();
    while begun.elapsed() < END_TIMEOUT && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port that is free now; somebody may take it before the database does.
fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}
