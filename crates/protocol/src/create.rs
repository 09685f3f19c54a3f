//! A new global transaction: what is accepted, and how it begins.

use std::sync::Arc;
use std::time::Duration;

use crate::global::{Branch, CallProtocol, Global, Mode, Retry, Revision, StepDef};
use crate::ids::{BranchId, Gid};
use crate::options::{Options, Policy};
use crate::status::{BranchStatus, GlobalStatus, Op, TransType};
use crate::step::Context;
use crate::time::Timestamp;
use crate::url::Scheme;

/// The bounds of what is accepted. Past one, the caller gets [`Invalid`] and nothing is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Steps of a saga or message.
    pub steps_max: usize,
    /// Rows of one global, registered ones and subscribers of topics included.
    pub branches_max: usize,
    /// Bytes of one payload.
    pub payload_max_bytes: usize,
    /// Bytes of one URL.
    pub url_max_bytes: usize,
    /// Longest interval or timeout an option may ask for.
    pub option_max: Duration,
    /// Headers in `branch_headers`.
    pub headers_max: usize,
    /// Bytes of all names and values in `branch_headers`.
    pub headers_max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps_max: 1000,
            branches_max: 4000,
            payload_max_bytes: 256 * 1024,
            url_max_bytes: 1024,
            option_max: Duration::from_secs(30 * 24 * 3600),
            headers_max: 32,
            headers_max_bytes: 8 * 1024,
        }
    }
}

/// One step of a new saga or message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStep {
    /// Its URLs as given.
    pub def: StepDef,
    /// Its payload.
    pub payload: Arc<[u8]>,
}

/// A global transaction as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGlobal {
    /// Its id.
    pub gid: Gid,
    /// The caller's namespace.
    pub namespace: Arc<str>,
    /// Its mode.
    pub mode: Mode,
    /// How branches are called by default.
    pub protocol: CallProtocol,
    /// Query-prepared or resume URL.
    pub query_prepared: Arc<str>,
    /// The caller's `custom_data`, verbatim.
    pub custom_data: Arc<str>,
    /// Its options.
    pub options: Options,
    /// Its steps; empty for tcc, xa and workflow.
    pub steps: Vec<NewStep>,
    /// Digest of all of the above that a repeated request must repeat.
    pub content: u128,
}

/// Why a new global, or a registered branch, is not accepted. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// More of something than the server accepts.
    #[error("{what}: {got} is more than the limit of {max}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// A saga's order names a step that does not exist.
    #[error("custom_data.orders: step {step} is out of range, the saga has {steps} steps")]
    OrderOutOfRange {
        /// The step named.
        step: usize,
        /// How many there are.
        steps: usize,
    },
    /// A saga's order can never be satisfied.
    #[error("custom_data.orders: step {step} waits for itself, directly or through others")]
    OrderCycle {
        /// A step on the cycle.
        step: usize,
    },
    /// An option is out of range.
    #[error("{option}: {seconds} s is longer than the limit of {max} s")]
    OptionRange {
        /// The option.
        option: &'static str,
        /// What was asked for.
        seconds: u64,
        /// The limit.
        max: u64,
    },
    /// A header that would break or redirect the call.
    #[error("branch_headers: '{name}' may not be set by a transaction")]
    Header {
        /// Its name.
        name: String,
    },
    /// A URL whose scheme nobody can call.
    #[error("{url}: the scheme '{scheme}' is not supported; use http, https or grpc")]
    Scheme {
        /// The URL.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// A URL that this server cannot call.
    #[error("{url}: {why}")]
    Uncallable {
        /// The URL.
        url: String,
        /// Why, and what to do.
        why: String,
    },
    /// A gid that cannot be part of a database's XA statement.
    #[error("gid '{gid}': an xa gid may hold letters, digits and . _ : - only, up to 55 bytes")]
    XaGid {
        /// The gid.
        gid: Gid,
    },
    /// A fan-out step outside a message.
    #[error("{url}: only a message can send to a topic")]
    TopicOutsideMsg {
        /// The URL.
        url: String,
    },
}

