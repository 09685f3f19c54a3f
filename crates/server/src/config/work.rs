//! When work is due, how branches are called, who is told, what is logged.

use std::time::Duration;

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
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            trans_cron_interval: Duration::from_secs(3),
            timeout_to_fail: Duration::from_secs(35),
            interval: Duration::from_secs(10),
            interval_max: Duration::from_secs(3600),
            jitter_percent: 10,
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
}

impl Default for CallsConfig {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(3),
            destination_concurrency: 64,
            breaker_failures: 5,
            breaker_open: Duration::from_secs(5),
            substring_result: true,
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
        }
    }

    pub(super) fn validate(&self, problems: &mut Vec<Problem>) {
        if self.request_timeout.is_zero() {
            let text = "RequestTimeout should be longer than zero";
            problems.push(Problem::new("RequestTimeout", text));
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
}

impl Default for AlertConfig {
    fn default() -> Self {
        Self { retry_limit: 3, web_hook: Secret::default() }
    }
}

impl AlertConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            retry_limit: reader.integer("AlertRetryLimit"),
            web_hook: Secret::new(reader.text("AlertWebHook")),
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

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogConfig {
    /// The least important level. Since 0.1.0.
    pub level: LogLevel,
    /// How lines look. Since 0.1.0.
    pub format: LogFormat,
}

impl LogConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            level: reader.parsed("LogLevel", "debug, info, warn or error", LogLevel::parse),
            format: reader.parsed("LogFormat", "text or json", LogFormat::parse),
        }
    }
}
