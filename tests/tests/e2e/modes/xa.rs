//! XA on a real MariaDB and a real PostgreSQL: commit, rollback, and servers killed in between.

use std::time::Duration;

use dtmd_demo::bank::{Bank, BankConfig, Fault, FaultKind};
use dtmd_demo::client::{DtmClient, TransOptions, XaBranch};
use dtmd_demo::xa::prepared;
use dtmd_local_servers::{DatabaseOptions, Mariadb, Postgres};
use dtmd_tests::{PATIENCE, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::turn;

const BALANCE: i64 = 1000;

/// Two banks with a database each, of different makes.
struct Stage {
    server: Server,
    banks: [Bank; 2],
    urls: [String; 2],
    _folder: TempDir,
    _databases: (Mariadb, Postgres),
}

impl Stage {
    async fn start() -> Self {
        let options = DatabaseOptions { fsync: false };
        let (mariadb, postgres) = tokio::join!(Mariadb::start(options), Postgres::start(options));
        let (mariadb, postgres) = (mariadb.unwrap(), postgres.unwrap());
        let urls = [mariadb.url(), postgres.url()];
        let folder = TempDir::new().unwrap();
        let bank = async |name: &str, url: &str| {
            let mut config =
                BankConfig::new(name, folder.path().join(name)).account("ada", BALANCE);
            config.xa_url = Some(url.to_owned());
            Bank::start(config).await.unwrap()
        };
        let banks = [bank("mariadb", &urls[0]).await, bank("postgres", &urls[1]).await];
        let server = Server::start().await;
        Self { server, banks, urls, _folder: folder, _databases: (mariadb, postgres) }
    }

    fn branches(&self, amount: i64) -> [XaBranch; 2] {
        let branch = |bank: &Bank, path: &str| XaBranch {
            url: format!("{}{path}", bank.url),
            payload: json!({ "account": "ada", "amount": amount }),
        };
        [branch(&self.banks[0], "/xa-out"), branch(&self.banks[1], "/xa-in")]
    }

    /// The balances in both databases.
    async fn balances(&self) -> [i64; 2] {
        let mut balances = [0; 2];
        for (at, bank) in self.banks.iter().enumerate() {
            let url = format!("{}/xa-balance?account=ada", bank.url);
            let answer = self.server.client.http().get(&url).await.unwrap();
            balances[at] = answer.json()["balance"].as_i64().unwrap();
        }
        balances
    }

    /// What is prepared and neither committed nor rolled back, in both databases.
    async fn dangling(&self) -> Vec<String> {
        let mut all = Vec::new();
        for url in &self.urls {
            all.extend(prepared(url).await.unwrap());
        }
        all
    }

    /// Runs the local phase of both branches, so that both databases hold a prepared transaction.
    async fn prepare_both(&self, gid: &str, options: &TransOptions) {
        let client = self.client();
        client.prepare("xa", gid, options).await.unwrap();
        for (branch_id, branch) in ["01", "02"].into_iter().zip(&self.branches(30)) {
            client.call_xa_action(gid, branch_id, branch).await.unwrap();
        }
        assert_eq!(self.dangling().await.len(), 2, "both are prepared now");
    }

    async fn kill(&mut self) {
        self.server.process.kill_9().await.unwrap();
        self.server.process.restart().await.unwrap();
    }

    async fn wait(&self, gid: &str, status: &str) {
        let ended = self.client().wait_final(gid, PATIENCE).await.unwrap();
        assert_eq!(ended.status, status, "{gid}: {}", ended.rollback_reason);
        assert_eq!(
            self.dangling().await,
            Vec::<String>::new(),
            "{gid} left a prepared transaction"
        );
    }

    fn client(&self) -> DtmClient {
        self.server.client.clone()
    }
}

fn options() -> TransOptions {
    TransOptions { retry_interval_ms: Some(100), ..TransOptions::default() }
}

#[tokio::test]
async fn xa_on_mariadb_and_postgresql() {
    let _turn = turn::shared().await;
    if let Err(why) = Mariadb::available().and_then(|()| Postgres::available()) {
        panic!("the databases for XA are missing: {why}; `cargo xtask test` installs them");
    }
    let mut stage = Stage::start().await;
    commit(&stage).await;
    refusal(&stage).await;
    killed_before_the_submit(&mut stage).await;
    killed_between_prepare_and_commit(&mut stage).await;
    killed_without_a_decision(&mut stage).await;
}

async fn commit(stage: &Stage) {
    stage.client().xa("xa-commit", &options(), &stage.branches(30)).await.unwrap();
    stage.wait("xa-commit", "succeed").await;
    assert_eq!(stage.balances().await, [970, 1030]);
}

/// The second branch refuses: what the first one prepared is rolled back.
async fn refusal(stage: &Stage) {
    let fault = Fault::new(FaultKind::Fail).gid("xa-refused").op("action");
    assert!(stage.banks[1].inject(fault));
    let refused = stage.client().xa("xa-refused", &options(), &stage.branches(30)).await;
    assert!(refused.is_err());
    stage.wait("xa-refused", "failed").await;
    assert_eq!(stage.balances().await, [970, 1030]);
}

async fn killed_before_the_submit(stage: &mut Stage) {
    stage.prepare_both("xa-kill-1", &options()).await;
    stage.kill().await;
    stage.client().submit("xa", "xa-kill-1").await.unwrap();
    stage.wait("xa-kill-1", "succeed").await;
    assert_eq!(stage.balances().await, [940, 1060]);
}

/// The submit is acknowledged, the first commit gets no answer, and the server dies.
async fn killed_between_prepare_and_commit(stage: &mut Stage) {
    let lose = |gid: &str| Fault::new(FaultKind::Lose).gid(gid).op("commit");
    assert!(stage.banks[0].inject(lose("xa-kill-2")));
    stage.prepare_both("xa-kill-2", &options()).await;
    stage.client().submit("xa", "xa-kill-2").await.unwrap();
    stage.kill().await;
    stage.wait("xa-kill-2", "succeed").await;
    assert_eq!(stage.balances().await, [910, 1090]);
    let query: Value = stage.server.query("xa-kill-2").await;
    let ops: Vec<_> = query["branches"].as_array().unwrap().iter().map(|row| &row["op"]).collect();
    assert_eq!(ops, ["rollback", "commit", "rollback", "commit"]);
}

/// The application is gone as well: time decides, and nothing stays prepared.
async fn killed_without_a_decision(stage: &mut Stage) {
    let mut options = options();
    options.timeout_to_fail_ms = Some(1500);
    stage.prepare_both("xa-kill-3", &options).await;
    stage.kill().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    stage.wait("xa-kill-3", "failed").await;
    assert_eq!(stage.balances().await, [910, 1090]);
}
