//! One connection: statements go in as text, the rows of its selects come out.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::consts::StatusFlags;
use mysql_async::prelude::Queryable as _;
use mysql_async::{OptsBuilder, Value};
use tokio::task::JoinHandle;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::error::{DbError, Kind};
use crate::options::{Driver, SqlOptions, Tls};
use crate::outage::Outage;
use crate::text::unhex;
use crate::tls;

/// An exchange longer than this is ended, and another begun.
const EXCHANGE_BYTES: usize = 2 * 1024 * 1024;

/// One row: the columns in the order of the select.
#[derive(Debug)]
pub(crate) struct Row(Vec<Option<Vec<u8>>>);

impl Row {
    /// How many columns it has.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns a column's bytes; none if it is null.
    pub(crate) fn bytes(&self, at: usize) -> Option<&[u8]> {
        self.0.get(at)?.as_deref()
    }

    /// Returns a column's text; null is empty.
    pub(crate) fn text(&self, at: usize) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.bytes(at).unwrap_or_default())
    }

    /// Returns a column's number; none if it is null.
    pub(crate) fn number(&self, at: usize) -> Option<i64> {
        std::str::from_utf8(self.bytes(at)?).ok()?.parse().ok()
    }
}

/// The rows of each select of an exchange.
pub(crate) type Results = Vec<Vec<Row>>;

/// A connection; it is dropped, not used again, after any error that may leave it in doubt.
pub(crate) struct Conn {
    link: Link,
    timeout: Duration,
    /// Told whether there are answers.
    outage: Arc<Outage>,
    server: Server,
    pub(crate) born: std::time::Instant,
    pub(crate) used: std::time::Instant,
}

/// What the connection is to.
enum Server {
    /// A server whose transactions end by our statements and by errors.
    Single,
    /// A node of a Galera cluster, whose transactions other nodes' commits undo. `open` says that
    /// one was begun and not ended.
    Node { open: bool },
}

enum Link {
    Mysql(Box<mysql_async::Conn>),
    Postgres(tokio_postgres::Client, JoinHandle<()>),
}

impl Conn {
    /// Connects and sets the session up.
    pub(crate) async fn open(options: &SqlOptions, database: bool) -> Result<Self, DbError> {
        Self::open_under(options, database, Arc::default()).await
    }

    /// As [`Conn::open`]; whether there are answers is noted in `outage`.
    pub(crate) async fn open_under(
        options: &SqlOptions,
        database: bool,
        outage: Arc<Outage>,
    ) -> Result<Self, DbError> {
        let opening = Self::connect(options, database, outage.clone());
        let opened = match tokio::time::timeout(options.connect_timeout, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(DbError::lost("no connection in time")),
        };
        if let Err(error) = &opened
            && error.kind == Kind::Lost
        {
            outage.failed(&error.source.to_string());
        }
        opened
    }

    async fn connect(
        options: &SqlOptions,
        database: bool,
        outage: Arc<Outage>,
    ) -> Result<Self, DbError> {
        let opening = async {
            match options.driver {
                Driver::Mysql => mysql(options, database).await,
                Driver::Postgres => postgres(options).await,
            }
        };
        let link = opening.await?;
        let now = std::time::Instant::now();
        let mut conn = Self {
            link,
            timeout: options.timeout,
            outage,
            server: Server::Single,
            born: now,
            used: now,
        };
        conn.run(&session(options)).await?;
        if let Link::Mysql(link) = &conn.link {
            let version = link.server_version();
            // MariaDB's versions begin at 10; its word for a transaction that was left alone.
            if version.0 >= 10 {
                let _ = conn.run("set session idle_transaction_timeout=15").await;
            }
            conn.adapt_to_cluster().await?;
        }
        Ok(conn)
    }

    /// On a Galera cluster, where a node may know of a commit a moment before the others: has
    /// statements wait until their node has what the cluster had when they came. Without it a
    /// global that one server acknowledged is unknown to a server on another node, and whether an
    /// unclear commit was made could not be told by reading.
    async fn adapt_to_cluster(&mut self) -> Result<(), DbError> {
        let answer = match self.run("show variables like 'wsrep_on'").await {
            Ok(answer) => answer,
            // Not every product that speaks this protocol knows the question.
            Err(error) if error.kind == Kind::Other => return Ok(()),
            Err(error) => return Err(error),
        };
        let row = answer.first().and_then(|rows| rows.first());
        if row.is_some_and(|row| row.text(1).eq_ignore_ascii_case("on")) {
            // Selects and beginnings, updates and deletes, inserts.
            self.run("set session wsrep_sync_wait=7, wsrep_retry_autocommit=0").await?;
            self.server = Server::Node { open: false };
        }
        Ok(())
    }

