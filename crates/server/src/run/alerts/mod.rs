//! The alert webhook: told when a branch keeps failing (spec 01 §5.5), when a transaction is stuck
//! or cannot be read, and when that is over. Off the hot path (spec 07 D46): a hook that is slow or
//! down delays alerts, never transactions.
//!
//! `collect` decides what is an alert, `send` brings it to the hook; between them is a queue, and
//! what does not fit is dropped, counted and listed, as is everything else that was sent.

mod collect;
mod send;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dtmd_engine::Engine;
use dtmd_protocol::{GlobalStatus, Timestamp};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::config::{AlertConfig, Secret};

/// Alerts that wait to be sent, at most.
const QUEUE_MAX: usize = 1000;

/// Where alerts go; may be changed under a test clock.
#[derive(Clone)]
pub(super) struct AlertSettings {
    current: Arc<Mutex<Current>>,
    secret: Secret,
    stuck_after: Option<Duration>,
    recovery: bool,
}

#[derive(Clone)]
struct Current {
    url: String,
    limit: u32,
}

impl AlertSettings {
    pub(super) fn new(config: &AlertConfig) -> Self {
        let url = config.web_hook.reveal().to_owned();
        Self {
            current: Arc::new(Mutex::new(Current { url, limit: config.retry_limit })),
            secret: config.secret.clone(),
            stuck_after: Some(config.stuck_after).filter(|age| !age.is_zero()),
            recovery: config.recovery,
        }
    }

    pub(super) fn change(&self, url: Option<String>, limit: Option<u32>) -> Result<(), String> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(url) = url {
            let is_known = url.starts_with("http://") || url.starts_with("https://");
            if !url.is_empty() && !is_known {
                return Err("AlertWebHook: the URL begins with neither http:// nor https://".into());
            }
            current.url = url;
        }
        current.limit = limit.unwrap_or(current.limit);
        Ok(())
    }

    fn current(&self) -> Current {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A branch keeps failing: DTM's alert.
    Retry,
    /// A transaction does not end.
    Stuck,
    /// A transaction's record cannot be read.
    Poisoned,
    /// What was alerted is over.
    Recovered,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Stuck => "stuck",
            Self::Poisoned => "poisoned",
            Self::Recovered => "recovered",
        }
    }
}

/// One alert on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Alert {
    kind: Kind,
    at: Timestamp,
    gid: String,
    /// None if it cannot be known.
    status: Option<GlobalStatus>,
    /// The branch's URL; empty if it is about the whole transaction.
    branch: String,
    error: String,
    attempts: u32,
}

/// The hook's body: DTM's members, and what it is about where that is not DTM's alert.
#[derive(Serialize)]
struct Body<'a> {
    gid: &'a str,
    status: &'a str,
    branch: &'a str,
    error: &'a str,
    retry_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
}

impl Alert {
    fn status(&self) -> &'static str {
        self.status.map_or("", GlobalStatus::as_str)
    }

    fn body(&self) -> Vec<u8> {
        let body = Body {
            gid: &self.gid,
            status: self.status(),
            branch: &self.branch,
            error: &self.error,
            retry_count: self.attempts,
            kind: Some(self.kind).filter(|kind| *kind != Kind::Retry).map(Kind::as_str),
        };
        // Text and a number always have a form in JSON.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// Starts the tasks that collect and send, on the current runtime.
pub(super) fn start(engine: &Engine, settings: &AlertSettings) {
    let (queue, waiting) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(collect::run(engine.clone(), settings.clone(), queue));
    tokio::spawn(send::run(engine.clone(), settings.clone(), waiting));
}
