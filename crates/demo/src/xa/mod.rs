//! XA branches on MariaDB/MySQL and PostgreSQL (spec 04 §4).
//!
//! The local phase runs on a connection of its own: start, barrier row, business change,
//! registration with the server while the transaction is open, then prepare. The second phase
//! commits or rolls back by xid from any connection. All statements wait for locks only shortly:
//! the server repeats the call, a stuck connection would help nobody.

mod mysql;
mod postgres;

use serde_json::json;

use crate::bank::Admission;
use crate::client::{HttpClient, Outcome};

/// The table of accounts, in the database the URL names.
pub const XA_ACCOUNT_TABLE: &str = "dtmd_demo_account";
/// The barrier table (columns of spec 04 §6.1), in the database the URL names.
pub const XA_BARRIER_TABLE: &str = "dtmd_demo_barrier";

/// Longest xid that MySQL takes as its global part, in bytes.
const XID_SIZE_MAX_BYTES: usize = 64;

/// Why an XA call did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XaError {
    /// The business or the server says no: the local transaction was rolled back, the branch must
    /// answer FAILURE.
    #[error("{0}")]
    Refused(String),
    /// The outcome is unknown or the time has not come: the call must be repeated.
    #[error("the XA call is to be repeated: {0}")]
    Unknown(String),
}

impl XaError {
    fn unknown(error: impl std::fmt::Display) -> Self {
        Self::Unknown(error.to_string())
    }
}

/// One XA branch call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XaCall {
    /// The global transaction's id.
    pub gid: String,
    /// The branch id.
    pub branch_id: String,
    /// The server's API prefix; needed for op action only.
    pub dtm: String,
    /// Where the server calls for the second phase; needed for op action only.
    pub phase2_url: String,
}

impl XaCall {
    /// The xid `<gid>-<branch_id>`, checked so that it can stand in a statement.
    ///
    /// # Errors
    /// [`XaError::Refused`] if it is empty, too long, or has other characters than
    /// `A–Z a–z 0–9 _ . : -`: repeating the call would not help.
    pub fn xid(&self) -> Result<String, XaError> {
        let fits = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
        };
        let xid = format!("{}-{}", self.gid, self.branch_id);
        if fits(&self.gid) && fits(&self.branch_id) && xid.len() <= XID_SIZE_MAX_BYTES {
            return Ok(xid);
        }
        Err(XaError::Refused(format!(
            "gid and branch id must make an xid of at most {XID_SIZE_MAX_BYTES} bytes of \
             A-Z a-z 0-9 _ . : -. FAILURE"
        )))
    }

    /// Registers the branch with the server, from inside the open transaction.
    ///
    /// A refusal means that the server has begun to roll back: so must the local transaction.
    async fn register(&self, http: &HttpClient) -> Result<(), XaError> {
        let body = json!({
            "gid": self.gid,
            "trans_type": "xa",
            "branch_id": self.branch_id,
            "url": self.phase2_url,
        });
        let answer = http
            .post(&format!("{}/registerBranch", self.dtm), &body)
            .await
            .map_err(XaError::unknown)?;
        match answer.outcome() {
            Outcome::Success => Ok(()),
            Outcome::Failure(text) => Err(XaError::Refused(text)),
            Outcome::Ongoing(text) | Outcome::Unknown(text) => Err(XaError::Unknown(text)),
        }
    }
}

/// A database that takes part in XA, by URL.
#[derive(Debug, Clone)]
enum XaDatabase {
    Mysql(mysql_async::Opts),
    Postgres(Box<tokio_postgres::Config>),
}

impl XaDatabase {
    fn parse(url: &str) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        if let Some(rest) = url.strip_prefix("mariadb://") {
            return Self::parse(&format!("mysql://{rest}"));
        }
        if url.starts_with("mysql://") {
            let opts = mysql_async::Opts::from_url(url).context("not a MySQL URL")?;
            return Ok(Self::Mysql(opts));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let config = url.parse().context("not a PostgreSQL URL")?;
            return Ok(Self::Postgres(Box::new(config)));
        }
        anyhow::bail!("the XA database must be mysql://, mariadb:// or postgres://")
    }
}

/// Accounts of one bank in a database that takes part in XA.
#[derive(Debug)]
pub struct XaLedger {
    database: XaDatabase,
    bank: String,
    http: HttpClient,
}

impl XaLedger {
    /// Connects and makes the tables if needed.
    ///
    /// # Errors
    /// The URL is not understood or the database cannot be used.
    pub async fn open(url: &str, bank: &str) -> anyhow::Result<Self> {
        let database = XaDatabase::parse(url)?;
        match &database {
            XaDatabase::Mysql(opts) => mysql::set_up(opts).await?,
            XaDatabase::Postgres(config) => postgres::set_up(config).await?,
        }
        Ok(Self { database, bank: bank.to_owned(), http: HttpClient::default() })
    }

