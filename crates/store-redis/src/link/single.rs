//! One server, or the master that Sentinels name.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, Pipeline, RedisError, RedisResult,
    TlsCertificates, Value,
};

use super::{Held, Line, has_moved};
use crate::error::OpenError;
use crate::options::{Mode, Node, RedisOptions};
use crate::outage::Outage;

pub(crate) struct SingleLink {
    options: Arc<RedisOptions>,
    certificates: TlsCertificates,
    reads: Held<MultiplexedConnection>,
    writes: Held<MultiplexedConnection>,
    outage: Outage,
}

impl SingleLink {
    pub(super) fn new(options: &Arc<RedisOptions>) -> Result<Self, OpenError> {
        Ok(Self {
            options: options.clone(),
            certificates: options.certificates()?,
            reads: Held::new(),
            writes: Held::new(),
            outage: Outage::default(),
        })
    }

    pub(super) fn location(&self) -> String {
        self.options.mode.to_string()
    }

    pub(super) async fn send(&self, line: Line, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let held = match line {
            Line::Read => &self.reads,
            Line::Write => &self.writes,
        };
        self.outage.admit()?;
        let (number, mut connection) = match held.get() {
            Some(kept) => kept,
            None => {
                let connected = self.connect().await;
                if connected.is_err() {
                    self.outage.note(&connected, true);
                }
                held.put(connected?)
            }
        };
        let result = connection.send_packed_commands(pipeline, 0, pipeline.len()).await;
        self.outage.note(&result, false);
        held.judge(number, &result);
        if result.as_ref().is_ok_and(|values| has_moved(values)) {
            held.forget(number);
        }
        result
    }

    /// Returns for how long Redis has not answered; zero if it does.
    pub(super) fn outage(&self) -> Duration {
        self.outage.lasts()
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        match &self.options.mode {
            Mode::Single(node) => self.connect_to(self.info(node)?).await,
            Mode::Sentinel { master, nodes } => self.connect_to_master(master, nodes).await,
            Mode::Cluster(_) => Err((ErrorKind::InvalidClientConfig, "a cluster").into()),
        }
    }

    fn info(&self, node: &Node) -> RedisResult<ConnectionInfo> {
        self.options.connection_to(node).map_err(invalid)
    }

    async fn connect_to(&self, info: ConnectionInfo) -> RedisResult<MultiplexedConnection> {
        let client = if self.options.tls {
            Client::build_with_tls(info, self.certificates.clone())?
        } else {
            Client::open(info)?
        };
        // A call that waits for replicas takes that much longer to answer.
        let timeout = self.options.response_timeout + self.options.wait_timeout;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.connect_timeout))
            .set_response_timeout(Some(timeout));
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Asks the Sentinels in turn, until one names a server that says itself that it is a master.
    async fn connect_to_master(
        &self,
        master: &str,
        sentinels: &[Node],
    ) -> RedisResult<MultiplexedConnection> {
        let mut last: RedisError =
            (ErrorKind::MasterNameNotFoundBySentinel, "no Sentinel knows the master's name").into();
        for sentinel in sentinels {
            match self.ask_sentinel(sentinel, master).await {
                Ok(Some(connection)) => return Ok(connection),
                Ok(None) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_sentinel(
        &self,
        sentinel: &Node,
        master: &str,
    ) -> RedisResult<Option<MultiplexedConnection>> {
        let info = self.options.connection_to_sentinel(sentinel).map_err(invalid)?;
        let mut connection = self.connect_to(info).await?;
        let named: Option<(String, u16)> = redis::cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(master)
            .query_async(&mut connection)
            .await?;
        let Some((host, port)) = named else { return Ok(None) };
        let mut connection = self.connect_to(self.info(&Node { host, port })?).await?;
        let role: Value = redis::cmd("ROLE").query_async(&mut connection).await?;
        match role {
            Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master") => {
                Ok(Some(connection))
            }
            _ => Err((
                ErrorKind::MasterNameNotFoundBySentinel,
                "the server that a Sentinel names is no master yet",
            )
                .into()),
        }
    }
}

fn invalid(error: OpenError) -> RedisError {
    (ErrorKind::InvalidClientConfig, "the settings are not valid", error.to_string()).into()
}
