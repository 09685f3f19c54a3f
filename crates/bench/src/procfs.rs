//! What `/proc` says about processes and the machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time of all threads.
    pub cpu: Duration,
    /// Of it, time in the kernel; in ticks of 10 ms, so only good over seconds.
    pub kernel: Duration,
    /// Times a thread gave its core up because it had nothing to do.
    pub waits: u64,
}

impl Usage {
    /// Returns what was used since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            kernel: self.kernel.saturating_sub(before.kernel),
            waits: self.waits.saturating_sub(before.waits),
        }
    }
}

/// Memory of a process in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Resident now.
    pub now: u64,
    /// The most there ever was.
    pub peak: u64,
}

/// Reads what a process has used, over all its threads.
///
/// # Errors
///
/// There is no such process, or `/proc` is not Linux's.
pub fn usage(pid: u32) -> Result<Usage> {
    let folder = Path::new("/proc").join(pid.to_string());
    let gone = || format!("process {pid} cannot be looked at; does it still run?");
    let stat = fs::read_to_string(folder.join("stat")).with_context(gone)?;
    let (user, kernel) = parse_stat(&stat).context("/proc/PID/stat has another form")?;
    let (mut on_cpu, mut waits) = (Duration::ZERO, 0);
    for thread in fs::read_dir(folder.join("task")).with_context(gone)? {
        let thread = thread?.path();
        // A thread may end between the listing and the look.
        let read = |name| fs::read_to_string(thread.join(name)).unwrap_or_default();
        on_cpu += parse_schedstat(&read("schedstat")).unwrap_or_default();
        waits += parse_status(&read("status"), "voluntary_ctxt_switches").unwrap_or_default();
    }
    // Without scheduler statistics in the kernel the ticks have to do.
    let cpu = if on_cpu.is_zero() { user + kernel } else { on_cpu };
    Ok(Usage { cpu, kernel, waits })
}

/// Reads the memory of a process.
///
/// # Errors
///
/// There is no such process.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let size = |name| parse_status(&text, name).unwrap_or_default();
    Ok(Memory { now: size("VmRSS"), peak: size("VmHWM") })
}

/// Reads how much memory this machine has, in KiB.
///
/// # Errors
///
/// `/proc` is not Linux's.
pub fn machine_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    parse_status(&text, "MemTotal").context("/proc/meminfo has another form")
}

/// Reads the CPU time that anything on this machine has used, what a hypervisor took included.
///
/// # Errors
///
/// `/proc` is not Linux's.
pub fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    parse_busy(&text).context("/proc/stat has another form")
}

/// Returns what kind of processor this machine has, `?` if it does not say.
#[must_use]
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    parse_processor(&text).unwrap_or("?").to_owned()
}

/// Returns the file system type that holds a path, `?` if it cannot be told.
#[must_use]
pub fn file_system(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    parse_mounts(&mounts, &path).unwrap_or_else(|| "?".to_owned())
}

/// Linux counts these in hundredths of a second on every architecture this is built for.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(10))
}

/// User and kernel time of `/proc/PID/stat`. The name in it may hold anything, so the fields are
/// counted from its last parenthesis.
fn parse_stat(text: &str) -> Option<(Duration, Duration)> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user = fields.next()?.parse().ok()?;
    let kernel = fields.next()?.parse().ok()?;
    Some((ticks(user), ticks(kernel)))
}

/// Time on a core, of a thread's `schedstat`.
fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// The number behind `NAME:` in a `status` file.
fn parse_status(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// All but idle and waiting for I/O, of the first line of `/proc/stat`.
fn parse_busy(text: &str) -> Option<Duration> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|&index| fields.get(index)).sum();
    (fields.len() >= 4).then(|| ticks(busy))
}

/// The model of the first processor.
fn parse_processor(text: &str) -> Option<&str> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(name, _)| name.trim() == "model name").map(|(_, model)| model.trim())
}

/// The type of the longest mount point that is above a path.
fn parse_mounts(text: &str, path: &Path) -> Option<String> {
    let mounts = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        path.starts_with(point).then_some((point.len(), kind))
    });
    mounts.max_by_key(|(length, _)| *length).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194304 100 0 0 0 250 75 0 0 20 0 3 0 99 1 2";
        let expected = (Duration::from_millis(2500), Duration::from_millis(750));
        assert_eq!(parse_stat(stat), Some(expected));
        assert_eq!(parse_stat("12 (a) S 1"), None);
    }

    #[test]
    fn schedstat_counts_nanoseconds() {
        assert_eq!(parse_schedstat("1500 20 3\n"), Some(Duration::from_nanos(1500)));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn status_lines_are_found_by_their_whole_name() {
        let text = "VmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\nnonvoluntary_ctxt_switches:\t9\n\
                    voluntary_ctxt_switches:\t7\n";
        assert_eq!(parse_status(text, "VmRSS"), Some(1024));
        assert_eq!(parse_status(text, "voluntary_ctxt_switches"), Some(7));
        assert_eq!(parse_status(text, "Vm"), None);
    }

    #[test]
    fn waiting_is_not_busy_and_stolen_time_is() {
        let text = "cpu  100 10 50 900 40 1 2 30 5 5\ncpu0 1 1 1 1\n";
        assert_eq!(parse_busy(text), Some(Duration::from_millis(1930)));
        assert_eq!(parse_busy("intr 1"), None);
    }

    #[test]
    fn a_processor_is_told_by_its_model() {
        let text = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nmodel name\t: X\n";
        assert_eq!(parse_processor(text), Some("AMD EPYC"));
        assert_eq!(parse_processor("processor: 0\nBogoMIPS: 50.00\n"), None);
    }

    #[test]
    fn the_deepest_mount_counts() {
        let text = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmpfiles xfs rw 0 0\n";
        assert_eq!(parse_mounts(text, Path::new("/tmp/x")).as_deref(), Some("tmpfs"));
        assert_eq!(parse_mounts(text, Path::new("/tmpfiles/x")).as_deref(), Some("xfs"));
        assert_eq!(parse_mounts(text, Path::new("/home")).as_deref(), Some("ext4"));
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let pid = std::process::id();
        assert!(memory(pid).unwrap().peak > 0);
        usage(pid).unwrap();
        assert!(busy().unwrap() > Duration::ZERO);
    }
}
