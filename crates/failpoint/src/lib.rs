//! Named places in the code at which a test ends the process, as a kill at just that place would.
//!
//! Without the feature `armed` a place is an empty function, and a release has none of this. With
//! it, the file that `DTMD_FAILPOINTS` names is read once, at the first place that is reached: a
//! line `NAME=N` aborts the process at the N-th time that the place is reached, from 1. A line
//! `value:NAME=N` is a setting that only tests have.
//!
//! The usual crate for this, `fail`, has no action that ends the process without unwinding; a panic
//! of one thread is not what a power cut is.

/// Every place. A test walks through all of them.
pub const PLACES: &[&str] = &[
    "commit-begins",
    "commit-done",
    "reply-begins",
    "reply-done",
    "lease-taken",
    "claim-done",
    "call-begins",
    "call-done",
    "fold-done",
    "log-written",
    "log-synced",
    "segment-written",
    "segment-renamed",
    "segment-begun",
    "segment-emptied",
    "segment-retired",
    "hint-written",
    "store-loaded",
];

#[cfg(feature = "armed")]
mod armed {
    use std::collections::HashMap;
    use std::io::Write;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Orders {
        values: HashMap<String, u64>,
        places: HashMap<String, (u64, AtomicU64)>,
    }

    static ORDERS: LazyLock<Orders> = LazyLock::new(|| {
        let mut orders = Orders::default();
        let Some(path) = std::env::var_os("DTMD_FAILPOINTS") else { return orders };
        for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
            let Some((name, number)) = line.split_once('=') else { continue };
            let Ok(number) = number.trim().parse() else { continue };
            match name.strip_prefix("value:") {
                Some(name) => drop(orders.values.insert(name.to_owned(), number)),
                None => drop(orders.places.insert(name.to_owned(), (number, AtomicU64::new(0)))),
            }
        }
        orders
    });

    pub(super) fn hit(name: &'static str) {
        debug_assert!(super::PLACES.contains(&name), "{name} is not in the list of places");
        let Some((at, count)) = ORDERS.places.get(name) else { return };
        if count.fetch_add(1, Ordering::SeqCst) + 1 == *at {
            let _ = writeln!(std::io::stderr(), "failpoint {name}");
            std::process::abort();
        }
    }

    pub(super) fn value(name: &str) -> Option<u64> {
        ORDERS.values.get(name).copied()
    }
}

/// A place: ends the process if a test has ordered it.
#[inline]
pub fn hit(name: &'static str) {
    #[cfg(feature = "armed")]
    armed::hit(name);
    #[cfg(not(feature = "armed"))]
    let _ = name;
}

/// Returns a setting that only tests have.
#[inline]
pub fn value(name: &str) -> Option<u64> {
    #[cfg(feature = "armed")]
    return armed::value(name);
    #[cfg(not(feature = "armed"))]
    {
        let _ = name;
        None
    }
}
