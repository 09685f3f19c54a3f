//! What the store has done, for metrics.

use std::time::Duration;

/// Counts since the store was opened, and sizes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Batches made durable.
    pub flushes: u64,
    /// Bytes of those batches.
    pub bytes: u64,
    /// Records in those batches.
    pub records: u64,
    /// Records in the last batch.
    pub last_batch_records: u64,
    /// Records in the largest batch.
    pub largest_batch_records: u64,
    /// How long the last batch took to become durable.
    pub last_flush: Duration,
    /// How long all batches took.
    pub flush_time: Duration,
    /// Batches that did not become durable.
    pub failed_flushes: u64,
    /// Globals and keys moved out of old segments.
    pub moved: u64,
    /// Segments recycled or removed.
    pub segments_retired: u64,
    /// Globals deleted because there were more than `history_max_count`.
    pub history_dropped: u64,
    /// Segments of the log now.
    pub segments: u64,
    /// Bytes of all segments now.
    pub log_bytes: u64,
    /// Of these, bytes that are still needed.
    pub needed_bytes: u64,
    /// Unfinished globals now.
    pub live: u64,
    /// Finished globals now.
    pub finished: u64,
    /// Whether the store refuses writes until it has been reopened.
    pub broken: bool,
}
