//! One log line to each output.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

use super::LogsError;
use super::files::LogFile;
use crate::config::{LogConfig, LogOutput};

/// Every place that lines go to; clones share them.
#[derive(Clone)]
pub(super) struct Outputs {
    outputs: Arc<[Output]>,
}

enum Output {
    Stderr,
    Stdout,
    // A std mutex around one write, as the streams have of their own.
    File(Mutex<LogFile>),
}

impl Outputs {
    /// Opens the files of a configuration.
    ///
    /// # Errors
    ///
    /// One cannot be written.
    pub(super) fn open(config: &LogConfig) -> Result<Self, LogsError> {
        let open = |output: &LogOutput| {
            Ok(match output {
                LogOutput::Stderr => Output::Stderr,
                LogOutput::Stdout => Output::Stdout,
                LogOutput::File(path) => {
                    let file = LogFile::open(path, config.rotation)
                        .map_err(|source| LogsError::File { path: path.clone(), source })?;
                    Output::File(Mutex::new(file))
                }
            })
        };
        let outputs: Result<Vec<_>, LogsError> = config.outputs.iter().map(open).collect();
        Ok(Self { outputs: outputs?.into() })
    }
}

impl Write for &Outputs {
    /// Writes to all of them; a line that one cannot take still reaches the others.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut result = Ok(line.len());
        for output in self.outputs.iter() {
            let written = match output {
                Output::Stderr => io::stderr().write_all(line),
                Output::Stdout => io::stdout().write_all(line),
                Output::File(file) => {
                    file.lock().unwrap_or_else(PoisonError::into_inner).append(line)
                }
            };
            if let Err(error) = written {
                result = Err(error);
            }
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Outputs {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_file_gets_every_line() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [dir.path().join("a.log"), dir.path().join("deep/b.log")];
        let outputs = paths.iter().cloned().map(LogOutput::File).collect();
        let config = LogConfig { outputs, ..LogConfig::default() };
        let outputs = Outputs::open(&config).unwrap();
        (&outputs).write_all(b"one\n").unwrap();
        (&outputs.clone()).write_all(b"two\n").unwrap();
        for path in paths {
            assert_eq!(std::fs::read_to_string(path).unwrap(), "one\ntwo\n");
        }
        let directory = vec![LogOutput::File(dir.path().to_owned())];
        let error = Outputs::open(&LogConfig { outputs: directory, ..config }).err().unwrap();
        assert!(error.to_string().contains("check Log.Outputs"), "{error}");
    }
}
