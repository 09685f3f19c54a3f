//! A bank process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use dtmd_local_servers::{DeathSignal, spawn_command};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};

use super::output::{Log, Said, drain, wait_drained};
use crate::bank::{BANK_GRPC, BANK_READY, BANK_XA_URL, CallReport, Fault, Stats, grpc_method};
use crate::client::HttpClient;

/// How long a bank may take to print its first line.
const READY_TIMEOUT: Duration = Duration::from_secs(15);

/// What a bank process begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BankSetup {
    /// Accounts to open with their first balances.
    pub accounts: Vec<(String, i64)>,
    /// The database of XA branches.
    pub xa_url: Option<String>,
}

impl BankSetup {
    /// Adds accounts with the same first balance.
    #[must_use]
    pub fn accounts(mut self, names: &[&str], balance: i64) -> Self {
        self.accounts.extend(names.iter().map(|name| ((*name).to_owned(), balance)));
        self
    }

    /// Adds a database for XA branches.
    #[must_use]
    pub fn xa_url(mut self, url: &str) -> Self {
        self.xa_url = Some(url.to_owned());
        self
    }
}

/// A bank as a process of its own; its reports go to a channel.
#[derive(Debug)]
pub struct BankProcess {
    /// Its name in reports.
    pub name: String,
    /// Its base URL, without a slash at the end.
    pub url: String,
    /// Where it serves gRPC, `ADDRESS:PORT`.
    pub grpc: String,
    http: HttpClient,
    _child: Child,
}

impl BankProcess {
    /// Starts `BINARY bank --name NAME --data FILE --listen 127.0.0.1:0`, waits for its first line
    /// and opens the accounts. Its errors go to a log file beside its data.
    ///
    /// # Errors
    /// It cannot be started, ends, does not tell its URL in time, or cannot open an account.
    pub async fn start(
        binary: &Path,
        name: &str,
        data: PathBuf,
        setup: &BankSetup,
        reports: mpsc::Sender<CallReport>,
    ) -> anyhow::Result<Self> {
        let log = Log::open(&data.with_extension("log")).context("cannot open the bank's log")?;
        let mut command = spawn_command(binary, None, DeathSignal::Kill);
        command.arg("bank").args(["--listen", "127.0.0.1:0", "--name", name]);
        command.arg("--data").arg(&data);
        if let Some(url) = &setup.xa_url {
            command.env(BANK_XA_URL, url);
        }
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        let stderr = child.stderr.take().context("the bank's errors are not readable")?;
        let errors = drain(stderr, log.clone(), watch::channel(Said::default()).0);
        let stdout = child.stdout.take().context("the bank's output is not readable")?;
        let mut lines = BufReader::new(stdout).lines();
        let (url, grpc) = match tokio::time::timeout(READY_TIMEOUT, lines.next_line()).await {
            Ok(Ok(Some(line))) => places_of(&line)?,
            Ok(_) => {
                let _ = child.wait().await;
                wait_drained(vec![errors]).await;
                bail!("the bank {name} ended before it was ready\n{}", log.tail())
            }
            Err(_) => bail!("the bank {name} was not ready in time\n{}", log.tail()),
        };
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str::<CallReport>(&line) {
                    // The reader may have gone; the stream must be drained all the same.
                    Ok(report) => drop(reports.send(report).await),
                    Err(_) => log.write(&line),
                }
            }
        });
        let http = HttpClient::new(Duration::from_secs(5));
        let bank = Self { name: name.to_owned(), url, grpc, http, _child: child };
        for (account, balance) in &setup.accounts {
            bank.open_account(account, *balance).await?;
        }
        Ok(bank)
    }

    /// Opens an account with a first balance, on the XA database too if the bank has one; an
    /// account that exists keeps what it has.
    ///
    /// # Errors
    /// The bank does not answer or its database fails.
    pub async fn open_account(&self, account: &str, balance: i64) -> anyhow::Result<()> {
        let body = json!({ "account": account, "balance": balance });
        let answer = self.http.post(&self.at("/open"), &body).await?;
        anyhow::ensure!(answer.status == 200, "bank {} refused: {}", self.name, answer.body);
        Ok(())
    }

    /// The URL of one of its endpoints.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The gRPC URL of one of its endpoints.
    #[must_use]
    pub fn grpc_at(&self, path: &str) -> String {
        format!("{}{}", self.grpc, grpc_method(path))
    }

    /// Injects a fault.
    ///
    /// # Errors
    /// The bank does not answer or has too many faults already.
    pub async fn inject(&self, fault: &Fault) -> anyhow::Result<()> {
        let answer = self.http.post(&self.at("/control"), &json!(fault)).await?;
        anyhow::ensure!(answer.status == 200, "the bank {} refused: {}", self.name, answer.body);
        Ok(())
    }

    /// Takes back all faults that were not used up.
    ///
    /// # Errors
    /// The bank does not answer.
    pub async fn clear_faults(&self) -> anyhow::Result<()> {
        self.http.post(&self.at("/control"), &json!({ "clear": true })).await?;
        Ok(())
    }

    /// Its counters.
    ///
    /// # Errors
    /// The bank does not answer.
    pub async fn stats(&self) -> anyhow::Result<Stats> {
        let answer = self.http.get(&self.at("/stats")).await?;
        serde_json::from_str(&answer.body).context("the bank's counters are not readable")
    }

    /// Its totals: the member `total`, and `xa_total` if it has an XA database.
    ///
    /// # Errors
    /// The bank does not answer or its database fails.
    pub async fn totals(&self) -> anyhow::Result<Value> {
        let answer = self.http.get(&self.at("/total")).await?;
        anyhow::ensure!(
            answer.status == 200,
            "the bank {} has no totals: {}",
            self.name,
            answer.body
        );
        Ok(answer.json())
    }

    /// One account's balance, from SQLite (`/balance`) or the XA database (`/xa-balance`).
    ///
    /// # Errors
    /// The bank does not answer or has no such account.
    pub async fn balance(&self, endpoint: &str, account: &str) -> anyhow::Result<i64> {
        let url = self.at(&format!("{endpoint}?account={account}"));
        let answer = self.http.get(&url).await?;
        answer.json()["balance"]
            .as_i64()
            .with_context(|| format!("no balance of {account} at {}: {}", self.name, answer.body))
    }
}

/// Returns the URL and the gRPC address in a bank's first line.
fn places_of(line: &str) -> anyhow::Result<(String, String)> {
    let ready: Value = serde_json::from_str(line)
        .with_context(|| format!("the bank's first line is not JSON: {line}"))?;
    let read = |name: &str| ready[name].as_str().map(str::to_owned);
    let url = read(BANK_READY).context("the bank's first line has no URL")?;
    let grpc = read(BANK_GRPC).context("the bank's first line has no gRPC address")?;
    Ok((url, grpc))
}
