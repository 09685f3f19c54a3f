//! What all runners share.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dtmd_protocol::{Gid, Mode, Request, Timestamp};
use dtmd_store::Store;
use tokio::runtime::Handle;
use tokio::sync::broadcast;

use crate::alert_log::AlertLog;
use crate::attempts::Attempts;
use crate::caller::BranchCaller;
use crate::clock::Clock;
use crate::committer::Committer;
use crate::destinations::Destinations;
use crate::error::EngineError;
use crate::events::{EVENTS_MAX, Event, Passes};
use crate::hash::{self, QuickMap};
use crate::inbox::{Inbox, Messages, NotTaken, inbox};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::options::EngineOptions;
use crate::pace::Pace;
use crate::runner::{Message, Runner};
use crate::timers::Timers;

const SHARDS: usize = 16;

/// What all runners share.
pub(crate) struct Core {
    pub(crate) options: EngineOptions,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) committer: Committer,
    pub(crate) caller: Arc<dyn BranchCaller>,
    pub(crate) clock: Clock,
    pub(crate) timers: Timers,
    pub(crate) destinations: Destinations,
    pub(crate) pace: Pace,
    pub(crate) memory: Memory,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: broadcast::Sender<Event>,
    /// Somebody has listened to `events`: to ask the channel takes a lock that all threads share.
    pub(crate) watched: AtomicBool,
    pub(crate) alerts: broadcast::Sender<Event>,
    pub(crate) alert_log: AlertLog,
    pub(crate) attempts: Attempts,
    pub(crate) passes: Passes,
    /// This process's name as an owner of leases; new at every start.
    pub(crate) owner: Arc<str>,
    pub(crate) closing: AtomicBool,
    /// Whether nobody else writes to the store: then what a runner knows is what is stored.
    pub(crate) exclusive: bool,
    tags: AtomicU64,
    /// Tags must not be alike on two servers, so their hash is the careful one.
    tag_hasher: RandomState,
    active: Active,
    /// The network runtimes; work that no request brought is spread over them.
    runtimes: RwLock<Vec<Handle>>,
    next_runtime: AtomicUsize,
}

/// The runners of this process: at most one a gid.
struct Active {
    // Std mutexes: a look-up and a push each.
    shards: Vec<Mutex<QuickMap<Gid, Place>>>,
    hasher: hash::RandomState,
    /// How many there are by [`Origin`]. Counted apart, so that neither what callers begin nor what
    /// is due can keep the other out.
    counts: [AtomicUsize; 2],
}

/// A runner's.
struct Place {
    inbox: Inbox,
    origin: Origin,
}

/// What a runner was started for.
#[derive(Clone, Copy)]
enum Origin {
    /// A request.
    Asked,
    /// Its global is due.
    Due,
}

impl Origin {
    fn of(message: &Message) -> Self {
        match message {
            Message::Create { .. } | Message::Request { .. } => Self::Asked,
            Message::Wake { .. } | Message::Kick { .. } | Message::Renew => Self::Due,
        }
    }
}

impl Core {
    pub(crate) fn new(
        options: EngineOptions,
        store: Arc<dyn Store>,
        committer: Committer,
        caller: Arc<dyn BranchCaller>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let exclusive = store.info().exclusive;
        let clock = Clock::new(options.environment.clone());
        Self {
            destinations: Destinations::new(options.destinations.clone()),
            pace: Pace::new(due_max(&options)),
            memory: Memory::default(),
            options,
            store,
            committer,
            caller,
            clock,
            timers: Timers::default(),
            metrics,
            events: broadcast::channel(EVENTS_MAX).0,
            watched: AtomicBool::new(false),
            alerts: broadcast::channel(EVENTS_MAX).0,
            alert_log: AlertLog::default(),
            attempts: Attempts::default(),
            passes: Passes::default(),
            owner: Arc::from(uuid::Uuid::now_v7().simple().to_string()),
            closing: AtomicBool::new(false),
            exclusive,
            tags: AtomicU64::new(0),
            tag_hasher: RandomState::new(),
            active: Active {
                shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
                hasher: hash::RandomState::default(),
                counts: Default::default(),
            },
            runtimes: RwLock::default(),
            next_runtime: AtomicUsize::new(0),
        }
    }

    /// Returns a tag for the revisions of a runner that has just loaded its global.
    pub(crate) fn new_tag(&self) -> u32 {
        let number = self.tags.fetch_add(1, Ordering::Relaxed);
        // Different servers draw from differently seeded hashers.
        let hash = self.tag_hasher.hash_one((&*self.owner, number));
        u32::try_from(hash >> 32).unwrap_or(0)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Returns how many more globals may be woken because they are due.
    pub(crate) fn room_for_due(&self) -> usize {
        self.pace.window().saturating_sub(self.active.count(Origin::Due))
    }

    /// Returns whether anybody listens to the events.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed) && self.events.receiver_count() > 0
    }

    pub(crate) fn active_count(&self) -> usize {
        self.active.count(Origin::Asked) + self.active.count(Origin::Due)
    }

    pub(crate) fn is_active(&self, gid: &Gid) -> bool {
        self.active.shard(gid).contains_key(gid)
    }

