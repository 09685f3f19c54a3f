//! Why a configuration is refused.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the server cannot start with this configuration. The operator changes it and tries again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}; check the path given with -c", path.display())]
    Read {
        /// The file as given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is longer than any configuration.
    #[error("the configuration file {} is longer than {max_bytes} bytes", path.display())]
    TooLong {
        /// The file as given.
        path: PathBuf,
        /// The bound it exceeds.
        max_bytes: u64,
    },
    /// The file is not YAML, or a value has the wrong shape.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file as given.
        path: PathBuf,
        /// The line, counted from one; 0 if unknown.
        line: u64,
        /// What is wrong there, without the file's text, which may hold a password.
        message: String,
    },
    /// The file has keys nobody knows.
    #[error("{}", lines(keys))]
    UnknownKeys {
        /// All of them, in the file's order.
        keys: Vec<UnknownKey>,
    },
    /// Values are wrong.
    #[error("{}", lines(problems))]
    Invalid {
        /// All of them.
        problems: Vec<Problem>,
    },
}

/// A key of the file that is not in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    /// The file.
    pub path: PathBuf,
    /// Its line, counted from one.
    pub line: u64,
    /// The whole key path.
    pub key: String,
    /// The nearest known key path, if one is near.
    pub suggestion: Option<String>,
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, key, suggestion } = self;
        write!(f, "{}:{line}: unknown key `{key}`; ", path.display())?;
        match suggestion {
            Some(known) => write!(f, "did you mean `{known}`?"),
            None => f.write_str("docs/configuration.md lists the known ones"),
        }
    }
}

/// An option with a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The option's key path.
    pub key: &'static str,
    /// What is wrong, naming the option as the operator wrote it.
    pub text: String,
    /// Where the value came from, once known.
    pub origin: Option<String>,
}

impl Problem {
    /// Makes a problem whose origin is not known yet.
    pub fn new(key: &'static str, text: impl Into<String>) -> Self {
        Self { key, text: text.into(), origin: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.origin {
            Some(origin) => write!(f, " ({} is set by {origin})", self.key),
            None => Ok(()),
        }
    }
}

/// Puts each item on a line of its own.
fn lines(items: &[impl fmt::Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
