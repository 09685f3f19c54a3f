//! The memory store passes the suite that every store must pass.

dtmd_store::conformance_suite!(|| async { dtmd_store::MemoryStore::new() });
