//! A private PostgreSQL server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Child;
use tokio_postgres::NoTls;

use crate::DatabaseOptions;
use crate::child::{DeathSignal, find_program};
use crate::home::{Home, PORT_ATTEMPTS, end, free_port, signal, signal_children};

/// How long a standby may take until it follows.
const STANDBY_TIMEOUT: Duration = Duration::from_secs(20);

/// A running PostgreSQL server with prepared transactions; dropping it kills it and removes its
/// directory.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    options: DatabaseOptions,
    child: Option<Child>,
    home: Home,
    /// More settings, as `name=value`.
    extra: Vec<String>,
}

impl Postgres {
    /// Tells why no server can be started here, if none can.
    ///
    /// # Errors
    /// Names the program that is missing.
    pub fn available() -> Result<(), String> {
        program("postgres").and(program("initdb")).map(drop)
    }

    /// Makes a cluster in a temporary directory and starts a server on a free port.
    ///
    /// # Errors
    /// The programs are missing, or the server does not come up; the error shows its log.
    pub async fn start(options: DatabaseOptions) -> anyhow::Result<Self> {
        let initdb = program("initdb").map_err(anyhow::Error::msg)?;
        let home = Home::make("postgres", DeathSignal::Quit)?;
        let mut command = home.command(&initdb)?;
        command.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"]);
        command.args(["--no-locale", "-D"]).arg(home.path().join("data"));
        home.run(command, "initdb").await?;
        let mut server = Self { port: 0, options, child: None, home, extra: Vec::new() };
        let mut attempt = 1;
        loop {
            server.port = free_port()?;
            match server.launch().await {
                Ok(()) => break,
                Err(error) if attempt == PORT_ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
        Ok(server)
    }

    /// The URL of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server as `kill -9` does; its helpers end when they notice.
    ///
    /// # Errors
    /// The system cannot kill it.
    pub async fn kill_9(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.context("cannot kill PostgreSQL")?;
        }
        Ok(())
    }

    /// Starts the server again on the same directory and port.
    ///
    /// # Errors
    /// It does not come up; the error shows its log.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill_9().await?;
        let mut attempt = 1;
        loop {
            match self.launch().await {
                Ok(()) => return Ok(()),
                Err(error) if attempt == PORT_ATTEMPTS => return Err(error),
                // The killed server's helpers may still hold its shared memory.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(500)).await,
            }
            attempt += 1;
        }
    }

    /// Stops the server without its noticing: connections stay open and answer nothing.
    ///
    /// # Errors
    /// It does not run, or the system refuses.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        // The first one first, so that it starts no more; each connection has a process of its own.
        signal(self.child.as_ref(), "STOP").await?;
        signal_children(self.child.as_ref(), "STOP").await
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// It does not run, or the system refuses.
    pub async fn thaw(&self) -> anyhow::Result<()> {
        signal_children(self.child.as_ref(), "CONT").await?;
        signal(self.child.as_ref(), "CONT").await
    }

    /// The process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Copies the running server to a standby that follows it. From then on a commit here waits
    /// until the standby has it on disk.
    ///
    /// # Errors
    /// The copy fails, or the standby does not come up.
    pub async fn start_standby(&self) -> anyhow::Result<Self> {
        let copy = program("pg_basebackup").map_err(anyhow::Error::msg)?;
        let home = Home::make("postgres", DeathSignal::Quit)?;
        let mut command = home.command(&copy)?;
        command.args(["--host=127.0.0.1", "--username=postgres", "--checkpoint=fast", "--no-sync"]);
        command.args([&format!("--port={}", self.port), "--write-recovery-conf", "-D"]);
        command.arg(home.path().join("data"));
        home.run(command, "pg_basebackup").await?;
        let port = free_port()?;
        let mut standby =
            Self { port, options: self.options, child: None, home, extra: Vec::new() };
        standby.launch().await?;
        execute(&self.url(), "alter system set synchronous_standby_names = '*'").await?;
        execute(&self.url(), "select pg_reload_conf()").await?;
        let follows = "select 1 / count(*) from pg_stat_replication where sync_state = 'sync'";
        let begun = std::time::Instant::now();
        while let Err(error) = execute(&self.url(), follows).await {
            anyhow::ensure!(begun.elapsed() < STANDBY_TIMEOUT, "it does not follow: {error:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(standby)
    }

    /// Makes a standby the server that takes writes.
    ///
    /// # Errors
    /// It is none, or does not answer.
    pub async fn promote(&self) -> anyhow::Result<()> {
        execute(&self.url(), "select pg_promote()").await?;
        execute(&self.url(), "alter system reset synchronous_standby_names").await?;
        execute(&self.url(), "select pg_reload_conf()").await
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        let postgres = program("postgres").map_err(anyhow::Error::msg)?;
        let path = self.home.path();
        let mut command = self.home.command(&postgres)?;
        command.arg("-D").arg(path.join("data"));
        command.arg("-k").arg(path).args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        let fsync = if self.options.fsync { "on" } else { "off" };
        for setting in [
            "max_prepared_transactions=64",
            "max_connections=200",
            "shared_buffers=32MB",
            // In the data directory, so that a killed server leaves nothing behind elsewhere.
            "dynamic_shared_memory_type=mmap",
            &format!("fsync={fsync}"),
        ] {
            command.args(["-c", setting]);
        }
        for setting in &self.extra {
            command.args(["-c", setting]);
        }
        let mut child = command.spawn().context("cannot start postgres")?;
        let url = self.url();
        let connect = || async { execute(&url, "select 1").await };
        self.home.wait_ready(&mut child, connect).await?;
        self.child = Some(child);
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        end(self.child.take(), DeathSignal::Quit);
    }
}

async fn execute(url: &str, sql: &str) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let driver = tokio::spawn(connection);
    let answered = client.simple_query(sql).await;
    driver.abort();
    answered?;
    Ok(())
}

/// A program of the newest version that is installed.
fn program(name: &str) -> Result<PathBuf, String> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let directories: Vec<PathBuf> = versions.into_iter().rev().map(|(_, bin)| bin).collect();
    find_program(name, &directories).ok_or_else(|| format!("{name} is not installed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_promoted_standby_has_every_commit() {
        let mut primary = Postgres::start(DatabaseOptions::default()).await.unwrap();
        let standby = primary.start_standby().await.unwrap();
        execute(&primary.url(), "create table t as select 1 as id").await.unwrap();
        primary.kill_9().await.unwrap();
        standby.promote().await.unwrap();
        execute(&standby.url(), "insert into t select id + 1 from t").await.unwrap();
        execute(&standby.url(), "select 1 / (case count(*) when 2 then 1 else 0 end) from t")
            .await
            .unwrap();
    }
}