    /// Adds the current runtime to those that background work is spread over; true for the first.
    pub(crate) fn add_runtime(&self) -> bool {
        let mut runtimes = self.runtimes.write().unwrap_or_else(PoisonError::into_inner);
        runtimes.push(Handle::current());
        runtimes.len() == 1
    }

    /// Gives a message to the runner of a gid, starting one on this runtime if there is none.
    ///
    /// # Errors
    ///
    /// `Overloaded` when the runner, or the server, has too much to do. The message is dropped.
    pub(crate) fn send(self: &Arc<Self>, gid: &Gid, message: Message) -> Result<(), EngineError> {
        self.send_on(&Handle::current(), gid, message)
    }

    /// Like [`Core::send`], on the next of the network runtimes.
    pub(crate) fn send_spread(
        self: &Arc<Self>,
        gid: &Gid,
        message: Message,
    ) -> Result<(), EngineError> {
        let handle = {
            let runtimes = self.runtimes.read().unwrap_or_else(PoisonError::into_inner);
            let turn = self.next_runtime.fetch_add(1, Ordering::Relaxed);
            runtimes.get(turn % runtimes.len().max(1)).cloned()
        };
        self.send_on(&handle.unwrap_or_else(Handle::current), gid, message)
    }

    fn send_on(
        self: &Arc<Self>,
        handle: &Handle,
        gid: &Gid,
        message: Message,
    ) -> Result<(), EngineError> {
        let mut shard = self.active.shard(gid);
        let message = match shard.get(gid) {
            None => message,
            Some(place) => match place.inbox.put(message) {
                Ok(()) => return Ok(()),
                Err(NotTaken::Full) => {
                    return Err(EngineError::Overloaded("too many requests for one gid"));
                }
                // Begin anew.
                Err(NotTaken::Closed(message)) => {
                    self.active.remove(&mut shard, gid);
                    message
                }
            },
        };
        // What is known to exist goes before what would be new: it is what frees places again.
        let (origin, is_new) = (Origin::of(&message), is_new(&message));
        if is_new {
            self.memory.admit()?;
        }
        let places = match origin {
            Origin::Asked if is_new => self.options.active_max,
            Origin::Asked => self.options.active_max.saturating_mul(2),
            Origin::Due => due_max(&self.options),
        };
        if self.active.count(origin) >= places {
            return Err(EngineError::Overloaded("too many transactions are worked on"));
        }
        let (inbox, messages) = inbox(message);
        shard.insert(gid.clone(), Place { inbox, origin });
        self.active.counts[origin as usize].fetch_add(1, Ordering::Relaxed);
        // Under the shard's lock, as is the setting in `retire`.
        self.timers.cancel(gid);
        drop(shard);
        // Boxed here: a task that is spawned is moved several times, and this one is large.
        handle.spawn(Box::pin(Runner::new(self.clone(), gid.clone(), messages).run()));
        Ok(())
    }

    /// Ends the runner of a gid, unless a message has come in for it; then it must go on.
    ///
    /// `wake_at` is its global's wake-up, if it has one.
    pub(crate) fn retire(
        &self,
        gid: &Gid,
        messages: &Messages,
        wake_at: Option<Timestamp>,
    ) -> bool {
        let mut shard = self.active.shard(gid);
        if !messages.is_empty() {
            return false;
        }
        self.active.remove(&mut shard, gid);
        if let Some(at) = wake_at.filter(|_| !self.options.test_control && !self.is_closing()) {
            self.timers.set(gid.clone(), at);
        }
        true
    }

    /// Sends a message to every runner there is, if its inbox has room.
    pub(crate) fn tell_all(&self, message: impl Fn() -> Message) {
        for shard in &self.active.shards {
            let inboxes: Vec<_> = lock(shard).values().map(|place| place.inbox.clone()).collect();
            for inbox in inboxes {
                let _ = inbox.put(message());
            }
        }
    }
}

/// Returns how many globals are worked on because they are due, at most.
fn due_max(options: &EngineOptions) -> usize {
    options.active_max.div_ceil(2)
}

/// Whether a request probably begins something. The submit of a tcc, xa or two-phase message ends
/// what was prepared before, though it could also stand alone.
fn is_new(message: &Message) -> bool {
    let Message::Create { new, otherwise, .. } = message else { return false };
    let ends_prepared = match new.mode {
        Mode::Tcc | Mode::Xa => true,
        Mode::Msg { .. } => !new.query_prepared.is_empty(),
        Mode::Saga { .. } | Mode::Workflow { .. } => false,
    };
    !(ends_prepared && matches!(otherwise, Request::Submit(_)))
}

impl Active {
    fn count(&self, origin: Origin) -> usize {
        self.counts[origin as usize].load(Ordering::Relaxed)
    }

    fn remove(&self, shard: &mut QuickMap<Gid, Place>, gid: &Gid) {
        if let Some(place) = shard.remove(gid) {
            self.counts[place.origin as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn shard(&self, gid: &Gid) -> MutexGuard<'_, QuickMap<Gid, Place>> {
        let hash = self.hasher.hash_one(gid.as_str());
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        lock(&self.shards[index])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
