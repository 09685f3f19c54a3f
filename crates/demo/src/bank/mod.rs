//! A bank: an HTTP service with accounts of its own, behind a barrier.
//!
//! | path | op | effect |
//! |---|---|---|
//! | `POST /out`, `/out-undo` | action, compensate | saga: debit, and back |
//! | `POST /in`, `/in-undo` | action, compensate | saga and message: credit, and back |
//! | `POST /try-out`, `/confirm-out`, `/cancel-out` | try, confirm, cancel | TCC debit over a frozen amount |
//! | `POST /try-in`, `/confirm-in`, `/cancel-in` | try, confirm, cancel | TCC credit over an announced amount |
//! | `POST /local-out` | msg | a message's local transaction: debit and barrier row |
//! | `GET /query-prepared` | msg | whether that local transaction committed |
//! | `POST /xa-out`, `/xa-in` | action, commit, rollback | XA branches, if the bank has a database |
//! | `GET /balance?account=`, `/xa-balance?account=`, `/total`, `/stats`, `/healthz` | | |
//! | `POST /open` `{account, balance}`, `POST /control` [`Fault`] or `{"clear":true}` | | |
//!
//! Bodies of branch calls are `{"account":"…","amount":n}`; the branch is named by the query
//! parameters of spec 02 §4.2. Answers: 200, 409 with FAILURE, 425 with ONGOING, 500. On a port of
//! its own the bank serves the same branches over gRPC, XA excepted ([`grpc_method`]).

pub mod barrier;
mod calls;
mod faults;
mod ledger;
mod over_grpc;
mod process;
mod report;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::grpc::server as grpc;
use crate::serve::{self, Handler, Reply, WholeRequest, query_pairs};
use crate::xa::XaLedger;
use barrier::BranchContext;
pub use barrier::{Admission, LocalOutcome};
use faults::Faults;
pub use faults::{Fault, FaultKind};
pub use ledger::{Account, Change, Ledger, LedgerError, Totals};
pub use over_grpc::{BANK_SERVICE, grpc_method};
pub use process::{BANK_GRPC, BANK_READY, BANK_XA_URL, BankArgs, run_process};
use report::Counters;
pub use report::{CallReport, Stats};

/// How a bank is started.
#[derive(Debug)]
pub struct BankConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Its SQLite file; made if it does not exist.
    pub data: PathBuf,
    /// Its name in reports.
    pub name: String,
    /// Accounts to open with their first balances; those that exist keep what they have.
    pub accounts: Vec<(String, i64)>,
    /// Faults for the first calls.
    pub faults: Vec<Fault>,
    /// A MariaDB, MySQL or PostgreSQL URL for XA branches.
    pub xa_url: Option<String>,
    /// Where reports of handled calls go; reports are dropped while the channel is full.
    pub reports: Option<mpsc::Sender<CallReport>>,
}

impl BankConfig {
    /// A bank without accounts on a free loopback port.
    #[must_use]
    pub fn new(name: &str, data: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data: data.into(),
            name: name.to_owned(),
            accounts: Vec::new(),
            faults: Vec::new(),
            xa_url: None,
            reports: None,
        }
    }

    /// Opens an account with a first balance, on the XA database too if there is one.
    #[must_use]
    pub fn account(mut self, account: &str, balance: i64) -> Self {
        self.accounts.push((account.to_owned(), balance));
        self
    }
}

/// A running bank; dropping it closes its socket and its connections.
#[derive(Debug)]
pub struct Bank {
    /// Its base URL, without a slash at the end.
    pub url: String,
    /// Where it serves gRPC, `ADDRESS:PORT`.
    pub grpc: String,
    service: Arc<Service>,
    task: JoinHandle<()>,
    grpc_task: JoinHandle<()>,
}

