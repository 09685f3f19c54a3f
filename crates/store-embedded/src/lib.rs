//! The embedded store: a segmented, append-only log with group commit.
//!
//! The way in:
//!
//! 1. `format`: the bytes of a segment, and how a torn tail is told from damage.
//! 2. `store`: [`EmbeddedStore`], the promise of [`dtmd_store::Store`].
//! 3. `stage`: how a batch is decided; `log`: how it is made durable.
//! 4. `load`: what opening does; `batches`: its way through a segment; `hint`: what makes it quick.
//! 5. `maintain`: how old segments go.
//! 6. `inspect`: [`check`] and [`export`], without a server.
//! 7. [`sim`]: the disk that fails on purpose.
//!
//! One thread commits at a time; readers never wait for a flush. There is no async runtime and no
//! protocol rule in here. `docs/store-embedded.md` says what happens in every case of damage.

mod batches;
mod disk;
mod error;
mod event;
mod format;
mod hashes;
mod hint;
mod index;
mod inspect;
mod load;
mod log;
mod maintain;
mod segment;
mod shared;
pub mod sim;
mod slots;
mod spares;
mod stage;
mod stats;
mod store;

pub use disk::{Disk, DiskFile, RealDisk};
pub use error::OpenError;
pub use inspect::{
    ExportError, Exported, Report, SegmentReport, check, check_on, export, export_from,
};
pub use stats::Stats;
pub use store::{EmbeddedStore, Options};
