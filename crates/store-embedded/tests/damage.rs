//! What happens when bytes or files are not what they were: never a silent loss.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod story;

use std::path::Path;
use std::sync::Arc;

use dtmd_store::conformance::sample::{at, ended, gid, saga};
use dtmd_store::{Store, Write, record};
use dtmd_store_embedded::sim::{Random, SimDisk, Unsynced};
use dtmd_store_embedded::{
    Disk, EmbeddedStore, OpenError, Options, check, check_on, export, export_from,
};
use story::{Held, Step, Story, now, open};

/// A store with a few segments, and what it holds; not closed.
fn filled(seed: u64, steps: usize) -> (SimDisk, EmbeddedStore, Story) {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    let mut story = Story::new(seed);
    for _ in 0..steps {
        assert!(matches!(story.step(&store), Step::Done));
    }
    (disk, store, story)
}

fn closed(seed: u64, steps: usize) -> (SimDisk, Held) {
    let (disk, store, story) = filled(seed, steps);
    drop(store);
    (disk, story.held)
}

/// A store with several segments that are all needed, hints included; closed.
fn several() -> (SimDisk, Held) {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    for index in 0..60 {
        create(&store, &format!("g{index}"), index % 2 == 0);
    }
    store.maintain().unwrap();
    let held = Held::of(&store).unwrap();
    assert_eq!(held.globals.len(), 60);
    (disk, held)
}

fn create(store: &EmbeddedStore, name: &str, is_final: bool) {
    let mut global = saga(name);
    global.branches[0].data = vec![b'x'; 500].into();
    let global = if is_final { ended(global, at(1)) } else { global };
    let results = now(store.commit(&[Write::Create(Arc::new(global))]));
    assert_eq!(results.unwrap(), [Ok(())]);
}

fn copy(disk: &SimDisk) -> SimDisk {
    disk.after_crash(Unsynced::Kept)
}

fn files(disk: &SimDisk, ending: &str) -> Vec<String> {
    disk.names().unwrap().into_iter().filter(|name| name.ends_with(ending)).collect()
}

/// Returns where the batches of a segment end.
fn end_of(disk: &SimDisk, name: &str) -> usize {
    let report = check_on(&copy(disk)).unwrap();
    let segment = report.segments.iter().find(|segment| segment.name == name).unwrap();
    usize::try_from(segment.bytes).unwrap()
}

/// Either the damage is reported, or nothing that is held is different.
fn is_honest(disk: &SimDisk, held: &Held) -> Result<bool, String> {
    let store = match open(disk) {
        Err(OpenError::Corrupt { .. } | OpenError::NewerFormat { .. }) => return Ok(true),
        Err(error) => return Err(format!("unexpected: {error}")),
        Ok(store) => store,
    };
    let mut seen = false;
    for (name, expected) in &held.globals {
        match now(store.load(&gid(name))) {
            Err(_) => seen = true,
            Ok(Some(found)) if found.revision == expected.revision => {}
            Ok(found) => return Err(format!("{name}: {found:?}")),
        }
    }
    match Held::of(&store) {
        Err(_) => Ok(true),
        Ok(found) if found == *held => Ok(seen),
        Ok(_) => Err("it holds something else".to_owned()),
    }
}

#[test]
fn a_flipped_bit_in_a_closed_store_is_never_a_silent_loss() {
    let (mut reported, mut flips) = (0, 0);
    for seed in 1..=4 {
        let (disk, held) = closed(seed, 60);
        let mut random = Random(seed);
        for name in files(&disk, ".log") {
            let end = end_of(&disk, &name);
            for _ in 0..60 {
                let damaged = copy(&disk);
                let at = random.below(end);
                damaged.flip(&name, at, 1 << random.below(8));
                flips += 1;
                match is_honest(&damaged, &held) {
                    Ok(seen) => reported += usize::from(seen),
                    Err(why) => panic!("seed {seed}, {name} at {at}: {why}"),
                }
            }
        }
    }
    // The rest is in padding, in the header's reserve, or in what nobody needs any more.
    assert!(flips > 500 && reported * 4 > flips, "{reported} of {flips}");
}

