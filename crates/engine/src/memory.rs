//! Whether there is memory for new transactions.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{info, warn};

use crate::error::EngineError;

/// Bodies that are read even when memory is short: most requests, and those for what exists.
const SMALL_BODY_BYTES: usize = 64 * 1024;

/// Told from outside how much memory the process has; the store and the transports use it as well
/// as the engine.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    tight: AtomicBool,
}

impl Memory {
    /// Takes note of the bytes in use and of how many may be.
    pub(crate) fn note(&self, used: u64, max: u64) {
        let was_tight = self.is_tight();
        // It must have become clearly less, or every other caller would be refused.
        let is_tight = used >= if was_tight { max / 10 * 9 } else { max };
        self.tight.store(is_tight, Ordering::Relaxed);
        let (used_mib, max_mib) = (used >> 20, max >> 20);
        if is_tight && !was_tight {
            warn!(
                used_mib,
                max_mib, "memory is short: new transactions are refused, those that exist go on"
            );
        } else if was_tight && !is_tight {
            info!(used_mib, max_mib, "there is memory again: new transactions are accepted");
        }
    }

    /// Refuses what is new while memory is short.
    pub(crate) fn admit(&self) -> Result<(), EngineError> {
        if self.is_tight() { Err(EngineError::Overloaded("memory is short")) } else { Ok(()) }
    }

    /// Refuses to read more of a large body while memory is short.
    pub(crate) fn admit_body(&self, bytes: usize) -> Result<(), EngineError> {
        if bytes > SMALL_BODY_BYTES { self.admit() } else { Ok(()) }
    }

    fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_tight_until_there_is_clearly_room() {
        let memory = Memory::default();
        let mut tight = Vec::new();
        for used in [99, 100, 95, 90, 89, 99] {
            memory.note(used, 100);
            tight.push(memory.is_tight());
        }
        assert_eq!(tight, [false, true, true, true, false, false]);
    }
}
