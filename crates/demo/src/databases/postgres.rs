//! A private PostgreSQL server.

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::process::Child;
use tokio_postgres::NoTls;

use super::{DatabaseOptions, Home, PORT_ATTEMPTS, end, free_port};
use crate::process::{DeathSignal, find_program};

/// A running PostgreSQL server with prepared transactions; dropping it kills it and removes its
/// directory.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    options: DatabaseOptions,
    child: Option<Child>,
    home: Home,
}

impl Postgres {
    /// Tells why no server can be started here, if none can.
    ///
    /// # Errors
    /// Names the program that is missing.
    pub fn available() -> Result<(), String> {
        programs().map(drop)
    }

    /// Makes a cluster in a temporary directory and starts a server on a free port.
    ///
    /// # Errors
    /// The programs are missing, or the server does not come up; the error shows its log.
    pub async fn start(options: DatabaseOptions) -> anyhow::Result<Self> {
        let (_, initdb) = programs().map_err(anyhow::Error::msg)?;
        let home = Home::make("postgres", DeathSignal::Quit)?;
        let mut command = home.command(&initdb)?;
        command.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"]);
        command.args(["--no-locale", "-D"]).arg(home.path().join("data"));
        home.run(command, "initdb").await?;
        let mut server = Self { port: 0, options, child: None, home };
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

    async fn launch(&mut self) -> anyhow::Result<()> {
        let (postgres, _) = programs().map_err(anyhow::Error::msg)?;
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
        let mut child = command.spawn().context("cannot start postgres")?;
        let url = self.url();
        let connect = || ask(url.clone());
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

async fn ask(url: String) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    let driver = tokio::spawn(connection);
    let answered = client.simple_query("select 1").await;
    driver.abort();
    answered?;
    Ok(())
}

/// The server and `initdb`, of the newest version that is installed.
fn programs() -> Result<(PathBuf, PathBuf), String> {
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
    let find = |name: &str| {
        find_program(name, &directories).ok_or_else(|| format!("{name} is not installed"))
    };
    Ok((find("postgres")?, find("initdb")?))
}