/// Headers that would change where a call goes or how it is framed, in lower case.
const HEADERS_DENIED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl NewGlobal {
    /// Checks everything that can be checked without a store.
    ///
    /// # Errors
    ///
    /// [`Invalid`], naming the member as the caller wrote it (spec 07 D37, D45).
    pub fn validate(&self, limits: &Limits) -> Result<(), Invalid> {
        within("steps", self.steps.len(), limits.steps_max)?;
        within("query_prepared", self.query_prepared.len(), limits.url_max_bytes)?;
        check_callable(&self.query_prepared)?;
        for step in &self.steps {
            within("payload bytes", step.payload.len(), limits.payload_max_bytes)?;
            for url in [&step.def.action, &step.def.compensate] {
                within("URL bytes", url.len(), limits.url_max_bytes)?;
                self.check_step_url(url)?;
            }
        }
        self.check_options(limits)?;
        match &self.mode {
            Mode::Saga { concurrent, orders } => {
                check_orders(orders, *concurrent, self.steps.len())?;
            }
            Mode::Xa => check_xa_gid(&self.gid)?,
            Mode::Msg { delay } => check_option("delay", Some(*delay), limits)?,
            Mode::Workflow { data, .. } => {
                within("workflow data bytes", data.len(), limits.payload_max_bytes)?;
            }
            Mode::Tcc => {}
        }
        Ok(())
    }

    fn check_step_url(&self, url: &str) -> Result<(), Invalid> {
        match Scheme::of(url) {
            Scheme::Topic(_) if self.mode.trans_type() != TransType::Msg => {
                Err(Invalid::TopicOutsideMsg { url: url.to_owned() })
            }
            Scheme::Topic(_) => Ok(()),
            _ => check_callable(url),
        }
    }

    fn check_options(&self, limits: &Limits) -> Result<(), Invalid> {
        let options = &self.options;
        check_option("timeout_to_fail", options.timeout_to_fail, limits)?;
        check_option("request_timeout", options.request_timeout, limits)?;
        check_option("retry_interval", options.retry_interval, limits)?;
        within("branch_headers", options.branch_headers.len(), limits.headers_max)?;
        let bytes = options.branch_headers.iter().map(|(name, value)| name.len() + value.len());
        within("branch_headers bytes", bytes.sum(), limits.headers_max_bytes)?;
        for (name, value) in options.branch_headers.iter() {
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            let denied = HEADERS_DENIED.contains(&name.to_ascii_lowercase().as_str());
            let broken = name.is_empty() || !name.chars().all(token);
            if denied || broken || value.chars().any(|c| c.is_control() && c != '\t') {
                return Err(Invalid::Header { name: name.clone() });
            }
        }
        Ok(())
    }
}

/// Checks a URL that a branch call will use.
///
/// # Errors
///
/// [`Invalid::Scheme`] when nobody can call it.
pub fn check_callable(url: &str) -> Result<(), Invalid> {
    match Scheme::of(url) {
        Scheme::Empty | Scheme::Http | Scheme::Grpc => Ok(()),
        Scheme::Topic(_) => Err(Invalid::TopicOutsideMsg { url: url.to_owned() }),
        Scheme::Other(scheme) => {
            Err(Invalid::Scheme { url: url.to_owned(), scheme: scheme.to_owned() })
        }
    }
}

fn within(what: &'static str, got: usize, max: usize) -> Result<(), Invalid> {
    if got > max { Err(Invalid::TooMany { what, got, max }) } else { Ok(()) }
}

fn check_option(
    option: &'static str,
    value: Option<Duration>,
    limits: &Limits,
) -> Result<(), Invalid> {
    match value {
        Some(value) if value > limits.option_max => Err(Invalid::OptionRange {
            option,
            seconds: value.as_secs(),
            max: limits.option_max.as_secs(),
        }),
        _ => Ok(()),
    }
}

/// XA ids are `gid-branch`, quoted into the databases' statements by SDKs, 64 bytes at most.
fn check_xa_gid(gid: &Gid) -> Result<(), Invalid> {
    const GID_MAX_BYTES: usize = 55;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if gid.as_str().len() <= GID_MAX_BYTES && gid.as_str().chars().all(plain) {
        Ok(())
    } else {
        Err(Invalid::XaGid { gid: gid.clone() })
    }
}

