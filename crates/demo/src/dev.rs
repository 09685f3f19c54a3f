//! The banks of `dtmd dev`: participants inside the server's own process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::bank::{Bank, BankConfig};

/// The ports the banks take if they are free.
const PORTS: [u16; 2] = [8081, 8082];
/// What every account of the development banks begins with.
const FIRST_BALANCE: i64 = 10_000;

/// Two banks in this process, `a` and `b`, each with accounts alice and bob.
#[derive(Debug)]
pub struct DevBanks {
    /// The first bank, on port 8081 if that is free.
    pub a: Bank,
    /// The second bank, on port 8082 if that is free.
    pub b: Bank,
    _temporary: Option<tempfile::TempDir>,
}

impl DevBanks {
    /// Starts both banks; their SQLite files are in `data`, or in a temporary directory that is
    /// removed with them.
    ///
    /// # Errors
    /// No directory can be made, or a bank cannot start.
    pub async fn start_in_process(data: Option<&Path>) -> anyhow::Result<Self> {
        let (directory, temporary) = match data {
            Some(directory) => {
                std::fs::create_dir_all(directory)
                    .with_context(|| format!("cannot make {}", directory.display()))?;
                (directory.to_owned(), None)
            }
            None => {
                let temporary = tempfile::tempdir().context("cannot make a temporary directory")?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let a = start_bank("a", PORTS[0], directory.join("bank-a.db")).await?;
        let b = start_bank("b", PORTS[1], directory.join("bank-b.db")).await?;
        Ok(Self { a, b, _temporary: temporary })
    }
}

/// Starts a bank on the wanted port, or on any free one if that is taken.
async fn start_bank(name: &str, port: u16, data: PathBuf) -> anyhow::Result<Bank> {
    let config = || {
        BankConfig::new(name, data.clone())
            .account("alice", FIRST_BALANCE)
            .account("bob", FIRST_BALANCE)
    };
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match Bank::start(BankConfig { listen, ..config() }).await {
        Ok(bank) => Ok(bank),
        Err(_) => Bank::start(config()).await,
    }
}

#[cfg(test)]
mod tests {
    use super::DevBanks;
    use crate::client::HttpClient;

    #[tokio::test]
    async fn two_pairs_of_banks_find_ports_of_their_own() {
        let one = DevBanks::start_in_process(None).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let two = DevBanks::start_in_process(Some(directory.path())).await.unwrap();
        let http = HttpClient::default();
        for bank in [&one.a, &one.b, &two.a, &two.b] {
            let answer = http.get(&format!("{}/total", bank.url)).await.unwrap();
            assert_eq!(answer.json()["total"], 20_000);
        }
        assert!(directory.path().join("bank-a.db").exists());
    }
}
