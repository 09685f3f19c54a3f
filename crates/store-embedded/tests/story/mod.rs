//! A random history of a store, and what must be true of it afterwards.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test uses its own part")]
#![allow(unreachable_pub, reason = "a module of several test programs")]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use dtmd_protocol::{Global, Op, Timestamp};
use dtmd_store::conformance::sample::{at, ended, gid, later, row, saga};
use dtmd_store::{Claim, Kv, Store, StoreError, Write};
use dtmd_store_embedded::sim::{Random, SimDisk};
use dtmd_store_embedded::{EmbeddedStore, OpenError, Options};

/// Runs a future of this store, which never waits.
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the embedded store does not wait"),
    }
}

pub const SEGMENT: u64 = 8 * 1024;

pub fn open(disk: &SimDisk) -> Result<EmbeddedStore, OpenError> {
    let options = Options { segment_bytes: SEGMENT, history_max_count: None, background: false };
    EmbeddedStore::open_on(Arc::new(disk.clone()), options)
}

/// What a store holds, but for leases, which end with the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    pub globals: BTreeMap<String, Global>,
    pub keys: BTreeMap<String, Kv>,
}

fn without_lease(global: &Global) -> Global {
    Global { owner: "".into(), epoch: 0, wake_at: Timestamp::ZERO, ..global.clone() }
}

impl Held {
    fn put(&mut self, global: &Global) {
        self.globals.insert(global.gid.to_string(), without_lease(global));
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Create(global) | Write::Update { after: global, .. } => self.put(global),
            Write::Lease(_) => {}
            Write::Kv { cat, key, expected, value, now } => {
                let created = self.keys.get(key).map_or(*now, |kv| kv.created);
                match value {
                    None => drop(self.keys.remove(key)),
                    Some(value) => {
                        let kv = Kv {
                            cat: cat.clone(),
                            key: key.clone(),
                            value: value.clone(),
                            version: expected + 1,
                            created,
                            updated: *now,
                        };
                        self.keys.insert(key.clone(), kv);
                    }
                }
            }
        }
    }

    fn purge(&mut self, before: Timestamp) {
        self.globals.retain(|_, global| global.finished.is_none_or(|at| at >= before));
    }

    /// Reads everything a store holds, by its lists.
    pub fn of(store: &EmbeddedStore) -> Result<Self, StoreError> {
        let mut held = Self::default();
        let mut position = String::new();
        loop {
            let page = now(store.list(&Default::default(), &position, 7))?;
            page.globals.iter().for_each(|global| held.put(global));
            position = page.next_position;
            if position.is_empty() {
                break;
            }
        }
        for kv in now(store.list_kv("topics", "", 1000))?.entries {
            held.keys.insert(kv.key.clone(), kv);
        }
        Ok(held)
    }
}

/// A history while it is being made.
pub struct Story {
    random: Random,
    next: u32,
    /// What is acknowledged.
    pub held: Held,
    /// What is held if the step that failed was done after all.
    pub maybe: Option<Held>,
}

/// How a step ended.
#[derive(Debug)]
pub enum Step {
    Done,
    /// Its outcome is unknown.
    Unknown,
    /// Nothing of it was done.
    Full,
}

impl Story {
    pub fn new(seed: u64) -> Self {
        Self { random: Random(seed), next: 0, held: Held::default(), maybe: None }
    }

    /// Does one random thing.
    pub fn step(&mut self, store: &EmbeddedStore) -> Step {
        match self.random.below(20) {
            0..=12 => self.commit(store),
            13 | 14 => self.claim(store),
            15 => self.purge(store),
            16 if self.random.below(8) == 0 => self.reset(store),
            _ => match store.maintain() {
                Ok(()) => Step::Done,
                // Whatever maintenance does, it changes nothing that is held.
                Err(StoreError::Full { .. }) => Step::Full,
                Err(_) => {
                    self.maybe = Some(self.held.clone());
                    Step::Unknown
                }
            },
        }
    }

    fn ended<T>(&mut self, outcome: Result<T, StoreError>, then: Held) -> Step {
        match outcome {
            Ok(_) => {
                self.held = then;
                Step::Done
            }
            Err(StoreError::Full { .. }) => Step::Full,
            Err(_) => {
                self.maybe = Some(then);
                Step::Unknown
            }
        }
    }

    fn commit(&mut self, store: &EmbeddedStore) -> Step {
        let mut then = self.held.clone();
        let mut batch = Vec::new();
        let mut used = Vec::new();
        for _ in 0..=self.random.below(4) {
            let write = self.write(store, &mut used);
            if let Some(write) = write {
                then.apply(&write);
                batch.push(write);
            }
        }
        let outcome = now(store.commit(&batch));
        if let Ok(results) = &outcome {
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        }
        self.ended(outcome, then)
    }

