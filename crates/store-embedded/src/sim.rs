//! A disk that fails on purpose: crashes, torn and lost writes, refused syncs, no room, flipped
//! bits. Everything is decided by the caller or by a seed.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile};

/// The unit in which a disk writes all or nothing.
const SECTOR: usize = 512;

/// What shall go wrong.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The operation (counted from 0) that never happens, and with it everything after it.
    pub crash_at: Option<u64>,
    /// The sync of bytes (counted from 0) that fails.
    pub sync_error_at: Option<u64>,
    /// Every operation that writes fails while this is set.
    pub broken: bool,
    /// How many bytes all files together may hold.
    pub capacity: Option<u64>,
    /// Syncs answer well and do nothing: the control that shows the tests can see.
    pub lying_sync: bool,
    /// Decides what a failed sync had written before it failed.
    pub seed: u64,
}

/// A directory in memory, as the operating system shows it and as the device holds it.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    faults: Faults,
    operations: u64,
    syncs: u64,
    locked: bool,
    nodes: Vec<Node>,
    /// Names as the operating system shows them.
    names: BTreeMap<String, usize>,
    /// Names as the device holds them.
    durable_names: BTreeMap<String, usize>,
    /// The changes of names since the last sync, in their order.
    unsynced: Vec<NameChange>,
}

#[derive(Clone, Default)]
struct Node {
    shown: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum NameChange {
    Add(String, usize),
    Rename(String, String),
    Remove(String),
}

/// A pseudo-random sequence (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Returns the next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// Returns a number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }
}

/// What becomes of unsynced writes in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// All reached the device.
    Kept,
    /// None did.
    Dropped,
    /// Each sector is decided by the seed.
    Torn(u64),
}

