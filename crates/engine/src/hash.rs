//! Maps of this process alone, by a hash that is quicker than the standard library's.
//!
//! Gids and URLs come from outside, so the hash is seeded at random when the process starts: who
//! does not know the seed cannot choose keys that collide. Every map here is bounded besides.

use std::collections::HashMap;

pub(crate) use foldhash::fast::RandomState;

/// A map that is asked for with every transaction.
pub(crate) type QuickMap<K, V> = HashMap<K, V, RandomState>;
