//! XA: two-phase commit over two databases, or over two sides of one.

use anyhow::{Context as _, ensure};
use tokio::task::JoinHandle;

use super::DemoOptions;
use super::stage::{Expected, Stage};
use crate::bank::{Fault, FaultKind};
use crate::client::XaBranch;
use crate::xa as xa_database;
use dtmd_local_servers::{DatabaseOptions, Mariadb, Postgres};

/// The databases of the two XA banks.
pub(super) struct XaDatabases {
    /// The banks' names.
    pub(super) names: [String; 2],
    /// The banks' databases; the same one twice if there is only one.
    pub(super) urls: [String; 2],
    private: (Option<Mariadb>, Option<Postgres>),
}

/// Databases that are coming up.
pub(super) struct Beginning {
    task: JoinHandle<anyhow::Result<Result<XaDatabases, String>>>,
}

impl Beginning {
    /// Waits for them; tells why there are none.
    ///
    /// # Errors
    /// A database that was asked for cannot be used.
    pub(super) async fn wait(mut self) -> anyhow::Result<Result<XaDatabases, String>> {
        (&mut self.task).await.context("the start of the databases was ended")?
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl XaDatabases {
    /// Takes the databases of the options, or begins to start private ones.
    pub(super) fn begin(options: &DemoOptions) -> Beginning {
        let (mysql, postgres) = (options.mysql.clone(), options.postgres.clone());
        Beginning { task: tokio::spawn(start(mysql, postgres)) }
    }

    pub(super) fn distinct_urls(&self) -> impl Iterator<Item = &str> {
        let [first, second] = &self.urls;
        std::iter::once(first.as_str()).chain((first != second).then_some(second.as_str()))
    }

    /// Removes the demo's tables from databases that are not its own.
    pub(super) async fn clean_up(&mut self) -> anyhow::Result<()> {
        if self.private.0.is_none() && self.private.1.is_none() {
            for url in self.distinct_urls() {
                xa_database::drop_tables(url).await.context("cannot remove the demo's tables")?;
            }
        }
        Ok(())
    }

    fn of(
        mysql: Option<String>,
        postgres: Option<String>,
        private: (Option<Mariadb>, Option<Postgres>),
    ) -> Option<Self> {
        let (names, urls) = match (mysql, postgres) {
            (Some(mysql), Some(postgres)) => (["mariadb", "postgres"], [mysql, postgres]),
            (Some(url), None) => (["mariadb-1", "mariadb-2"], [url.clone(), url]),
            (None, Some(url)) => (["postgres-1", "postgres-2"], [url.clone(), url]),
            (None, None) => return None,
        };
        Some(Self { names: names.map(str::to_owned), urls, private })
    }
}

async fn start(
    mysql: Option<String>,
    postgres: Option<String>,
) -> anyhow::Result<Result<XaDatabases, String>> {
    if let Some(given) = XaDatabases::of(mysql, postgres, (None, None)) {
        for url in given.distinct_urls() {
            xa_database::prepared(url).await.context("the database for XA cannot be used")?;
        }
        return Ok(Ok(given));
    }
    let options = DatabaseOptions { fsync: false };
    // As a failure is only a reason to skip, both reasons are collected.
    let mariadb = async move {
        Mariadb::available()?;
        Mariadb::start(options).await.map_err(|error| format!("{error:#}"))
    };
    let postgres = async move {
        Postgres::available()?;
        Postgres::start(options).await.map_err(|error| format!("{error:#}"))
    };
    let (mariadb, postgres): (Result<_, String>, Result<_, String>) =
        tokio::join!(mariadb, postgres);
    let why = [mariadb.as_ref().err(), postgres.as_ref().err()];
    let why: Vec<&str> = why.into_iter().flatten().map(String::as_str).collect();
    let why = format!(
        "no database for XA: {}; give one with --mysql URL or --postgres URL",
        why.join("; ")
    );
    let (mariadb, postgres) = (mariadb.ok(), postgres.ok());
    let urls = (mariadb.as_ref().map(Mariadb::url), postgres.as_ref().map(Postgres::url));
    Ok(XaDatabases::of(urls.0, urls.1, (mariadb, postgres)).ok_or(why))
}

fn transfer(stage: &Stage) -> anyhow::Result<Vec<XaBranch>> {
    let mut branches = Vec::new();
    for (leg, path) in ["/xa-out", "/xa-in", "/xa-in"].into_iter().enumerate() {
        let (url, payload) = stage.leg(leg, path)?;
        branches.push(XaBranch { url, payload });
    }
    Ok(branches)
}

pub(super) async fn commit(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let branches = transfer(stage)?;
    let (client, options) = (stage.client(), stage.options());
    stage.during(client.xa(gid, &options, &branches)).await?;
    Ok(Expected::moved())
}

pub(super) async fn rollback(
    stage: &mut Stage,
    gid: &str,
    fail_at: usize,
) -> anyhow::Result<Expected> {
    let branch_id = format!("{fail_at:02}");
    let fault = Fault::new(FaultKind::Fail).gid(gid).op("action").branch_id(&branch_id);
    stage.inject(fail_at - 1, fault).await?;
    let branches = transfer(stage)?;
    let (client, options) = (stage.client(), stage.options());
    let ended = stage.during(client.xa(gid, &options, &branches)).await;
    ensure!(ended.is_err(), "the application did not notice that a branch refused");
    Ok(Expected::unmoved())
}

pub(super) async fn kill(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let branches = transfer(stage)?;
    let (client, options) = (stage.client(), stage.options());
    stage.during(client.prepare("xa", gid, &options)).await?;
    for (at, branch) in branches.iter().enumerate() {
        let branch_id = format!("{:02}", at + 1);
        stage.during(client.call_xa_action(gid, &branch_id, branch)).await?;
    }
    let prepared = stage.prepared().await?;
    ensure!(prepared.len() == branches.len(), "prepared are only {prepared:?}");
    stage.note(&format!("the databases hold {} prepared transactions", prepared.len())).await;
    stage.kill_server().await?;
    stage.restart_server().await?;
    stage.during(client.submit("xa", gid)).await?;
    Ok(Expected::moved())
}
