//! Every file of the corpora through its target, and through every other one: what is hostile to
//! one may be so to another.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::PathBuf;

use dtmd_fuzz_targets::TARGETS;
use dtmd_testkit::rng::Rng;

fn corpora() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

#[test]
fn every_corpus_file_is_answered_well() {
    let mut count = 0;
    for corpus in std::fs::read_dir(corpora()).unwrap() {
        let corpus = corpus.unwrap().path();
        for file in std::fs::read_dir(&corpus).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            count += 1;
            for target in TARGETS {
                let ran = std::panic::catch_unwind(|| target.run(&bytes));
                assert!(ran.is_ok(), "{} fails on {}", target.name, path.display());
            }
        }
    }
    assert!(count >= 8 * TARGETS.len(), "only {count} files in {}", corpora().display());
}

/// Mutated inputs of each target in the ordinary run; `DTMD_FUZZ_ROUNDS` sets another number.
const ROUNDS: u64 = 10_000;
/// Inputs of the target that opens a store each time.
const SEGMENT_ROUNDS: u64 = 300;

/// Changes an input a little: flips, cuts, repeats, and pieces of another input.
fn mutated(random: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.index(4) {
        let at = random.index(bytes.len() + 1);
        match random.index(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.index(8),
            1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.below(256) as u8),
            4 => {
                let from = random.index(other.len() + 1);
                let to = (from + random.index(40)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let to = (at + random.index(20)).min(bytes.len());
                let piece = bytes[at..to].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

/// Fuzzing without libFuzzer: knows nothing of coverage, and needs nothing to be installed.
#[test]
fn mutated_corpora_are_answered_well() {
    let wanted = std::env::var("DTMD_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok());
    let only = std::env::var("DTMD_FUZZ_TARGET").ok();
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for target in TARGETS.iter().filter(|target| only.as_deref().is_none_or(|n| n == target.name)) {
        let begun = std::time::Instant::now();
        let usual = if target.name == "segment" { SEGMENT_ROUNDS } else { ROUNDS };
        let rounds = wanted.unwrap_or(usual);
        let folder = std::fs::read_dir(corpora().join(target.name)).unwrap();
        let mut paths: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
        paths.sort();
        let inputs: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        let mut random = Rng::new(seed);
        for round in 0..rounds {
            let input = &inputs[random.index(inputs.len())];
            let other = &inputs[random.index(inputs.len())];
            let bytes = mutated(&mut random, input, other);
            let ran = std::panic::catch_unwind(|| target.run(&bytes));
            assert!(ran.is_ok(), "{}: seed {seed}, round {round}: {bytes:?}", target.name);
        }
        let seconds = begun.elapsed().as_secs_f64();
        let _ = writeln!(
            std::io::stderr(),
            "mutated inputs: {} took {rounds} in {seconds:.1} s, seed {seed}",
            target.name
        );
    }
}

#[test]
fn every_target_has_a_corpus_and_a_program() {
    let programs = corpora().join("../fuzz_targets");
    for target in TARGETS {
        let files = std::fs::read_dir(corpora().join(target.name)).unwrap().count();
        assert!((4..=40).contains(&files), "{}: {files} files", target.name);
        let program = programs.join(format!("{}.rs", target.name));
        assert!(program.is_file(), "{} is missing", program.display());
    }
}

/// Writes the first records of their corpus: bytes of this format cannot be typed.
#[test]
#[ignore = "writes files"]
fn write_record_seeds() {
    use dtmd_store::conformance::sample::{later, saga};
    use dtmd_store::record::{self, Delta};

    let folder = corpora().join("record");
    std::fs::create_dir_all(&folder).unwrap();
    let before = saga("g");
    let after = later(&before, |global| global.branches[1].retry.attempts = 3);
    let with = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
    let whole = record::encode(&before, Vec::new()).unwrap();
    let half = whole[..whole.len() / 2].to_vec();
    let change = Delta::between(&before, &after).encode(Vec::new()).unwrap();
    let line = record::to_json(&before).unwrap().into_bytes();
    for (name, bytes) in [
        ("whole", with(0, whole)),
        ("half", with(0, half)),
        ("change", with(1, change)),
        ("line", with(2, line)),
        ("newer", vec![0, 200, 1]),
        ("empty", vec![0]),
    ] {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}
