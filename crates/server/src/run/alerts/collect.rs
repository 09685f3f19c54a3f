//! What is an alert: from the engine's events, and from looking for stuck transactions.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use dtmd_engine::{Engine, Event, ListFilter};
use dtmd_protocol::{Gid, Global, GlobalStatus, Mode, Timestamp};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{debug, warn};

use super::send::note_dropped;
use super::{Alert, AlertSettings, Current, Kind};

/// Transactions remembered because something of them was alerted. Past it no recovery is told.
const FIRING_MAX: usize = 10_000;
/// Branches remembered of one of them.
const BRANCHES_MAX: usize = 100;
/// Stuck transactions alerted in one look.
const STUCK_MAX: usize = 100;
/// How often stuck transactions are looked for, at most and at least.
const LOOK_EVERY_MIN: Duration = Duration::from_secs(1);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(30);

/// Turns events into alerts until the engine is gone.
pub(super) async fn run(engine: Engine, settings: AlertSettings, queue: mpsc::Sender<Alert>) {
    let mut events = engine.alerts();
    let mut looks = looks(&settings);
    let mut collector = Collector::new(engine, settings, queue);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => collector.hear(event),
                Err(RecvError::Lagged(missed)) => {
                    warn!(missed, "more branches fail than alerts can be made of");
                }
                Err(RecvError::Closed) => return,
            },
            _ = looks.tick() => collector.look().await,
        }
    }
}

