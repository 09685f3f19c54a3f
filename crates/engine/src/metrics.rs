//! Every metric's name and labels, in one place. No label ever holds text from a request.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dtmd_protocol::{GlobalStatus, Op, Outcome, TransType};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::destinations::Usage;

/// Prometheus' default buckets, in seconds: what DTM's dashboards expect.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Changes in one flush.
const FLUSH_SIZE_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];
const FLUSH_BUCKETS: [f64; 9] = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 1.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServerInfo {
    version: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    r#type: &'static str,
    api: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Duration_ {
    r#type: &'static str,
    api: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Model {
    model: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelStatus {
    model: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BranchCall {
    model: &'static str,
    branchtype: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BreakerState {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AlertResult {
    kind: &'static str,
    result: &'static str,
}

type SecondsGauge = Gauge<f64, AtomicU64>;
type HistogramFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// Counts the requests of one route that end in one way.
#[derive(Debug, Clone)]
pub struct RequestSeries {
    count: Counter,
    seconds: Histogram,
}

impl RequestSeries {
    /// Counts a request.
    pub fn count(&self, elapsed: Duration) {
        self.count.inc();
        self.seconds.observe(elapsed.as_secs_f64());
    }
}

/// Series that are counted for every transaction, looked up in their families once: a look-up hashes
/// every label. One that was never counted does not exist.
#[derive(Default)]
struct Found {
    /// By type and whether it succeeded.
    ended: [[OnceLock<(Counter, Histogram)>; 2]; TYPES],
    /// By type and outcome: the seconds, and by operation the count.
    called: [[OnceLock<Histogram>; OUTCOMES]; TYPES],
    branches: [[[OnceLock<Counter>; OUTCOMES]; OPS]; TYPES],
}

const TYPES: usize = 5;
const OUTCOMES: usize = 5;
const OPS: usize = 9;

fn type_index(trans_type: TransType) -> usize {
    match trans_type {
        TransType::Saga => 0,
        TransType::Tcc => 1,
        TransType::Xa => 2,
        TransType::Msg => 3,
        TransType::Workflow => 4,
    }
}

fn op_index(op: &Op) -> usize {
    match op {
        Op::Action => 0,
        Op::Compensate => 1,
        Op::Try => 2,
        Op::Confirm => 3,
        Op::Cancel => 4,
        Op::Commit => 5,
        Op::Rollback => 6,
        Op::Msg => 7,
        Op::Named(_) => 8,
    }
}

/// Returns an outcome's index and its word.
fn outcome_label(outcome: &Outcome) -> (usize, &'static str) {
    match outcome {
        Outcome::Success => (0, "ok"),
        Outcome::Failure(_) => (1, "fail"),
        Outcome::Ongoing => (2, "ongoing"),
        Outcome::Unknown(_) => (3, "unknown"),
        Outcome::Postponed(_) => (4, "postponed"),
    }
}

/// The server's metrics: DTM's six names with their documented meaning (spec 06 §5, without the
/// unbounded labels of spec 07 D19), and ours.
pub struct Metrics {
    registry: Registry,
    found: Found,
    requests: Family<Request, Counter>,
    request_seconds: HistogramFamily<Duration_>,
    transactions: Family<ModelStatus, Counter>,
    transaction_seconds: HistogramFamily<Model>,
    branches: Family<BranchCall, Counter>,
    branch_seconds: HistogramFamily<ModelStatus>,
    flush_seconds: Histogram,
    flushed: Counter,
    forced: Counter,
    flush_size: Histogram,
    oldest_seconds: SecondsGauge,
    due_lag_seconds: SecondsGauge,
    breakers: Family<BreakerState, Gauge>,
    calls_in_flight: Gauge,
    alerts: Family<AlertResult, Counter>,
    pub(crate) active: Gauge,
    pub(crate) timers: Gauge,
    pub(crate) breakers_open: Gauge,
    pub(crate) memory: Gauge,
    pub(crate) memory_max: Gauge,
    pub(crate) claimed: Counter,
    pub(crate) conflicts: Counter,
    globals: Family<ModelStatus, Gauge<i64, std::sync::atomic::AtomicI64>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn seconds() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let info = Family::<ServerInfo, Gauge>::default();
        info.get_or_create(&ServerInfo { version: env!("CARGO_PKG_VERSION") }).set(1);
        let metrics = Self {
            registry: Registry::default(),
            found: Found::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            transactions: Family::default(),
            transaction_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            branches: Family::default(),
            branch_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            flush_seconds: Histogram::new(FLUSH_BUCKETS),
            flushed: Counter::<u64, AtomicU64>::default(),
            forced: Counter::default(),
            flush_size: Histogram::new(FLUSH_SIZE_BUCKETS),
            oldest_seconds: SecondsGauge::default(),
            due_lag_seconds: SecondsGauge::default(),
            breakers: Family::default(),
            calls_in_flight: Gauge::default(),
            alerts: Family::default(),
            active: Gauge::default(),
            timers: Gauge::default(),
            breakers_open: Gauge::default(),
            memory: Gauge::default(),
            memory_max: Gauge::default(),
            claimed: Counter::default(),
            conflicts: Counter::default(),
            globals: Family::default(),
        };
        metrics.registered(info)
    }

    fn registered(mut self, info: Family<ServerInfo, Gauge>) -> Self {
        let r = &mut self.registry;
        r.register("dtm_server_info", "The server, always 1", info);
        // The library adds `_total` to counters.
        r.register("dtm_server_process", "Requests", self.requests.clone());
        r.register(
            "dtm_server_response_duration",
            "Seconds from a request to its response",
            self.request_seconds.clone(),
        );
        r.register(
            "dtm_transaction_process",
            "Transactions that became final: ok is succeed, fail is failed",
            self.transactions.clone(),
        );
        r.register(
            "dtm_transaction_handled_duration",
            "Seconds from a transaction's acceptance to its end",
            self.transaction_seconds.clone(),
        );
        r.register("dtm_branch_process", "Branch calls by outcome", self.branches.clone());
        r.register(
            "dtmd_branch_call_duration_seconds",
            "Seconds of a branch call by outcome, waiting for its turn not included",
            self.branch_seconds.clone(),
        );
        r.register(
            "dtmd_store_flush_duration_seconds",
            "Seconds of one flush of the store",
            self.flush_seconds.clone(),
        );
        r.register("dtmd_store_flushed_changes", "Changes flushed", self.flushed.clone());
        r.register(
            "dtmd_store_forced_changes",
            "Changes flushed that something waited for",
            self.forced.clone(),
        );
        r.register(
            "dtmd_store_flush_changes",
            "Changes in one flush of the store",
            self.flush_size.clone(),
        );
        r.register(
            "dtmd_oldest_unfinished_age_seconds",
            "Seconds since the oldest unfinished transaction was accepted, 0 if there is none",
            self.oldest_seconds.clone(),
        );
        r.register(
            "dtmd_due_lag_seconds",
            "Seconds for which the longest due transaction waits for a server, 0 if none is due",
            self.due_lag_seconds.clone(),
        );
        r.register(
            "dtmd_breakers",
            "Destinations by the state of their circuit breaker",
            self.breakers.clone(),
        );
        r.register(
            "dtmd_branch_calls_in_flight",
            "Branch calls under way, or about to be",
            self.calls_in_flight.clone(),
        );
        r.register("dtmd_alerts", "Alerts by kind and by what became of them", self.alerts.clone());
        r.register("dtmd_active_transactions", "Transactions worked on now", self.active.clone());
        r.register("dtmd_waiting_transactions", "Transactions that wait", self.timers.clone());
        r.register(
            "dtmd_breakers_open",
            "Destinations whose circuit breaker is not closed",
            self.breakers_open.clone(),
        );
        r.register("dtmd_memory_bytes", "Memory of the server's process", self.memory.clone());
        r.register(
            "dtmd_memory_max_bytes",
            "Memory of the process from which on new transactions are refused",
            self.memory_max.clone(),
        );
        r.register(
            "dtmd_claimed_transactions",
            "Transactions taken over because they were due and nobody worked on them",
            self.claimed.clone(),
        );
        r.register(
            "dtmd_conflicts",
            "Writes refused because another writer was first",
            self.conflicts.clone(),
        );
        r.register(
            "dtmd_stored_transactions",
            "Transactions in the store by type and status",
            self.globals.clone(),
        );
        self
    }

    /// Counts a request. `api` is the route's name, never text from the request.
    pub fn request(&self, transport: &'static str, api: &'static str, ok: bool, elapsed: Duration) {
        self.request_series(transport, api, ok).count(elapsed);
    }

    /// Returns what counts the requests of one route that end in one way, for who counts many: to
    /// look it up hashes every label. From now on the series exist.
    pub fn request_series(
        &self,
        transport: &'static str,
        api: &'static str,
        ok: bool,
    ) -> RequestSeries {
        let status = if ok { "ok" } else { "fail" };
        let label = Request { r#type: transport, api, status };
        let count = self.requests.get_or_create_owned(&label);
        let label = Duration_ { r#type: transport, api };
        RequestSeries { count, seconds: self.request_seconds.get_or_create_owned(&label) }
    }

    /// Returns all metrics in Prometheus' text form.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        if text::encode(&mut out, &self.registry).is_err() {
            let _ = write!(out, "# a metric could not be written");
        }
        out
    }

    pub(crate) fn ended(&self, trans_type: TransType, status: GlobalStatus, age: Duration) {
        let succeed = status == GlobalStatus::Succeed;
        let found = &self.found.ended[type_index(trans_type)][usize::from(succeed)];
        let (count, seconds) = found.get_or_init(|| {
            let model = trans_type.as_str();
            let status = if succeed { "ok" } else { "fail" };
            let count = self.transactions.get_or_create_owned(&ModelStatus { model, status });
            (count, self.transaction_seconds.get_or_create_owned(&Model { model }))
        });
        count.inc();
        seconds.observe(age.as_secs_f64());
    }

    pub(crate) fn branch_called(
        &self,
        trans_type: TransType,
        op: &Op,
        outcome: &Outcome,
        elapsed: Duration,
    ) {
        let model = trans_type.as_str();
        let (type_at, (outcome_at, status)) = (type_index(trans_type), outcome_label(outcome));
        let count = self.found.branches[type_at][op_index(op)][outcome_at].get_or_init(|| {
            let label = BranchCall { model, branchtype: op.label(), status };
            self.branches.get_or_create_owned(&label)
        });
        count.inc();
        let seconds = self.found.called[type_at][outcome_at].get_or_init(|| {
            self.branch_seconds.get_or_create_owned(&ModelStatus { model, status })
        });
        seconds.observe(elapsed.as_secs_f64());
    }

    pub(crate) fn written_at_once(&self, forced: bool) {
        self.flushed.inc();
        self.forced.inc_by(u64::from(forced));
    }

    pub(crate) fn flushed(&self, changes: usize, forced: usize, elapsed: Duration) {
        self.flush_seconds.observe(elapsed.as_secs_f64());
        self.flushed.inc_by(changes as u64);
        self.forced.inc_by(forced as u64);
        self.flush_size.observe(changes as f64);
    }

    /// Counts an alert. Both words are the program's own, never text from outside.
    pub fn alert(&self, kind: &'static str, result: &'static str) {
        self.alerts.get_or_create(&AlertResult { kind, result }).inc();
    }

    pub(crate) fn oldest(&self, age: Duration, due_lag: Duration) {
        self.oldest_seconds.set(age.as_secs_f64());
        self.due_lag_seconds.set(due_lag.as_secs_f64());
    }

    pub(crate) fn destinations(&self, usage: &Usage) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let states =
            [("closed", usage.closed), ("open", usage.open), ("half_open", usage.half_open)];
        for (state, number) in states {
            self.breakers.get_or_create(&BreakerState { state }).set(count(number));
        }
        self.calls_in_flight.set(count(usage.in_flight));
    }

    pub(crate) fn stored(&self, totals: &[(TransType, GlobalStatus, u64)]) {
        self.globals.clear();
        for (trans_type, status, count) in totals {
            let label = ModelStatus { model: trans_type.as_str(), status: status.as_str() };
            self.globals.get_or_create(&label).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_six_names_of_dtm_are_there() {
        let metrics = Metrics::new();
        metrics.request("http", "submit", true, Duration::from_millis(1));
        metrics.ended(TransType::Saga, GlobalStatus::Succeed, Duration::from_millis(1));
        metrics.branch_called(TransType::Saga, &Op::Action, &Outcome::Success, Duration::ZERO);
        let text = metrics.encode();
        for name in [
            "dtm_server_info{",
            "dtm_server_process_total{",
            "dtm_server_response_duration_bucket{",
            "dtm_transaction_process_total{",
            "dtm_transaction_handled_duration_bucket{",
            "dtm_branch_process_total{",
        ] {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
    }
}