    /// Returns the exchanges that a transaction's statements go in.
    ///
    /// On a Galera node each is one: where another node's commit undoes the transaction between
    /// two statements of an exchange, the node may carry out the rest by itself, and commits half
    /// of the batch.
    pub(crate) fn exchanges(&self, statements: Vec<String>) -> Vec<String> {
        if matches!(self.server, Server::Node { .. }) {
            return statements;
        }
        let mut exchanges: Vec<String> = Vec::new();
        for statement in statements {
            match exchanges.last_mut() {
                Some(last) if last.len() + statement.len() < EXCHANGE_BYTES => {
                    last.push(';');
                    last.push_str(&statement);
                }
                _ => exchanges.push(statement),
            }
        }
        exchanges
    }

    /// Notes on a Galera node whether a transaction is open, and fails if it ended without being
    /// told to.
    fn watch_transaction(&mut self, statements: &str) -> Result<(), DbError> {
        let (Server::Node { open }, Link::Mysql(link)) = (&mut self.server, &self.link) else {
            return Ok(());
        };
        *open |= statements.starts_with("begin");
        if statements.ends_with("commit") || statements == "rollback" {
            *open = false;
        }
        let flags = link.last_ok_packet().map(|packet| packet.status_flags());
        let is_in = flags.is_some_and(|flags| flags.contains(StatusFlags::SERVER_STATUS_IN_TRANS));
        if *open && !is_in {
            *open = false;
            return Err(DbError::race("the node has undone the transaction"));
        }
        Ok(())
    }

    /// Runs statements in one exchange; returns the rows of the selects among them.
    ///
    /// An error ends the exchange at the statement that it is of; a transaction that was begun
    /// stays open.
    pub(crate) async fn run(&mut self, statements: &str) -> Result<Results, DbError> {
        self.run_within(statements, self.timeout).await
    }

    /// As [`Conn::run`], for statements that may take longer than others, or shorter.
    pub(crate) async fn run_within(
        &mut self,
        statements: &str,
        timeout: Duration,
    ) -> Result<Results, DbError> {
        self.used = std::time::Instant::now();
        let running = async {
            match &mut self.link {
                Link::Mysql(conn) => run_mysql(conn, statements).await,
                Link::Postgres(client, _) => run_postgres(client, statements).await,
            }
        };
        match tokio::time::timeout(timeout, running).await {
            Ok(ran) => {
                match &ran {
                    // The next connection will tell whether this is an outage.
                    Err(error) if error.kind == Kind::Lost => self.outage.broken(),
                    Ok(_) | Err(_) => self.outage.ended(),
                }
                let results = ran?;
                self.watch_transaction(statements)?;
                Ok(results)
            }
            Err(_) => {
                let error = DbError::lost("the database did not answer in time");
                self.outage.failed(&error.source.to_string());
                Err(error)
            }
        }
    }

    /// Ends what is open after an error; returns whether the connection can be used again.
    pub(crate) async fn recover(&mut self, kind: Kind) -> bool {
        match kind {
            Kind::Race | Kind::Duplicate => self.run("rollback").await.is_ok(),
            Kind::Lost | Kind::ReadOnly | Kind::Full | Kind::Schema | Kind::Other => false,
        }
    }

    /// Whether the other side is known to have gone.
    pub(crate) fn is_closed(&self) -> bool {
        match &self.link {
            Link::Mysql(_) => false,
            Link::Postgres(client, _) => client.is_closed(),
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if let Link::Postgres(_, driver) = &self.link {
            // Also when a statement is still under way: the server rolls it back.
            driver.abort();
        }
    }
}

async fn mysql(options: &SqlOptions, database: bool) -> Result<Link, DbError> {
    let mut builder = OptsBuilder::default()
        .ip_or_hostname(options.host.clone())
        .tcp_port(options.port())
        .user(Some(options.user.clone()))
        .pass(Some(options.password.clone()))
        .prefer_socket(false)
        .stmt_cache_size(0)
        .tcp_keepalive(Some(Duration::from_secs(30)));
    if database {
        builder = builder.db_name(Some(options.database.clone()));
    }
    if let Tls::On { ca } = &options.tls {
        builder = builder.ssl_opts(tls::mysql(ca.as_deref())?);
    }
    let conn = mysql_async::Conn::new(builder).await?;
    Ok(Link::Mysql(Box::new(conn)))
}

async fn postgres(options: &SqlOptions) -> Result<Link, DbError> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(options.host.clone())
        .port(options.port())
        .user(options.user.clone())
        .dbname(options.database.clone())
        .application_name("dtmd")
        .keepalives_idle(Duration::from_secs(30))
        .connect_timeout(options.connect_timeout);
    if !options.password.is_empty() {
        config.password(options.password.clone());
    }
    let (client, driver) = match &options.tls {
        Tls::Off => {
            config.ssl_mode(tokio_postgres::config::SslMode::Disable);
            let (client, connection) = config.connect(NoTls).await?;
            (client, tokio::spawn(drop_result(connection)))
        }
        Tls::On { ca } => {
            config.ssl_mode(tokio_postgres::config::SslMode::Require);
            let connector = tls::Connector::new(ca.as_deref())?;
            let (client, connection) = config.connect(connector).await?;
            (client, tokio::spawn(drop_result(connection)))
        }
    };
    Ok(Link::Postgres(client, driver))
}

