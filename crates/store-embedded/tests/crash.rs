//! Crashes at every operation of random histories, and disks that fail or get full.
//!
//! What is checked each time: everything acknowledged is there, nothing is there in half, nothing
//! that was deleted came back, and the store works on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod story;

use dtmd_store::Store;
use dtmd_store_embedded::sim::{Faults, SimDisk, Unsynced};
use story::{Step, Story, now, open};

const STEPS: usize = 70;

/// Runs a history until it is over or the disk fails it; opens the store anew now and then.
fn run(disk: &SimDisk, story: &mut Story) -> bool {
    for part in 0..3 {
        let Ok(store) = open(disk) else { return false };
        if story.follows(&store).is_err() && part > 0 {
            panic!("a clean reopening lost something");
        }
        for _ in 0..STEPS / 3 {
            if !matches!(story.step(&store), Step::Done) {
                return false;
            }
        }
    }
    true
}

/// Opens what a crash left, checks it, and goes on a little.
fn recover(disk: &SimDisk, story: &mut Story) -> Result<(), String> {
    let store = open(disk).map_err(|error| format!("it does not open: {error}"))?;
    story.follows(&store)?;
    for _ in 0..3 {
        if !matches!(story.step(&store), Step::Done) {
            return Err("it does not work on".to_owned());
        }
    }
    drop(store);
    let store = open(disk).map_err(|error| format!("it does not open again: {error}"))?;
    story.follows(&store)
}

fn crash(seed: u64, crash_at: u64, lying_sync: bool, modes: &[Unsynced]) -> Vec<String> {
    let disk = SimDisk::new();
    disk.set_faults(Faults { crash_at: Some(crash_at), lying_sync, seed, ..Faults::default() });
    let mut story = Story::new(seed);
    run(&disk, &mut story);
    let held = (story.held.clone(), story.maybe.clone());
    let recovered = modes.iter().filter_map(|mode| {
        (story.held, story.maybe) = held.clone();
        let outcome = recover(&disk.after_crash(*mode), &mut story);
        let why = outcome.err()?;
        Some(format!("seed {seed}, crash at {crash_at}, unsynced {mode:?}: {why}"))
    });
    recovered.collect()
}

fn operations(seed: u64) -> u64 {
    let disk = SimDisk::new();
    let mut story = Story::new(seed);
    assert!(run(&disk, &mut story), "without faults the history ends well");
    disk.operations()
}

#[test]
fn a_history_goes_through_compaction() {
    let disk = SimDisk::new();
    let mut story = Story::new(1);
    let store = open(&disk).unwrap();
    for _ in 0..400 {
        assert!(matches!(story.step(&store), Step::Done));
    }
    story.follows(&store).unwrap();
    let stats = store.stats();
    assert!(stats.segments_retired > 10, "{stats:?}");
    assert!(stats.moved > 10, "{stats:?}");
    assert!(stats.segments < 20, "{stats:?}");
    assert!(stats.needed_bytes <= stats.log_bytes, "{stats:?}");
}

#[test]
fn a_crash_at_every_operation_loses_nothing() {
    for seed in 1..=2 {
        let modes = [Unsynced::Kept, Unsynced::Dropped, Unsynced::Torn(seed)];
        for crash_at in 0..operations(seed) {
            let failures = crash(seed, crash_at, false, &modes);
            assert!(failures.is_empty(), "{failures:#?}");
        }
    }
}

#[test]
fn random_crashes_of_random_histories_lose_nothing() {
    for seed in 100..130 {
        let operations = operations(seed);
        for round in 0..5 {
            let crash_at = (seed * 7919 + round * 104_729) % operations;
            let modes = [Unsynced::Torn(round), Unsynced::Torn(round + 50)];
            let failures = crash(seed, crash_at, false, &modes);
            assert!(failures.is_empty(), "{failures:#?}");
        }
    }
}

/// A crash during the recovery from a crash.
#[test]
fn a_crash_while_opening_loses_nothing() {
    for seed in 1..=4 {
        let disk = SimDisk::new();
        let crash_at = operations(seed) * seed / 5;
        disk.set_faults(Faults { crash_at: Some(crash_at), ..Faults::default() });
        let mut story = Story::new(seed);
        run(&disk, &mut story);
        let held = (story.held.clone(), story.maybe.clone());
        for second in 0..40 {
            (story.held, story.maybe) = held.clone();
            let disk = disk.after_crash(Unsynced::Torn(second));
            disk.set_faults(Faults { crash_at: Some(second), ..Faults::default() });
            if let Ok(store) = open(&disk) {
                // What it says now must stay true.
                story.follows(&store).unwrap();
                story.step(&store);
            }
            let disk = disk.after_crash(Unsynced::Torn(second + 1));
            let recovered = recover(&disk, &mut story);
            assert_eq!(recovered, Ok(()), "seed {seed}, second crash at {second}");
        }
    }
}

