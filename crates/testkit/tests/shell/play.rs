//! Plays worlds and adds them up.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use dtmd_testkit::sim::Absorbed;

use crate::app::app;
use crate::bank::bank;
use crate::chance::{Fault, Seen};
use crate::chaos::Chaos;
use crate::server::server;
use crate::world::World;

/// Transactions in one world.
const TRANSACTIONS: usize = 20;
/// How far the time of all hosts moves at once.
const TICK: Duration = Duration::from_millis(4);
/// After the last fault everything must have ended within this.
const QUIET_MAX: Duration = Duration::from_secs(90);
/// How long late duplicates are waited for after the end.
const DRAIN: Duration = Duration::from_secs(7);

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Everything goes wrong.
    Chaos,
    /// And the store forgets what it has acknowledged: must be found.
    ForgetfulStore,
    /// And the banks have no barrier: must be found.
    NoBarrier,
    /// Nothing goes wrong.
    Calm,
}

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// A panic of a task is caught by its runtime, and must not go unseen (I15).
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            usual(panic);
        }));
    });
}

/// Plays one world, in a thread of its own: the pools of the callers belong to a thread, and what
/// one world leaves in them must not reach the next.
pub(crate) fn play(seed: u64, scene: Scene) -> Report {
    count_panics();
    std::thread::spawn(move || play_here(seed, scene)).join().expect("the simulation panicked")
}

fn play_here(seed: u64, scene: Scene) -> Report {
    let world = Arc::new(World::new(seed, TRANSACTIONS, scene));
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(12))
        .simulation_duration(Duration::from_secs(3600))
        .tcp_capacity(1024)
        .build();
    let sizes = world.sizes;
    for number in 0..sizes.servers {
        let world = world.clone();
        sim.host(format!("dtm-{number}"), move || server(world.clone(), number));
    }
    for number in 0..sizes.banks {
        let world = world.clone();
        sim.host(format!("bank-{number}"), move || bank(world.clone(), number));
    }
    for number in 0..sizes.apps {
        let world = world.clone();
        sim.host(format!("app-{number}"), move || app(world.clone(), number));
    }
    let (quiet_at, settled_at) = run(&mut sim, &world);
    if PANICS.get() > 0 {
        world.fail("I15", format!("{} panics", PANICS.get()));
    }
    Report {
        violations: world.violation().map(|violation| (seed, violation)).into_iter().collect(),
        worlds: 1,
        hash: world.hash(),
        counts: world.chance.counts(),
        seen: world.chance.seen(),
        ends: world.ends(),
        absorbed: world.absorbed(),
        acknowledged: world.acknowledged_count(),
        simulated: sim.elapsed(),
        settled_in_max: settled_at.saturating_sub(quiet_at),
    }
}

/// Runs a world to its end; returns when the faults ended and when all was final.
fn run(sim: &mut turmoil::Sim<'_>, world: &World) -> (Duration, Duration) {
    let mut chaos = Chaos::new();
    let quiet_at = Duration::from_millis(world.chance.range(6_000, 14_000));
    let step = |sim: &mut turmoil::Sim<'_>| {
        if let Err(error) = sim.step() {
            world.fail("I15", format!("a host ended: {error}"));
        }
        world.violation().is_none()
    };
    while sim.elapsed() < quiet_at {
        chaos.act(sim, world);
        if !step(sim) {
            return (quiet_at, sim.elapsed());
        }
    }
    chaos.end(sim, world);
    let settled_at = loop {
        for _ in 0..25 {
            if !step(sim) {
                return (quiet_at, sim.elapsed());
            }
        }
        let left = world.unfinished();
        if left.is_empty() {
            break sim.elapsed();
        }
        if sim.elapsed() > quiet_at + QUIET_MAX {
            world.fail("I9", format!("not ended {QUIET_MAX:?} after the last fault: {left:?}"));
            return (quiet_at, sim.elapsed());
        }
    };
    while sim.elapsed() < settled_at + DRAIN && step(sim) {}
    world.check_end();
    (quiet_at, settled_at)
}

