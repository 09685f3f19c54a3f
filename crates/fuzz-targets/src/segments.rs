//! The embedded store's files, damaged.
//!
//! A small store is made once. An input either stands for a whole file, or is a list of edits of
//! that store's files. Whatever comes of it: nothing panics, and what is read is something that
//! was once written.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use dtmd_protocol::{Global, Op, Timestamp};
use dtmd_store::conformance::sample::{at, ended, later, row, saga};
use dtmd_store::{Store, Write, record};
use dtmd_store_embedded::sim::SimDisk;
use dtmd_store_embedded::{Disk, EmbeddedStore, OpenError, Options, check_on, export_from};

use crate::Bytes;

const SEGMENT: u64 = 4 * 1024;

struct Made {
    /// Name and bytes of every file.
    files: Vec<(String, Vec<u8>)>,
    /// Every state that was acknowledged, without its lease.
    states: BTreeSet<Vec<u8>>,
}

static MADE: LazyLock<Made> = LazyLock::new(make);

fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the embedded store does not wait"),
    }
}

fn open(disk: &SimDisk) -> Result<EmbeddedStore, OpenError> {
    let options = Options { segment_bytes: SEGMENT, history_max_count: None, background: false };
    EmbeddedStore::open_on(Arc::new(disk.clone()), options)
}

fn state(global: &Global) -> Vec<u8> {
    let free = Global { owner: "".into(), epoch: 0, wake_at: Timestamp::ZERO, ..global.clone() };
    record::encode(&free, Vec::new()).expect("a global can be written")
}

fn make() -> Made {
    let disk = SimDisk::new();
    let store = open(&disk).expect("an empty disk opens");
    let mut states = BTreeSet::new();
    for number in 0..24 {
        let first = saga(&format!("g{number}"));
        let second = later(&first, |global| {
            global.branches.push(row("02", Op::Action));
            global.rollback_reason = "x".repeat(40 * (number % 7)).into();
        });
        let mut writes = vec![Write::Create(Arc::new(first.clone()))];
        states.extend([state(&first), state(&second)]);
        let update = |before: &Global, after: &Global| Write::Update {
            before: Arc::new(before.clone()),
            after: Arc::new(after.clone()),
        };
        writes.push(update(&first, &second));
        if number % 3 != 0 {
            let last = ended(later(&second, |_| {}), at(500));
            states.insert(state(&last));
            writes.push(update(&second, &last));
        }
        if number % 5 == 0 {
            writes.push(Write::Kv {
                cat: "topics".to_owned(),
                key: format!("k{number}"),
                expected: 0,
                value: Some("[]".to_owned()),
                now: at(1),
            });
        }
        let results = now(store.commit(&writes)).expect("the disk is well");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        store.maintain().expect("the disk is well");
    }
    drop(store);
    let names = disk.names().expect("the disk is well");
    let files = names.into_iter().filter_map(|name| Some((name.clone(), disk.bytes(&name)?)));
    Made { files: files.collect(), states }
}

/// See the module.
pub(crate) fn segment(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let disk = SimDisk::new();
    let is_edited = bytes.below(4) != 0;
    if is_edited {
        let mut files = MADE.files.clone();
        while edit(&mut files, &mut bytes).is_some() {}
        for (name, bytes) in files {
            disk.set_bytes(&name, bytes);
        }
    } else {
        let (name, _) = &MADE.files[0];
        disk.set_bytes(name, bytes.rest().to_vec());
    }
    let _ = check_on(&disk);
    let _ = export_from(&disk, &mut std::io::sink());
    let Ok(store) = open(&disk) else { return };
    holds_only_what_was_written(&store, is_edited);
    works_on(store, &disk);
}

/// One edit: which file, what is done, where, how much.
fn edit(files: &mut Vec<(String, Vec<u8>)>, bytes: &mut Bytes<'_>) -> Option<()> {
    let count = files.len();
    let (which, what) = (bytes.next()?, bytes.next()?);
    let which = usize::from(which) % count.max(1);
    let at = usize::from(bytes.next()?) * 256 + usize::from(bytes.next()?);
    let value = bytes.next()?;
    let (_, content) = files.get_mut(which)?;
    let at = at % content.len().max(1);
    match what % 6 {
        0 | 1 => *content.get_mut(at)? ^= value.max(1),
        2 => content.truncate(at),
        3 => {
            let end = (at + usize::from(value) * 8).min(content.len());
            content[at..end].fill(0);
        }
        4 => {
            let end = (at + usize::from(value) * 8).min(content.len());
            let copied = content[at..end].to_vec();
            let to = usize::from(bytes.next()?) * 256 % content.len().max(1);
            let room = content.len() - to;
            let copied = &copied[..copied.len().min(room)];
            content[to..to + copied.len()].copy_from_slice(copied);
        }
        _ if value % 2 == 0 => drop(files.remove(which)),
        _ => {
            let other = usize::from(value) % count;
            let content = files[other].1.clone();
            files[which].1 = content;
        }
    }
    Some(())
}

fn holds_only_what_was_written(store: &EmbeddedStore, is_edited: bool) {
    let mut position = String::new();
    loop {
        // A finished record is read only now; that it cannot be is an answer, too.
        let Ok(page) = now(store.list(&Default::default(), &position, 50)) else { return };
        for global in &page.globals {
            let _ = now(store.load(&global.gid));
            let is_known = !is_edited || MADE.states.contains(&state(global));
            assert!(is_known, "{} holds what was never written", global.gid);
        }
        position = page.next_position;
        if position.is_empty() {
            return;
        }
    }
}

/// A store that has opened takes something new, and has it at the next opening.
fn works_on(store: EmbeddedStore, disk: &SimDisk) {
    let new = saga("new");
    let done = now(store.commit(&[Write::Create(Arc::new(new.clone()))]));
    let is_done = done.is_ok_and(|results| results[0].is_ok());
    let _ = store.maintain();
    drop(store);
    if is_done {
        let store = open(disk).expect("it opened before");
        let found = now(store.load(&new.gid)).ok().flatten();
        assert_eq!(found.map(|found| state(&found)), Some(state(&new)), "it was acknowledged");
    }
}
