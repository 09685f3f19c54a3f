//! The embedded store passes the suite that every store must pass: with segments so small that
//! every case goes through several of them, and as it is used.

use dtmd_store_embedded::{EmbeddedStore, Options};

fn fresh(options: Options) -> (EmbeddedStore, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = EmbeddedStore::open(dir.path(), options).expect("an empty directory opens");
    (store, dir)
}

mod small_segments {
    use super::{Options, fresh};

    dtmd_store::conformance_suite!(|| async {
        fresh(Options { segment_bytes: 16 * 1024, ..Options::default() })
    });
}

mod one_segment {
    use super::{Options, fresh};

    dtmd_store::conformance_suite!(|| async {
        fresh(Options { segment_bytes: 1024 * 1024, background: false, ..Options::default() })
    });
}
