//! Watches how much memory the process has, so that the engine refuses new transactions before the
//! system ends it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dtmd_bench::procfs;
use dtmd_engine::Engine;
use tokio::sync::watch;

/// How often it is looked at. Between two looks a flood may add some hundred megabytes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Starts to watch on the current runtime, until `shutdown`; does nothing where the system does not
/// tell. `max` is in bytes; 0 stands for four fifths of what there is.
pub(super) fn watch(engine: &Engine, max: u64, mut shutdown: watch::Receiver<bool>) {
    let max = if max > 0 { Some(max) } else { available().map(|bytes| bytes / 5 * 4) };
    let Some(max) = max else { return };
    let engine = engine.clone();
    tokio::spawn(async move {
        while let Some(used) = used() {
            engine.note_memory(used, max);
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    });
}

/// Returns this process's resident memory in bytes.
fn used() -> Option<u64> {
    procfs::memory(std::process::id()).ok().map(|memory| memory.now * 1024)
}

/// Returns what the machine has, or the control group if that is less, in bytes.
fn available() -> Option<u64> {
    let machine = procfs::machine_memory().ok()? * 1024;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = limit_files(&groups).into_iter().find_map(|file| {
        let text = fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).ok()?;
        text.trim().parse().ok()
    });
    Some(limit.unwrap_or(machine).min(machine))
}

/// Returns where the limit of this process's control group may be, both versions of them. Within a
/// container its own group is at the root.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let place = path.trim_matches('/');
        let folders = if place.is_empty() { vec![""] } else { vec![place, ""] };
        for folder in folders {
            let slash = if folder.is_empty() { "" } else { "/" };
            if controllers.is_empty() {
                files.push(format!("{folder}{slash}memory.max"));
            } else if controllers.split(',').any(|name| name == "memory") {
                files.push(format!("memory/{folder}{slash}memory.limit_in_bytes"));
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_are_looked_at() {
        assert_eq!(limit_files("0::/\n"), ["memory.max"]);
        assert_eq!(
            limit_files("12:cpu,cpuacct:/a\n9:memory:/a/b\n0::/x\n"),
            [
                "memory/a/b/memory.limit_in_bytes",
                "memory/memory.limit_in_bytes",
                "x/memory.max",
                "memory.max"
            ]
        );
        assert_eq!(limit_files("nonsense\n"), [""; 0]);
    }

    #[test]
    fn this_process_uses_less_than_there_is() {
        assert!(used() > Some(1 << 20) && available() > used());
    }
}