    /// Opens an account with a first balance; an account that exists keeps what it has.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn open_account(&self, account: &str, balance: i64) -> anyhow::Result<()> {
        let bank = &self.bank;
        match &self.database {
            XaDatabase::Mysql(opts) => mysql::open_account(opts, bank, account, balance).await,
            XaDatabase::Postgres(config) => {
                postgres::open_account(config, bank, account, balance).await
            }
        }
    }

    /// The local phase: changes the account by `delta` and leaves the transaction prepared.
    ///
    /// A duplicate, or an action that comes after its rollback, changes and prepares nothing.
    ///
    /// # Errors
    /// [`XaError::Refused`] if the business or the server says no, [`XaError::Unknown`] if the
    /// database or the server cannot be asked; the local transaction is rolled back in both cases
    /// unless the failure was in prepare itself.
    pub async fn action(
        &self,
        call: &XaCall,
        account: &str,
        delta: i64,
    ) -> Result<Admission, XaError> {
        let xid = call.xid()?;
        let change = LocalChange { call, http: &self.http, bank: &self.bank, account, delta };
        match &self.database {
            XaDatabase::Mysql(opts) => mysql::action(opts, &xid, &change).await,
            XaDatabase::Postgres(config) => postgres::action(config, &xid, &change).await,
        }
    }

    /// The second phase: commits; a transaction that is not known any more was committed before.
    ///
    /// # Errors
    /// [`XaError::Unknown`]: repeat the call.
    pub async fn commit(&self, call: &XaCall) -> Result<(), XaError> {
        let xid = call.xid()?;
        match &self.database {
            XaDatabase::Mysql(opts) => mysql::finish(opts, &xid, "commit").await,
            XaDatabase::Postgres(config) => postgres::finish(config, &xid, "commit").await,
        }
    }

    /// The second phase: rolls back, then writes the barrier row. If the transaction is still open
    /// in another session the row waits for its lock and the call fails, so the server repeats it.
    ///
    /// # Errors
    /// [`XaError::Unknown`]: repeat the call.
    pub async fn rollback(&self, call: &XaCall) -> Result<(), XaError> {
        let xid = call.xid()?;
        match &self.database {
            XaDatabase::Mysql(opts) => {
                mysql::finish(opts, &xid, "rollback").await?;
                mysql::block_action(opts, call).await
            }
            XaDatabase::Postgres(config) => {
                postgres::finish(config, &xid, "rollback").await?;
                postgres::block_action(config, call).await
            }
        }
    }

    /// Reads one account of the bank.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn balance(&self, account: &str) -> anyhow::Result<Option<i64>> {
        match &self.database {
            XaDatabase::Mysql(opts) => mysql::balance(opts, &self.bank, account).await,
            XaDatabase::Postgres(config) => postgres::balance(config, &self.bank, account).await,
        }
    }

    /// Sums the bank's accounts; what is prepared and not committed does not count yet.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn total(&self) -> anyhow::Result<i64> {
        match &self.database {
            XaDatabase::Mysql(opts) => mysql::total(opts, &self.bank).await,
            XaDatabase::Postgres(config) => postgres::total(config, &self.bank).await,
        }
    }
}

/// What an action comes to whose barrier row was there already, by the row's reason.
fn admission_of(reason: Option<&str>) -> Admission {
    if reason == Some("rollback") { Admission::Hanging } else { Admission::Duplicate }
}

/// What the local phase does.
struct LocalChange<'a> {
    call: &'a XaCall,
    http: &'a HttpClient,
    bank: &'a str,
    account: &'a str,
    delta: i64,
}

impl LocalChange<'_> {
    /// The refusal of a change that met no row.
    fn refused(&self) -> XaError {
        let (account, delta) = (self.account, self.delta);
        XaError::Refused(format!("no account {account} that can change by {delta}. FAILURE"))
    }
}

/// The xids that are prepared in the database and neither committed nor rolled back.
///
/// # Errors
/// The URL is not understood or the database cannot be asked.
pub async fn prepared(url: &str) -> anyhow::Result<Vec<String>> {
    match XaDatabase::parse(url)? {
        XaDatabase::Mysql(opts) => mysql::prepared(&opts).await,
        XaDatabase::Postgres(config) => postgres::prepared(&config).await,
    }
}

/// Removes the demo's tables from a database that is not the demo's own.
///
/// # Errors
/// The URL is not understood, the database cannot be asked, or a prepared transaction holds locks.
pub async fn drop_tables(url: &str) -> anyhow::Result<()> {
    match XaDatabase::parse(url)? {
        XaDatabase::Mysql(opts) => mysql::drop_tables(&opts).await,
        XaDatabase::Postgres(config) => postgres::drop_tables(&config).await,
    }
}

#[cfg(test)]
mod tests;
