//! Commands whose processes do not outlive this one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use tokio::process::Command;

/// A user of the system, by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
}

impl User {
    /// Looks a user up in `/etc/passwd`.
    pub fn find(name: &str) -> Option<Self> {
        let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map(str::parse);
        Some(Self { uid: numbers.next()?.ok()?, gid: numbers.next()?.ok()? })
    }

    /// True if this process runs as root.
    pub fn is_root() -> bool {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
    }
}

/// What a child gets when this process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeathSignal {
    /// It ends at once.
    Kill,
    /// It may remove what it shares with the system first; PostgreSQL then ends at once too.
    Quit,
}

impl DeathSignal {
    /// Its name for `kill -s`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Quit => "QUIT",
        }
    }
}

/// A command that is killed when its handle is dropped and, where `setpriv` exists, when this
/// process dies. With a user, the program runs as that user; this needs root and `setpriv`.
pub fn spawn_command(program: &Path, user: Option<User>, death: DeathSignal) -> Command {
    let mut command = match (setpriv(), user) {
        (Some(setpriv), user) => {
            // setpriv replaces itself by the program, so the process id is the program's.
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", death.name()]);
            if let Some(user) = user {
                command.arg(format!("--reuid={}", user.uid));
                command.arg(format!("--regid={}", user.gid));
                command.arg("--clear-groups");
            }
            command.arg("--").arg(program);
            command
        }
        (None, Some(user)) => {
            let mut command = Command::new(program);
            command.uid(user.uid).gid(user.gid);
            command
        }
        (None, None) => Command::new(program),
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// The path of `setpriv` if it is there and knows the parent death signal.
fn setpriv() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let path = find_program("setpriv", &[])?;
            let tried = std::process::Command::new(&path)
                .args(["--pdeathsig", "KILL", "--", "true"])
                .stderr(Stdio::null())
                .status();
            tried.is_ok_and(|status| status.success()).then_some(path)
        })
        .as_deref()
}

/// Finds a program in the given directories or in `PATH`.
pub fn find_program(name: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    directories
        .iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_and_nobody_else_is_invented() {
        assert_eq!(User::find("root"), Some(User { uid: 0, gid: 0 }));
        assert_eq!(User::find("no-such-user-here"), None);
    }

    #[tokio::test]
    async fn a_dropped_child_is_killed() {
        let mut command = spawn_command(Path::new("/bin/sleep"), None, DeathSignal::Kill);
        let child = command.arg("600").spawn().unwrap();
        let process = format!("/proc/{}/cmdline", child.id().unwrap());
        drop(child);
        let gone = async {
            // A killed child has an empty command line until it is reaped.
            while std::fs::read(&process).is_ok_and(|line| !line.is_empty()) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap();
    }
}
