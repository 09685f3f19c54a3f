//! Redis: the barrier as one atomic script, on the keys of DTM's SDKs.
//!
//! Keys are `<gid>-<branch id>-<op>-<barrier id>`. On a cluster they must share a slot with the
//! business key, so put a hash tag into both (`{order-7}` as part of the gid and of the key).
//! After `expire` the protection is gone: take longer than any call may come late; see the safe
//! age of [`purge`](crate::purge).

use std::time::Duration;

use redis::Script;
use redis::aio::ConnectionLike;

use crate::Op;
use crate::barrier::{Admission, called_off};
use crate::branch::{BarrierId, Branch, MESSAGE_BRANCH_ID};
use crate::error::{BranchError, BranchResult, Duplicated};

/// The duplicate is looked for first: a debit that is repeated after it succeeded must not be
/// told that the money is gone (D30).
const ADJUST: &str = r"
local seen = redis.call('GET', KEYS[2])
if seen then
  if seen == 'rollback' and ARGV[2] ~= 'rollback' then return 'HANGING' end
  return 'DUPLICATE'
end
if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
  redis.call('SET', KEYS[3], 'rollback', 'EX', ARGV[3])
  return 'NULL'
end
local balance = redis.call('GET', KEYS[1])
if not balance or tonumber(balance) + tonumber(ARGV[1]) < 0 then return 'FAILURE' end
redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 'RUN'
";

const QUERY_PREPARED: &str = r"
local seen = redis.call('GET', KEYS[1])
if not seen then
  redis.call('SET', KEYS[1], 'rollback', 'EX', ARGV[1])
  seen = 'rollback'
end
return seen
";

impl Branch {
    /// Adds `delta` to the number at `key`, exactly once for this branch and op, unless that would
    /// make it negative. Returns what the barrier said; `Run` means that it was added now.
    ///
    /// For an op that undoes another the barrier works as on SQL. If it is the local transaction
    /// of a message, `Duplicate` and `Hanging` are errors, as for [`Branch::barrier`].
    ///
    /// # Errors
    ///
    /// - [`BranchError::Failure`]: there is no number at `key`, or too little; or the message was
    ///   called off
    /// - [`BranchError::Retry`]: Redis did not do it or did not answer; to be called again
    pub async fn redis_adjust(
        &self,
        connection: &mut impl ConnectionLike,
        key: &str,
        delta: i64,
        expire: Duration,
    ) -> BranchResult<Admission> {
        let id = self.next_barrier_id()?;
        let script = Script::new(ADJUST);
        let mut call = script.prepare_invoke();
        call.key(key).key(self.redis_key(self.op(), id));
        if let Some(origin) = self.op().origin() {
            call.key(self.redis_key(&origin, id));
        }
        call.arg(delta).arg(self.op().as_str()).arg(seconds(expire));
        let answer: String = call.invoke_async(connection).await?;
        match (answer.as_str(), self.op()) {
            ("RUN", _) => Ok(Admission::Run),
            ("FAILURE", _) => Err(BranchError::failure(format!("not enough at {key}"))),
            ("DUPLICATE", Op::Msg) => Err(Duplicated.into()),
            ("HANGING", Op::Msg) => Err(called_off()),
            ("DUPLICATE", _) => Ok(Admission::Duplicate),
            ("NULL", _) => Ok(Admission::NullCompensation),
            ("HANGING", _) => Ok(Admission::Hanging),
            (other, _) => Err(BranchError::retry(format!("Redis answered {other}"))),
        }
    }

    /// As [`Branch::query_prepared`], for a message whose local transaction is in Redis.
    ///
    /// # Errors
    ///
    /// As [`Branch::query_prepared`].
    pub async fn redis_query_prepared(
        &self,
        connection: &mut impl ConnectionLike,
        expire: Duration,
    ) -> BranchResult {
        let id = BarrierId::FIRST;
        let key = format!("{}-{MESSAGE_BRANCH_ID}-{}-{}", self.gid(), Op::Msg, id.as_str());
        let script = Script::new(QUERY_PREPARED);
        let mut call = script.prepare_invoke();
        call.key(key).arg(seconds(expire));
        let reason: String = call.invoke_async(connection).await?;
        if reason == "rollback" { Err(called_off()) } else { Ok(()) }
    }

    fn redis_key(&self, op: &Op, id: BarrierId) -> String {
        format!("{}-{}-{op}-{}", self.gid(), self.branch_id(), id.as_str())
    }
}

fn seconds(expire: Duration) -> u64 {
    expire.as_secs().max(1)
}
