//! The controller: what it does to hosts, links and clocks while there is chaos.

use std::sync::atomic::Ordering;
use std::time::Duration;

use turmoil::Sim;

use crate::chance::{Chance, Fault};
use crate::world::{Sizes, World};

/// What the controller may do.
const DEEDS: &[Fault] = &[
    Fault::ServerCrash,
    Fault::ServiceCrash,
    Fault::AppCrash,
    Fault::GracefulStop,
    Fault::Partition,
    Fault::OneWay,
    Fault::Hold,
    Fault::Latency,
    Fault::ClockJump,
];
/// By how much a clock is wrong at most.
const CLOCK_ERROR_MAX_MS: u64 = 6_000;
/// What a link's delay is usually, at most.
const DELAY_MAX: Duration = Duration::from_millis(12);

/// Does things to a simulation.
pub(crate) struct Chaos {
    next_at: Duration,
    /// Hosts that are down, and when they start again.
    down: Vec<(Duration, String)>,
    /// Links with a fault, and when it ends.
    broken: Vec<(Duration, (String, String), Fault)>,
}

impl Chaos {
    pub(crate) fn new() -> Self {
        Self { next_at: Duration::from_millis(200), down: Vec::new(), broken: Vec::new() }
    }

    /// Does what is due.
    pub(crate) fn act(&mut self, sim: &mut Sim<'_>, world: &World) {
        let now = sim.elapsed();
        self.mend(sim, now);
        if now < self.next_at {
            return;
        }
        let chance = &world.chance;
        self.next_at = now + Duration::from_millis(chance.range(30, 700));
        let weights: u64 = DEEDS.iter().map(|deed| chance.rate(*deed)).sum();
        if weights == 0 {
            return;
        }
        let mut lot = chance.rng().below(weights);
        for &deed in DEEDS {
            let weight = chance.rate(deed);
            if lot < weight {
                return self.perform(deed, sim, world);
            }
            lot -= weight;
        }
    }

    /// Ends every fault.
    pub(crate) fn end(&mut self, sim: &mut Sim<'_>, world: &World) {
        world.chance.be_quiet();
        self.mend(sim, Duration::MAX);
        for clock in &world.clocks {
            clock.store(0, Ordering::Relaxed);
        }
        for host in hosts(world.sizes) {
            if !sim.is_host_running(host.as_str()) {
                sim.bounce(host.as_str());
            }
        }
    }

    fn mend(&mut self, sim: &mut Sim<'_>, now: Duration) {
        self.down.retain(|(until, host)| {
            // A graceful stop may take longer than it was given.
            let stays_down = *until > now;
            if !stays_down {
                sim.bounce(host.as_str());
            }
            stays_down
        });
        self.broken.retain(|(until, (from, to), fault)| {
            let stays_broken = *until > now;
            if !stays_broken {
                let (from, to) = (from.as_str(), to.as_str());
                match fault {
                    Fault::Hold => sim.release(from, to),
                    Fault::OneWay => sim.repair_oneway(from, to),
                    Fault::Latency => sim.set_link_max_message_latency(from, to, DELAY_MAX),
                    _ => sim.repair(from, to),
                }
            }
            stays_broken
        });
    }

    fn perform(&mut self, deed: Fault, sim: &mut Sim<'_>, world: &World) {
        let (chance, sizes) = (&world.chance, world.sizes);
        let until = sim.elapsed() + Duration::from_millis(chance.range(50, 5_000));
        match deed {
            Fault::ServerCrash | Fault::ServiceCrash | Fault::AppCrash => {
                let (kind, count) = match deed {
                    Fault::ServerCrash => ("dtm", sizes.servers),
                    Fault::ServiceCrash => ("bank", sizes.banks),
                    _ => ("app", sizes.apps),
                };
                let host = format!("{kind}-{}", chance.rng().index(count));
                if !sim.is_host_running(host.as_str()) {
                    return;
                }
                sim.crash(host.as_str());
                if deed == Fault::ServerCrash {
                    world.server_crashed();
                }
                self.down.retain(|(_, down)| *down != host);
                self.down.push((until, host));
            }
            Fault::GracefulStop => {
                let server = chance.rng().index(sizes.servers);
                let Some(stop) = world.stops.lock().unwrap()[server].take() else { return };
                let host = format!("dtm-{server}");
                if stop.send(true).is_err() || self.down.iter().any(|(_, down)| *down == host) {
                    return;
                }
                self.down.push((until + Duration::from_secs(2), host));
            }
            Fault::ClockJump => {
                let server = chance.rng().index(sizes.servers);
                let ms = chance.range(0, 2 * CLOCK_ERROR_MAX_MS);
                let us = (i64::try_from(ms).unwrap_or(0) - 6_000) * 1000;
                world.clocks[server].store(us, Ordering::Relaxed);
            }
            _ => {
                let (from, to) = pair(chance, sizes);
                let is_same = |(a, b): &(String, String)| {
                    (*a == from && *b == to) || (*a == to && *b == from)
                };
                if self.broken.iter().any(|(_, link, _)| is_same(link)) {
                    return;
                }
                match deed {
                    Fault::Partition => sim.partition(from.as_str(), to.as_str()),
                    Fault::OneWay => sim.partition_oneway(from.as_str(), to.as_str()),
                    Fault::Hold => sim.hold(from.as_str(), to.as_str()),
                    _ => {
                        let delay = Duration::from_millis(chance.range(100, 2_500));
                        sim.set_link_max_message_latency(from.as_str(), to.as_str(), delay);
                    }
                }
                self.broken.push((until, (from, to), deed));
            }
        }
        chance.count(deed);
    }
}

/// Returns the names of all hosts.
pub(crate) fn hosts(sizes: Sizes) -> Vec<String> {
    let named =
        |kind: &'static str, count| (0..count).map(move |number| format!("{kind}-{number}"));
    named("dtm", sizes.servers)
        .chain(named("bank", sizes.banks))
        .chain(named("app", sizes.apps))
        .collect()
}

/// Returns two hosts that talk to each other, in either order.
fn pair(chance: &Chance, sizes: Sizes) -> (String, String) {
    let mut rng = chance.rng();
    let server = format!("dtm-{}", rng.index(sizes.servers));
    let bank = format!("bank-{}", rng.index(sizes.banks));
    let app = format!("app-{}", rng.index(sizes.apps));
    let (one, other) = match rng.below(5) {
        0 | 1 => (server, bank),
        2 | 3 => (server, app),
        _ => (app, bank),
    };
    if rng.chance(500) { (one, other) } else { (other, one) }
}
