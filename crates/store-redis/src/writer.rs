//! Making writes: one call after the other, each exactly once.
//!
//! A call bears a number, and leaves in its shard what it did under that number. When an answer is
//! lost, the call is simply made again: the script that finds its own number only repeats the
//! answer. A call that was given up and still reaches Redis finds a later number, and does nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dtmd_store::StoreError;
use futures_util::future::join_all;
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Trouble, full, timed_out, unavailable, unexpected};
use crate::keys::Keys;
use crate::link::{Line, Link};
use crate::options::RedisOptions;
use crate::plan::{Made, Plan, PlannedCall};
use crate::script::COMMIT;

/// How long what a call did is remembered: longer than any answer may take.
const REMEMBER: Duration = Duration::from_secs(600);
/// The first wait before a call is made again; it doubles, up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_millis(10);
const WAIT_MAX: Duration = Duration::from_millis(300);

/// What connections and names are made of.
pub(crate) struct Core {
    pub(crate) link: Link,
    pub(crate) keys: Keys,
    pub(crate) options: Arc<RedisOptions>,
    /// Names this store among all that use the same Redis.
    pub(crate) instance: String,
}

/// Writes to make, and whom to tell.
pub(crate) struct Job {
    pub(crate) doing: &'static str,
    pub(crate) plan: Plan,
    pub(crate) reply: oneshot::Sender<Result<Vec<Made>, StoreError>>,
}

/// Makes jobs, one after the other, until nobody can ask for more.
pub(crate) async fn run_writer(core: Arc<Core>, mut jobs: mpsc::Receiver<Job>) {
    let mut number = 0;
    while let Some(job) = jobs.recv().await {
        let made = make(&core, &mut number, job.doing, job.plan).await;
        // Who asked may have gone; the writes stand.
        let _ = job.reply.send(made);
    }
}

async fn make(
    core: &Core,
    number: &mut u64,
    doing: &'static str,
    plan: Plan,
) -> Result<Vec<Made>, StoreError> {
    let mut made = vec![None; plan.count()];
    let lanes = plan.into_lanes();
    let runs = lanes.into_iter().map(|calls| {
        let first = *number + 1;
        *number += calls.len() as u64;
        run_lane(core, calls, first)
    });
    let runs: Vec<_> = runs.collect();
    let mut failure: Option<Failure> = None;
    let mut any_made = false;
    for lane in join_all(runs).await {
        any_made |= !lane.made.is_empty();
        for (index, letter) in lane.made {
            if let Some(place) = made.get_mut(index) {
                *place = Some(letter);
            }
        }
        failure = match (failure, lane.failure) {
            (Some(first), Some(next)) => Some(Failure { full: first.full && next.full, ..next }),
            (first, next) => first.or(next),
        };
    }
    if let Some(failure) = failure {
        return Err(if failure.full && !any_made {
            full(doing, failure.error)
        } else {
            unavailable(doing, failure.error)
        });
    }
    let all: Option<Vec<Made>> = made.into_iter().collect();
    all.ok_or_else(|| unavailable(doing, unexpected("a write has no result")))
}

/// Why a lane stopped.
struct Failure {
    error: RedisError,
    /// Whether nothing of the call was made, for want of memory.
    full: bool,
}

#[derive(Default)]
struct LaneEnd {
    made: Vec<(usize, Made)>,
    failure: Option<Failure>,
}

async fn run_lane(core: &Core, calls: Vec<PlannedCall>, first: u64) -> LaneEnd {
    let mut end = LaneEnd::default();
    for (number, planned) in (first..).zip(calls) {
        match run_call(core, &planned, number).await {
            Ok(letters) => {
                let made = letters.iter().map(|letter| Made::of(*letter));
                let pairs = planned.writes.iter().copied().zip(made);
                end.made.extend(pairs.filter_map(|(index, made)| Some((index, made?))));
            }
            Err(failure) => {
                end.failure = Some(failure);
                return end;
            }
        }
    }
    end
}

async fn run_call(core: &Core, planned: &PlannedCall, number: u64) -> Result<Vec<u8>, Failure> {
    let marked = core.marked(planned, number);
    let slot = core.keys.slot(planned.call.shard);
    let begun = Instant::now();
    let (mut by_hash, mut wait, mut is_unclear) = (true, WAIT_FIRST, false);
    loop {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(marked.command(&COMMIT, by_hash));
        if let Some(cmd) = core.wait_command() {
            pipeline.add_command(cmd);
        }
        let error = match core.link.send(Line::Write, slot, &pipeline).await {
            Ok(values) => match core.letters(values, planned.writes.len()) {
                Ok(letters) => return Ok(letters),
                Err(error) => error,
            },
            Err(error) => error,
        };
        match Trouble::of(&error) {
            Trouble::NoScript if by_hash => {
                by_hash = false;
                continue;
            }
            Trouble::Lost => is_unclear = true,
            Trouble::Later | Trouble::Moved => {}
            Trouble::Full => return Err(Failure { error, full: !is_unclear }),
            Trouble::NoScript | Trouble::Never => return Err(Failure { error, full: false }),
        }
        if begun.elapsed() + wait > core.options.retry_for {
            return Err(Failure { error, full: false });
        }
        tracing::debug!(%error, ?wait, "a call is made again");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
        by_hash = true;
    }
}

impl Core {
    /// Returns the call with its mark in front.
    fn marked(&self, planned: &PlannedCall, number: u64) -> crate::script::ScriptCall {
        let call = &planned.call;
        let mut keys = Vec::with_capacity(call.keys.len() + 1);
        keys.push(self.keys.marker(call.shard, &self.instance));
        keys.extend(call.keys.iter().cloned());
        let mut args = crate::script::Args::default();
        args.push(number.to_string()).push(REMEMBER.as_millis().to_string());
        args.append(&call.args);
        crate::script::ScriptCall { shard: call.shard, keys, args }
    }

    /// Returns the command that waits for replicas or files, if that is wanted.
    fn wait_command(&self) -> Option<Cmd> {
        let options = &self.options;
        let timeout = options.wait_timeout.as_millis().max(1).to_string();
        let mut cmd = if options.wait_aof {
            let mut cmd = redis::cmd("WAITAOF");
            cmd.arg(1);
            cmd
        } else if options.wait_replicas > 0 {
            redis::cmd("WAIT")
        } else {
            return None;
        };
        cmd.arg(options.wait_replicas).arg(timeout);
        Some(cmd)
    }

    /// Takes an answer apart.
    fn letters(&self, values: Vec<Value>, count: usize) -> Result<Vec<u8>, RedisError> {
        let mut values = values.into_iter();
        let made = values.next().unwrap_or(Value::Nil).extract_error()?;
        let letters = match made {
            Value::BulkString(letters) if letters.len() == count => letters,
            _ => return Err(unexpected("the script gave another answer than results")),
        };
        if self.options.wait_replicas == 0 && !self.options.wait_aof {
            return Ok(letters);
        }
        let wanted = i64::try_from(self.options.wait_replicas).unwrap_or(i64::MAX);
        let enough = match values.next().unwrap_or(Value::Nil).extract_error()? {
            Value::Int(replicas) => replicas >= wanted,
            Value::Array(both) => match both.as_slice() {
                [Value::Int(local), Value::Int(replicas)] => *local >= 1 && *replicas >= wanted,
                _ => false,
            },
            _ => false,
        };
        if enough {
            Ok(letters)
        } else {
            Err(timed_out("too few replicas or files have the change; look at INFO replication"))
        }
    }
}
