//! A Redis Cluster.

use std::sync::Arc;
use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr,
};
use redis::{Cmd, Pipeline, ProtocolVersion, RedisResult, Value};

use super::Held;
use crate::error::{OpenError, timed_out, unexpected};
use crate::options::{Node, RedisOptions};

pub(crate) struct ClusterLink {
    client: ClusterClient,
    connection: Held<ClusterConnection>,
    connect_timeout: Duration,
    send_timeout: Duration,
}

impl ClusterLink {
    pub(super) fn new(options: &Arc<RedisOptions>, nodes: &[Node]) -> Result<Self, OpenError> {
        let infos: Vec<_> =
            nodes.iter().map(|node| options.connection_to(node)).collect::<Result<_, _>>()?;
        let answer = options.response_timeout + options.wait_timeout;
        let mut builder = ClusterClientBuilder::new(infos)
            .connection_timeout(options.connect_timeout)
            .response_timeout(answer)
            .use_protocol(ProtocolVersion::RESP2)
            // Redirections and nodes that come back; what takes longer is up to the callers.
            .retries(3)
            .max_retry_wait(200);
        if options.tls {
            builder = builder.certs(options.certificates()?);
        }
        let client = builder
            .build()
            .map_err(|error| OpenError::Options(format!("the cluster's: {}", error.category())))?;
        Ok(Self {
            client,
            connection: Held::new(),
            // Connecting asks several nodes, one after the other.
            connect_timeout: options.connect_timeout * 3,
            send_timeout: answer + options.connect_timeout,
        })
    }

    async fn connection(&self) -> RedisResult<(u64, ClusterConnection)> {
        if let Some(kept) = self.connection.get() {
            return Ok(kept);
        }
        let connecting = tokio::time::timeout(self.connect_timeout, async {
            self.client.get_async_connection().await
        });
        let connected = connecting.await.map_err(|_| timed_out("connecting to the cluster"))?;
        Ok(self.connection.put(connected?))
    }

    pub(super) async fn send(&self, slot: u16, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let (number, mut connection) = self.connection().await?;
        let route = SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master));
        let count = pipeline.len();
        let sending = connection.route_pipeline(pipeline.clone(), 0, count, route);
        let result = match tokio::time::timeout(self.send_timeout, sending).await {
            Ok(result) => result,
            Err(_) => Err(timed_out("waiting for a node of the cluster")),
        };
        self.connection.judge(number, &result);
        result
    }

    pub(super) async fn ask_masters(&self, cmd: &Cmd) -> RedisResult<Vec<(String, Value)>> {
        let (number, mut connection) = self.connection().await?;
        let route = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let asking = connection.route_command(cmd.clone(), route);
        let result = match tokio::time::timeout(self.send_timeout, asking).await {
            Ok(result) => result,
            Err(_) => Err(timed_out("waiting for the nodes of the cluster")),
        };
        self.connection.judge(number, &result);
        let Value::Map(answers) = result? else {
            return Err(unexpected("the nodes of the cluster gave no answers"));
        };
        answers
            .into_iter()
            .map(|(node, value)| Ok((redis::from_redis_value(node)?, value.extract_error()?)))
            .collect()
    }
}
