//! The alert webhook: told when a branch keeps failing (spec 01 §5.5), off the hot path (spec 07
//! D46). A hook that is slow or down delays alerts, never transactions.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dtmd_engine::{Engine, Event};
use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tracing::{debug, warn};

use crate::config::AlertConfig;

/// How long the hook may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often one alert is sent at most.
const ATTEMPTS: u32 = 3;

/// Where alerts go; may be changed under a test clock.
#[derive(Clone)]
pub(super) struct AlertSettings {
    current: Arc<Mutex<Current>>,
}

#[derive(Clone)]
struct Current {
    url: String,
    limit: u32,
}

/// The hook's body, with DTM's members.
#[derive(Serialize)]
struct Alert<'a> {
    gid: &'a str,
    status: &'a str,
    branch: &'a str,
    error: &'a str,
    retry_count: u32,
}

impl AlertSettings {
    pub(super) fn new(config: &AlertConfig) -> Self {
        let url = config.web_hook.reveal().to_owned();
        Self { current: Arc::new(Mutex::new(Current { url, limit: config.retry_limit })) }
    }

    pub(super) fn change(&self, url: Option<String>, limit: Option<u32>) -> Result<(), String> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(url) = url {
            if !url.is_empty() && !url.starts_with("http://") {
                return Err(format!("AlertWebHook: {url} is not an http:// URL"));
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

/// Starts the task that tells the hook, on the current runtime.
pub(super) fn start(engine: &Engine, settings: &AlertSettings) {
    let mut events = engine.alerts();
    let settings = settings.clone();
    let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) => tell(&client, &settings, &event).await,
                Err(RecvError::Lagged(missed)) => warn!(missed, "alerts were dropped"),
                Err(RecvError::Closed) => return,
            }
        }
    });
}

type HttpClient = Client<HttpConnector, Full<Bytes>>;

async fn tell(client: &HttpClient, settings: &AlertSettings, event: &Event) {
    let Event::Alert { gid, status, url, error, attempts } = event else { return };
    let Current { url: hook, limit } = settings.current();
    if hook.is_empty() || limit == 0 || *attempts < limit {
        return;
    }
    let alert = Alert {
        gid: gid.as_str(),
        status: status.as_str(),
        branch: url,
        error,
        retry_count: *attempts,
    };
    let Ok(body) = serde_json::to_vec(&alert) else { return };
    for attempt in 1..=ATTEMPTS {
        match post(client, &hook, Bytes::from(body.clone())).await {
            Ok(()) => return,
            Err(error) if attempt == ATTEMPTS => {
                warn!(%gid, %error, "the alert webhook was not reached");
            }
            Err(error) => {
                debug!(%gid, %error, "the alert webhook is tried again");
                tokio::time::sleep(Duration::from_millis(200) * attempt).await;
            }
        }
    }
}

async fn post(client: &HttpClient, hook: &str, body: Bytes) -> Result<(), String> {
    let request = Request::post(hook)
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(TIMEOUT, client.request(request)).await {
        Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
        Ok(Ok(answer)) => Err(format!("it answered {}", answer.status())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