fn looks(settings: &AlertSettings) -> Interval {
    let every = settings.stuck_after.map_or(LOOK_EVERY_MAX, |age| age / 4);
    let mut looks = tokio::time::interval(every.clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// What was alerted of one transaction and is not over.
#[derive(Debug, Default)]
struct Firing {
    branches: BTreeSet<String>,
    is_stuck: bool,
    is_poisoned: bool,
}

/// Decides what is told.
pub(super) struct Collector {
    engine: Engine,
    settings: AlertSettings,
    queue: mpsc::Sender<Alert>,
    firing: HashMap<Gid, Firing>,
}

impl Collector {
    pub(super) fn new(engine: Engine, settings: AlertSettings, queue: mpsc::Sender<Alert>) -> Self {
        Self { engine, settings, queue, firing: HashMap::new() }
    }

    /// Tells of an event, if it is one to tell of.
    pub(super) fn hear(&mut self, event: Event) {
        let Current { url: hook, limit } = self.settings.current();
        if hook.is_empty() {
            return;
        }
        let at = self.engine.now();
        match event {
            Event::Alert { gid, status, url, error, attempts } => {
                if limit == 0 || attempts < limit {
                    return;
                }
                let alert = Alert {
                    kind: Kind::Retry,
                    at,
                    gid: gid.to_string(),
                    status: Some(status),
                    branch: url.clone(),
                    error,
                    attempts,
                };
                if let Some(firing) = self.firing(gid)
                    && firing.branches.len() < BRANCHES_MAX
                {
                    firing.branches.insert(url);
                }
                self.enqueue(alert);
            }
            Event::Recovered { gid, status, url } => {
                let Some(firing) = self.firing.get_mut(&gid) else { return };
                if !firing.branches.remove(&url) {
                    return;
                }
                if firing.branches.is_empty() && !firing.is_stuck && !firing.is_poisoned {
                    self.firing.remove(&gid);
                }
                self.recovered(&gid, at, Some(status), url, "the branch has answered");
            }
            Event::Ended { gid, status } => self.ended(&gid, at, status),
            Event::Poisoned { gid, error } => {
                let Some(firing) = self.firing(gid.clone()) else { return };
                if std::mem::replace(&mut firing.is_poisoned, true) {
                    return;
                }
                self.enqueue(Alert {
                    kind: Kind::Poisoned,
                    at,
                    gid: gid.to_string(),
                    status: None,
                    branch: String::new(),
                    error,
                    attempts: 0,
                });
            }
            // Others are not sent on this channel.
            _ => {}
        }
    }

    /// Looks for stuck transactions, and for stuck ones that have ended.
    pub(super) async fn look(&mut self) {
        let Some(age) = self.settings.stuck_after else { return };
        if self.settings.current().url.is_empty() {
            return;
        }
        self.look_for_ends().await;
        let now = self.engine.now();
        let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let before = Timestamp(now.0.saturating_sub(micros));
        // Usually nothing is old, and the list need not be read.
        let Ok(oldest) = self.engine.oldest().await else { return };
        if oldest.created.is_some_and(|created| created > before) {
            return;
        }
        let statuses = [GlobalStatus::Prepared, GlobalStatus::Submitted, GlobalStatus::Aborting];
        for status in statuses {
            let filter = ListFilter {
                status: Some(status),
                created_to: Some(before),
                ..ListFilter::default()
            };
            match self.engine.list(&filter, "", STUCK_MAX).await {
                Ok(page) => {
                    for global in page.globals {
                        self.stuck(&global, now, age);
                    }
                }
                Err(error) => debug!(%error, "stuck transactions cannot be looked for"),
            }
        }
    }

    fn stuck(&mut self, global: &Global, now: Timestamp, limit: Duration) {
        let delay = match global.mode {
            Mode::Msg { delay } => delay,
            Mode::Saga { .. } | Mode::Tcc | Mode::Xa | Mode::Workflow { .. } => Duration::ZERO,
        };
        let age = now.since(global.created).saturating_sub(delay);
        if age < limit {
            return;
        }
        let Some(firing) = self.firing(global.gid.clone()) else { return };
        if std::mem::replace(&mut firing.is_stuck, true) {
            return;
        }
        let pending = global.branches.iter().filter(|row| row.is_pending());
        let worst = pending.max_by_key(|row| row.retry.attempts);
        self.enqueue(Alert {
            kind: Kind::Stuck,
            at: now,
            gid: global.gid.to_string(),
            status: Some(global.status),
            branch: worst.map(|row| row.url.to_string()).unwrap_or_default(),
            error: format!("not ended {} s after it was accepted", age.as_secs()),
            attempts: worst.map_or(0, |row| row.retry.attempts),
        });
    }

    /// Asks for those that were stuck: their end is not an event of this channel.
    async fn look_for_ends(&mut self) {
        let stuck: Vec<Gid> = self
            .firing
            .iter()
            .filter(|(_, firing)| firing.is_stuck || firing.is_poisoned)
            .map(|(gid, _)| gid.clone())
            .collect();
        for gid in stuck {
            let at = self.engine.now();
            match self.engine.query(&gid).await {
                Ok(Some(global)) if global.status.is_final() => self.ended(&gid, at, global.status),
                // Deleted after its end.
                Ok(None) => drop(self.firing.remove(&gid)),
                Ok(Some(_)) | Err(_) => {}
            }
        }
    }

    fn ended(&mut self, gid: &Gid, at: Timestamp, status: GlobalStatus) {
        let Some(firing) = self.firing.remove(gid) else { return };
        let text = format!("the transaction has ended as {status}");
        for branch in &firing.branches {
            self.recovered(gid, at, Some(status), branch.clone(), &text);
        }
        if firing.branches.is_empty() {
            self.recovered(gid, at, Some(status), String::new(), &text);
        }
    }

    fn recovered(
        &self,
        gid: &Gid,
        at: Timestamp,
        status: Option<GlobalStatus>,
        branch: String,
        text: &str,
    ) {
        if !self.settings.recovery {
            return;
        }
        let (kind, gid, error) = (Kind::Recovered, gid.to_string(), text.to_owned());
        self.enqueue(Alert { kind, at, gid, status, branch, error, attempts: 0 });
    }

    /// Returns what is remembered of a transaction; none if too much is.
    fn firing(&mut self, gid: Gid) -> Option<&mut Firing> {
        if self.firing.len() >= FIRING_MAX && !self.firing.contains_key(&gid) {
            return None;
        }
        Some(self.firing.entry(gid).or_default())
    }

    fn enqueue(&self, alert: Alert) {
        if let Err(error) = self.queue.try_send(alert) {
            note_dropped(&self.engine, error.into_inner());
        }
    }
}
