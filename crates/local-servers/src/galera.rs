//! A private Galera cluster.

use std::path::Path;

use anyhow::Context as _;

use crate::child::find_program;
use crate::home::free_port;
use crate::{DatabaseOptions, Mariadb};

/// Nodes of a private cluster: the fewest of which one may be lost.
const NODES: usize = 3;
/// Where Debian keeps Galera.
const PROVIDER: &str = "/usr/lib/galera/libgalera_smm.so";
/// What a node copies itself to another with.
const COPY_PROGRAM: &str = "rsync";

/// A running cluster of three MariaDB servers; dropping it kills them.
#[derive(Debug)]
pub struct Galera {
    /// Its nodes; each takes reads and writes.
    pub nodes: Vec<Mariadb>,
}

impl Galera {
    /// Tells why no cluster can be started here, if none can.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn available() -> Result<(), String> {
        Mariadb::available()?;
        if !Path::new(PROVIDER).is_file() {
            return Err(format!("galera-4 is not installed ({PROVIDER})"));
        }
        find_program(COPY_PROGRAM, &[]).map(drop).ok_or_else(|| "rsync is not installed".to_owned())
    }

    /// Starts the nodes, one after another; the second and third copy themselves from the first.
    ///
    /// # Errors
    /// Something is missing, or a node does not come up; the error shows its log.
    pub async fn start(options: DatabaseOptions) -> anyhow::Result<Self> {
        Self::available().map_err(anyhow::Error::msg)?;
        let mut ports = Vec::new();
        for _ in 0..NODES {
            ports.push([free_port()?, free_port()?, free_port()?]);
        }
        let members: Vec<_> =
            ports.iter().map(|[group, ..]| format!("127.0.0.1:{group}")).collect();
        let mut nodes = Vec::new();
        for (index, [group, step, copy]) in ports.into_iter().enumerate() {
            let mut node = Mariadb::install(options).await?;
            node.extra = vec![
                "--wsrep-on=ON".to_owned(),
                format!("--wsrep-provider={PROVIDER}"),
                format!("--wsrep-cluster-address=gcomm://{}", members.join(",")),
                format!("--wsrep-node-address=127.0.0.1:{group}"),
                format!("--wsrep-node-name=node{index}"),
                format!("--wsrep-sst-method={COPY_PROGRAM}"),
                format!("--wsrep-sst-receive-address=127.0.0.1:{copy}"),
                format!(
                    "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{group};\
                     ist.recv_addr=127.0.0.1:{step};gcache.size=32M;evs.keepalive_period=PT0.5S;evs.suspect_timeout=PT2S;\
                     evs.inactive_timeout=PT4S;evs.inactive_check_period=PT0.5S"
                ),
                "--binlog-format=ROW".to_owned(),
                "--innodb-autoinc-lock-mode=2".to_owned(),
            ];
            if index == 0 {
                node.extra.push("--wsrep-new-cluster".to_owned());
            }
            node.launch().await.with_context(|| format!("node {index} of the cluster"))?;
            // When it is started again, it joins the others.
            node.extra.retain(|argument| argument != "--wsrep-new-cluster");
            nodes.push(node);
        }
        Ok(Self { nodes })
    }
}
