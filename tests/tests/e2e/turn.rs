//! Who may run beside whom: the kill loop runs alone, for it loads both processors and its pace
//! counts; everything else runs beside its like.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static TURN: RwLock<()> = RwLock::const_new(());

/// Waits until nothing else runs, and keeps it so.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().await
}

/// Waits until nothing runs that wants to be alone.
pub(crate) async fn shared() -> RwLockReadGuard<'static, ()> {
    TURN.read().await
}