impl SimDisk {
    /// Returns an empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what shall go wrong from now on; counting starts anew.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        state.faults = faults;
        state.operations = 0;
        state.syncs = 0;
    }

    /// Returns how many operations there were since the faults were set.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Returns how many syncs of bytes there were since the faults were set.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Returns a disk as it is after the loss of power, without faults and without the lock.
    #[must_use]
    pub fn after_crash(&self, unsynced: Unsynced) -> SimDisk {
        let state = self.state();
        let mut random = Random(match unsynced {
            Unsynced::Torn(seed) => seed,
            Unsynced::Kept | Unsynced::Dropped => 0,
        });
        let kept_names = match unsynced {
            Unsynced::Kept => state.unsynced.len(),
            Unsynced::Dropped => 0,
            // A journal keeps a beginning.
            Unsynced::Torn(_) => random.below(state.unsynced.len() + 1),
        };
        let mut names = state.durable_names.clone();
        for change in &state.unsynced[..kept_names] {
            change.apply(&mut names);
        }
        let nodes = state.nodes.iter().map(|node| {
            let mut bytes = node.durable.clone();
            for (offset, written) in &node.unsynced {
                write_sectors(&mut bytes, *offset, written, |_| match unsynced {
                    Unsynced::Kept => true,
                    Unsynced::Dropped => false,
                    Unsynced::Torn(_) => random.next() & 1 == 0,
                });
            }
            Node { shown: bytes.clone(), durable: bytes, unsynced: Vec::new() }
        });
        let survivor = State {
            nodes: nodes.collect(),
            names: names.clone(),
            durable_names: names,
            ..State::default()
        };
        SimDisk { state: Arc::new(Mutex::new(survivor)) }
    }

    /// Returns a file's bytes as shown; `None` if there is no such name.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|node| state.nodes[*node].shown.clone())
    }

    /// Replaces a file's bytes, on the device too; makes it if there is none.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let node = Node { shown: bytes.clone(), durable: bytes, unsynced: Vec::new() };
        state.nodes.push(node);
        let node = state.nodes.len() - 1;
        state.names.insert(name.to_owned(), node);
        state.durable_names.insert(name.to_owned(), node);
    }

    /// Changes the bits of `mask` in one byte, on the device too. Nothing happens past the end.
    pub fn flip(&self, name: &str, offset: usize, mask: u8) {
        if let Some(mut bytes) = self.bytes(name)
            && let Some(byte) = bytes.get_mut(offset)
        {
            *byte ^= mask;
            self.set_bytes(name, bytes);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation that writes; fails if it is not to happen.
    fn operation(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let operation = state.operations;
        state.operations += 1;
        if state.faults.crash_at.is_some_and(|at| operation >= at) {
            return Err(io::Error::other("the machine has lost its power"));
        }
        if state.faults.broken {
            return Err(io::Error::other("the device does not answer"));
        }
        Ok(state)
    }
}

impl State {
    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced.push(change);
    }

    fn node(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Files that lost their last name still count: the test that needs them gone does not exist.
    fn used(&self) -> u64 {
        self.names.values().map(|node| self.nodes[*node].shown.len() as u64).sum()
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Add(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

/// Writes those sectors of `written` that `kept` lets through.
fn write_sectors(
    bytes: &mut Vec<u8>,
    offset: usize,
    written: &[u8],
    mut kept: impl FnMut(usize) -> bool,
) {
    let mut at = offset;
    while at < offset + written.len() {
        let end = (at / SECTOR * SECTOR + SECTOR).min(offset + written.len());
        if kept(at / SECTOR) {
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at..end].copy_from_slice(&written[at - offset..end - offset]);
        }
        at = end;
    }
}

impl Disk for SimDisk {
    fn location(&self) -> String {
        "a simulated disk".to_owned()
    }

    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut state = self.state();
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        Ok(Box::new(LockGuard(self.clone())))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.operation()?;
        state.nodes.push(Node::default());
        let node = state.nodes.len() - 1;
        state.change_names(NameChange::Add(name.to_owned(), node));
        Ok(Box::new(SimFile { disk: self.clone(), node }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let node = self.state().node(name)?;
        Ok(Box::new(SimFile { disk: self.clone(), node }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.operation()?;
        state.node(from)?;
        state.change_names(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.operation()?;
        state.node(name)?;
        state.change_names(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.operation()?;
        if !state.faults.lying_sync {
            state.unsynced.clear();
            state.durable_names = state.names.clone();
        }
        Ok(())
    }
}

struct LockGuard(SimDisk);

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

struct SimFile {
    disk: SimDisk,
    node: usize,
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let shown = &state.nodes[self.node].shown;
        let from = usize::try_from(offset).map_err(io::Error::other)?.min(shown.len());
        let read = buf.len().min(shown.len() - from);
        buf[..read].copy_from_slice(&shown[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let used = state.used();
        let grows = (from + bytes.len()).saturating_sub(state.nodes[self.node].shown.len());
        let full = state.faults.capacity.is_some_and(|capacity| used + grows as u64 > capacity);
        // A disk that gets full takes what fits.
        let bytes = if full { &bytes[..bytes.len() / 2 / SECTOR * SECTOR] } else { bytes };
        let fits = state.nodes[self.node].shown.len() >= from + bytes.len();
        if !full || fits {
            let node = &mut state.nodes[self.node];
            write_sectors(&mut node.shown, from, bytes, |_| true);
            node.unsynced.push((from, bytes.to_vec()));
        }
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        let sync = state.syncs;
        state.syncs += 1;
        if state.faults.lying_sync {
            return Ok(());
        }
        let fails = state.faults.sync_error_at == Some(sync);
        let mut random = Random(state.faults.seed);
        let node = &mut state.nodes[self.node];
        // After a failed sync the operating system forgets what it had to write: a later sync
        // succeeds, and the bytes are still not on the device.
        for (offset, written) in std::mem::take(&mut node.unsynced) {
            write_sectors(&mut node.durable, offset, &written, |_| {
                !fails || random.next() & 1 == 0
            });
        }
        if fails { Err(io::Error::other("the device reports a failed write")) } else { Ok(()) }
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().nodes[self.node].shown.len() as u64)
    }
}