/// Checks that every order names existing steps and that no step waits for itself. In a serial
/// saga every step also waits for the one before it.
fn check_orders(orders: &[Vec<usize>], concurrent: bool, steps: usize) -> Result<(), Invalid> {
    if orders.len() > steps {
        return Err(Invalid::OrderOutOfRange { step: orders.len() - 1, steps });
    }
    if let Some(&step) = orders.iter().flatten().find(|&&step| step >= steps) {
        return Err(Invalid::OrderOutOfRange { step, steps });
    }
    let against_the_line = |(step, before): (usize, &Vec<usize>)| {
        (!concurrent && before.iter().any(|&earlier| earlier >= step)).then_some(step)
    };
    if let Some(step) = orders.iter().enumerate().find_map(against_the_line) {
        return Err(Invalid::OrderCycle { step });
    }
    match first_on_a_cycle(orders) {
        Some(step) => Err(Invalid::OrderCycle { step }),
        None => Ok(()),
    }
}

/// Takes away, again and again, the steps that wait for nobody who is left; what stays waits for
/// itself.
fn first_on_a_cycle(orders: &[Vec<usize>]) -> Option<usize> {
    let mut waiting: Vec<usize> = (0..orders.len()).collect();
    let mut is_waiting = vec![true; orders.len()];
    loop {
        let before = waiting.len();
        waiting.retain(|&step| {
            let blocked = |&earlier: &usize| is_waiting.get(earlier).copied().unwrap_or(false);
            orders[step].iter().any(blocked)
        });
        if waiting.len() == before {
            return waiting.first().copied();
        }
        is_waiting.fill(false);
        for &step in &waiting {
            is_waiting[step] = true;
        }
    }
}

/// Returns a new global, as `prepared` or `submitted`, at revision 1 and not yet owned.
///
/// `subscribers` holds, for each step of a message, the URLs that its topic fans out to, read from
/// the store by the caller; a step without an entry is called as it is (spec 01 §4.4).
pub fn create(
    new: &NewGlobal,
    submitted: bool,
    subscribers: &[Option<Vec<Arc<str>>>],
    policy: &Policy,
    cx: &Context,
) -> Global {
    let status = if submitted { GlobalStatus::Submitted } else { GlobalStatus::Prepared };
    let mut global = Global {
        gid: new.gid.clone(),
        namespace: new.namespace.clone(),
        mode: new.mode.clone(),
        status,
        protocol: new.protocol,
        query_prepared: new.query_prepared.clone(),
        custom_data: new.custom_data.clone(),
        options: new.options.clone(),
        steps: new.steps.iter().map(|step| step.def.clone()).collect(),
        content: if submitted { new.content } else { 0 },
        branches: rows(new, subscribers, cx.now),
        created: cx.now,
        updated: cx.now,
        finished: None,
        rolled_back: None,
        rollback_reason: Arc::from(""),
        result: Arc::from(""),
        query: Retry::default(),
        wake_at: cx.now,
        interval: Duration::ZERO,
        owner: Arc::from(""),
        epoch: 0,
        revision: Revision(1),
    };
    if new.mode.trans_type() == TransType::Workflow {
        // The application that prepares it runs it; it is called back only after that.
        global.query.next_at = cx.now.after(global.base_interval(policy));
    }
    crate::step::settle(&mut global, policy, cx);
    global
}

fn rows(new: &NewGlobal, subscribers: &[Option<Vec<Arc<str>>>], now: Timestamp) -> Vec<Branch> {
    let mut rows = Vec::with_capacity(new.steps.len() * 2);
    let mut push = |branch_id: BranchId, op: Op, url: &Arc<str>, data: &Arc<[u8]>| {
        rows.push(Branch {
            branch_id,
            op,
            url: url.clone(),
            data: data.clone(),
            status: BranchStatus::Prepared,
            retry: Retry::default(),
            created: now,
            updated: now,
            finished: None,
        });
    };
    for (index, step) in new.steps.iter().enumerate() {
        let id = BranchId::of_step(index);
        match (new.mode.trans_type(), subscribers.get(index)) {
            (TransType::Saga, _) => {
                push(id.clone(), Op::Compensate, &step.def.compensate, &step.payload);
                push(id, Op::Action, &step.def.action, &step.payload);
            }
            (TransType::Msg, Some(Some(urls))) if urls.len() == 1 => {
                push(id, Op::Action, &urls[0], &step.payload);
            }
            (TransType::Msg, Some(Some(urls))) => {
                for (nth, url) in urls.iter().enumerate() {
                    push(BranchId::of_subscriber(index, nth), Op::Action, url, &step.payload);
                }
            }
            (TransType::Msg, _) => push(id, Op::Action, &step.def.action, &step.payload),
            (TransType::Tcc | TransType::Xa | TransType::Workflow, _) => {}
        }
    }
    rows
}
