//! The shared Redis store: one server, a master that Sentinels watch, or a Redis Cluster.
//!
//! The way in:
//!
//! 1. [`RedisOptions`]: where Redis is, and what an acknowledgement waits for.
//! 2. [`RedisStore`]: [`RedisStore::open`], the store itself, and [`RedisStore::doctor`].
//! 3. `commit.lua`: every change there is. `look.lua`: looking into many indexes at once.
//!
//! # Layout
//!
//! There are 64 shards. A global belongs to the shard that its gid's hash names, and **a shard is a
//! hash tag**: all its keys are in one slot, so one script changes a record and every index of it,
//! together or not at all. The tags are chosen so that each has its own 64th of the slots; a
//! cluster of up to 64 masters with equal ranges has equally many shards on each.
//!
//! A tag for each gid would spread over more slots, but not over more nodes, and would put a record
//! and the index of what is due into different slots: two writes that a crash can part, orders of
//! writing to get right, and entries to mend. Here there is nothing to part.
//!
//! With `<p>` for the prefix and `{tag}` of the shard:
//!
//! | key | type | what |
//! |---|---|---|
//! | `<p>{tag}:g:<gid>` | hash | `h`: header (type, status, revision, lease …); `d`: the record, `dtmd_store::record` |
//! | `<p>{tag}:due` | sorted set | unfinished gids by wake-up, in Redis's time |
//! | `<p>{tag}:ended` | sorted set | finished gids by their end |
//! | `<p>{tag}:l:<type><status>` | sorted set | gids of one type and status by arrival: lists |
//! | `<p>{tag}:totals` | hash | how many there are of each type and status |
//! | `<p>{tag}:k:<cat>` | hash | keys of a category and their values |
//! | `<p>{tag}:n:<cat>` | sorted set | the same keys in order |
//! | `<p>{tag}:cats` | set | the categories |
//! | `<p>{tag}:c:<store>` | string | what a store's last call did; expires by itself |
//! | `<p>{tag}:meta` | string | the layout |
//! | `<p>{tag}:ping` | string | what a ping writes; expires by itself |
//!
//! Global data bears no expiry (spec 07 D11): unfinished ones stay, finished ones are deleted by
//! [`dtmd_store::Store::purge`], record and index entries together. A server started with
//! `FinishedDataExpire` purges by itself.
//! An expiry of Redis's own would leave index entries and totals behind.
//!
//! # Exactly once
//!
//! A batch is one script call on a single server, and one for each shard it touches on a cluster,
//! all sent at once. A call bears a number of its store, and leaves its results under it. When an
//! answer is lost, by a timeout, a broken connection or a failover, the call is sent again: the
//! script that finds its number repeats the results, one that finds a later number does nothing.
//! So no outcome is guessed from what is stored. Every key that a script may touch is declared, so
//! that a cluster refuses a call about a slot that it moves before anything of it was made.
//!
//! When Redis stays away for longer than [`RedisOptions::retry_for`], the commit is
//! [`dtmd_store::StoreError::Unavailable`]. When all calls were refused for want of memory, it is
//! [`dtmd_store::StoreError::Full`], and nothing was written.
//!
//! # Claims and clocks
//!
//! A claim looks into all shards at once, takes the oldest, and changes each header if it is byte
//! for byte what was read. The index of wake-ups is in Redis's time: each store measures how far
//! its machine's clock is from Redis's and translates, so that leases hold between servers whose
//! clocks differ.
//!
//! # Data of DTM
//!
//! DTM's own Redis store keeps everything in one slot, `<prefix>_g_<gid>` and so on (spec 05 §3).
//! It cannot be shared: DTM's scripts know no leases and no revisions. Our keys never have DTM's
//! names, even with the same prefix; [`RedisStore::open`] leaves DTM's alone and says in the log how
//! many unfinished ones there are. To move, start dtmd for new transactions and keep a DTM server
//! running on the old data until it has drained; then delete DTM's keys.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod checks;
mod claim;
mod clock;
mod error;
mod header;
mod keys;
mod kv;
mod link;
mod list;
mod options;
mod outage;
mod plan;
mod script;
mod shared;
mod store;
mod upkeep;
mod writer;

pub use error::OpenError;
pub use options::{Mode, Node, RedisOptions};
pub use store::RedisStore;
