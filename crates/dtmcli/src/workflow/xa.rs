//! XA as a step of a workflow (spec 04 §7.2).

use bytes::Bytes;
use dtmcli_barrier::xa::XaDb;

use super::context::Workflow;
use crate::{Branch, BranchError, BranchResult, Op};

impl Workflow {
    /// A local XA transaction as a step: the closure's work is prepared now, committed when the
    /// workflow succeeds, and rolled back when it fails. Its locks are held until then.
    ///
    /// A run that stops between the work and its preparation cannot be gone on with: the workflow
    /// is rolled back then.
    ///
    /// # Errors
    ///
    /// What the closure answers; `Failure` if an earlier run stopped in the middle; anything else
    /// must be returned from the workflow (`?`), which is then resumed later.
    pub async fn xa<D, F>(&mut self, db: &D, business: F) -> BranchResult
    where
        D: XaDb + Clone + Send + 'static,
        F: AsyncFnOnce(&mut D::Session) -> BranchResult,
    {
        let (commits, rolls_back) = (db.clone(), db.clone());
        let step = self
            .step()
            .on_commit(move |phase| async move { phase.branch().xa_finish(&commits).await })
            .on_rollback(move |phase| async move { phase.branch().xa_finish(&rolls_back).await })
            .even_if_failed();
        let shared = step.shared();
        let action = async |branch: &Branch| {
            let mark = branch.with_op(Op::Business);
            if shared.is_recorded(&mark) {
                return Err(BranchError::failure(
                    "an earlier run stopped between the work of an XA branch and its preparation",
                ));
            }
            let register =
                async || shared.recorded(&mark, async |_| Ok(Bytes::new())).await.map(|_| ());
            branch.xa_local(db, register, business).await.map(|()| Bytes::new())
        };
        step.record(action).await.map(|_| ())
    }
}