    fn write(&mut self, store: &EmbeddedStore, used: &mut Vec<String>) -> Option<Write> {
        let choice = self.random.below(10);
        if choice < 2 {
            let key = format!("k{}", self.random.below(4));
            let version = self.held.keys.get(&key).map_or(0, |kv| kv.version);
            let value = (version == 0 || choice == 0).then(|| self.text(40));
            if used.contains(&key) {
                return None;
            }
            used.push(key.clone());
            let cat = "topics".to_owned();
            return Some(Write::Kv { cat, key, expected: version, value, now: at(1) });
        }
        if choice < 5 || self.held.globals.is_empty() {
            self.next += 1;
            let mut global = saga(&format!("g{}", self.next));
            global.branches[0].data = self.text(400).into_bytes().into();
            used.push(global.gid.to_string());
            return Some(Write::Create(Arc::new(global)));
        }
        let chosen = self.random.below(self.held.globals.len());
        let name = self.held.globals.keys().nth(chosen).unwrap().clone();
        if used.contains(&name) {
            return None;
        }
        used.push(name.clone());
        let before = now(store.load(&gid(&name))).unwrap().unwrap();
        let (time, reason) = (i64::try_from(self.random.below(1000)).unwrap(), self.text(30));
        let next = later(&before, |global| {
            global.updated = at(time);
            global.branches[1].retry.attempts += 1;
            global.rollback_reason = reason.into();
            if choice == 5 {
                global.branches.push(row(&format!("{}", global.branches.len()), Op::Action));
            }
        });
        let next =
            if choice > 6 && !before.status.is_final() { ended(next, at(time)) } else { next };
        Some(Write::Update { before, after: Arc::new(next) })
    }

    fn text(&mut self, max: usize) -> String {
        "x".repeat(self.random.below(max)) + &self.next.to_string()
    }

    fn claim(&mut self, store: &EmbeddedStore) -> Step {
        let limit = self.random.below(4);
        let claim = Claim { owner: "me".into(), due: at(500), until: at(400), limit };
        let outcome = now(store.claim_due(&claim));
        self.ended(outcome, self.held.clone())
    }

    fn purge(&mut self, store: &EmbeddedStore) -> Step {
        let before = at(i64::try_from(self.random.below(1200)).unwrap());
        let mut then = self.held.clone();
        then.purge(before);
        let outcome = now(store.purge(before, 10_000));
        self.ended(outcome, then)
    }

    fn reset(&mut self, store: &EmbeddedStore) -> Step {
        let outcome = now(store.reset());
        self.ended(outcome, Held::default())
    }

    /// Compares what can be read of a store that refuses writes with what was acknowledged.
    pub fn follows_reads(&self, store: &EmbeddedStore) {
        assert_eq!(Held::of(store).unwrap(), self.held);
    }

    /// Compares a store with what it must hold; takes over what turned out to be done.
    pub fn follows(&mut self, store: &EmbeddedStore) -> Result<(), String> {
        let held = Held::of(store).map_err(|error| format!("unreadable: {error}"))?;
        if held != self.held && Some(&held) != self.maybe.as_ref() {
            return Err(difference(&self.held, &held));
        }
        let totals: u64 = now(store.totals()).unwrap().iter().map(|(_, _, count)| count).sum();
        if totals != held.globals.len() as u64 {
            return Err(format!("{totals} counted, {} listed", held.globals.len()));
        }
        for (name, global) in &held.globals {
            let loaded = now(store.load(&gid(name))).map_err(|error| error.to_string())?;
            if loaded.map(|loaded| without_lease(&loaded)).as_ref() != Some(global) {
                return Err(format!("{name} is listed as it is not loaded"));
            }
        }
        let claim = Claim { owner: "x".into(), due: at(i64::MAX >> 21), until: at(0), limit: 0 };
        now(store.claim_due(&claim)).map_err(|error| error.to_string())?;
        self.held = held;
        self.maybe = None;
        Ok(())
    }
}

fn difference(expected: &Held, found: &Held) -> String {
    let mut text = String::new();
    for (name, global) in &expected.globals {
        match found.globals.get(name) {
            None => text += &format!("{name} is lost; "),
            Some(found) if found != global => {
                text += &format!("{name}: revision {} for {}; ", found.revision, global.revision);
            }
            Some(_) => {}
        }
    }
    for name in found.globals.keys().filter(|name| !expected.globals.contains_key(*name)) {
        text += &format!("{name} came back; ");
    }
    if expected.keys != found.keys {
        text += &format!("keys {:?} for {:?}", found.keys, expected.keys);
    }
    text
}