impl Bank {
    /// Opens the database and starts to listen; returns when calls are accepted.
    ///
    /// # Errors
    /// The file, the XA database or the address cannot be used.
    pub async fn start(config: BankConfig) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let listener = TcpListener::bind(config.listen).await.with_context(|| {
            format!("the bank {} cannot listen on {}", config.name, config.listen)
        })?;
        let grpc_listener = TcpListener::bind((config.listen.ip(), 0))
            .await
            .with_context(|| format!("the bank {} finds no port for gRPC", config.name))?;
        let (address, grpc) = (reachable(&listener)?, reachable(&grpc_listener)?);
        let service = Arc::new(Service::open(config).await?);
        let handler = Arc::clone(&service);
        let task = tokio::spawn(async move { match serve::serve(listener, handler).await {} });
        let handler = Arc::clone(&service);
        let grpc_task =
            tokio::spawn(async move { match grpc::serve(grpc_listener, handler).await {} });
        let (url, grpc) = (format!("http://{address}"), grpc.to_string());
        Ok(Self { url, grpc, service, task, grpc_task })
    }

    /// The bank's balances and barrier, for checks beside the HTTP interface.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.service.ledger
    }

    /// Adds a fault; false if there are too many already.
    #[must_use]
    pub fn inject(&self, fault: Fault) -> bool {
        self.service.faults.add(fault)
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.service.counters.read()
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.task.abort();
        self.grpc_task.abort();
    }
}

/// Returns where a listener can be reached from this machine.
fn reachable(listener: &TcpListener) -> std::io::Result<SocketAddr> {
    let mut address = listener.local_addr()?;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Ok(address)
}

#[derive(Debug)]
struct Service {
    name: String,
    ledger: Arc<Ledger>,
    faults: Faults,
    counters: Counters,
    reports: Option<mpsc::Sender<CallReport>>,
    xa: Option<XaLedger>,
}

#[derive(Deserialize)]
struct OpenBody {
    account: String,
    balance: i64,
}

impl Service {
    async fn open(config: BankConfig) -> anyhow::Result<Self> {
        let accounts = config.accounts;
        let data = config.data;
        let opened = accounts.clone();
        let ledger = tokio::task::spawn_blocking(move || {
            let ledger = Ledger::open(&data)?;
            for (account, balance) in &opened {
                ledger.open_account(account, *balance)?;
            }
            Ok::<_, LedgerError>(ledger)
        })
        .await??;
        let xa = match &config.xa_url {
            Some(url) => {
                let xa = XaLedger::open(url, &config.name).await?;
                for (account, balance) in &accounts {
                    xa.open_account(account, *balance).await?;
                }
                Some(xa)
            }
            None => None,
        };
        Ok(Self {
            name: config.name,
            ledger: Arc::new(ledger),
            faults: Faults::new(config.faults),
            counters: Counters::default(),
            reports: config.reports,
            xa,
        })
    }

