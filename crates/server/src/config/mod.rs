//! The configuration: what the operator wrote, from four places, resolved into what runs.
//!
//! [`load`] lays defaults, environment, file and flags over each other as [`Settings`] (text and
//! origin), reads a [`Config`] out of them and validates it. In reading order: `options` is the
//! table of everything that can be set, `settings` the layers, `file` the YAML, then the
//! component structs (`store`, `listen`, `work`).

pub mod docs;
mod error;
mod file;
mod listen;
pub mod options;
pub mod sample;
mod secret;
mod settings;
mod store;
mod tracing;
mod work;

use std::num::NonZero;
use std::path::Path;
use std::time::Duration;

pub use error::{ConfigError, Problem, UnknownKey};
pub use file::{apply_file, apply_text};
pub use listen::{LimitsConfig, ListenConfig, TimeoutsConfig};
pub use secret::Secret;
pub use settings::{Origin, Setting, Settings};
pub use store::{StoreConfig, StoreDriver};
pub use tracing::{ExportSettings, TracingConfig};
pub use work::{
    AlertConfig, CallsConfig, LogConfig, LogFormat, LogLevel, LogOutput, RetryConfig, Rotation,
};

use dtmd_wire::Zone;
use settings::Reader;

/// The most threads for connections that may be asked for.
const NETWORK_THREADS_MAX: usize = 1024;

/// Everything the server runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where transactions are kept.
    pub store: StoreConfig,
    /// Where callers come in.
    pub listen: ListenConfig,
    /// How much a caller may send.
    pub limits: LimitsConfig,
    /// How long a caller may take.
    pub timeouts: TimeoutsConfig,
    /// When transactions are looked at again.
    pub retry: RetryConfig,
    /// How branches are called.
    pub calls: CallsConfig,
    /// Who is told of failing branches.
    pub alert: AlertConfig,
    /// Where traces go.
    pub tracing: TracingConfig,
    /// What is logged.
    pub log: LogConfig,
    /// The zone of times in answers. Since 0.1.0.
    pub zone: Zone,
    /// Threads for connections as configured; 0 means one for every processor. Since 0.1.0.
    pub network_threads: usize,
    /// How often topics are read again from the store. Since 0.1.0.
    pub config_update_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: StoreConfig::default(),
            listen: ListenConfig::default(),
            limits: LimitsConfig::default(),
            timeouts: TimeoutsConfig::default(),
            retry: RetryConfig::default(),
            calls: CallsConfig::default(),
            alert: AlertConfig::default(),
            tracing: TracingConfig::default(),
            log: LogConfig::default(),
            zone: Zone::UTC,
            network_threads: 0,
            config_update_interval: Duration::from_secs(3),
        }
    }
}

impl Config {
    /// Reads a configuration out of settings, without validating it.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with every value that is not of its option's kind.
    pub fn read(settings: &Settings) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(settings);
        let config = Self {
            store: StoreConfig::read(&mut reader),
            listen: ListenConfig::read(&mut reader),
            limits: LimitsConfig::read(&mut reader),
            timeouts: TimeoutsConfig::read(&mut reader),
            retry: RetryConfig::read(&mut reader),
            calls: CallsConfig::read(&mut reader),
            alert: AlertConfig::read(&mut reader),
            tracing: TracingConfig::read(&mut reader),
            log: LogConfig::read(&mut reader),
            zone: reader.parsed("TimeZoneOffset", "hours from -14 to +14, such as +8", |text| {
                Zone::parse(text).ok()
            }),
            network_threads: reader.integer("NetworkThreads"),
            config_update_interval: reader.duration("ConfigUpdateInterval"),
        };
        reader.check_ignored();
        invalid_if_any(reader.problems, Some(settings))?;
        Ok(config)
    }

    /// Checks what the types cannot say. Runs once, before anything starts.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with every problem; each names the option as the operator
    /// wrote it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        invalid_if_any(self.problems(), None)
    }

    /// Returns how many threads serve connections.
    pub fn network_threads(&self) -> usize {
        match self.network_threads {
            0 => std::thread::available_parallelism().map_or(1, NonZero::get),
            threads => threads,
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.retry.validate(&mut problems);
        self.store.validate(&mut problems);
        self.listen.validate(&mut problems);
        self.limits.validate(&mut problems);
        self.timeouts.validate(&mut problems);
        self.calls.validate(&mut problems);
        self.alert.validate(&mut problems);
        self.tracing.validate(&mut problems);
        if self.network_threads > NETWORK_THREADS_MAX {
            let text = format!("NetworkThreads should not be more than {NETWORK_THREADS_MAX}");
            problems.push(Problem::new("NetworkThreads", text));
        }
        if self.config_update_interval.is_zero() {
            let text = "ConfigUpdateInterval should be longer than zero";
            problems.push(Problem::new("ConfigUpdateInterval", text));
        }
        problems
    }
}

/// An option set on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The option's key path in the table.
    pub key: &'static str,
    /// The value, as it would be written in the file.
    pub value: String,
    /// The flag, for messages: `--listen`.
    pub flag: &'static str,
}

/// A configuration ready to run, and what there is to say about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the server runs with.
    pub config: Config,
    /// Every option with its origin, for showing them.
    pub settings: Settings,
    /// One line for each option that was set and has no effect; to be logged at start.
    pub notes: Vec<String>,
    /// What an operator should think twice about; to be logged at start.
    pub warnings: Vec<String>,
}

/// Loads the configuration from this process's environment, a file and flags.
///
/// # Errors
///
/// The file cannot be read or understood, or the result is not valid; the error's text tells the
/// operator what to change.
pub fn load(file: Option<&Path>, flags: &[Flag]) -> Result<Loaded, ConfigError> {
    let env = |name: &str| std::env::var_os(name).map(|text| text.to_string_lossy().into_owned());
    load_with(&env, file, flags)
}

/// Loads the configuration as [`load`] does, from any environment.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(
    env: &dyn Fn(&str) -> Option<String>,
    file: Option<&Path>,
    flags: &[Flag],
) -> Result<Loaded, ConfigError> {
    let mut settings = Settings::default();
    settings.apply_env(env);
    if let Some(path) = file {
        apply_file(&mut settings, path)?;
    }
    for Flag { key, value, flag } in flags {
        settings.set(key, value.as_str(), Origin::Flag(flag));
    }
    let config = Config::read(&settings)?;
    invalid_if_any(config.problems(), Some(&settings))?;
    let warnings = config.listen.warnings();
    Ok(Loaded { config, notes: settings.notes(), warnings, settings })
}

/// Makes an error of problems, if there are any, with the origin of each value.
fn invalid_if_any(
    mut problems: Vec<Problem>,
    settings: Option<&Settings>,
) -> Result<(), ConfigError> {
    for problem in &mut problems {
        let origin = settings.and_then(|settings| settings.origin(problem.key));
        problem.origin = origin.filter(|origin| **origin != Origin::Default).map(|o| o.to_string());
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid { problems }) }
}

#[cfg(test)]
mod tests;