#[test]
fn damage_before_the_last_batch_is_reported_with_its_place() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, "a", false);
    create(&store, "b", true);
    let held = Held::of(&store).unwrap();
    let name = files(&disk, ".log").pop().unwrap();
    // Not closed: only the batches themselves can show it.
    let disk = copy(&disk);
    let untouched = copy(&disk);
    disk.flip(&name, 512 + 40, 1);
    match open(&disk) {
        Err(OpenError::Corrupt { segment, offset, why }) => {
            assert_eq!((segment, offset), (name.clone(), 512));
            assert!(why.contains("one follows at"), "{why}");
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    // Nothing was changed by the attempt; a repaired disk opens.
    disk.flip(&name, 512 + 40, 1);
    assert_eq!(Held::of(&open(&disk).unwrap()).unwrap(), held);
    assert_eq!(Held::of(&open(&untouched).unwrap()).unwrap(), held);
    drop(store);
}

#[test]
fn garbage_after_the_end_is_no_damage() {
    for seed in 1..=5 {
        let (disk, held) = closed(seed, 25);
        let name = files(&disk, ".log").pop().unwrap();
        let end = end_of(&disk, &name);
        let mut bytes = disk.bytes(&name).unwrap();
        let mut random = Random(seed);
        for byte in &mut bytes[end..] {
            *byte = random.next() as u8;
        }
        disk.set_bytes(&name, bytes);
        let store = open(&disk).unwrap();
        assert_eq!(Held::of(&store).unwrap(), held);
    }
}

#[test]
fn a_torn_tail_is_cut_off() {
    let (disk, store, story) = filled(2, 30);
    let name = files(&disk, ".log").pop().unwrap();
    let held = story.held.clone();
    let before = copy(&disk);
    let end = end_of(&before, &name);
    drop(store);
    // The closing mark is one more batch; any beginning of it is a torn one.
    let whole = disk.bytes(&name).unwrap();
    let closed_end = end_of(&copy(&disk), &name);
    assert!(closed_end > end);
    for cut in end..closed_end {
        let torn = copy(&before);
        let mut bytes = before.bytes(&name).unwrap();
        bytes[end..cut].copy_from_slice(&whole[end..cut]);
        torn.set_bytes(&name, bytes);
        assert_eq!(Held::of(&open(&torn).unwrap()).unwrap(), held, "cut at {cut}");
        // And again, after it has gone on where it was cut.
        assert_eq!(Held::of(&open(&torn).unwrap()).unwrap(), held, "cut at {cut}");
    }
}

#[test]
fn a_missing_segment_is_an_error() {
    let (disk, _) = several();
    let segments = files(&disk, ".log");
    assert!(segments.len() >= 3, "{segments:?}");
    for name in &segments {
        let damaged = copy(&disk);
        damaged.remove(name).unwrap();
        match open(&damaged) {
            Err(OpenError::Missing { segment }) => assert_eq!(&segment, name),
            other => panic!("without {name}: {:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn hints_only_save_time() {
    let (disk, held) = several();
    let hints = files(&disk, ".hint");
    assert!(hints.len() >= 2, "{hints:?}");
    let without = copy(&disk);
    hints.iter().for_each(|name| without.remove(name).unwrap());
    assert_eq!(Held::of(&open(&without).unwrap()).unwrap(), held);
    let mut random = Random(1);
    for name in &hints {
        let length = disk.bytes(name).unwrap().len();
        for _ in 0..50 {
            let damaged = copy(&disk);
            damaged.flip(name, random.below(length), 1 << random.below(8));
            assert_eq!(Held::of(&open(&damaged).unwrap()).unwrap(), held);
        }
        let short = copy(&disk);
        let bytes = disk.bytes(name).unwrap();
        short.set_bytes(name, bytes[..random.below(length)].to_vec());
        assert_eq!(Held::of(&open(&short).unwrap()).unwrap(), held);
    }
    // Of another segment.
    let swapped = copy(&disk);
    swapped.set_bytes(&hints[0], disk.bytes(&hints[1]).unwrap());
    assert_eq!(Held::of(&open(&swapped).unwrap()).unwrap(), held);
}

#[test]
fn a_later_format_is_refused_by_name() {
    let (disk, _) = closed(1, 10);
    let name = files(&disk, ".log").pop().unwrap();
    disk.flip(&name, 8, 3);
    match open(&disk) {
        Err(error @ OpenError::NewerFormat { found: 2, .. }) => {
            assert!(error.to_string().contains("a later one"), "{error}");
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn check_and_export_say_what_is_there_and_change_nothing() {
    let (disk, held) = several();
    let before = copy(&disk);
    let report = check_on(&disk).unwrap();
    assert!(report.damages.is_empty(), "{:?}", report.damages);
    assert_eq!(report.live + report.finished, held.globals.len() as u64);
    assert_eq!(report.keys, held.keys.len() as u64);
    assert!(report.segments.len() > 2);
    let mut out = Vec::new();
    let exported = export_from(&disk, &mut out).unwrap();
    assert_eq!(exported.globals, held.globals.len() as u64);
    assert_eq!(exported.keys, held.keys.len() as u64);
    for line in String::from_utf8(out).unwrap().lines() {
        let Some(json) = line.strip_prefix("{\"global\":") else {
            assert!(line.starts_with("{\"kv\":{"), "{line}");
            continue;
        };
        let global = record::from_json(&json[..json.len() - 1]).unwrap();
        let expected = &held.globals[global.gid.as_str()];
        assert_eq!((global.revision, &global.branches), (expected.revision, &expected.branches));
    }
    for name in disk.names().unwrap() {
        assert_eq!(disk.bytes(&name), before.bytes(&name), "{name}");
    }
}

#[test]
fn check_and_export_go_on_behind_damage() {
    let (disk, held) = several();
    let first = files(&disk, ".log").remove(0);
    disk.flip(&first, 512 + 40, 1);
    let report = check_on(&disk).unwrap();
    assert_eq!(
        report.damages.iter().filter(|damage| damage.to_string().contains(&first)).count(),
        1
    );
    let mut out = Vec::new();
    let exported = export_from(&disk, &mut out).unwrap();
    assert!(!exported.damages.is_empty());
    assert!(exported.globals > 0 && exported.globals <= held.globals.len() as u64);
}

#[test]
fn a_directory_has_one_user_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), Options::default()).unwrap();
    let second = EmbeddedStore::open(dir.path(), Options::default());
    match second {
        Err(error @ OpenError::InUse { .. }) => {
            assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    assert!(matches!(check(dir.path()), Err(OpenError::InUse { .. })));
    drop(store);
    EmbeddedStore::open(dir.path(), Options::default()).unwrap();
}

#[test]
fn a_real_directory_is_reopened_with_what_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let mut story = Story::new(11);
    for _ in 0..4 {
        let options = Options { segment_bytes: 32 * 1024, ..Options::default() };
        let store = EmbeddedStore::open(dir.path(), options).unwrap();
        story.follows(&store).unwrap();
        for _ in 0..40 {
            assert!(matches!(story.step(&store), Step::Done));
        }
    }
    let mut out = Vec::new();
    let exported = export(dir.path(), &mut out).unwrap();
    assert_eq!(exported.globals, story.held.globals.len() as u64);
    assert!(check(dir.path()).unwrap().damages.is_empty());
    assert!(check(Path::new("/nonexistent/dtmd")).is_err());
}

#[test]
fn options_that_contradict_the_format_are_refused() {
    for segment_bytes in [0, 4095, (1 << 30) + 1] {
        let options = Options { segment_bytes, ..Options::default() };
        let disk = std::sync::Arc::new(SimDisk::new());
        let opened = EmbeddedStore::open_on(disk, options);
        assert!(matches!(opened, Err(OpenError::Options { .. })), "{segment_bytes}");
    }
}

#[test]
fn a_store_is_reopened_with_segments_of_another_length() {
    let (disk, held) = closed(6, 100);
    for segment_bytes in [4096, 64 * 1024, 8192] {
        let options = Options { segment_bytes, history_max_count: None, background: false };
        let store = EmbeddedStore::open_on(std::sync::Arc::new(disk.clone()), options).unwrap();
        assert_eq!(Held::of(&store).unwrap(), held);
        store.maintain().unwrap();
    }
}
