//! The test clock: time driven from outside (design.md section 9).

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::Gid;
use dtmd_store::Claim;
use tokio::sync::oneshot;

use crate::core::Core;
use crate::error::EngineError;
use crate::runner::Message;

/// How many busy globals one pick passes over, at most.
const PICKS_MAX: usize = 64;

/// Drives time from outside. With it there are no timers and no claimer.
#[derive(Clone)]
pub struct TestControl {
    core: Arc<Core>,
}

impl TestControl {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Empties the store, drops pending events and sets the clock right.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the store cannot be emptied.
    pub async fn reset(&self) -> Result<(), EngineError> {
        let emptied = self.core.committer.run(|store| Box::pin(store.reset()));
        emptied.await.map_err(|failure| EngineError::Unavailable(failure.to_string()))?;
        self.core.timers.clear();
        self.core.passes.clear();
        self.core.clock.forward(0, 0);
        Ok(())
    }

    /// Sets the offsets: the first is added to "now" for ages and timeouts, the second to "now" for
    /// picking what is due and for the age in a message's delay. Milliseconds.
    pub fn set_clock(&self, now_forward_ms: i64, cron_forward_ms: i64) {
        self.core.clock.forward(now_forward_ms, cron_forward_ms);
    }

    /// Picks one due global and runs one pass over it; its gid when the pass has ended, `None` if
    /// nothing is due. Without `ignore_lease` a global that a pass is running on is not picked.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the store cannot be asked.
    pub async fn cron_once(&self, ignore_lease: bool) -> Result<Option<Gid>, EngineError> {
        for _ in 0..PICKS_MAX {
            let Some(gid) = self.pick().await? else { return Ok(None) };
            if !ignore_lease && self.core.is_active(&gid) {
                continue;
            }
            let (ended, end) = oneshot::channel();
            self.core.send(&gid, Message::Kick { ended })?;
            let _ = end.await;
            return Ok(Some(gid));
        }
        Ok(None)
    }

    async fn pick(&self) -> Result<Option<Gid>, EngineError> {
        let claim = Claim {
            owner: self.core.owner.clone(),
            due: self.core.clock.due(),
            until: self.core.clock.due().after(self.core.options.policy.lease),
            limit: 1,
        };
        let picked =
            self.core.committer.run(|store| Box::pin(async move { store.claim_due(&claim).await }));
        let picked = picked.await.map_err(|e| EngineError::Unavailable(e.to_string()))?;
        Ok(picked.first().map(|global| global.gid.clone()))
    }

    /// Takes the next "a pass ended" event, waiting for it.
    pub async fn processed(&self, wait: Duration) -> Option<Gid> {
        self.core.passes.next(wait).await
    }
}
