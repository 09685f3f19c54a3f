//! What the scenarios play on: a server, banks, their reports, and the checks.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::xa::{Beginning, XaDatabases};
use super::{DemoOptions, DemoProtocol};
use crate::bank::{Admission, CallReport, Fault};
use crate::client::{DtmClient, TransOptions};
use crate::printer::Printer;
use crate::process::{BankProcess, BankSetup, ServerOptions, ServerProcess};
use crate::xa as xa_database;

/// What every account begins with.
const FIRST_BALANCE: i64 = 1_000;
/// Longest time a global transaction may take to become final.
const FINAL_DEADLINE: Duration = Duration::from_secs(15);
/// Longest time the banks may take to finish calls whose callers are gone.
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);
/// The banks' pipes are read to their end when nothing comes for so long.
const QUIET: Duration = Duration::from_millis(30);
/// Most reports that wait to be printed.
const REPORTS_MAX: usize = 4096;

/// The three parts of every transfer: which of the two banks, the account, how it changes.
pub(super) const LEGS: [(usize, &str, i64); 3] =
    [(0, "alice", -30), (1, "bob", 20), (1, "carol", 10)];

/// What must have become of a global transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    /// True: it succeeded and the money moved. False: it failed and nothing moved.
    pub(super) moved: bool,
    /// Calls that must have been reported: branch id, op, what the barrier said.
    pub(super) calls: Vec<(String, &'static str, Admission)>,
}

impl Expected {
    pub(super) fn moved() -> Self {
        Self { moved: true, calls: Vec::new() }
    }

    pub(super) fn unmoved() -> Self {
        Self { moved: false, calls: Vec::new() }
    }

    pub(super) fn with(mut self, branch_id: &str, op: &'static str, admission: Admission) -> Self {
        self.calls.push((branch_id.to_owned(), op, admission));
        self
    }
}

/// Balances by (bank, account).
type Balances = BTreeMap<(String, String), i64>;

pub(super) struct Stage {
    directory: tempfile::TempDir,
    binary: PathBuf,
    run: String,
    protocol: DemoProtocol,
    server: ServerProcess,
    client: DtmClient,
    banks: Vec<BankProcess>,
    /// The banks of XA branches come after the first two.
    xa: Option<XaDatabases>,
    reports: mpsc::Receiver<CallReport>,
    sender: mpsc::Sender<CallReport>,
    printer: Printer,
    gids: Vec<String>,
    total: i64,
    scenario: Played,
}

/// What is known about the scenario that is being played.
struct Played {
    begun: Instant,
    endpoint: &'static str,
    first_bank: usize,
    before: Balances,
    calls: Vec<CallReport>,
}

