//! Connections: to one server, to the master that Sentinels name, or to a cluster.
//!
//! Connections are made when they are needed and dropped when they fail; repeating is up to the
//! callers, who know whether they may.

mod cluster;
mod single;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, RedisResult, Value};

use crate::error::{OpenError, Trouble};
use crate::options::{Mode, RedisOptions};

use cluster::ClusterLink;
use single::SingleLink;

/// Which connection: reads do not wait behind a large write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Read,
    Write,
}

/// The way to Redis.
pub(crate) enum Link {
    Single(Box<SingleLink>),
    Cluster(Box<ClusterLink>),
}

/// A command, and the hash slot that it is about.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) slot: u16,
    pub(crate) cmd: Cmd,
}

impl Link {
    pub(crate) fn new(options: &Arc<RedisOptions>) -> Result<Self, OpenError> {
        Ok(match &options.mode {
            Mode::Single(_) | Mode::Sentinel { .. } => {
                Self::Single(Box::new(SingleLink::new(options)?))
            }
            Mode::Cluster(nodes) => Self::Cluster(Box::new(ClusterLink::new(options, nodes)?)),
        })
    }

    /// Returns whether a call may touch the keys of one shard only.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Returns for how long Redis has not answered; zero if it does. A cluster may answer in part,
    /// so that it is asked every time.
    pub(crate) fn outage(&self) -> Duration {
        match self {
            Self::Single(link) => link.outage(),
            Self::Cluster(_) => Duration::ZERO,
        }
    }

    /// Sends commands about one slot over one connection; errors of commands are among the
    /// values.
    ///
    /// # Errors
    ///
    /// If the connection or the answer is lost; what was made is unknown then.
    pub(crate) async fn send(
        &self,
        line: Line,
        slot: u16,
        pipeline: &Pipeline,
    ) -> RedisResult<Vec<Value>> {
        match self {
            Self::Single(link) => link.send(line, pipeline).await,
            Self::Cluster(link) => link.send(slot, pipeline).await,
        }
    }

    /// Sends commands that may be repeated; on a cluster to all nodes at once. Returns their
    /// values, or the first error.
    pub(crate) async fn ask(&self, line: Line, asks: &[Ask]) -> RedisResult<Vec<Value>> {
        if asks.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Self::Single(link) => {
                let mut pipeline = Pipeline::with_capacity(asks.len());
                for ask in asks {
                    pipeline.add_command(ask.cmd.clone());
                }
                without_errors(link.send(line, &pipeline).await?)
            }
            Self::Cluster(link) => ask_by_slot(link, asks).await,
        }
    }

    /// Runs a command on every master; returns where, and what it answered.
    pub(crate) async fn ask_masters(&self, cmd: &Cmd) -> RedisResult<Vec<(String, Value)>> {
        match self {
            Self::Single(link) => {
                let mut pipeline = Pipeline::new();
                pipeline.add_command(cmd.clone());
                let values = without_errors(link.send(Line::Read, &pipeline).await?)?;
                Ok(values.into_iter().map(|value| (link.location(), value)).collect())
            }
            Self::Cluster(link) => link.ask_masters(cmd).await,
        }
    }
}

async fn ask_by_slot(link: &ClusterLink, asks: &[Ask]) -> RedisResult<Vec<Value>> {
    let mut by_slot: Vec<(u16, Pipeline, Vec<usize>)> = Vec::new();
    for (index, ask) in asks.iter().enumerate() {
        // Asks come in the order of shards, or few at a time.
        let place = by_slot.iter().rposition(|(slot, ..)| *slot == ask.slot);
        let place = place.unwrap_or_else(|| {
            by_slot.push((ask.slot, Pipeline::new(), Vec::new()));
            by_slot.len() - 1
        });
        if let Some((_, pipeline, indexes)) = by_slot.get_mut(place) {
            pipeline.add_command(ask.cmd.clone());
            indexes.push(index);
        }
    }
    let sends = by_slot.iter().map(|(slot, pipeline, _)| link.send(*slot, pipeline));
    let answers = join_all(sends).await;
    let mut values = vec![Value::Nil; asks.len()];
    for ((_, _, indexes), answer) in by_slot.iter().zip(answers) {
        for (index, value) in indexes.iter().zip(without_errors(answer?)?) {
            if let Some(place) = values.get_mut(*index) {
                *place = value;
            }
        }
    }
    Ok(values)
}

fn without_errors(values: Vec<Value>) -> RedisResult<Vec<Value>> {
    values.into_iter().map(Value::extract_error).collect()
}

/// A connection that is replaced when it has failed.
struct Held<C> {
    // A std mutex: only clones are made under it.
    state: Mutex<(u64, Option<C>)>,
}

impl<C: Clone> Held<C> {
    fn new() -> Self {
        Self { state: Mutex::new((0, None)) }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Option<C>)> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self) -> Option<(u64, C)> {
        let state = self.lock();
        state.1.clone().map(|connection| (state.0, connection))
    }

    /// Keeps a new connection; of several that were made at once, the last.
    fn put(&self, connection: C) -> (u64, C) {
        let mut state = self.lock();
        state.0 += 1;
        state.1 = Some(connection.clone());
        (state.0, connection)
    }

    /// Drops the connection of a number, if it has failed.
    fn judge<T>(&self, number: u64, result: &RedisResult<T>) {
        let Err(error) = result else { return };
        if matches!(Trouble::of(error), Trouble::Lost | Trouble::Moved) {
            self.forget(number);
        }
    }

    fn forget(&self, number: u64) {
        let mut state = self.lock();
        if state.0 == number {
            state.1 = None;
        }
    }
}

/// Returns whether another server may be the master now.
fn has_moved(values: &[Value]) -> bool {
    values.iter().any(|value| match value {
        Value::ServerError(error) => {
            Trouble::of(&redis::RedisError::from(error.clone())) == Trouble::Moved
        }
        _ => false,
    })
}
