//! What operators ask: retries, topics.

use std::time::Duration;

use dtmd_wire::{TransRequest, response};

use super::super::api::{Api, Asked};
use super::super::query_string::decode;
use super::super::reply::{Problem, Reply};
use super::queries::{integer, limit};

/// Without a `timeout`, what waits for longer than so many default timeouts is made due.
const TIMEOUTS: u32 = 3;

pub(in super::super) async fn reset_cron_time(
    api: &Api,
    asked: &Asked<'_>,
) -> Result<Reply, Problem> {
    let wait = match integer::<u64>(asked, "timeout")? {
        Some(seconds) => Duration::from_secs(seconds),
        None => api.engine.timeout_to_fail().saturating_mul(TIMEOUTS),
    };
    let count = api.engine.reset_cron_time(wait, limit(asked)?).await?;
    Ok(Reply::json(response::reset_count(count.succeed_count, count.has_remaining)))
}

pub(in super::super) async fn reset_next_cron_time(api: &Api, body: &[u8]) -> Result<(), Problem> {
    let gid = TransRequest::parse(body)?.gid()?;
    Ok(api.engine.retry_now(&gid).await?)
}

pub(in super::super) async fn subscribe(api: &Api, asked: &Asked<'_>) -> Result<(), Problem> {
    let parameter = |name| asked.query.get(name);
    let (topic, url, remark) = (parameter("topic"), parameter("url"), parameter("remark"));
    Ok(api.engine.subscribe(&topic, &url, &remark).await?)
}

pub(in super::super) async fn unsubscribe(api: &Api, asked: &Asked<'_>) -> Result<(), Problem> {
    let (topic, url) = (asked.query.get("topic"), asked.query.get("url"));
    Ok(api.engine.unsubscribe(&topic, &url).await?)
}

pub(in super::super) async fn delete_topic(api: &Api, asked: &Asked<'_>) -> Result<(), Problem> {
    Ok(api.engine.delete_topic(&decode(asked.name, false)).await?)
}
