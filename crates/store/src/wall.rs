//! This process's wall clock, which does not jump.
//!
//! Ages and wake-ups are told by the machine's clock, and that may be set while the process runs:
//! by an hour, say, by somebody who mistakes the zone. Were that believed at once, every prepared
//! transaction would time out in the same moment, or nothing would be due for an hour. So a jump
//! of more than a minute is taken in slowly: time runs a tenth faster or slower until it is made
//! up for. Smaller steps are the machine's clock being kept right, and are followed.
//!
//! A process that starts believes the machine's clock as it is.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use dtmd_protocol::Timestamp;

/// The largest step that is followed at once, in microseconds.
const STEP_MAX: i64 = 60_000_000;
/// A jump is made up for by this part of the time that passes.
const SLEW_PART: i64 = 10;
/// How far the noted difference may lag behind while small steps are followed, in microseconds.
const LAG_MAX: i64 = 1_000_000;

/// Returns the time, in UTC.
pub fn now() -> Timestamp {
    static WALL: LazyLock<Wall> = LazyLock::new(|| Wall::new(steady(), machine()));
    Timestamp(WALL.read(steady(), machine()))
}

/// Returns the machine's clock minus [`now`], in microseconds: 0, or what is left of a jump.
pub fn behind() -> i64 {
    let ours = now();
    let difference = machine().saturating_sub(ours.0);
    if difference.abs() < LAG_MAX { 0 } else { difference }
}

/// Returns a time that only goes forward, from wherever it began: also while the machine sleeps, so
/// that its waking up is no jump.
#[cfg(target_os = "linux")]
fn steady() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1000)
}

/// As on Linux, but where the machine sleeps, this may sleep too.
#[cfg(not(target_os = "linux"))]
fn steady() -> i64 {
    static BEGUN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    i64::try_from(BEGUN.elapsed().as_micros()).unwrap_or(i64::MAX)
}

fn machine() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A wall clock beside one that only goes forward; all times are microseconds.
struct Wall {
    /// Ours minus the steady clock.
    offset: AtomicI64,
    /// Whether a jump is being made up for.
    slewing: AtomicBool,
    /// Steady time up to which it has been, while it is.
    slewed_to: Mutex<i64>,
}

impl Wall {
    fn new(steady: i64, machine: i64) -> Self {
        let offset = AtomicI64::new(machine.saturating_sub(steady));
        Self { offset, slewing: AtomicBool::new(false), slewed_to: Mutex::new(steady) }
    }

    fn read(&self, steady: i64, machine: i64) -> i64 {
        let ours = steady.saturating_add(self.offset.load(Ordering::Relaxed));
        let is_near = machine.saturating_sub(ours).abs() <= LAG_MAX;
        if is_near && !self.slewing.load(Ordering::Relaxed) {
            return machine;
        }
        self.take_in(steady, machine)
    }

    /// Follows a small step, and makes up for some more of a jump.
    fn take_in(&self, steady: i64, machine: i64) -> i64 {
        let mut slewed_to = self.slewed_to.lock().unwrap_or_else(PoisonError::into_inner);
        let mut offset = self.offset.load(Ordering::Relaxed);
        let difference = machine.saturating_sub(steady.saturating_add(offset));
        let slewing = self.slewing.load(Ordering::Relaxed);
        let step_max = if slewing { LAG_MAX } else { STEP_MAX };
        if difference.abs() <= step_max {
            self.slewing.store(false, Ordering::Relaxed);
            self.offset.store(machine.saturating_sub(steady), Ordering::Relaxed);
            return machine;
        }
        if !slewing {
            self.slewing.store(true, Ordering::Relaxed);
            *slewed_to = steady;
        }
        // The rest of a division is kept for the next look.
        let part = steady.saturating_sub(*slewed_to).max(0) / SLEW_PART;
        *slewed_to += part * SLEW_PART;
        offset += part.min(difference.abs()) * difference.signum();
        self.offset.store(offset, Ordering::Relaxed);
        steady.saturating_add(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3600 * SECOND;

    /// Reads every 10 ms of steady time from `from` on, for `seconds`.
    fn run(wall: &Wall, from: i64, seconds: i64, machine: impl Fn(i64) -> i64) -> Vec<i64> {
        (0..=seconds * 100)
            .map(|nth| {
                let steady = from + nth * SECOND / 100;
                wall.read(steady, machine(steady))
            })
            .collect()
    }

    #[test]
    fn small_steps_are_followed_at_once() {
        for step in [1, SECOND, -SECOND, 59 * SECOND, -59 * SECOND] {
            let wall = Wall::new(0, HOUR);
            assert_eq!(wall.read(SECOND, HOUR + SECOND), HOUR + SECOND);
            assert_eq!(wall.read(2 * SECOND, HOUR + 2 * SECOND + step), HOUR + 2 * SECOND + step);
            // A later one of the same size is not added to it.
            let twice = HOUR + 3 * SECOND + 2 * step;
            assert_eq!(wall.read(3 * SECOND, twice), twice);
        }
    }

    #[test]
    fn a_jump_is_made_up_for_slowly() {
        for jump in [HOUR, -HOUR, 24 * HOUR, -24 * HOUR, 61 * SECOND] {
            let begin = 100 * HOUR;
            let wall = Wall::new(0, begin);
            let times = run(&wall, 0, 100, |steady| begin + steady + jump);
            assert_eq!(times[0], begin, "nothing at once");
            for pair in times.windows(2) {
                let passed = pair[1] - pair[0];
                assert!((8_000..=12_000).contains(&passed), "{jump}: {passed} µs in 10 ms");
            }
            let made_up = times[times.len() - 1] - (begin + 100 * SECOND);
            assert_eq!(made_up, 10 * SECOND * jump.signum(), "a tenth of 100 s");
        }
    }

    #[test]
    fn when_a_jump_is_made_up_for_steps_are_followed_again() {
        let begin = 100 * HOUR;
        let wall = Wall::new(0, begin);
        let machine = |steady| begin + steady + 90 * SECOND;
        let times = run(&wall, 0, 1000, machine);
        assert_eq!(times[times.len() - 1], machine(1000 * SECOND));
        let stepped = machine(1001 * SECOND) - 30 * SECOND;
        assert_eq!(wall.read(1001 * SECOND, stepped), stepped);
    }

    #[test]
    fn a_clock_that_is_set_right_again_is_followed() {
        let wall = Wall::new(0, HOUR);
        let ours = run(&wall, 0, 5, |steady| HOUR + steady + HOUR);
        assert_eq!(ours[500], HOUR + 5 * SECOND + SECOND / 2);
        let time = wall.read(5 * SECOND, HOUR + 5 * SECOND);
        assert_eq!(time, HOUR + 5 * SECOND);
    }
}
