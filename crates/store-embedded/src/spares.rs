//! Files that are ready to become segments: full of zeros or of what a dead segment held, so that
//! writing a batch changes no size and a sync is one write of the device.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile};
use crate::format::segment_name;

const PREFIX: &str = "spare-";
/// One is being used next, one may come from a segment that has just died.
const SPARES_MAX: usize = 2;

/// A file and its name.
pub(crate) type Spare = (String, Box<dyn DiskFile>);

/// The spare files of a directory.
pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: Vec<Spare>,
    next: u64,
}

impl Spares {
    pub(crate) fn new(disk: Arc<dyn Disk>, segment_bytes: u64) -> Self {
        Self { disk, segment_bytes, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves a list that is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the spare files that an earlier process left; removes those of another size.
    pub(crate) fn adopt(&self, names: &[String]) -> io::Result<()> {
        for name in names.iter().filter(|name| name.starts_with(PREFIX)) {
            let file = self.disk.open(name)?;
            let number = name.strip_prefix(PREFIX).and_then(|digits| digits.parse::<u64>().ok());
            let mut state = self.state();
            state.next = state.next.max(number.unwrap_or(0) + 1);
            if file.length()? == self.segment_bytes && state.ready.len() < SPARES_MAX {
                state.ready.push((name.clone(), file));
            } else {
                self.disk.remove(name)?;
            }
        }
        Ok(())
    }

    /// Returns whether the next segment would have to be filled while a commit waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.state().ready.is_empty()
    }

    /// Makes one more.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let spare = self.make()?;
        self.state().ready.push(spare);
        Ok(())
    }

    /// Returns one; makes it, if there is none.
    pub(crate) fn take(&self) -> io::Result<Spare> {
        let ready = self.state().ready.pop();
        match ready {
            Some(spare) => Ok(spare),
            None => self.make(),
        }
    }

    /// Takes the file of a segment that is not needed any more, or removes it.
    ///
    /// The file must not be open elsewhere: it will be written over.
    pub(crate) fn recycle(&self, id: u32, file: Box<dyn DiskFile>) -> io::Result<()> {
        let fits = file.length()? == self.segment_bytes;
        let (full, name) = {
            let mut state = self.state();
            state.next += 1;
            (state.ready.len() >= SPARES_MAX, format!("{PREFIX}{}", state.next))
        };
        if full || !fits {
            return self.disk.remove(&segment_name(id));
        }
        self.disk.rename(&segment_name(id), &name)?;
        // Before the file is written over: a crash must not show new bytes under the old name.
        self.disk.sync_names()?;
        self.state().ready.push((name, file));
        Ok(())
    }

    fn make(&self) -> io::Result<Spare> {
        static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];
        let name = {
            let mut state = self.state();
            state.next += 1;
            format!("{PREFIX}{}", state.next)
        };
        let file = self.disk.create(&name)?;
        let fill = || {
            let mut at = 0;
            while at < self.segment_bytes {
                let length = (self.segment_bytes - at).min(ZEROS.len() as u64);
                let zeros = usize::try_from(length).map_err(io::Error::other)?;
                file.write_at(&ZEROS[..zeros], at)?;
                at += length;
            }
            file.sync()
        };
        match fill() {
            Ok(()) => Ok((name, file)),
            Err(error) => {
                // What could not be filled must not keep what room there is.
                if let Err(error) = self.disk.remove(&name) {
                    tracing::warn!(%error, name, "a half-filled file could not be removed");
                }
                Err(error)
            }
        }
    }
}
