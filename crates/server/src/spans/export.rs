//! Sending spans to a collector, in batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dtmd_transport::outbound::{HttpCaller, OutboundOptions};
use http::header::{HeaderName, HeaderValue};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::Span;
use super::otlp::Encoder;
use crate::config::ExportSettings;

/// The most spans in one request.
const BATCH_MAX: usize = 1024;
/// How long a batch may gather.
const GATHER: Duration = Duration::from_secs(1);
/// How long the collector may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// After how long a batch is sent once more.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Sends what comes in until nobody can add to it.
pub(super) async fn run(
    settings: ExportSettings,
    mut waiting: mpsc::Receiver<Span>,
    mut flushes: mpsc::Receiver<oneshot::Sender<()>>,
    dropped: Arc<AtomicU64>,
) {
    let mut collector = Collector::new(&settings);
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        // Both receive without losing anything when the other one is first.
        let flushed = tokio::select! {
            count = waiting.recv_many(&mut batch, BATCH_MAX) => {
                if count == 0 {
                    return;
                }
                gather(&mut waiting, &mut flushes, &mut batch).await
            }
            Some(done) = flushes.recv() => Some(done),
        };
        if flushed.is_some() {
            while let Ok(span) = waiting.try_recv() {
                batch.push(span);
            }
        }
        for spans in batch.chunks(BATCH_MAX) {
            collector.send(spans).await;
        }
        batch.clear();
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            warn!(lost, "spans were dropped: the collector is too slow for what is traced");
        }
        if let Some(done) = flushed {
            let _ = done.send(());
        }
    }
}

/// Lets a batch grow, until it is full, its time is over or somebody wants it sent.
async fn gather(
    waiting: &mut mpsc::Receiver<Span>,
    flushes: &mut mpsc::Receiver<oneshot::Sender<()>>,
    batch: &mut Vec<Span>,
) -> Option<oneshot::Sender<()>> {
    let end = Instant::now() + GATHER;
    while batch.len() < BATCH_MAX {
        let room = BATCH_MAX - batch.len();
        tokio::select! {
            more = timeout_at(end, waiting.recv_many(batch, room)) => match more {
                Ok(count) if count > 0 => {}
                _ => return None,
            },
            Some(done) = flushes.recv() => return Some(done),
        }
    }
    None
}

/// Where spans are sent.
struct Collector {
    caller: HttpCaller,
    url: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    encoder: Encoder,
    /// Whether the last batch could not be sent: it is said once.
    is_failing: bool,
}

impl Collector {
    fn new(settings: &ExportSettings) -> Self {
        let options = OutboundOptions { ca_file: settings.ca_file.clone(), ..Default::default() };
        let readable = |(name, value): &(String, crate::config::Secret)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.reveal()).ok()?))
        };
        Self {
            caller: HttpCaller::new(options),
            url: settings.url.clone(),
            headers: settings.headers.iter().filter_map(readable).collect(),
            encoder: Encoder::new(&settings.service_name, &settings.resource),
            is_failing: false,
        }
    }

    /// Sends a batch, twice at most. What cannot be sent is lost: transactions do not depend on it,
    /// and memory must not.
    async fn send(&mut self, spans: &[Span]) {
        let body = Bytes::from(self.encoder.encode(spans));
        let first = self.post(body.clone()).await;
        let last = match first {
            Err((_, true)) => {
                sleep(RETRY_PAUSE).await;
                self.post(body).await
            }
            decided => decided,
        };
        match last {
            Ok(()) => self.is_failing = false,
            Err((error, _)) => self.note_failure(spans.len(), &error),
        }
    }

    /// Posts once; an error says whether a second try may help.
    async fn post(&self, body: Bytes) -> Result<(), (String, bool)> {
        match self.caller.post(&self.url, &self.headers, body, TIMEOUT).await {
            Ok(200..=299) => Ok(()),
            Ok(status) => {
                let may_pass = matches!(status, 429 | 502 | 503 | 504);
                Err((format!("it answered HTTP {status}"), may_pass))
            }
            Err(error) => Err((error, true)),
        }
    }

    fn note_failure(&mut self, lost: usize, error: &str) {
        if self.is_failing {
            debug!(lost, error, "spans were not sent");
        } else {
            warn!(lost, error, "spans are not sent: the collector of traces cannot be reached");
        }
        self.is_failing = true;
    }
}
