//! A bank as a process of its own: `dtmd bank --data FILE --listen ADDR --name a`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Bank, BankConfig, CallReport};

/// The member of a bank process's first line that carries its URL.
pub const BANK_READY: &str = "url";
/// The member of that line that carries the address of its gRPC interface.
pub const BANK_GRPC: &str = "grpc";
/// The environment variable with the database of XA branches: a URL may hold a password, which
/// does not belong into the list of processes.
pub const BANK_XA_URL: &str = "DTMD_BANK_XA_URL";
/// Most reports that wait to be printed.
const REPORTS_MAX: usize = 4096;

/// The arguments of a bank process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BankArgs {
    /// `--data FILE`: the SQLite file.
    pub data: PathBuf,
    /// `--listen ADDR`: where to listen; the default is a free loopback port.
    pub listen: SocketAddr,
    /// `--name NAME`: the name in reports; the default is `bank`.
    pub name: String,
    /// `--account NAME=BALANCE`, repeatable: accounts to open.
    pub accounts: Vec<(String, i64)>,
    /// `--xa-url URL`: the database of XA branches; [`BANK_XA_URL`] if not given.
    pub xa_url: Option<String>,
}

impl BankArgs {
    /// Reads the arguments that follow the subcommand's name.
    ///
    /// # Errors
    /// Names the argument that is unknown, incomplete or not readable.
    pub fn parse(args: impl IntoIterator<Item = String>) -> anyhow::Result<Self> {
        let mut data = None;
        let mut parsed = Self {
            data: PathBuf::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            name: "bank".to_owned(),
            accounts: Vec::new(),
            xa_url: None,
        };
        let mut args = args.into_iter();
        while let Some(name) = args.next() {
            let value = args.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--data" => data = Some(PathBuf::from(value)),
                "--listen" => {
                    parsed.listen = value
                        .parse()
                        .with_context(|| format!("--listen {value} is not an address and port"))?;
                }
                "--name" => parsed.name = value,
                "--xa-url" => parsed.xa_url = Some(value),
                "--account" => {
                    let account = value
                        .split_once('=')
                        .and_then(|(name, balance)| Some((name.to_owned(), balance.parse().ok()?)))
                        .with_context(|| format!("--account {value} is not NAME=BALANCE"))?;
                    parsed.accounts.push(account);
                }
                other => bail!("unknown argument of the bank: {other}"),
            }
        }
        parsed.data = data.context("--data FILE is needed")?;
        Ok(parsed)
    }
}

/// Runs a bank until the process is ended: prints one JSON line with its URL when it accepts
/// calls, then one [`CallReport`] a line for each handled call.
///
/// # Errors
/// The arguments, the file, the database or the address cannot be used, or nobody reads the lines
/// any more.
pub async fn run_process(args: Vec<String>) -> anyhow::Result<()> {
    let args = BankArgs::parse(args)?;
    let (reports, mut received) = mpsc::channel::<CallReport>(REPORTS_MAX);
    let bank = Bank::start(BankConfig {
        listen: args.listen,
        data: args.data,
        name: args.name.clone(),
        accounts: args.accounts,
        faults: Vec::new(),
        xa_url: args.xa_url.or_else(|| std::env::var(BANK_XA_URL).ok()),
        reports: Some(reports),
    })
    .await?;
    print_line(
        &json!({ "bank": args.name, BANK_READY: bank.url, BANK_GRPC: bank.grpc }).to_string(),
    )?;
    while let Some(report) = received.recv().await {
        print_line(&serde_json::to_string(&report)?)?;
    }
    Ok(())
}

/// Prints one line at once; a reader waits for it.
fn print_line(line: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("nobody reads the reports")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> anyhow::Result<BankArgs> {
        BankArgs::parse(args.iter().map(ToString::to_string))
    }

    #[test]
    fn arguments_are_read() {
        let args = parse(&["--data", "f.db", "--name", "a", "--account", "alice=100"]).unwrap();
        assert_eq!(args.data, PathBuf::from("f.db"));
        assert_eq!(args.accounts, [("alice".to_owned(), 100)]);
        assert_eq!(args.listen.port(), 0);
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (args, named) in [
            (vec!["--name", "a"], "--data"),
            (vec!["--data"], "--data"),
            (vec!["--dta", "x"], "--dta"),
            (vec!["--data", "f", "--account", "alice"], "alice"),
            (vec!["--data", "f", "--listen", "nowhere"], "nowhere"),
        ] {
            let error = format!("{:#}", parse(&args).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
