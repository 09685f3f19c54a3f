//! What a caller may set for one transaction, and what the server sets for all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Headers of the W3C Trace Context, in lower case.
const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// The options of one global transaction (spec 01 §1.4). `None` means the server's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Answer the submit or abort only when the first pass has ended.
    pub wait_result: bool,
    /// Age after which a prepared tcc or xa, or a submitted saga, is rolled back, and after which
    /// a prepared message is asked about. `None` for a saga means never.
    pub timeout_to_fail: Option<Duration>,
    /// How long one branch call may take.
    pub request_timeout: Option<Duration>,
    /// Base of the retry schedule.
    pub retry_interval: Option<Duration>,
    /// Saga: how many times an action whose outcome is unknown is tried again; 0 means for ever.
    pub retry_limit: u32,
    /// Accepted from clients and shown again; attempts are counted per branch.
    pub retry_count: u32,
    /// Message: deliver to all targets at once. Saga: informational (spec 01 §1.5).
    pub concurrent: bool,
    /// Headers added to every branch call.
    pub branch_headers: Arc<BTreeMap<String, String>>,
}

impl Options {
    /// Takes from `later` what `self` leaves at its default.
    ///
    /// A submit after a prepare may carry options that the prepare did not (spec 07 D28).
    pub fn fill_from(&mut self, later: &Options) {
        self.wait_result |= later.wait_result;
        self.concurrent |= later.concurrent;
        self.timeout_to_fail = self.timeout_to_fail.or(later.timeout_to_fail);
        self.request_timeout = self.request_timeout.or(later.request_timeout);
        self.retry_interval = self.retry_interval.or(later.retry_interval);
        if self.retry_limit == 0 {
            self.retry_limit = later.retry_limit;
        }
        if self.retry_count == 0 {
            self.retry_count = later.retry_count;
        }
        // A trace was put there by the server, from the prepare's own request: it must not keep the
        // submit's headers out.
        let is_trace = |name: &String| TRACE_HEADERS.contains(&name.to_ascii_lowercase().as_str());
        let says_nothing = self.branch_headers.keys().all(is_trace);
        let later_says = later.branch_headers.keys().any(|name| !is_trace(name));
        if self.branch_headers.is_empty() || (says_nothing && later_says) {
            self.branch_headers = later.branch_headers.clone();
        }
    }
}

/// The server's settings that decisions depend on (spec 06 §2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Base of the retry schedule (`RetryInterval`).
    pub retry_interval: Duration,
    /// Longest wait between two retries of one branch.
    pub retry_interval_max: Duration,
    /// Deviation of a retry's wait to either side, in percent of it.
    pub retry_jitter_percent: u32,
    /// Default age for a rollback (`TimeoutToFail`).
    pub timeout_to_fail: Duration,
    /// Default time for one branch call (`RequestTimeout`).
    pub request_timeout: Duration,
    /// Default time for one workflow callback, which runs the rest of the workflow.
    pub workflow_callback_timeout: Duration,
    /// How long a server owns a global that it is working on, unless it renews.
    pub lease: Duration,
    /// Longest rollback reason kept, in bytes; the rest is cut.
    pub reason_max_bytes: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retry_interval: Duration::from_secs(10),
            retry_interval_max: Duration::from_secs(3600),
            retry_jitter_percent: 10,
            timeout_to_fail: Duration::from_secs(35),
            request_timeout: Duration::from_secs(3),
            workflow_callback_timeout: Duration::from_secs(30),
            lease: Duration::from_secs(10),
            reason_max_bytes: 4096,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(headers: &[(&str, &str)]) -> Options {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Options { branch_headers: Arc::new(headers.collect()), ..Options::default() }
    }

    #[test]
    fn a_trace_does_not_keep_later_headers_out() {
        let (old, new) = (("traceparent", "1"), ("traceparent", "2"));
        let own = ("x-user", "u");
        // The prepare's, the submit's, what is kept.
        let table: [(&[_], &[_], &[_]); 5] = [
            (&[], &[own, new], &[own, new]),
            (&[old], &[], &[old]),
            (&[old], &[new], &[old]),
            (&[old], &[own, new], &[own, new]),
            (&[own, old], &[("x-user", "v")], &[own, old]),
        ];
        for (before, later, kept) in table {
            let mut options = with(before);
            options.fill_from(&with(later));
            assert_eq!(options, with(kept), "{before:?} {later:?}");
        }
    }
}
