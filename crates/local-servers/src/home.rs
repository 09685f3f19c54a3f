//! The directory a private server lives in, and its start.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

use crate::child::{DeathSignal, User, spawn_command};

/// How long a server may take to accept connections.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server that is not needed any more may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a port is tried that was free when chosen and taken when used.
pub(crate) const PORT_ATTEMPTS: u32 = 3;
/// How directories of private servers begin.
const PREFIX: &str = "dtmd-server-";
/// Who uses a directory: a process id and its start, which no later process shares.
const USER_FILE: &str = "used-by";

/// A temporary directory and the user a server runs as.
#[derive(Debug)]
pub(crate) struct Home {
    directory: tempfile::TempDir,
    user: Option<User>,
    death: DeathSignal,
}

impl Home {
    /// Makes the directory; as root it belongs to `user`, which must exist. Directories that
    /// processes left behind when they were killed are removed first.
    pub(crate) fn make(user: &str, death: DeathSignal) -> anyhow::Result<Self> {
        remove_leftovers();
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir()
            .context("cannot make a temporary directory")?;
        if let Ok(Some(stamp)) = process_stamp(std::process::id()) {
            std::fs::write(directory.path().join(USER_FILE), stamp)
                .context("cannot write to the temporary directory")?;
        }
        let user = if User::is_root() {
            let found = User::find(user)
                .with_context(|| format!("root needs the user {user} to run the server"))?;
            std::os::unix::fs::chown(directory.path(), Some(found.uid), Some(found.gid))
                .with_context(|| format!("cannot give the directory to {user}"))?;
            Some(found)
        } else {
            None
        };
        Ok(Self { directory, user, death })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path().join("server.log")
    }

    /// A command that runs as the server's user, with its output in the log.
    pub(crate) fn command(&self, program: &Path) -> anyhow::Result<Command> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = spawn_command(program, self.user, self.death);
        command.current_dir(self.path());
        command.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        Ok(command)
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, mut command: Command, what: &str) -> anyhow::Result<()> {
        let status = command.status().await.with_context(|| format!("cannot start {what}"))?;
        if !status.success() {
            bail!("{what} ended with {status}\n{}", self.log_tail());
        }
        Ok(())
    }

    pub(crate) fn log_tail(&self) -> String {
        tail_of(&std::fs::read_to_string(self.log()).unwrap_or_default())
    }

    /// Waits until `connect` succeeds.
    pub(crate) async fn wait_ready<F, C>(&self, child: &mut Child, connect: F) -> anyhow::Result<()>
    where
        F: Fn() -> C,
        C: Future<Output = anyhow::Result<()>>,
    {
        let begun = std::time::Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("the server ended with {status}\n{}", self.log_tail());
            }
            match connect().await {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() >= READY_TIMEOUT => {
                    return Err(error.context(format!(
                        "the server was not ready within {} s\n{}",
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
pub(crate) fn end(child: Option<Child>, signal: DeathSignal) {
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

/// A port that is free now; somebody may take it before the server does.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Removes directories of private servers whose process is gone: a killed test cannot do it.
fn remove_leftovers() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(stamp) = std::fs::read_to_string(entry.path().join(USER_FILE)) else { continue };
        let id = stamp.split(' ').next().and_then(|id| id.parse().ok());
        // Who cannot be looked at may be there.
        let Some(Ok(now)) = id.map(process_stamp) else { continue };
        if now.as_deref() != Some(stamp.as_str()) {
            // Somebody else may remove it at the same time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A process's id and start time, `None` if there is no such process (or no `/proc`).
fn process_stamp(id: u32) -> std::io::Result<Option<String>> {
    let stat = match std::fs::read_to_string(format!("/proc/{id}/stat")) {
        Ok(stat) => stat,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(field_after_name(&stat, 20).map(|start| format!("{id} {start}")))
}

/// Returns a field of `/proc/PID/stat`, the first behind the name being 1. The name may hold
/// anything but comes last in parentheses.
fn field_after_name(stat: &str, number: usize) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(number - 1)
}

/// Whether this is what reading about a process says that has ended, before or meanwhile.
fn is_gone(error: &std::io::Error) -> bool {
    const ESRCH: i32 = 3;
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH)
}

/// Stops or continues a process, as `kill -STOP` and `kill -CONT` do.
pub(crate) async fn signal(child: Option<&Child>, name: &str) -> anyhow::Result<()> {
    let id = child.and_then(Child::id).context("the server does not run")?;
    let status = Command::new("kill").args(["-s", name, &id.to_string()]).status().await?;
    anyhow::ensure!(status.success(), "cannot send {name} to the server");
    Ok(())
}

/// As [`signal`], for the children of a process.
pub(crate) async fn signal_children(child: Option<&Child>, name: &str) -> anyhow::Result<()> {
    let id = child.and_then(Child::id).context("the server does not run")?;
    let is_child = |stat: &str| field_after_name(stat, 2).map(|parent| parent == id.to_string());
    for entry in std::fs::read_dir("/proc").context("there is no /proc")?.flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if is_child(&stat) == Some(true) {
            // One that has ended meanwhile needs no signal.
            Command::new("kill").args(["-s", name]).arg(entry.file_name()).status().await?;
        }
    }
    Ok(())
}

/// Returns the last lines of a log, and before them the first ones that name an error: MariaDB's
/// installer ends with more advice than is shown here.
fn tail_of(log: &str) -> String {
    const LAST: usize = 30;
    const NAMED: usize = 10;
    let lines: Vec<&str> = log.lines().collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(LAST));
    let names_one = |line: &&&str| ["ERROR", "FATAL", "PANIC"].iter().any(|it| line.contains(it));
    let named = before.iter().filter(names_one).take(NAMED);
    named.chain(last).copied().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_when_its_process_is_gone_and_not_before() {
        let own = tempfile::Builder::new().prefix(PREFIX).tempdir().unwrap();
        std::fs::write(
            own.path().join(USER_FILE),
            process_stamp(std::process::id()).unwrap().expect("Linux has /proc"),
        )
        .unwrap();
        let dead = tempfile::Builder::new().prefix(PREFIX).tempdir().unwrap();
        std::fs::write(dead.path().join(USER_FILE), "4294967 1").unwrap();
        remove_leftovers();
        assert!(own.path().exists());
        assert!(!dead.path().exists());
    }

    #[test]
    fn an_error_is_shown_even_where_advice_follows() {
        let advice = "try this\n".repeat(40);
        let shown = tail_of(&format!("begins\n[ERROR] no room\n{advice}"));
        assert!(shown.starts_with("[ERROR] no room\ntry this\n"), "{shown}");
        assert_eq!(shown.lines().count(), 31);
        assert_eq!(tail_of("one\ntwo\n"), "one\ntwo");
    }
}
