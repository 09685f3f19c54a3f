//! A private MariaDB server.

use std::path::PathBuf;

use anyhow::Context as _;
use mysql_async::prelude::Queryable as _;
use tokio::process::Child;

use crate::DatabaseOptions;
use crate::child::{DeathSignal, find_program};
use crate::home::{Home, PORT_ATTEMPTS, end, free_port, signal};

/// Where the server keeps its temporary tables. It removes those of every other server that has
/// them in the same place when it starts: an installation that is under way then fails.
const TMPDIR: &str = "TMPDIR";

/// A running MariaDB server; dropping it kills it and removes its directory.
#[derive(Debug)]
pub struct Mariadb {
    port: u16,
    options: DatabaseOptions,
    child: Option<Child>,
    home: Home,
    /// More arguments: what a node of a cluster needs.
    pub(crate) extra: Vec<String>,
}

impl Mariadb {
    /// Tells why no server can be started here, if none can.
    ///
    /// # Errors
    /// Names the program that is missing.
    pub fn available() -> Result<(), String> {
        programs().map(drop)
    }

    /// Makes a database `dtmd` in a temporary directory and starts a server on a free port.
    ///
    /// # Errors
    /// The programs are missing, or the server does not come up; the error shows its log.
    pub async fn start(options: DatabaseOptions) -> anyhow::Result<Self> {
        let mut server = Self::install(options).await?;
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

    /// Makes the directory, and starts nothing.
    pub(crate) async fn install(options: DatabaseOptions) -> anyhow::Result<Self> {
        let (_, install) = programs().map_err(anyhow::Error::msg)?;
        let home = Home::make("mysql", DeathSignal::Kill)?;
        let mut command = home.command(&install)?;
        command.env(TMPDIR, home.path());
        command.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
        command.args(["--skip-test-db", "--skip-name-resolve"]);
        command.arg(format!("--datadir={}", home.path().join("data").display()));
        home.run(command, "mariadb-install-db").await?;
        Ok(Self { port: free_port()?, options, child: None, home, extra: Vec::new() })
    }

    /// The URL of the database `dtmd`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/dtmd", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server as `kill -9` does.
    ///
    /// # Errors
    /// The system cannot kill it.
    pub async fn kill_9(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.context("cannot kill MariaDB")?;
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

    /// Makes a database beside `dtmd`, if it is not there.
    ///
    /// # Errors
    /// The server does not answer, or does not take the name.
    pub async fn make_database(&self, name: &str) -> anyhow::Result<()> {
        make_database(self.url(), name).await
    }

    /// The process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    pub(crate) async fn launch(&mut self) -> anyhow::Result<()> {
        let (mariadbd, _) = programs().map_err(anyhow::Error::msg)?;
        let path = self.home.path();
        let mut command = self.home.command(&mariadbd)?;
        command.env(TMPDIR, path);
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
        command.arg(format!("--port={}", self.port));
        command.arg(format!("--datadir={}", path.join("data").display()));
        command.arg(format!("--socket={}", path.join("socket").display()));
        command.arg(format!("--pid-file={}", path.join("pid").display()));
        command.args(["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M"]);
        command.args(["--max-connections=400", "--performance-schema=off"]);
        // 2 hands every commit to the system without forcing it to disk: 0 would lose prepared
        // transactions even when only the process is killed.
        let flush = if self.options.fsync { 1 } else { 2 };
        command.arg(format!("--innodb-flush-log-at-trx-commit={flush}"));
        command.args(&self.extra);
        let mut child = command.spawn().context("cannot start mariadbd")?;
        let url = format!("mysql://root@127.0.0.1:{}/", self.port);
        let connect = || make_database(url.clone(), "dtmd");
        self.home.wait_ready(&mut child, connect).await?;
        self.child = Some(child);
        Ok(())
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        end(self.child.take(), DeathSignal::Kill);
    }
}

async fn make_database(url: String, name: &str) -> anyhow::Result<()> {
    let mut conn = mysql_async::Conn::from_url(&url).await?;
    conn.query_drop(format!("create database if not exists {name}")).await?;
    conn.disconnect().await?;
    Ok(())
}

/// The server and its installer.
fn programs() -> Result<(PathBuf, PathBuf), String> {
    let find =
        |name: &str| find_program(name, &[]).ok_or_else(|| format!("{name} is not installed"));
    Ok((find("mariadbd")?, find("mariadb-install-db")?))
}