/// The client hears of the connection's end itself.
async fn drop_result(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    let _ = connection.await;
}

/// What every session sets: what statements rely on, and bounds, so that a server that is cut off
/// does not hold locks for long.
fn session(options: &SqlOptions) -> String {
    match options.driver {
        Driver::Mysql => "set session sql_mode='STRICT_TRANS_TABLES', time_zone='+00:00', \
             innodb_lock_wait_timeout=3, wait_timeout=300; set names utf8mb4; \
             set session transaction isolation level read committed"
            .to_owned(),
        Driver::Postgres => format!(
            "set standard_conforming_strings=on; set search_path to \"{}\"; \
             set default_transaction_isolation to 'read committed'; set time zone 'UTC'; \
             set bytea_output to 'hex'; set lock_timeout to '3s'; \
             set idle_in_transaction_session_timeout to '15s'; \
             set client_min_messages to 'warning'",
            options.schema.to_ascii_lowercase()
        ),
    }
}

async fn run_mysql(conn: &mut mysql_async::Conn, statements: &str) -> Result<Results, DbError> {
    let mut results = Results::new();
    let mut answer = conn.query_iter(statements).await?;
    while !answer.is_empty() {
        let selects = !answer.columns_ref().is_empty();
        let rows: Vec<mysql_async::Row> = answer.collect().await?;
        if selects {
            results.push(rows.into_iter().map(mysql_row).collect());
        }
    }
    // The error of a later statement ends the loop silently, and is told here.
    answer.drop_result().await?;
    Ok(results)
}

fn mysql_row(row: mysql_async::Row) -> Row {
    let columns = row.unwrap_raw().into_iter();
    Row(columns
        .map(|value| match value? {
            Value::Bytes(bytes) => Some(bytes),
            Value::NULL => None,
            // Rows of text statements hold bytes only.
            other => Some(other.as_sql(true).into_bytes()),
        })
        .collect())
}

async fn run_postgres(
    client: &tokio_postgres::Client,
    statements: &str,
) -> Result<Results, DbError> {
    let mut results = Results::new();
    let mut hex: Vec<bool> = Vec::new();
    for message in client.simple_query(statements).await? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                let is_hex = |name: &str| name == "bin_data" || name == "dtmd_record";
                hex = columns.iter().map(|column| is_hex(column.name())).collect();
                results.push(Vec::new());
            }
            SimpleQueryMessage::Row(row) => {
                let cell = |at: usize| -> Option<Vec<u8>> {
                    let text = row.get(at)?;
                    match text.strip_prefix("\\x") {
                        Some(digits) if hex[at] => unhex(digits),
                        _ => Some(text.as_bytes().to_vec()),
                    }
                };
                let row = Row((0..row.len()).map(cell).collect());
                if let Some(rows) = results.last_mut() {
                    rows.push(row);
                }
            }
            _ => {}
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use dtmd_local_servers::shared::mariadb_database;

    use super::*;

    #[tokio::test]
    async fn a_transaction_that_ends_by_itself_on_a_cluster_is_told() -> anyhow::Result<()> {
        let options = SqlOptions::from_url(&mariadb_database().await?)?;
        let fails = |error: DbError| anyhow::anyhow!("{error:?}");
        let mut conn = Conn::open(&options, true).await.map_err(fails)?;
        let one_by_one = || vec!["do 1".to_owned(), "do 2".to_owned()];
        assert_eq!(conn.exchanges(one_by_one()), ["do 1;do 2"], "this server is no cluster");
        // What a node of a cluster does is done here by a rollback that hides among others.
        let hidden = "do 1;rollback;do 1";
        conn.run("begin;do 1").await.map_err(fails)?;
        conn.run(hidden).await.map_err(fails)?;

        conn.server = Server::Node { open: false };
        assert_eq!(conn.exchanges(one_by_one()), one_by_one());
        conn.run("do 1").await.map_err(fails)?;
        conn.run("begin;select 1").await.map_err(fails)?;
        let lost = conn.run(hidden).await;
        assert!(lost.is_err_and(|error| error.kind == Kind::Race));
        conn.run("do 1").await.map_err(fails)?;
        for end in ["commit", "rollback"] {
            conn.run("begin").await.map_err(fails)?;
            conn.run("select 1").await.map_err(fails)?;
            conn.run(end).await.map_err(fails)?;
            conn.run("do 1").await.map_err(fails)?;
        }
        Ok(())
    }
}
