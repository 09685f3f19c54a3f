//! Creating and updating.

use std::sync::Arc;

use dtmd_protocol::{Global, GlobalStatus, Op, Revision};

use super::sample::{at, ended, gid, later, row, saga};
use crate::{Store, Write, WriteError};

/// Commits one write, and returns its result.
pub(super) async fn commit(store: &dyn Store, write: Write) -> Result<(), WriteError> {
    let mut results = store.commit(&[write]).await.unwrap();
    assert_eq!(results.len(), 1, "one result for each write");
    results.remove(0)
}

pub(super) async fn create(store: &dyn Store, global: &Global) {
    commit(store, Write::Create(Arc::new(global.clone()))).await.unwrap();
}

pub(super) fn change(before: &Global, after: &Global) -> Write {
    Write::Update { before: Arc::new(before.clone()), after: Arc::new(after.clone()) }
}

pub(super) async fn update(store: &dyn Store, before: &Global, after: &Global) {
    commit(store, change(before, after)).await.unwrap();
}

pub(super) async fn load(store: &dyn Store, text: &str) -> Option<Global> {
    store.load(&gid(text)).await.unwrap().map(|global| Global::clone(&global))
}

pub(super) async fn a_created_global_is_loaded_as_it_was(store: &dyn Store) {
    assert_eq!(load(store, "a").await, None);
    create(store, &saga("a")).await;
    assert_eq!(load(store, "a").await, Some(saga("a")));
    assert_eq!(load(store, "b").await, None);
}

pub(super) async fn a_taken_gid_is_refused_and_what_is_stored_stays(store: &dyn Store) {
    create(store, &saga("a")).await;
    let other = later(&saga("a"), |global| global.custom_data = "other".into());
    let refused = commit(store, Write::Create(Arc::new(other))).await;
    assert_eq!(refused, Err(WriteError::AlreadyExists("a".to_owned())));
    assert_eq!(load(store, "a").await, Some(saga("a")));
}

pub(super) async fn an_update_replaces_the_global(store: &dyn Store) {
    let first = saga("a");
    create(store, &first).await;
    let second = later(&first, |global| {
        global.branches[1].status = dtmd_protocol::BranchStatus::Succeed;
        global.branches[1].finished = Some(at(101));
        global.branches.push(row("02", Op::Action));
        global.updated = at(101);
    });
    update(store, &first, &second).await;
    assert_eq!(load(store, "a").await, Some(second.clone()));
    // Several steps may fold into one write.
    let third = later(&second, |global| {
        global.revision = Revision(9);
        global.status = GlobalStatus::Aborting;
        global.rollback_reason = "because".into();
    });
    update(store, &second, &third).await;
    assert_eq!(load(store, "a").await, Some(third));
}

pub(super) async fn an_update_of_another_revision_is_refused(store: &dyn Store) {
    let first = saga("a");
    create(store, &first).await;
    let second = later(&first, |global| global.updated = at(101));
    update(store, &first, &second).await;
    let late = later(&first, |global| global.updated = at(102));
    let refused = commit(store, change(&first, &late)).await;
    assert_eq!(refused, Err(WriteError::Conflict("a".to_owned())));
    let early = later(&later(&second, |_| ()), |_| ());
    let refused = commit(store, change(&later(&second, |_| ()), &early)).await;
    assert_eq!(refused, Err(WriteError::Conflict("a".to_owned())));
    assert_eq!(load(store, "a").await, Some(second));
}

pub(super) async fn an_update_of_another_epoch_is_refused(store: &dyn Store) {
    let mut first = saga("a");
    first.epoch = 5;
    create(store, &first).await;
    for epoch in [4, 6] {
        let mut before = first.clone();
        before.epoch = epoch;
        let refused = commit(store, change(&before, &later(&before, |_| ()))).await;
        assert_eq!(refused, Err(WriteError::Conflict("a".to_owned())), "epoch {epoch}");
    }
    assert_eq!(load(store, "a").await, Some(first));
}

pub(super) async fn an_update_of_nothing_is_refused(store: &dyn Store) {
    let first = saga("a");
    let refused = commit(store, change(&first, &later(&first, |_| ()))).await;
    assert_eq!(refused, Err(WriteError::NotFound("a".to_owned())));
    assert_eq!(load(store, "a").await, None);
}