impl Stage {
    /// Starts the server on an empty store and the two banks.
    pub(super) async fn open(options: &DemoOptions, mut printer: Printer) -> anyhow::Result<Self> {
        let binary = match &options.binary {
            Some(binary) => binary.clone(),
            None => std::env::current_exe().context("the running binary is not known")?,
        };
        let directory = tempfile::Builder::new()
            .prefix("dtmd-demo-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        let mut server = ServerOptions::new(&binary, directory.path().join("store"))
            .args(options.server_args.iter().cloned());
        if options.protocol == DemoProtocol::Grpc {
            // One port over all restarts: the application knows no other.
            server.grpc_port = Some(0);
        }
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let bank = |name: &'static str, accounts: &'static [&'static str]| {
            let data = directory.path().join(format!("bank-{name}.db"));
            let (binary, sender) = (&binary, sender.clone());
            async move {
                let setup = BankSetup::default().accounts(accounts, FIRST_BALANCE);
                BankProcess::start(binary, name, data, &setup, sender).await
            }
        };
        let (server, a, b) = tokio::try_join!(
            ServerProcess::start(server),
            bank("a", &["alice"]),
            bank("b", &["bob", "carol"])
        )?;
        let run = format!("demo-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        printer.line(&format!("run {run}"));
        printer.note(&format!("server  {}", server.url()));
        printer.note(&format!("bank a  {}   alice", a.url));
        printer.note(&format!("bank b  {}   bob, carol", b.url));
        let mut client = DtmClient::new(server.url());
        if options.protocol == DemoProtocol::Grpc {
            let address = server.grpc_address().await?.to_string();
            printer.note(&format!("gRPC    {address}, banks at {} and {}", a.grpc, b.grpc));
            client = client.over_grpc(&address);
        }
        let scenario = Played {
            begun: Instant::now(),
            endpoint: "/balance",
            first_bank: 0,
            before: Balances::new(),
            calls: Vec::new(),
        };
        let mut stage = Self {
            directory,
            binary,
            run,
            protocol: options.protocol,
            server,
            client,
            banks: vec![a, b],
            xa: None,
            reports,
            sender,
            printer,
            gids: Vec::new(),
            total: 0,
            scenario,
        };
        stage.total = stage.sum().await?;
        Ok(stage)
    }

    /// Waits for the XA databases and starts a bank on each side; tells why not if there are none.
    ///
    /// # Errors
    /// A database that was asked for cannot be used.
    pub(super) async fn open_xa(
        &mut self,
        beginning: Beginning,
    ) -> anyhow::Result<Result<(), String>> {
        let databases = match beginning.wait().await? {
            Ok(databases) => databases,
            Err(why) => return Ok(Err(why)),
        };
        let sides: [(&str, &str, &'static [&'static str]); 2] = [
            (&databases.names[0], &databases.urls[0], &["alice"]),
            (&databases.names[1], &databases.urls[1], &["bob", "carol"]),
        ];
        self.printer.line("");
        for (name, url, accounts) in sides {
            let setup = BankSetup::default().accounts(accounts, FIRST_BALANCE).xa_url(url);
            let data = self.directory.path().join(format!("bank-{name}.db"));
            let started =
                BankProcess::start(&self.binary, name, data, &setup, self.sender.clone()).await?;
            self.printer.note(&format!("bank {name:<10} {}   XA on {}", started.url, hide(url)));
            self.banks.push(started);
        }
        self.xa = Some(databases);
        self.total = self.sum().await?;
        Ok(Ok(()))
    }

    pub(super) fn has_xa(&self) -> bool {
        self.xa.is_some()
    }

    pub(super) fn printer(&mut self) -> &mut Printer {
        &mut self.printer
    }

    pub(super) fn server_log(&self) -> String {
        self.server.log_tail()
    }

    /// A client that does not borrow the stage.
    pub(super) fn client(&self) -> DtmClient {
        self.client.clone()
    }

    /// The bank of a leg in this scenario.
    pub(super) fn bank(&self, leg: usize) -> anyhow::Result<&BankProcess> {
        let (side, ..) = LEGS.get(leg).context("there are three legs")?;
        self.banks.get(self.scenario.first_bank + side).context("the bank is not started")
    }

    /// The URL of an endpoint at the bank of a leg, and the body of the leg.
    pub(super) fn leg(&self, leg: usize, path: &str) -> anyhow::Result<(String, Value)> {
        let (_, account, delta) = LEGS.get(leg).context("there are three legs")?;
        let payload = json!({ "account": account, "amount": delta.abs() });
        let bank = self.bank(leg)?;
        let url = match self.protocol {
            DemoProtocol::Http => bank.at(path),
            DemoProtocol::Grpc => bank.grpc_at(path),
        };
        Ok((url, payload))
    }

    /// Options that make the demo quick.
    pub(super) fn options(&self) -> TransOptions {
        TransOptions {
            retry_interval_ms: Some(200),
            request_timeout_ms: Some(1_000),
            ..TransOptions::default()
        }
    }

    /// Begins a scenario and returns the gid of its global transaction.
    pub(super) async fn begin(
        &mut self,
        mode: &str,
        short: &str,
        title: &str,
    ) -> anyhow::Result<String> {
        let gid = format!("{}-{short}", self.run);
        self.printer.header(mode, title);
        self.printer.note(&format!("gid {gid}"));
        self.gids.push(gid.clone());
        let is_xa = mode == "xa";
        self.scenario.endpoint = if is_xa { "/xa-balance" } else { "/balance" };
        self.scenario.first_bank = if is_xa { 2 } else { 0 };
        self.scenario.calls.clear();
        self.scenario.before = self.balances().await?;
        self.scenario.begun = Instant::now();
        Ok(gid)
    }

    /// Prints a remark after all that was reported before it.
    pub(super) async fn note(&mut self, text: &str) {
        self.drain().await;
        self.printer.note(text);
    }

    /// Prints the reports that are still on their way.
    async fn drain(&mut self) {
        while let Ok(Some(report)) = tokio::time::timeout(QUIET, self.reports.recv()).await {
            self.show(report);
        }
    }

    /// Injects a fault at the bank of a leg.
    pub(super) async fn inject(&mut self, leg: usize, fault: Fault) -> anyhow::Result<()> {
        self.bank(leg)?.inject(&fault).await
    }

    /// Does some work and prints the banks' reports meanwhile.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => self.show(report),
                done = &mut work => return done,
            }
        }
    }

    fn show(&mut self, report: CallReport) {
        self.printer.call(&report);
        self.scenario.calls.push(report);
    }

    /// Waits until the bank of a leg works on a call.
    pub(super) async fn wait_call(&mut self, leg: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.bank(leg)?.stats().await?.in_flight == 0 {
            ensure!(begun.elapsed() < SETTLE_DEADLINE, "the call did not reach the bank");
            self.during(tokio::time::sleep(Duration::from_millis(5))).await;
        }
        Ok(())
    }

    /// Kills the server as `kill -9` does.
    pub(super) async fn kill_server(&mut self) -> anyhow::Result<()> {
        self.drain().await;
        self.server.kill_9().await?;
        self.note("kill -9: the server is gone").await;
        Ok(())
    }

    /// Starts the server again on the same store and port.
    pub(super) async fn restart_server(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.server.restart().await?;
        self.printer.note(&format!("the server is back after {} ms", begun.elapsed().as_millis()));
        Ok(())
    }

    /// The prepared XA transactions of this run, over all databases.
    pub(super) async fn prepared(&self) -> anyhow::Result<Vec<String>> {
        let mut xids = Vec::new();
        if let Some(databases) = &self.xa {
            for url in databases.distinct_urls() {
                xids.extend(xa_database::prepared(url).await?);
            }
        }
        xids.retain(|xid| xid.starts_with(&self.run));
        Ok(xids)
    }

    /// Waits until the global transaction is final and checks what became of it.
    pub(super) async fn finish(
        &mut self,
        gid: &str,
        expected: &Expected,
    ) -> anyhow::Result<String> {
        let client = self.client();
        let ended = self.during(client.wait_final(gid, FINAL_DEADLINE)).await?;
        let took = self.scenario.begun.elapsed();
        self.settle().await?;
        let after = self.balances().await?;
        let text: Vec<String> = after
            .iter()
            .map(|((bank, account), balance)| format!("{bank}: {account} {balance}"))
            .chain([format!("{} ms", took.as_millis())])
            .collect();
        self.printer.end(&ended.status, &text.join(" · "));
        let status = if expected.moved { "succeed" } else { "failed" };
        ensure!(ended.status == status, "it must be {status}, but it is {ended:?}");
        self.check_balances(&after, expected.moved)?;
        for (branch_id, op, admission) in &expected.calls {
            let seen = self.scenario.calls.iter().any(|call| {
                call.branch_id == *branch_id && call.op == *op && call.admission == Some(*admission)
            });
            let word = admission.as_str();
            ensure!(seen, "no bank reported {op} of branch {branch_id} as {word}");
        }
        self.check_sums().await?;
        Ok(ended.status)
    }

    /// Waits until no bank works on a call any more and all reports are printed, and takes back
    /// the faults that were not used up.
    async fn settle(&mut self) -> anyhow::Result<()> {
        for bank in &self.banks {
            bank.clear_faults().await?;
        }
        let begun = Instant::now();
        for at in 0..self.banks.len() {
            while self.banks[at].stats().await?.in_flight > 0 {
                ensure!(begun.elapsed() < SETTLE_DEADLINE, "a bank does not finish its calls");
                self.during(tokio::time::sleep(Duration::from_millis(10))).await;
            }
        }
        self.drain().await;
        Ok(())
    }

    fn check_balances(&self, after: &Balances, moved: bool) -> anyhow::Result<()> {
        let mut wanted = self.scenario.before.clone();
        for (leg, (_, account, delta)) in LEGS.iter().enumerate() {
            let bank = self.bank(leg)?.name.clone();
            if moved && let Some(balance) = wanted.get_mut(&(bank, (*account).to_owned())) {
                *balance += delta;
            }
        }
        ensure!(*after == wanted, "the balances must be {wanted:?}, but they are {after:?}");
        Ok(())
    }

    async fn balances(&self) -> anyhow::Result<Balances> {
        let mut balances = Balances::new();
        for (leg, (_, account, _)) in LEGS.iter().enumerate() {
            let bank = self.bank(leg)?;
            let balance = bank.balance(self.scenario.endpoint, account).await?;
            balances.insert((bank.name.clone(), (*account).to_owned()), balance);
        }
        Ok(balances)
    }

    /// The sum of all balances over all banks.
    async fn sum(&self) -> anyhow::Result<i64> {
        let mut sum = 0;
        for bank in &self.banks {
            let totals = bank.totals().await?;
            let read = |name: &str| totals[name].as_i64().unwrap_or(0);
            let (frozen, incoming) = (read("frozen"), read("incoming"));
            ensure!(
                frozen == 0 && incoming == 0,
                "bank {} still has {frozen} frozen and {incoming} announced",
                bank.name
            );
            sum += read("total") + read("xa_total");
        }
        Ok(sum)
    }

    async fn check_sums(&self) -> anyhow::Result<()> {
        let sum = self.sum().await?;
        ensure!(sum == self.total, "the sum of all balances was {}, now it is {sum}", self.total);
        let left = self.prepared().await?;
        ensure!(left.is_empty(), "prepared XA transactions were left behind: {left:?}");
        Ok(())
    }

    /// Checks all that must hold at the end; returns the sum of all balances.
    pub(super) async fn check_end(&mut self) -> anyhow::Result<i64> {
        self.settle().await?;
        self.check_sums().await?;
        for gid in &self.gids {
            match self.client.query(gid).await? {
                Some(transaction) if transaction.is_final() => {}
                Some(transaction) => bail!("{gid} is not final at the end: {transaction:?}"),
                None => bail!("the server lost {gid}"),
            }
        }
        if let Some(databases) = &mut self.xa {
            databases.clean_up().await?;
        }
        Ok(self.total)
    }

    /// Ends all processes; keeps the directory if asked to, and says where it is.
    pub(super) fn close(self, keep: bool) -> Printer {
        let Self { directory, server, banks, mut printer, .. } = self;
        drop((server, banks));
        if keep {
            let path = directory.keep();
            printer.line("");
            printer.note(&format!("store, banks' files and logs: {}", path.display()));
        }
        printer
    }
}

/// A database URL without what stands before the host: it may hold a password.
fn hide(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_moves_nothing_in_or_out() {
        assert_eq!(LEGS.iter().map(|(.., delta)| delta).sum::<i64>(), 0);
    }

    #[test]
    fn passwords_are_not_printed() {
        assert_eq!(hide("mysql://root:p@ss@h:1/d"), "mysql://h:1/d");
        assert_eq!(hide("postgres://h/d"), "postgres://h/d");
    }
}
