//! What goes wrong, how often, and how often it did.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use dtmd_testkit::rng::Rng;

macro_rules! faults {
    ($($(#[$meta:meta])* $variant:ident = $name:literal, $often:literal),+ $(,)?) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Fault { $($(#[$meta])* $variant,)+ }

        impl Fault {
            pub(crate) const ALL: &[Fault] = &[$(Fault::$variant),+];

            /// Returns its name in the report.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Fault::$variant => $name),+ }
            }

            /// Returns how often it happens in a world in which it is frequent: in a thousand
            /// occasions, or as its weight among what the controller may do.
            fn often(self) -> u64 {
                match self { $(Fault::$variant => $often),+ }
            }
        }
    };
}

faults! {
    /// A server's host stops at any moment and starts again later.
    ServerCrash = "server crashes", 8,
    ServiceCrash = "service crashes", 5,
    AppCrash = "application crashes", 4,
    /// A server is told to end, and starts again.
    GracefulStop = "graceful stops", 4,
    /// Nothing passes between two hosts, in either direction.
    Partition = "partitions", 6,
    /// Nothing passes in one direction.
    OneWay = "one-way partitions", 5,
    /// What passes between two hosts is kept back and delivered later, all at once.
    Hold = "held links", 5,
    /// A link becomes slow.
    Latency = "slow links", 4,
    /// A server's wall clock jumps.
    ClockJump = "clock jumps", 4,
    /// A connection is reset after some bytes.
    LostConnection = "lost connections", 120,
    /// An application sends a request twice at the same time, to two servers.
    RepeatedRequest = "repeated requests", 120,
    /// A call to a service arrives a second time, later.
    LateDuplicate = "late duplicates", 250,
    StoreErrorBefore = "store errors before", 25,
    /// The store has done it, and says that it failed.
    StoreErrorAfter = "store errors after", 25,
    StoreSlow = "slow store calls", 30,
    ServiceErrorBefore = "service errors before", 80,
    ServiceErrorAfter = "service errors after", 80,
    ServiceOngoing = "ongoing answers", 60,
    ServiceSlow = "slow services", 60,
    /// An action or try is refused this time.
    Refusal = "refusals", 60,
    /// An application ends between two of its requests.
    AppDies = "abandoned transactions", 25,
}

macro_rules! seen {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// What must be seen for a run to prove anything, besides faults.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Seen { $($variant,)+ }

        impl Seen {
            pub(crate) const ALL: &[Seen] = &[$(Seen::$variant),+];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Seen::$variant => $name),+ }
            }
        }
    };
}

seen! {
    AcknowledgedOverHttp = "requests acknowledged over HTTP",
    AcknowledgedOverGrpc = "requests acknowledged over gRPC",
    CalledOverHttp = "calls over HTTP",
    CalledOverGrpc = "calls over gRPC",
    Claimed = "due transactions claimed",
}

/// The source of all that is left to chance in a world.
pub(crate) struct Chance {
    rng: Mutex<Rng>,
    rates: BTreeMap<Fault, u64>,
    quiet: AtomicBool,
    counts: Mutex<BTreeMap<Fault, u64>>,
    seen: Mutex<BTreeMap<Seen, u64>>,
}

impl Chance {
    /// Some kinds of fault are absent, some rare, some frequent; in a calm world all are absent.
    pub(crate) fn new(mut rng: Rng, calm: bool) -> Self {
        let mut rates = BTreeMap::new();
        for &fault in Fault::ALL {
            let rate = match rng.below(4) {
                _ if calm => 0,
                0 => 0,
                1 => fault.often().div_ceil(4),
                _ => fault.often(),
            };
            rates.insert(fault, rate);
        }
        Self {
            rng: Mutex::new(rng),
            rates,
            quiet: AtomicBool::new(false),
            counts: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    pub(crate) fn rate(&self, fault: Fault) -> u64 {
        self.rates[&fault]
    }

    /// Returns whether a fault happens on this occasion; counts it if so.
    pub(crate) fn hits(&self, fault: Fault) -> bool {
        let hits = !self.is_quiet() && self.rng().chance(self.rates[&fault]);
        if hits {
            self.count(fault);
        }
        hits
    }

    pub(crate) fn count(&self, fault: Fault) {
        *self.counts.lock().unwrap().entry(fault).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<Fault, u64> {
        self.counts.lock().unwrap().clone()
    }

    pub(crate) fn see(&self, what: Seen) {
        *self.seen.lock().unwrap().entry(what).or_default() += 1;
    }

    pub(crate) fn seen(&self) -> BTreeMap<Seen, u64> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn rng(&self) -> MutexGuard<'_, Rng> {
        self.rng.lock().unwrap()
    }

    /// Returns a number from `low` to `high`.
    pub(crate) fn range(&self, low: u64, high: u64) -> u64 {
        self.rng().range(low, high)
    }

    /// Sleeps for some milliseconds from `low` to `high`.
    pub(crate) async fn pause(&self, low: u64, high: u64) {
        let ms = self.range(low, high);
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
    }

    /// No fault happens from now on.
    pub(crate) fn be_quiet(&self) {
        self.quiet.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::SeqCst)
    }
}