pub(super) async fn later_writes_of_a_batch_see_the_earlier_ones(store: &dyn Store) {
    let first = saga("a");
    let second = later(&first, |global| global.branches.push(row("02", Op::Action)));
    let third = ended(later(&second, |_| ()), at(200));
    let batch = [
        Write::Create(Arc::new(first.clone())),
        change(&first, &second),
        change(&second, &third),
        change(&second, &third),
        Write::Create(Arc::new(first.clone())),
    ];
    let conflict = Err(WriteError::Conflict("a".to_owned()));
    let exists = Err(WriteError::AlreadyExists("a".to_owned()));
    let results = store.commit(&batch).await.unwrap();
    assert_eq!(results, [Ok(()), Ok(()), Ok(()), conflict, exists]);
    assert_eq!(load(store, "a").await, Some(third));
}

pub(super) async fn a_refused_write_does_not_affect_its_neighbours(store: &dyn Store) {
    create(store, &saga("b")).await;
    let gone = saga("x");
    let after = later(&saga("b"), |global| global.updated = at(300));
    let batch = [
        Write::Create(Arc::new(saga("a"))),
        Write::Create(Arc::new(saga("b"))),
        change(&gone, &later(&gone, |_| ())),
        change(&saga("b"), &after),
        change(&saga("b"), &after),
        Write::Create(Arc::new(saga("c"))),
    ];
    let results = store.commit(&batch).await.unwrap();
    let held: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(held, [true, false, false, true, false, true]);
    assert_eq!(load(store, "a").await, Some(saga("a")));
    assert_eq!(load(store, "b").await, Some(after));
    assert_eq!(load(store, "c").await, Some(saga("c")));
}

pub(super) async fn an_empty_batch_is_well(store: &dyn Store) {
    assert_eq!(store.commit(&[]).await.unwrap(), []);
}

pub(super) async fn a_finished_global_stays_readable_and_its_gid_taken(store: &dyn Store) {
    let first = saga("a");
    create(store, &first).await;
    let last = ended(later(&first, |_| ()), at(200));
    update(store, &first, &last).await;
    assert_eq!(load(store, "a").await, Some(last.clone()));
    let refused = commit(store, Write::Create(Arc::new(first))).await;
    assert_eq!(refused, Err(WriteError::AlreadyExists("a".to_owned())));
    assert_eq!(load(store, "a").await, Some(last));
}

/// "Retry now" on a finished global is accepted and shown only (spec 07 D12).
pub(super) async fn a_finished_global_can_be_shown_a_later_wake_up(store: &dyn Store) {
    let last = ended(saga("a"), at(200));
    create(store, &last).await;
    let shown = later(&last, |global| global.wake_at = at(999));
    update(store, &last, &shown).await;
    assert_eq!(load(store, "a").await, Some(shown.clone()));
    let refused = commit(store, change(&last, &shown)).await;
    assert_eq!(refused, Err(WriteError::Conflict("a".to_owned())));
}

pub(super) async fn of_concurrent_creates_one_wins(store: &dyn Store) {
    for round in 0..20 {
        let name = format!("race-{round}");
        let write = |owner: &str| {
            let mut global = saga(&name);
            global.owner = owner.into();
            [Write::Create(Arc::new(global))]
        };
        let (left, right) = (write("left"), write("right"));
        let (left, right) = tokio::join!(store.commit(&left), store.commit(&right));
        let (left, right) = (left.unwrap().remove(0), right.unwrap().remove(0));
        assert!(left.is_ok() != right.is_ok(), "{left:?}, {right:?}");
        let winner = if left.is_ok() { "left" } else { "right" };
        assert_eq!(&*load(store, &name).await.unwrap().owner, winner);
    }
}

pub(super) async fn of_concurrent_updates_one_wins(store: &dyn Store) {
    let mut stored = saga("a");
    create(store, &stored).await;
    for round in 0..20 {
        let left = later(&stored, |global| global.updated = at(1000 + round));
        let right = later(&stored, |global| global.updated = at(2000 + round));
        let (first, second) = ([change(&stored, &left)], [change(&stored, &right)]);
        let (first, second) = tokio::join!(store.commit(&first), store.commit(&second));
        let (first, second) = (first.unwrap().remove(0), second.unwrap().remove(0));
        assert!(first.is_ok() != second.is_ok(), "{first:?}, {second:?}");
        stored = if first.is_ok() { left } else { right };
        assert_eq!(load(store, "a").await, Some(stored.clone()));
    }
}

pub(super) async fn many_small_changes_add_up(store: &dyn Store) {
    let mut stored = saga("a");
    create(store, &stored).await;
    for round in 0..300u32 {
        let next = later(&stored, |global| {
            global.branches[1].retry.attempts = round;
            global.branches[1].updated = at(i64::from(round));
            global.wake_at = at(i64::from(round) + 10);
        });
        update(store, &stored, &next).await;
        stored = next;
    }
    assert_eq!(load(store, "a").await, Some(stored));
}
