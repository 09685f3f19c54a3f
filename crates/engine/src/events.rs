//! What happened, for whoever listens.
/// x
#[derive(Debug, Clone)]
pub enum Event {}
/// Drives time from outside (design.md section 9).
#[derive(Debug, Clone)]
pub struct TestControl {}
impl TestControl {
    /// Empties the store, drops pending events and resets the clock.
    pub async fn reset(&self) -> Result<(), crate::EngineError> { Ok(()) }
    /// Sets the offsets of "now" for ages, and of "now" for what is due.
    pub fn set_clock(&self, _now_forward_ms: i64, _cron_forward_ms: i64) {}
    /// Picks one due global and runs one pass over it; its gid when the pass has ended.
    pub async fn cron_once(&self, _ignore_lease: bool) -> Result<Option<dtmd_protocol::Gid>, crate::EngineError> { Ok(None) }
    /// Waits for the next "a pass ended" event.
    pub async fn processed(&self, _wait: std::time::Duration) -> Option<dtmd_protocol::Gid> { None }
}
