//! What goes wrong, decided by the seed and by nothing else.
//!
//! Whether a fault hits is a hash of the seed, its kind and a key of what it hits. Taking one fault
//! away therefore leaves the others where they were, which is what makes shrinking work.

use std::collections::BTreeSet;

use crate::rng::{Rng, mix};

macro_rules! kinds {
    ($($(#[$meta:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind { $($(#[$meta])* $variant,)+ }

        impl FaultKind {
            /// Every kind.
            pub const ALL: &[FaultKind] = &[$(FaultKind::$variant),+];

            /// Returns its name in reports.
            pub fn name(self) -> &'static str {
                match self { $(FaultKind::$variant => $name),+ }
            }
        }
    };
}

kinds! {
    /// A server dies at some moment and starts again later.
    Crash = "server crash",
    /// A server dies when its batch is in the store, before it learns so.
    CrashAfterWrite = "crash between write and act",
    /// A server stands still for longer than its leases.
    Pause = "server pause",
    /// A message between any two parties never arrives.
    Lost = "message lost",
    /// A message arrives twice, the second time up to hours later.
    Doubled = "message doubled",
    /// A message arrives minutes or hours late.
    Delayed = "message delayed",
    /// A message is overtaken by later ones.
    Reordered = "message reordered",
    /// Two parties cannot reach each other, in one or both directions.
    Partition = "partition",
    /// A server's clock is wrong from the start.
    ClockSkew = "clock skew",
    /// A server's clock jumps by seconds to hours, either way.
    ClockJump = "clock jump",
    /// A batch fails and nothing of it was written.
    StoreError = "store error, not written",
    /// A batch fails and all of it was written.
    StoreErrorWritten = "store error, but written",
    /// A batch fails and some of it was written.
    StoreErrorPartly = "store error, partly written",
    /// The store answers nobody for a while.
    StoreOutage = "store outage",
    /// A batch or a read takes long.
    SlowStore = "slow store",
    /// A service answers after the time limit, its work done at the very end.
    SlowService = "slow service",
    /// A service never answers; its work may be done or not.
    HangingService = "hanging service",
    /// A service answers garbage; its work may be done or not.
    FailingService = "failing service",
    /// A service answers one call of an operation with FAILURE and another with SUCCESS.
    InconsistentService = "inconsistent service",
    /// A service asks for patience.
    Ongoing = "service says ongoing",
    /// A call is not made, because its destination is known to be down.
    Postponed = "call postponed by a breaker",
    /// An application dies and never comes back, or does not ask again after an unknown answer.
    AppCrash = "application crash",
}

/// The faults of one world.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    rates: Vec<u64>,
    /// False in the quiet phase.
    pub(crate) active: bool,
    /// If given, only these happen.
    allow: Option<BTreeSet<u64>>,
    /// Those that happened, in order.
    pub(crate) injected: Vec<(u64, FaultKind)>,
}

impl Faults {
    /// Draws how often each kind happens; in each world some kinds never do (swarm testing).
    pub(crate) fn new(seed: u64, allow: Option<BTreeSet<u64>>) -> Self {
        let mut rng = Rng::new(mix(seed, 0xfa17));
        let calm = rng.chance(60);
        let rates = FaultKind::ALL.iter().map(|_| {
            let rate = [0, 0, 5, 15, 40, 120][rng.index(6)];
            if calm { 0 } else { rate }
        });
        Self { seed, rates: rates.collect(), active: true, allow, injected: Vec::new() }
    }

    /// Returns how many times in a thousand a kind happens in this world.
    pub(crate) fn rate(&self, kind: FaultKind) -> u64 {
        self.rates[kind as usize]
    }

    /// Returns whether a fault hits what `key` names, at the world's rate.
    pub(crate) fn hits(&mut self, kind: FaultKind, key: u64) -> bool {
        self.hits_at(kind, key, self.rate(kind))
    }

    /// Returns whether a fault hits, at a rate of `permille`.
    pub(crate) fn hits_at(&mut self, kind: FaultKind, key: u64, permille: u64) -> bool {
        if !self.active || permille == 0 {
            return false;
        }
        // 40 bits: short enough to be typed, long enough to be one fault.
        let id = mix(mix(self.seed, kind as u64 + 1), key) >> 24;
        if id % 1000 >= permille || self.allow.as_ref().is_some_and(|allow| !allow.contains(&id)) {
            return false;
        }
        self.injected.push((id, kind));
        true
    }
}
