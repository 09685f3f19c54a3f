//! Bringing alerts to the hook: signed, with retries, and remembered.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtmd_engine::{AlertRecord, Engine};
use dtmd_transport::outbound::{HttpCaller, OutboundOptions};
use http::header::{HeaderName, HeaderValue};
use ring::hmac;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{Alert, AlertSettings};

/// How long the hook may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often one alert is sent at most.
const SENDINGS_MAX: u32 = 3;
/// What an alert is about.
const KIND: HeaderName = HeaderName::from_static("x-dtmd-alert");
/// Who sent it, for hooks that know the secret.
const SIGNATURE: HeaderName = HeaderName::from_static("x-dtmd-signature");

/// Sends what comes in until nobody can add to it.
pub(super) async fn run(
    engine: Engine,
    settings: AlertSettings,
    mut waiting: mpsc::Receiver<Alert>,
) {
    let caller = HttpCaller::new(OutboundOptions::default().with_environment());
    let key = (!settings.secret.is_empty())
        .then(|| hmac::Key::new(hmac::HMAC_SHA256, settings.secret.reveal().as_bytes()));
    while let Some(alert) = waiting.recv().await {
        let hook = settings.current().url;
        if hook.is_empty() {
            // Switched off after it was decided on.
            continue;
        }
        send(&engine, &caller, key.as_ref(), &hook, alert).await;
    }
}

async fn send(
    engine: &Engine,
    caller: &HttpCaller,
    key: Option<&hmac::Key>,
    hook: &str,
    alert: Alert,
) {
    let body = Bytes::from(alert.body());
    let mut headers = vec![(KIND, HeaderValue::from_static(alert.kind.as_str()))];
    if let Some(Ok(value)) = key.map(|key| HeaderValue::try_from(signature(key, &body))) {
        headers.push((SIGNATURE, value));
    }
    for sendings in 1..=SENDINGS_MAX {
        let begun = Instant::now();
        let error = match caller.post(hook, &headers, body.clone(), TIMEOUT).await {
            Ok(200..=299) => {
                note(engine, alert, "delivered", sendings, begun.elapsed(), String::new());
                return;
            }
            Ok(status) => format!("it answered HTTP {status}"),
            Err(error) => error,
        };
        if sendings == SENDINGS_MAX {
            warn!(gid = %alert.gid, %error, "the alert webhook was not reached");
            note(engine, alert, "failed", sendings, begun.elapsed(), error);
            return;
        }
        debug!(gid = %alert.gid, %error, "the alert webhook is tried again");
        tokio::time::sleep(Duration::from_millis(200) * sendings).await;
    }
}

/// Returns the signature of a body as the header has it.
pub(super) fn signature(key: &hmac::Key, body: &[u8]) -> String {
    let mut text = String::from("sha256=");
    for byte in hmac::sign(key, body).as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Counts and lists an alert for which there was no room.
pub(super) fn note_dropped(engine: &Engine, alert: Alert) {
    debug!(gid = %alert.gid, "an alert was dropped: the webhook is too slow");
    let error = "too many alerts wait for the webhook".to_owned();
    note(engine, alert, "dropped", 0, Duration::ZERO, error);
}

fn note(
    engine: &Engine,
    alert: Alert,
    result: &'static str,
    sendings: u32,
    elapsed: Duration,
    error: String,
) {
    engine.metrics().alert(alert.kind.as_str(), result);
    let status = alert.status();
    let Alert { kind, at, gid, branch, .. } = alert;
    let kind = kind.as_str();
    engine.alert_log().push(AlertRecord {
        at,
        kind,
        gid,
        status,
        branch,
        result,
        sendings,
        elapsed,
        error,
    });
}
