//! What goes wrong with machines and links, as a list drawn before the world begins.

use super::fault::FaultKind;
use super::world::{Ev, Party, World};
use crate::rng::{Rng, mix};

const SECOND: u64 = 1_000_000;

/// A fault of a machine or a link, from one time to another.
#[derive(Debug, Clone)]
pub(crate) struct EnvFault {
    kind: FaultKind,
    server: usize,
    from: Party,
    to: Party,
    both_ways: bool,
    lasts: u64,
    shift: i64,
}

impl World {
    /// Draws what will go wrong in `length` microseconds.
    pub(crate) fn draw_environment(&mut self, length: u64) {
        let mut rng = Rng::new(mix(self.seed, 0xe0));
        let kinds = [
            (FaultKind::Crash, 9),
            (FaultKind::Pause, 3),
            (FaultKind::Partition, 5),
            (FaultKind::ClockJump, 2),
            (FaultKind::StoreOutage, 2),
        ];
        for s in 0..self.servers.len() {
            let key = 1 << 62 | s as u64;
            if self.faults.hits_at(FaultKind::ClockSkew, key, 150) {
                self.servers[s].offset = skew(&mut rng, 10 * SECOND);
            }
        }
        for (kind, most) in kinds {
            let busy = self.faults.rate(kind) > 0;
            let count = if busy { rng.below(most + 1) } else { 0 };
            for _ in 0..count {
                let at = rng.below(length);
                let fault = self.draw_one(kind, &mut rng);
                let nth = self.env.len();
                let keep = self.faults.hits_at(kind, 3 << 60 | nth as u64, 999);
                self.env.push(fault);
                if keep {
                    self.at(at, Ev::EnvBegins { nth });
                }
            }
        }
    }

    fn draw_one(&mut self, kind: FaultKind, rng: &mut Rng) -> EnvFault {
        let server = rng.index(self.servers.len());
        let parties = [
            (Party::Apps, Party::Server(server)),
            (Party::Server(server), Party::Service(rng.index(4))),
            (Party::Server(server), Party::Store),
        ];
        let (from, to) = parties[rng.index(parties.len())];
        let hours = rng.chance(300);
        let swap = rng.chance(500);
        EnvFault {
            kind,
            server,
            from: if swap { to } else { from },
            to: if swap { from } else { to },
            both_ways: rng.chance(600),
            lasts: match kind {
                FaultKind::Crash if rng.chance(500) => rng.range(SECOND / 100, SECOND),
                _ => rng.range(SECOND, 60 * SECOND),
            },
            shift: skew(rng, if hours { 3 * 3600 * SECOND } else { 60 * SECOND }),
        }
    }

    pub(crate) fn env_begins(&mut self, nth: usize) {
        let EnvFault { kind, server, from, to, both_ways, lasts, shift } = self.env[nth].clone();
        self.note(|| format!("{} begins", kind.name()));
        match kind {
            FaultKind::Crash => return self.crash(server, lasts),
            FaultKind::Pause => {
                self.servers[server].paused_until = self.now + lasts;
                return;
            }
            FaultKind::ClockJump => {
                self.servers[server].offset = shift;
                return self.clock_was_set(server);
            }
            FaultKind::StoreOutage => self.store_down += 1,
            _ => {
                self.cut.push((from, to));
                if both_ways {
                    self.cut.push((to, from));
                }
            }
        }
        self.at(lasts, Ev::EnvEnds { nth });
    }

    pub(crate) fn env_ends(&mut self, nth: usize) {
        let EnvFault { kind, from, to, both_ways, .. } = self.env[nth].clone();
        if self.is_quiet {
            return;
        }
        if kind == FaultKind::StoreOutage {
            self.store_down -= 1;
            return;
        }
        for cut in [(from, to), (to, from)].into_iter().take(1 + usize::from(both_ways)) {
            if let Some(index) = self.cut.iter().position(|there| *there == cut) {
                self.cut.remove(index);
            }
        }
    }

    /// All faults end: from here on everything must come to its end.
    pub(crate) fn quiet(&mut self) {
        self.is_quiet = true;
        self.faults.active = false;
        self.cut.clear();
        self.store_down = 0;
        for s in 0..self.servers.len() {
            self.servers[s].offset = 0;
            self.servers[s].paused_until = 0;
            self.clock_was_set(s);
        }
    }
}

fn skew(rng: &mut Rng, most: u64) -> i64 {
    let shift = i64::try_from(rng.below(most)).unwrap_or(0);
    if rng.chance(500) { shift } else { -shift }
}
