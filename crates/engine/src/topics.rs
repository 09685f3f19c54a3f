//! Topics: named lists of subscriber URLs that a message's step fans out to (spec 01 §4.4).
//!
//! They are read from the store whenever they are used; there is no copy that could be out of date
//! (spec 07 D15).

use std::sync::Arc;

use dtmd_protocol::{Invalid, NewGlobal, Scheme};
use dtmd_store::{Kv, StoreError, Write, WriteError};
use serde::{Deserialize, Serialize};

use crate::committer::CommitError;
use crate::core::Core;
use crate::error::EngineError;

/// The category of topics among the stored keys.
pub(crate) const CATEGORY: &str = "topics";
/// How often a change is tried again because another one was first.
const CONFLICTS_MAX: u32 = 64;

/// One subscriber, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Subscriber {
    url: String,
    #[serde(default)]
    remark: String,
}

/// Returns, for each step of a message, the URLs its topic fans out to; `None` if it names none.
pub(crate) async fn subscribers(
    core: &Core,
    new: &NewGlobal,
) -> Result<Vec<Option<Vec<Arc<str>>>>, EngineError> {
    let mut all = Vec::with_capacity(new.steps.len());
    let mut rows = 0;
    for step in &new.steps {
        let Scheme::Topic(topic) = Scheme::of(&step.def.action) else {
            rows += 1;
            all.push(None);
            continue;
        };
        let stored = core.store.load_kv(CATEGORY, topic).await.map_err(unreadable)?;
        let urls: Vec<Arc<str>> = match &stored {
            Some(kv) => decode(kv)?.into_iter().map(|one| Arc::from(one.url)).collect(),
            None => Vec::new(),
        };
        if urls.is_empty() {
            return Err(EngineError::TopicNotFound(topic.to_owned()));
        }
        rows += urls.len();
        all.push(Some(urls));
    }
    let max = core.options.limits.branches_max;
    if rows > max {
        return Err(Invalid::TooMany { what: "subscribers", got: rows, max }.into());
    }
    Ok(all)
}

/// Adds a subscriber; makes the topic if needed.
pub(crate) async fn subscribe(
    core: &Core,
    protocol: dtmd_protocol::CallProtocol,
    topic: &str,
    url: &str,
    remark: &str,
) -> Result<(), EngineError> {
    not_empty(topic, url)?;
    if let Some(why) = core.caller.cannot_call(url, protocol) {
        return Err(EngineError::Topic(format!("{url}: {why}")));
    }
    change(core, topic, |stored| {
        let mut subscribers = stored.map_or_else(|| Ok(Vec::new()), decode)?;
        if subscribers.iter().any(|one| one.url == url) {
            return Err(EngineError::Topic("this url exists".to_owned()));
        }
        subscribers.push(Subscriber { url: url.to_owned(), remark: remark.to_owned() });
        encode(&subscribers)
    })
    .await
}

/// Removes a subscriber.
pub(crate) async fn unsubscribe(core: &Core, topic: &str, url: &str) -> Result<(), EngineError> {
    not_empty(topic, url)?;
    change(core, topic, |stored| {
        let stored = stored.ok_or_else(|| EngineError::Topic("no such a topic".to_owned()))?;
        let mut subscribers = decode(stored)?;
        if subscribers.is_empty() {
            return Err(EngineError::Topic("this topic is empty".to_owned()));
        }
        let before = subscribers.len();
        subscribers.retain(|one| one.url != url);
        if subscribers.len() == before {
            return Err(EngineError::Topic("no such an url ".to_owned()));
        }
        encode(&subscribers)
    })
    .await
}

/// Deletes a topic.
pub(crate) async fn delete(core: &Core, topic: &str) -> Result<(), EngineError> {
    let stored = core.store.load_kv(CATEGORY, topic).await.map_err(unreadable)?;
    let Some(stored) = stored else {
        return Err(EngineError::Topic("storage: NotFound".to_owned()));
    };
    match write(core, topic, stored.version, None).await {
        Ok(()) => Ok(()),
        Err(CommitError::Refused(WriteError::NotFound(_))) => {
            Err(EngineError::Topic("storage: NotFound".to_owned()))
        }
        Err(CommitError::Refused(_)) => {
            Err(EngineError::Topic("storage: UniqueKeyConflict".to_owned()))
        }
        Err(CommitError::Unavailable(text) | CommitError::Full(text)) => {
            Err(EngineError::Unavailable(text.to_string()))
        }
    }
}

/// Changes a topic by compare-and-set, deciding anew when another change was first.
async fn change(
    core: &Core,
    topic: &str,
    decide: impl Fn(Option<&Kv>) -> Result<String, EngineError>,
) -> Result<(), EngineError> {
    for _ in 0..CONFLICTS_MAX {
        let stored = core.store.load_kv(CATEGORY, topic).await.map_err(unreadable)?;
        let value = decide(stored.as_ref())?;
        let version = stored.map_or(0, |kv| kv.version);
        match write(core, topic, version, Some(value)).await {
            Ok(()) => return Ok(()),
            Err(CommitError::Refused(_)) => {}
            Err(CommitError::Unavailable(text) | CommitError::Full(text)) => {
                return Err(EngineError::Unavailable(text.to_string()));
            }
        }
    }
    Err(EngineError::Overloaded("too many writers change one topic"))
}

async fn write(
    core: &Core,
    topic: &str,
    expected: u64,
    value: Option<String>,
) -> Result<(), CommitError> {
    let now = core.clock.now();
    let (cat, key) = (CATEGORY.to_owned(), topic.to_owned());
    core.committer.commit(Write::Kv { cat, key, expected, value, now }).await
}

fn not_empty(topic: &str, url: &str) -> Result<(), EngineError> {
    match (topic, url) {
        ("", _) => Err(EngineError::Topic("empty topic".to_owned())),
        (_, "") => Err(EngineError::Topic("empty url".to_owned())),
        _ => Ok(()),
    }
}

fn decode(kv: &Kv) -> Result<Vec<Subscriber>, EngineError> {
    serde_json::from_str(&kv.value)
        .map_err(|error| EngineError::Topic(format!("topic {} is unreadable: {error}", kv.key)))
}

fn encode(subscribers: &[Subscriber]) -> Result<String, EngineError> {
    serde_json::to_string(subscribers).map_err(|error| EngineError::Topic(error.to_string()))
}

fn unreadable(failure: StoreError) -> EngineError {
    EngineError::Unavailable(failure.to_string())
}
