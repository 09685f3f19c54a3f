//! What is read from a child's output: where it serves, and a log for when something fails.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How much of the end of a log is shown when something fails.
const TAIL_SIZE_MAX_BYTES: u64 = 8 * 1024;

/// Longest wait for the last words of a child that has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Finds the URL a server says it serves: the first `http://HOST:PORT` of a loopback or
/// unspecified host, or the address after `listening on`. Port 0 is a wish, not an address.
#[must_use]
pub fn find_url(line: &str) -> Option<String> {
    let marks = ["http://127.0.0.1:", "http://localhost:", "http://0.0.0.0:", "http://[::1]:"];
    let by_url = marks.iter().filter_map(|mark| {
        let at = line.find(mark)?;
        let port = leading_port(line.get(at + mark.len()..)?)?;
        Some((at, port))
    });
    if let Some((_, port)) = by_url.min() {
        return Some(format!("http://127.0.0.1:{port}"));
    }
    let lower = line.to_ascii_lowercase();
    let mark = "listening on ";
    let rest = lower.get(lower.find(mark)? + mark.len()..)?;
    let address = rest.split([' ', '"', ',', '\t']).next()?;
    let port = leading_port(address.rsplit(':').next()?)?;
    Some(format!("http://127.0.0.1:{port}"))
}

fn leading_port(text: &str) -> Option<u16> {
    let digits = text.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|port| *port != 0)
}

/// Finds the loopback address of a server's gRPC interface: the line `grpc on http://HOST:PORT`.
#[must_use]
pub fn find_grpc(line: &str) -> Option<SocketAddr> {
    let address = line.strip_prefix("grpc on http://")?;
    let port = leading_port(address.rsplit(':').next()?)?;
    Some(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Where a child says that it serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) url: Option<String>,
    pub(super) grpc: Option<SocketAddr>,
}

/// A log file that the readers of a child's streams share.
#[derive(Debug, Clone)]
pub(super) struct Log {
    file: Arc<Mutex<File>>,
}

impl Log {
    /// Opens the file for appending.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        Ok(Self { file: Arc::new(Mutex::new(file)) })
    }

    pub(super) fn write(&self, line: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // The log only helps to explain a failure; without it the failure is still one.
        let _ = writeln!(file, "{line}");
    }

    /// The end of the log.
    pub(super) fn tail(&self) -> String {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let size = file.metadata().map(|file| file.len()).unwrap_or(0);
        let mut text = Vec::new();
        let read = file
            .seek(SeekFrom::Start(size.saturating_sub(TAIL_SIZE_MAX_BYTES)))
            .and_then(|_| file.read_to_end(&mut text));
        match read {
            Ok(_) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("(the log cannot be read: {error})"),
        }
    }
}

/// Copies a stream to the log until it ends, and tells the first URL and gRPC address it finds.
pub(super) fn drain(
    stream: impl AsyncRead + Unpin + Send + 'static,
    log: Log,
    said: watch::Sender<Said>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let (url, grpc) = (find_url(&line), find_grpc(&line));
            said.send_if_modified(|said| {
                let before = said.clone();
                said.url = said.url.take().or(url);
                said.grpc = said.grpc.or(grpc);
                *said != before
            });
            log.write(&line);
        }
    })
}

/// Waits until all that a child that has ended said is in the log; not long, because a child of
/// its own may hold the streams open.
pub(super) async fn wait_drained(drains: Vec<JoinHandle<()>>) {
    let all = async {
        for drain in drains {
            let _ = drain.await;
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, all).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_found_in_any_dress() {
        let found = Some("http://127.0.0.1:36789".to_owned());
        for line in [
            r#"{"http":"http://127.0.0.1:36789","grpc":"127.0.0.1:36790"}"#,
            "dtmd is ready: http://127.0.0.1:36789/ (admin at http://127.0.0.1:1/admin)",
            "\x1b[32mINFO\x1b[0m listening on 127.0.0.1:36789",
            "Listening on 0.0.0.0:36789, HTTP",
            "listening on http://0.0.0.0:36789/api",
            r#"{"message":"listening on 127.0.0.1:36789","level":"info"}"#,
            "listening on [::]:36789",
        ] {
            assert_eq!(find_url(line), found, "{line}");
        }
        for line in [
            "",
            "listening on",
            "listening on port",
            "will bind http://127.0.0.1:0",
            "calls http://10.0.0.1:80/out",
            "http://127.0.0.1:99999",
        ] {
            assert_eq!(find_url(line), None, "{line}");
        }
    }

    #[test]
    fn a_servers_grpc_line_is_found() {
        let found = find_grpc("grpc on http://0.0.0.0:36790");
        assert_eq!(found, Some("127.0.0.1:36790".parse().unwrap()));
        assert_eq!(find_grpc("grpc on http://127.0.0.1:0"), None);
        assert_eq!(find_grpc("listening on http://127.0.0.1:1"), None);
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(&dir.path().join("log")).unwrap();
        for line in 0..2000 {
            log.write(&format!("line {line}"));
        }
        let tail = log.tail();
        assert!(tail.ends_with("line 1999\n"));
        assert!(tail.len() <= usize::try_from(TAIL_SIZE_MAX_BYTES).unwrap());
    }
}
