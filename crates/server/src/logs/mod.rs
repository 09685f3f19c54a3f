//! Where log lines go: to streams and files, as text or as JSON lines.
//!
//! Our own code logs no payloads, headers or URLs with queries at any level (spec 07 D25). The
//! libraries below us would show some of that when told to be detailed, so their levels are held
//! at `info` unless `RUST_LOG` says otherwise.

mod files;
mod outputs;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat, LogOutput};
use outputs::Outputs;

/// The variable that wins over the configured level.
pub const ENV: &str = "RUST_LOG";

/// The target of what is said at start. It is shown whatever the level: an operator who asked for
/// warnings only still wants to know what runs, where, and which options have no effect.
pub const START: &str = "dtmd::start";

/// Libraries that stay at `info` when the level is `debug`.
const HELD: [&str; 7] =
    ["hyper", "hyper_util", "h2", "rustls", "mysql_async", "tokio_postgres", "rusqlite"];

/// Why logging cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogsError {
    /// The variable does not hold a filter.
    #[error("RUST_LOG is not a log filter; use a level such as `info`, or unset it")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// A file of Log.Outputs cannot be written.
    #[error("cannot write the log file {}; check Log.Outputs and the directory's rights", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something in this process logs already.
    #[error("logging is set up already in this process")]
    Again(#[source] tracing::subscriber::SetGlobalDefaultError),
}

/// Starts logging for the whole process.
///
/// # Errors
///
/// `RUST_LOG` is malformed, a log file cannot be written, or logging was started before.
pub fn init(config: &LogConfig) -> Result<(), LogsError> {
    let wanted = std::env::var(ENV).ok().filter(|text| !text.trim().is_empty());
    let filter = filter(config, wanted.as_deref())?;
    let outputs = Outputs::open(config)?;
    let is_terminal = match config.outputs.as_slice() {
        [LogOutput::Stderr] => std::io::stderr().is_terminal(),
        [LogOutput::Stdout] => std::io::stdout().is_terminal(),
        _ => false,
    };
    let colours = is_terminal && std::env::var_os("NO_COLOR").is_none();
    let subscriber = subscriber(config.format, filter, colours, outputs);
    tracing::subscriber::set_global_default(subscriber).map_err(LogsError::Again)
}

/// Returns the filter: `wanted` if there is one, else the configured level.
fn filter(config: &LogConfig, wanted: Option<&str>) -> Result<EnvFilter, LogsError> {
    let level = config.level.as_str();
    let text = match wanted {
        Some(wanted) => wanted.to_owned(),
        None if level == "debug" => {
            HELD.iter().fold(level.to_owned(), |text, library| text + "," + library + "=info")
        }
        None => level.to_owned(),
    };
    let text = if wanted.is_some() { text } else { format!("{text},{START}=info") };
    EnvFilter::try_new(text).map_err(LogsError::Filter)
}

/// Builds what turns events into lines.
fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    colours: bool,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Text => Box::new(lines.with_ansi(colours).with_target(false).finish()),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::LogLevel;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn log(config: LogConfig, wanted: Option<&str>) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let filter = filter(&config, wanted).unwrap();
        let subscriber = subscriber(config.format, filter, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(gid = "g-1", "status changed");
            tracing::debug!("a call");
            tracing::debug!(target: "hyper", "headers and all");
        });
        lines.text()
    }

    #[test]
    fn level_and_format_are_followed() {
        let text = log(LogConfig::default(), None);
        assert!(text.contains("status changed gid=\"g-1\""), "{text}");
        assert!(!text.contains("a call"));

        let json =
            LogConfig { format: LogFormat::Json, level: LogLevel::Debug, ..LogConfig::default() };
        let text = log(json, None);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "libraries stay quiet: {text}");
        assert_eq!(lines[0]["gid"], "g-1");
        assert_eq!(lines[0]["level"], "INFO");
    }

    #[test]
    fn the_variable_wins() {
        let quiet = LogConfig { level: LogLevel::Error, ..LogConfig::default() };
        assert!(log(quiet.clone(), Some("debug")).contains("headers and all"));
        assert!(!log(LogConfig::default(), Some("error")).contains("status changed"));
        assert!(filter(&quiet, Some("a=b=c")).is_err());
    }

    #[test]
    fn what_is_said_at_start_is_shown_at_every_level() {
        for level in [LogLevel::Warn, LogLevel::Error] {
            let lines = Lines::default();
            let writer = lines.clone();
            let filter = filter(&LogConfig { level, ..LogConfig::default() }, None).unwrap();
            let subscriber = subscriber(LogFormat::Text, filter, false, move || writer.clone());
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!(target: START, "GrpcBalancer has no effect");
                tracing::info!("not shown");
            });
            assert!(lines.text().contains("GrpcBalancer has no effect"), "{level:?}");
            assert!(!lines.text().contains("not shown"), "{level:?}");
        }
    }
}