/// A process that is killed leaves what it wrote to the operating system: it reads well, and may
/// not be on the device. What the next process says must survive a power loss all the same.
#[test]
fn what_a_killed_process_left_is_made_durable_before_it_is_shown() {
    for seed in 1..=2 {
        for kill_at in (seed..operations(seed)).step_by(2) {
            let disk = SimDisk::new();
            disk.set_faults(Faults { crash_at: Some(kill_at), seed, ..Faults::default() });
            let mut story = Story::new(seed);
            run(&disk, &mut story);
            disk.set_faults(Faults::default());
            let store = open(&disk).unwrap();
            story.follows(&store).unwrap_or_else(|why| panic!("kill at {kill_at}: {why}"));
            for _ in 0..2 {
                let opened = open(&disk.after_crash(Unsynced::Dropped)).unwrap();
                let followed = story.follows(&opened);
                assert_eq!(followed, Ok(()), "seed {seed}, kill at {kill_at}");
                // And what is added after that, too.
                assert!(matches!(story.step(&store), Step::Done));
            }
        }
    }
}

/// The control: a disk that lies about its syncs must be found out.
#[test]
fn a_lying_sync_is_detected() {
    let operations = operations(1);
    let (mut lost, mut points) = (0, 0);
    for crash_at in (operations / 2..operations).step_by(7) {
        points += 1;
        lost += usize::from(!crash(1, crash_at, true, &[Unsynced::Dropped]).is_empty());
    }
    assert!(lost * 10 > points * 9, "{lost} of {points} detected");
    let torn: usize = (operations / 2..operations)
        .step_by(7)
        .map(|at| crash(1, at, true, &[Unsynced::Torn(at)]).len())
        .sum();
    assert!(torn > 0, "torn unsynced writes go undetected");
}

/// After a failed sync nothing is acknowledged until the store was reopened; what it says then is
/// true even if the power is lost at once.
#[test]
fn a_failed_sync_stops_the_store_until_it_is_reopened() {
    let disk = SimDisk::new();
    run(&disk, &mut Story::new(5));
    let syncs = disk.syncs();
    assert!(syncs > 40);
    for sync in 0..syncs {
        let disk = SimDisk::new();
        disk.set_faults(Faults { sync_error_at: Some(sync), seed: sync, ..Faults::default() });
        let mut story = Story::new(5);
        let Ok(mut store) = open(&disk) else { continue };
        for step in 0..STEPS {
            if step % 23 == 22 {
                drop(store);
                match open(&disk) {
                    Ok(opened) => store = opened,
                    // The failing sync was one of the opening, or of the closing.
                    Err(_) => store = open(&disk).unwrap(),
                }
                story.follows(&store).unwrap();
            }
            let outcome = story.step(&store);
            if matches!(outcome, Step::Done) {
                continue;
            }
            if store.stats().broken {
                assert!(now(store.commit(&[])).is_err(), "it must refuse");
                now(store.ping()).unwrap();
                assert!(!store.stats().broken);
            }
            story.follows(&store).unwrap_or_else(|why| panic!("sync {sync}: {why}"));
            let mut image = Story::new(0);
            (image.held, image.maybe) = (story.held.clone(), None);
            let after = open(&disk.after_crash(Unsynced::Dropped)).unwrap();
            image.follows(&after).unwrap_or_else(|why| panic!("sync {sync}, crash: {why}"));
        }
        story.follows(&store).unwrap_or_else(|why| panic!("sync {sync}: {why}"));
    }
}

#[test]
fn a_disk_that_stays_broken_keeps_the_store_closed_for_writes() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    let mut story = Story::new(9);
    for _ in 0..20 {
        story.step(&store);
    }
    disk.set_faults(Faults { broken: true, ..Faults::default() });
    while !store.stats().broken {
        story.step(&store);
    }
    for _ in 0..3 {
        assert!(now(store.ping()).is_err());
        assert!(now(store.commit(&[])).is_err());
    }
    // Reads go on meanwhile, with what was acknowledged.
    let maybe = story.maybe.take();
    story.follows_reads(&store);
    story.maybe = maybe;
    disk.set_faults(Faults::default());
    now(store.ping()).unwrap();
    story.follows(&store).unwrap();
    assert!(matches!(story.step(&store), Step::Done));
}

/// A full disk refuses whole batches, harms nothing, and is left behind when there is room again.
#[test]
fn a_full_disk_refuses_and_recovers() {
    let mut refused = 0;
    for seed in 1..=20 {
        let disk = SimDisk::new();
        let room = story::SEGMENT * (2 + seed % 4) + 700 * seed;
        disk.set_faults(Faults { capacity: Some(room), ..Faults::default() });
        let store = open(&disk).unwrap();
        let mut story = Story::new(seed);
        for _ in 0..60 {
            let outcome = story.step(&store);
            refused += usize::from(matches!(outcome, Step::Full));
            assert!(!store.stats().broken, "a full disk is not a broken one");
            story.follows(&store).unwrap();
        }
        disk.set_faults(Faults::default());
        for _ in 0..30 {
            assert!(matches!(story.step(&store), Step::Done));
        }
        story.follows(&store).unwrap();
        let image = disk.after_crash(Unsynced::Dropped);
        drop(store);
        story.follows(&open(&disk).unwrap()).unwrap();
        story.follows(&open(&image).unwrap()).unwrap();
    }
    assert!(refused > 50, "only {refused} refused");
}
