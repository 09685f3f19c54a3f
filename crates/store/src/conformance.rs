//! The suite that every store must pass.
//!
//! Each case is given an empty store of its own and panics where the promise of [`Store`] is
//! broken. A store's tests run them all by one line:
//!
//! ```ignore
//! dtmd_store::conformance_suite!(|| async { MyStore::connect().await });
//! ```
//!
//! or, where a test function per case is not wanted, by walking over [`CASES`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a case fails by panicking; the suite runs in tests only"
)]

mod changes;
mod claims;
mod keys;
mod lists;
mod purges;
mod records;
pub mod sample;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::Store;

/// A running case.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A case: a function of an empty store.
pub type Case = fn(Arc<dyn Store>) -> Running;

macro_rules! cases {
    ($($module:ident: $($name:ident),+ $(,)?;)+) => {
        /// Every case and its name.
        pub const CASES: &[(&str, Case)] = &[
            $($((stringify!($name), |store| Box::pin(async move { $module::$name(&*store).await }))),+),+
        ];

        /// Makes one `#[test]` of each case.
        ///
        /// The argument is a function without arguments that returns a future of a new, empty
        /// store, or of a pair of a store and something that must live as long.
        #[macro_export]
        macro_rules! conformance_suite {
            ($factory:expr) => {
                $($(
                    #[test]
                    fn $name() {
                        $crate::conformance::run(stringify!($name), $factory);
                    }
                )+)+
            };
        }
    };
}

cases! {
    changes:
        a_created_global_is_loaded_as_it_was,
        a_taken_gid_is_refused_and_what_is_stored_stays,
        an_update_replaces_the_global,
        an_update_of_another_revision_is_refused,
        an_update_of_another_epoch_is_refused,
        an_update_of_nothing_is_refused,
        later_writes_of_a_batch_see_the_earlier_ones,
        a_refused_write_does_not_affect_its_neighbours,
        an_empty_batch_is_well,
        a_finished_global_stays_readable_and_its_gid_taken,
        a_finished_global_can_be_shown_a_later_wake_up,
        of_concurrent_creates_one_wins,
        of_concurrent_updates_one_wins,
        many_small_changes_add_up;
    records:
        every_sample_is_read_back_as_written,
        every_change_between_samples_is_read_back,
        a_thousand_branches_keep_their_order,
        payloads_may_be_large_and_binary,
        gids_may_be_prefixes_of_one_another,
        gids_may_be_any_text,
        rows_of_prefix_gids_do_not_mix;
    claims:
        a_lease_is_taken_and_renewed_and_handed_back,
        a_lease_of_another_epoch_is_refused,
        a_lease_of_another_revision_is_refused,
        a_lease_of_nothing_is_refused,
        a_writer_that_lost_its_lease_is_refused,
        due_globals_are_claimed_oldest_first,
        a_claim_takes_no_more_than_its_limit,
        what_is_not_due_is_not_claimed,
        finished_globals_are_never_claimed,
        a_claimed_global_is_due_again_after_its_lease,
        an_update_moves_the_wake_up,
        concurrent_claimers_get_disjoint_sets;
    lists:
        a_list_is_newest_first,
        a_list_is_paged_without_gaps_or_repeats,
        a_position_stays_valid_while_globals_come_and_go,
        an_unknown_position_is_an_empty_page,
        a_list_is_filtered_by_every_condition,
        filters_hold_together,
        totals_follow_every_change,
        the_oldest_is_the_first_accepted_that_is_unfinished;
    keys:
        a_key_is_created_changed_and_deleted,
        a_key_of_another_version_is_refused,
        of_concurrent_changes_of_a_key_one_wins,
        later_writes_of_keys_see_the_earlier_ones,
        a_list_of_keys_holds_one_category_in_order,
        keys_are_paged_without_gaps_or_repeats;
    purges:
        a_purge_deletes_what_ended_before,
        a_purge_never_deletes_unfinished_globals,
        a_purge_takes_no_more_than_its_limit_and_says_so,
        a_purged_gid_can_be_used_again,
        a_reset_store_is_empty_and_works,
        a_store_answers_and_says_what_it_is;
}

/// What a factory may return: a store, or a store and something that must outlive it.
pub trait Fresh {
    /// Returns the store, and keeps the rest alive beside it.
    fn parts(self) -> (Arc<dyn Store>, Box<dyn std::any::Any>);
}

impl<S: Store + 'static> Fresh for S {
    fn parts(self) -> (Arc<dyn Store>, Box<dyn std::any::Any>) {
        (Arc::new(self), Box::new(()))
    }
}

impl<S: Store + 'static, G: std::any::Any> Fresh for (S, G) {
    fn parts(self) -> (Arc<dyn Store>, Box<dyn std::any::Any>) {
        (Arc::new(self.0), Box::new(self.1))
    }
}

/// Runs a case by its name on the store that `factory` makes.
///
/// # Panics
///
/// If the store breaks its promise, or there is no such case.
pub fn run<F, S>(name: &str, factory: impl FnOnce() -> F)
where
    F: Future<Output = S>,
    S: Fresh,
{
    let (_, case) = CASES.iter().find(|(of, _)| *of == name).expect("the name is in CASES");
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let (store, guard) = factory().await.parts();
        case(store).await;
        drop(guard);
    });
}