/// Plays worlds on all cores.
pub(crate) fn play_all(from: u64, worlds: u64, scene: Scene) -> Report {
    let next = AtomicU64::new(from);
    let report = Mutex::new(Report::default());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= from + worlds {
                        return;
                    }
                    report.lock().unwrap().add(play(seed, scene));
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap();
    report.violations.sort();
    report
}

/// What came of one world, or of several.
#[derive(Default)]
pub(crate) struct Report {
    /// What was found, by seed.
    pub(crate) violations: Vec<(u64, String)>,
    worlds: u64,
    /// The same for worlds that went the same way.
    hash: u64,
    counts: BTreeMap<Fault, u64>,
    seen: BTreeMap<Seen, u64>,
    ends: BTreeMap<(&'static str, &'static str), u64>,
    absorbed: Absorbed,
    acknowledged: u64,
    simulated: Duration,
    /// From the end of the faults until all was final, at most.
    settled_in_max: Duration,
}

impl Report {
    fn add(&mut self, played: Report) {
        self.violations.extend(played.violations);
        self.worlds += played.worlds;
        self.hash ^= played.hash;
        for (fault, count) in played.counts {
            *self.counts.entry(fault).or_default() += count;
        }
        for (what, count) in played.seen {
            *self.seen.entry(what).or_default() += count;
        }
        for (end, count) in played.ends {
            *self.ends.entry(end).or_default() += count;
        }
        let (sum, one) = (&mut self.absorbed, played.absorbed);
        sum.null_compensations += one.null_compensations;
        sum.hanging += one.hanging;
        sum.duplicates += one.duplicates;
        sum.commits_refused += one.commits_refused;
        sum.xa_waits += one.xa_waits;
        self.acknowledged += played.acknowledged;
        self.simulated += played.simulated;
        self.settled_in_max = self.settled_in_max.max(played.settled_in_max);
    }

    /// Returns what must have happened for the run to prove anything, and has not.
    pub(crate) fn missing(&self) -> Vec<String> {
        let unseen = Seen::ALL.iter().filter(|what| !self.seen.contains_key(what));
        let never = Fault::ALL.iter().filter(|fault| !self.counts.contains_key(fault));
        let mut missing: Vec<String> = never.map(|fault| fault.name().to_owned()).collect();
        missing.extend(unseen.map(|what| what.name().to_owned()));
        for trans_type in ["saga", "tcc", "msg", "xa"] {
            for end in ["succeed", "failed"] {
                if !self.ends.contains_key(&(trans_type, end)) {
                    missing.push(format!("a {trans_type} that ended as {end}"));
                }
            }
        }
        let Absorbed { null_compensations, hanging, duplicates, .. } = self.absorbed;
        let absorbed = [
            (null_compensations, "null compensation"),
            (hanging, "hanging"),
            (duplicates, "repeat"),
        ];
        let never = absorbed.iter().filter(|(count, _)| *count == 0);
        missing.extend(never.map(|(_, what)| format!("a {what} that a barrier absorbed")));
        missing
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let transactions: u64 = self.ends.values().sum();
        let counts: Vec<String> =
            self.counts.iter().map(|(fault, count)| format!("{count} {}", fault.name())).collect();
        let seen: Vec<String> =
            self.seen.iter().map(|(what, count)| format!("{count} {}", what.name())).collect();
        let ends: Vec<String> = self
            .ends
            .iter()
            .map(|((trans_type, end), count)| format!("{trans_type} {end} {count}"))
            .collect();
        vec![
            format!(
                "{} worlds, {transactions} transactions ({} with an acknowledged end), {} s \
                 simulated, all final {:.1} s after the last fault at the latest",
                self.worlds,
                self.acknowledged,
                self.simulated.as_secs(),
                self.settled_in_max.as_secs_f64()
            ),
            format!("injected: {}", counts.join(", ")),
            format!("seen: {}", seen.join(", ")),
            format!("ended: {}", ends.join(", ")),
            format!("barriers: {:?}", self.absorbed),
            format!("trace: {:016x}", self.hash),
        ]
    }
}
