//! When work is due, how branches are called, who is told, what is logged.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::error::Problem;
use super::secret::Secret;
use super::settings::Reader;

/// When transactions are looked at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryConfig {
    /// How often due transactions that nobody works on are looked for. Since 0.1.0.
    pub trans_cron_interval: Duration,
    /// How long a transaction may stay prepared. Since 0.1.0.
    pub timeout_to_fail: Duration,
    /// The wait before the first retry; each further wait doubles. Since 0.1.0.
    pub interval: Duration,
    /// The longest wait between two retries. Since 0.1.0.
    pub interval_max: Duration,
    /// By how many percent, up or down, each wait deviates. Since 0.1.0.
    pub jitter_percent: u32,
    /// How long a server may be silent before others take its transactions over. Since 0.1.0.
    pub lease: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            trans_cron_interval: Duration::from_secs(3),
            timeout_to_fail: Duration::from_secs(35),
            interval: Duration::from_secs(10),
            interval_max: Duration::from_secs(3600),
            jitter_percent: 10,
            lease: Duration::from_secs(10),
        }
    }
}

impl RetryConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            trans_cron_interval: reader.duration("TransCronInterval"),
            timeout_to_fail: reader.duration("TimeoutToFail"),
            interval: reader.duration("RetryInterval"),
            interval_max: reader.duration("RetryIntervalMax"),
            jitter_percent: reader.integer("RetryJitterPercent"),
            lease: reader.duration("Lease"),
        }
    }

    /// The first two texts are DTM's (spec 06 §1).
    pub(super) fn validate(&self, problems: &mut Vec<Problem>) {
        let mut check = |key, wrong, text: &str| {
            if wrong {
                problems.push(Problem::new(key, text));
            }
        };
        check(
            "RetryInterval",
            self.interval < Duration::from_secs(10),
            "RetryInterval should not be less than 10",
        );
        check(
            "TimeoutToFail",
            self.timeout_to_fail < self.interval,
            "TimeoutToFail should not be less than RetryInterval",
        );
        check(
            "RetryIntervalMax",
            self.interval_max < self.interval,
            "RetryIntervalMax should not be less than RetryInterval",
        );
        check(
            "RetryJitterPercent",
            self.jitter_percent > 50,
            "RetryJitterPercent should not be more than 50",
        );
        check("Lease", self.lease < Duration::from_secs(2), "Lease should not be less than 2");
        check(
            "TransCronInterval",
            self.trans_cron_interval.is_zero(),
            "TransCronInterval should be longer than zero",
        );
    }
}

/// How branches are called and their answers read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallsConfig {
    /// How long one call may take. Since 0.1.0.
    pub request_timeout: Duration,
    /// Calls under way to one host and port at a time. Since 0.1.0.
    pub destination_concurrency: usize,
    /// Calls in a row without an answer that open the breaker; 0 switches it off. Since 0.1.0.
    pub breaker_failures: u32,
    /// How long the breaker stays open before a call tries again. Since 0.1.0.
    pub breaker_open: Duration,
    /// Whether FAILURE or ONGOING anywhere in a body counts (spec 02 §4.3). Since 0.1.0.
    pub substring_result: bool,
    /// How long one callback of a workflow, which runs the rest of it, may take. Since 0.1.0.
    pub workflow_callback_timeout: Duration,
    /// Whether a workflow without input is called back by GET, as DTM does. Since 0.1.0.
    pub workflow_callback_get: bool,
    /// A PEM file of certificates to trust besides the system's. Since 0.1.0.
    pub ca_file: Option<PathBuf>,
}

impl Default for CallsConfig {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(3),
            destination_concurrency: 64,
            breaker_failures: 5,
            breaker_open: Duration::from_secs(5),
            substring_result: true,
            workflow_callback_timeout: Duration::from_secs(30),
            workflow_callback_get: false,
            ca_file: None,
        }
    }
}

impl CallsConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            request_timeout: reader.duration("RequestTimeout"),
            destination_concurrency: reader.integer("DestinationConcurrency"),
            breaker_failures: reader.integer("BreakerFailures"),
            breaker_open: reader.duration("BreakerOpen"),
            substring_result: reader.boolean("SubstringResult"),
            workflow_callback_timeout: reader.duration("WorkflowCallbackTimeout"),
            workflow_callback_get: reader.boolean("WorkflowCallbackGet"),
            ca_file: Some(reader.text("CaFile")).filter(|text| !text.is_empty()).map(PathBuf::from),
        }
    }

    pub(super) fn validate(&self, problems: &mut Vec<Problem>) {
        if self.request_timeout.is_zero() {
            let text = "RequestTimeout should be longer than zero";
            problems.push(Problem::new("RequestTimeout", text));
        }
        if self.workflow_callback_timeout.is_zero() {
            let text = "WorkflowCallbackTimeout should be longer than zero";
            problems.push(Problem::new("WorkflowCallbackTimeout", text));
        }
        if self.destination_concurrency == 0 {
            let text = "DestinationConcurrency should not be less than 1";
            problems.push(Problem::new("DestinationConcurrency", text));
        }
        if self.breaker_failures > 0 && self.breaker_open.is_zero() {
            let text = "BreakerOpen should be longer than zero; BreakerFailures: 0 switches it off";
            problems.push(Problem::new("BreakerOpen", text));
        }
    }
}

