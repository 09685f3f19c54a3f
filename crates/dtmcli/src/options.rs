//! Options of a global transaction (spec 01 §1.4).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// How a global transaction is carried out. What is not set is the server's default.
///
/// The builders ([`Saga`](crate::Saga), [`TccBuilder`](crate::TccBuilder), …) have a method for
/// each of these; a `TransOptions` is for keeping a set of them and giving it to many.
///
/// DTM counts in whole seconds. A time that is none is sent in both forms: rounded up for DTM, and
/// to the millisecond for dtmd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransOptions {
    pub(crate) timeout_to_fail: Option<Duration>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) retry_interval: Option<Duration>,
    pub(crate) retry_limit: Option<u32>,
    pub(crate) branch_headers: BTreeMap<String, String>,
    pub(crate) concurrent: bool,
    pub(crate) wait_result: bool,
}

impl TransOptions {
    /// Nothing but the server's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// After how long an unfinished global transaction is given up and rolled back. Without it:
    /// 35 s for TCC, XA and prepared messages, never for a saga.
    #[must_use]
    pub fn timeout_to_fail(mut self, timeout: Duration) -> Self {
        self.timeout_to_fail = Some(timeout);
        self
    }

    /// How long the server, or the SDK, waits for the answer of one branch call. Without it: 3 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// The first pause before a branch is called again; it doubles from there. Without it: 10 s.
    #[must_use]
    pub fn retry_interval(mut self, interval: Duration) -> Self {
        self.retry_interval = Some(interval);
        self
    }

    /// How often the actions of a saga may be called again, all together, before it is rolled
    /// back. Without it: for ever. Other modes pass over it.
    #[must_use]
    pub fn retry_limit(mut self, times: u32) -> Self {
        self.retry_limit = Some(times);
        self
    }

    /// A header of every branch call, or metadata over gRPC.
    #[must_use]
    pub fn branch_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.branch_headers.insert(name.into(), value.into());
        self
    }

    /// Branches of a saga or a message run at once instead of one after the other.
    #[must_use]
    pub fn concurrent(mut self) -> Self {
        self.concurrent = true;
        self
    }

    /// The seconds and, where they are not whole, the milliseconds of each time.
    pub(crate) fn times(&self) -> [(&'static str, &'static str, Option<Times>); 3] {
        let times = |time: Option<Duration>| time.map(Times::of);
        [
            ("timeout_to_fail", "timeout_to_fail_ms", times(self.timeout_to_fail)),
            ("request_timeout", "request_timeout_ms", times(self.request_timeout)),
            ("retry_interval", "retry_interval_ms", times(self.retry_interval)),
        ]
    }

    pub(crate) fn write_json(&self, body: &mut Map<String, Value>) {
        for (seconds, millis, times) in self.times() {
            let Some(times) = times else { continue };
            body.insert(seconds.to_owned(), json!(times.seconds));
            if let Some(value) = times.millis {
                body.insert(millis.to_owned(), json!(value));
            }
        }
        if let Some(limit) = self.retry_limit {
            body.insert("retry_limit".to_owned(), json!(limit));
        }
        if !self.branch_headers.is_empty() {
            body.insert("branch_headers".to_owned(), json!(self.branch_headers));
        }
        if self.wait_result {
            body.insert("wait_result".to_owned(), json!(true));
        }
        body.insert("concurrent".to_owned(), json!(self.concurrent));
    }
}

/// A time as both servers take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// Rounded up: a promise to wait that long is kept.
    pub(crate) seconds: i64,
    /// Only when the seconds are not exact.
    pub(crate) millis: Option<i64>,
}

impl Times {
    fn of(time: Duration) -> Self {
        let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let is_whole = millis % 1_000 == 0;
        let seconds = if is_whole { millis / 1_000 } else { millis / 1_000 + 1 };
        Self { seconds, millis: (!is_whole).then_some(millis) }
    }
}

/// The methods that every builder of a global transaction has.
macro_rules! option_methods {
    () => {
        /// Sets the gid. Without it the SDK makes one that nobody has.
        ///
        /// The same gid is the same global transaction: set it to something of the business, such
        /// as the order's number, and a repeated request cannot start a second one.
        pub fn gid(mut self, gid: impl Into<String>) -> Self {
            self.gid = gid.into();
            self
        }

        /// Replaces all options at once.
        pub fn options(mut self, options: crate::TransOptions) -> Self {
            self.options = options;
            self
        }

        /// See [`TransOptions::timeout_to_fail`](crate::TransOptions::timeout_to_fail).
        pub fn timeout_to_fail(mut self, timeout: std::time::Duration) -> Self {
            self.options = self.options.timeout_to_fail(timeout);
            self
        }

        /// See [`TransOptions::request_timeout`](crate::TransOptions::request_timeout).
        pub fn request_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options = self.options.request_timeout(timeout);
            self
        }

        /// See [`TransOptions::retry_interval`](crate::TransOptions::retry_interval).
        pub fn retry_interval(mut self, interval: std::time::Duration) -> Self {
            self.options = self.options.retry_interval(interval);
            self
        }

        /// See [`TransOptions::branch_header`](crate::TransOptions::branch_header).
        pub fn branch_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.options = self.options.branch_header(name, value);
            self
        }
    };
}
pub(crate) use option_methods;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_on_the_wire() {
        let second = Duration::from_secs(1);
        let table = [
            (TransOptions::new(), json!({ "concurrent": false })),
            (TransOptions::new().concurrent(), json!({ "concurrent": true })),
            (
                TransOptions::new().timeout_to_fail(second * 30),
                json!({ "concurrent": false, "timeout_to_fail": 30 }),
            ),
            (
                TransOptions::new().retry_interval(Duration::from_millis(1_200)),
                json!({ "concurrent": false, "retry_interval": 2, "retry_interval_ms": 1_200 }),
            ),
            (
                TransOptions::new().request_timeout(Duration::from_millis(50)).retry_limit(3),
                json!({ "concurrent": false, "request_timeout": 1, "request_timeout_ms": 50,
                        "retry_limit": 3 }),
            ),
            (
                TransOptions::new().branch_header("x-a", "1"),
                json!({ "concurrent": false, "branch_headers": { "x-a": "1" } }),
            ),
            (
                TransOptions { wait_result: true, ..TransOptions::new() },
                json!({ "concurrent": false, "wait_result": true }),
            ),
        ];
        for (options, expected) in table {
            let mut body = Map::new();
            options.write_json(&mut body);
            assert_eq!(Value::Object(body), expected);
        }
    }
}