    /// Runs a ledger call on a thread that may block.
    async fn with_ledger<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let ledger = Arc::clone(&self.ledger);
        match tokio::task::spawn_blocking(move || call(&ledger)).await {
            Ok(outcome) => outcome,
            // The closure panicked, or the runtime is ending: either way nothing was committed.
            Err(_) => Err(LedgerError::Interrupted),
        }
    }

    async fn balance(&self, query: Option<&str>) -> Reply {
        let account = query_pairs(query).remove("account").unwrap_or_default();
        match self.with_ledger(move |ledger| ledger.account(&account)).await {
            Ok(account) => ok(json!(account)),
            Err(error) => not_found_or_error(&error),
        }
    }

    async fn xa_balance(&self, query: Option<&str>) -> Reply {
        let Some(xa) = &self.xa else { return no_xa() };
        let account = query_pairs(query).remove("account").unwrap_or_default();
        match xa.balance(&account).await {
            Ok(Some(balance)) => ok(json!({ "account": account, "balance": balance })),
            Ok(None) => {
                let text = format!("no such account: {account}");
                Reply::Json(StatusCode::NOT_FOUND, json!({ "error": text }))
            }
            Err(error) => server_error(&format!("{error:#}")),
        }
    }

    /// The totals of SQLite and, if there is one, of the XA database (`xa_total`).
    async fn total(&self) -> Reply {
        let totals = match self.with_ledger(Ledger::totals).await {
            Ok(totals) => totals,
            Err(error) => return not_found_or_error(&error),
        };
        let mut value = json!(totals);
        if let Some(xa) = &self.xa {
            match xa.total().await {
                Ok(total) => value["xa_total"] = json!(total),
                Err(error) => return server_error(&format!("{error:#}")),
            }
        }
        ok(value)
    }

    async fn open_account(&self, body: &[u8]) -> Reply {
        let open: OpenBody = match serde_json::from_slice(body) {
            Ok(open) => open,
            Err(error) => return bad_request(&format!("{{account, balance}} is needed: {error}")),
        };
        if let Some(xa) = &self.xa
            && let Err(error) = xa.open_account(&open.account, open.balance).await
        {
            return server_error(&format!("{error:#}"));
        }
        let opened =
            self.with_ledger(move |ledger| ledger.open_account(&open.account, open.balance)).await;
        match opened {
            Ok(()) => ok(json!({})),
            Err(error) => not_found_or_error(&error),
        }
    }

    fn control(&self, body: &[u8]) -> Reply {
        let value: Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            Err(error) => return bad_request(&format!("the body is not JSON: {error}")),
        };
        if value.get("clear") == Some(&Value::Bool(true)) {
            self.faults.clear();
            return ok(json!({}));
        }
        match serde_json::from_value::<Fault>(value) {
            Ok(fault) if self.faults.add(fault.clone()) => ok(json!({})),
            Ok(_) => bad_request("too many faults are waiting; clear them with {\"clear\":true}"),
            Err(error) => bad_request(&format!("not a fault: {error}")),
        }
    }

    /// Handles a branch call: reports and counts it, whatever it comes to.
    async fn branch_call(
        &self,
        path: &str,
        pairs: &BTreeMap<String, String>,
        body: &[u8],
    ) -> Reply {
        let begun = Instant::now();
        let branch = match BranchContext::from_query(pairs) {
            Ok(branch) => branch,
            Err(error) => return bad_request(&error.to_string()),
        };
        self.counters.calls.fetch_add(1, Ordering::Relaxed);
        self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        let (answer, order) = calls::handle(self, path, &branch, pairs, body).await;
        let ms = (begun.elapsed().as_secs_f64() * 10_000.0).round() / 10.0;
        let report = CallReport {
            bank: self.name.clone(),
            gid: branch.gid,
            trans_type: branch.trans_type,
            branch_id: branch.branch_id,
            op: branch.op,
            path: path.to_owned(),
            account: order.as_ref().map(|order| order.account.clone()),
            amount: order.as_ref().map(|order| order.amount),
            outcome: answer.outcome.to_owned(),
            admission: answer.admission,
            note: answer.note,
            ms,
        };
        self.counters.count(&report);
        if let Some(reports) = &self.reports {
            // A reader that is too slow must not slow the bank down.
            let _ = reports.try_send(report);
        }
        self.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        answer.reply
    }
}

impl Handler for Service {
    async fn handle(&self, request: WholeRequest) -> Reply {
        let query = request.uri().query();
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => ok(json!({ "bank": self.name })),
            (&Method::GET, "/balance") => self.balance(query).await,
            (&Method::GET, "/xa-balance") => self.xa_balance(query).await,
            (&Method::GET, "/total") => self.total().await,
            (&Method::GET, "/stats") => ok(json!(self.counters.read())),
            (&Method::POST, "/open") => self.open_account(request.body()).await,
            (&Method::POST, "/control") => self.control(request.body()),
            (&Method::GET, path @ "/query-prepared") => {
                self.branch_call(path, &query_pairs(query), request.body()).await
            }
            (&Method::POST, path) if calls::is_branch_path(path) => {
                self.branch_call(path, &query_pairs(query), request.body()).await
            }
            (method, path) => {
                let text = format!("the bank has no {method} {path}");
                Reply::Json(StatusCode::NOT_FOUND, json!({ "error": text }))
            }
        }
    }
}

fn ok(value: Value) -> Reply {
    Reply::Json(StatusCode::OK, value)
}

fn bad_request(text: &str) -> Reply {
    Reply::Json(StatusCode::BAD_REQUEST, json!({ "error": text }))
}

fn server_error(text: &str) -> Reply {
    Reply::Json(StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": text }))
}

fn no_xa() -> Reply {
    bad_request("this bank has no XA database; start it with --xa-url")
}

fn not_found_or_error(error: &LedgerError) -> Reply {
    let status = match error {
        LedgerError::Refused(_) => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Reply::Json(status, json!({ "error": error.to_string() }))
}

#[cfg(test)]
mod tests;