/// Who is told of a branch that keeps failing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertConfig {
    /// After how many failed tries. Since 0.1.0.
    pub retry_limit: u32,
    /// The URL to post to; empty sends nothing. Such URLs often carry a token. Since 0.1.0.
    pub web_hook: Secret,
    /// The key that alerts are signed with; empty signs nothing. Since 0.1.0.
    pub secret: Secret,
    /// The age at which an unfinished transaction is stuck; zero means never. Since 0.1.0.
    pub stuck_after: Duration,
    /// Whether the end of what was alerted is told too. Since 0.1.0.
    pub recovery: bool,
}

impl Default for AlertConfig {
    fn default() -> Self {
        Self {
            retry_limit: 3,
            web_hook: Secret::default(),
            secret: Secret::default(),
            stuck_after: Duration::from_secs(3600),
            recovery: true,
        }
    }
}

impl AlertConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            retry_limit: reader.integer("AlertRetryLimit"),
            web_hook: Secret::new(reader.text("AlertWebHook")),
            secret: Secret::new(reader.text("AlertSecret")),
            stuck_after: reader.duration("AlertStuckAfter"),
            recovery: reader.boolean("AlertRecovery"),
        }
    }

    pub(super) fn validate(&self, problems: &mut Vec<Problem>) {
        let hook = self.web_hook.reveal();
        let known = hook.starts_with("http://") || hook.starts_with("https://");
        if !hook.is_empty() && !known {
            let text = "AlertWebHook should be a URL that starts with http:// or https://";
            problems.push(Problem::new("AlertWebHook", text));
        }
    }
}

/// The least important level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Calls too.
    Debug,
    /// Status changes.
    #[default]
    Info,
    /// What is unexpected.
    Warn,
    /// What someone must look at.
    Error,
}

impl LogLevel {
    /// Returns the level of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "debug" => Some(Self::Debug),
            "info" => Some(Self::Info),
            "warn" | "warning" => Some(Self::Warn),
            "error" => Some(Self::Error),
            _ => None,
        }
    }

    /// Returns the level's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Returns the format of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// One place that log lines go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOutput {
    /// The error stream.
    Stderr,
    /// The output stream.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// When log files are set aside, and for how long they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The longest file in bytes.
    pub max_bytes: u64,
    /// Files set aside that are kept; none means all.
    pub backups_max: Option<usize>,
    /// How long they are kept; none means for ever.
    pub age_max: Option<Duration>,
    /// Whether their names have local time, not UTC.
    pub local_time: bool,
}

impl Rotation {
    /// Reads `Log.RotationConfigJSON`; the members' meaning is DTM's (spec 06 §2).
    ///
    /// # Errors
    ///
    /// What is wrong with the text, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Written {
            maxsize: u64,
            maxage: u64,
            maxbackups: usize,
            localtime: bool,
            compress: bool,
        }
        impl Default for Written {
            fn default() -> Self {
                Self { maxsize: 100, maxage: 0, maxbackups: 0, localtime: false, compress: false }
            }
        }
        let written: Written = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if written.compress {
            return Err("compress is not in this build; take it out, or rotate with logrotate \
                        (Log.RotationEnable: 0)"
                .into());
        }
        if written.maxsize > 1 << 20 || written.maxage > 36_500 {
            return Err("maxsize is at most 1048576 (MB), maxage at most 36500 (days)".into());
        }
        // As in DTM, 0 is not "no limit" but the default.
        let megabytes = if written.maxsize == 0 { 100 } else { written.maxsize };
        Ok(Self {
            max_bytes: megabytes << 20,
            backups_max: Some(written.maxbackups).filter(|count| *count > 0),
            age_max: Some(Duration::from_secs(written.maxage * 86_400))
                .filter(|age| !age.is_zero()),
            local_time: written.localtime,
        })
    }
}

/// What is logged, how, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important level. Since 0.1.0.
    pub level: LogLevel,
    /// How lines look. Since 0.1.0.
    pub format: LogFormat,
    /// Where lines go. Since 0.1.0.
    pub outputs: Vec<LogOutput>,
    /// When files are set aside; none means never. Since 0.1.0.
    pub rotation: Option<Rotation>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: LogLevel::default(),
            format: LogFormat::default(),
            outputs: vec![LogOutput::Stderr],
            rotation: None,
        }
    }
}

impl LogConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let is_rotated = reader.boolean("Log.RotationEnable");
        let rotation = match Rotation::parse(reader.text("Log.RotationConfigJSON").trim()) {
            Ok(rotation) => Some(rotation).filter(|_| is_rotated),
            // Without rotation DTM does not read it either.
            Err(_) if !is_rotated => None,
            Err(why) => {
                let key = "Log.RotationConfigJSON";
                reader.problems.push(Problem::new(key, format!("{key}: {why}")));
                None
            }
        };
        Self {
            level: reader.parsed("LogLevel", "debug, info, warn or error", LogLevel::parse),
            format: reader.parsed("LogFormat", "text or json", LogFormat::parse),
            outputs: parse_outputs(reader.text("Log.Outputs")),
            rotation,
        }
    }
}

/// Reads a list of outputs; an empty one is stderr, so that nothing is lost by a slip.
fn parse_outputs(text: &str) -> Vec<LogOutput> {
    let mut outputs = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let output = match name {
            "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            path => LogOutput::File(PathBuf::from(path)),
        };
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    if outputs.is_empty() {
        outputs.push(LogOutput::Stderr);
    }
    outputs
}
