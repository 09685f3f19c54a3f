//! Looking at a directory without a server: nothing is changed.

use std::io::{self, Write};
use std::path::Path;

use dtmd_store::{Kv, Totals, record};
use serde::Serialize;

use crate::disk::{Disk, RealDisk};
use crate::error::OpenError;
use crate::format::segment_name;
use crate::load::{Loaded, Reading, load};
use crate::slots::Use;

/// What a directory holds.
#[derive(Debug, Default)]
pub struct Report {
    /// Its segments, the oldest first.
    pub segments: Vec<SegmentReport>,
    /// Unfinished globals.
    pub live: u64,
    /// Finished globals.
    pub finished: u64,
    /// Keys.
    pub keys: u64,
    /// Globals by type and status.
    pub totals: Totals,
    /// What is wrong, in the order of the log. Empty: the store is whole.
    pub damages: Vec<OpenError>,
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its file.
    pub name: String,
    /// Batches in it.
    pub batches: u64,
    /// Records in it.
    pub records: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Of these, bytes that are still needed.
    pub needed_bytes: u64,
    /// It ends with a batch that was never acknowledged, which opening will cut off.
    pub torn: bool,
}

/// What was written out.
#[derive(Debug, Default)]
pub struct Exported {
    /// Globals written.
    pub globals: u64,
    /// Keys written.
    pub keys: u64,
    /// What could not be read, and is not in the output. Empty: all was written.
    pub damages: Vec<OpenError>,
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The directory cannot be read at all.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The output cannot be written to.
    #[error("the export cannot be written")]
    Output(#[from] io::Error),
}

/// Reads every byte of the store in a directory and reports what is there. Changes nothing.
///
/// # Errors
///
/// [`OpenError::InUse`] if a server has it, [`OpenError::Io`] if it cannot be read. Damage is not
/// an error here: it is in the report.
pub fn check(dir: &Path) -> Result<Report, OpenError> {
    check_on(&RealDisk::new(dir))
}

/// As [`check`], on any disk.
///
/// # Errors
///
/// As [`check`].
pub fn check_on(disk: &dyn Disk) -> Result<Report, OpenError> {
    let mut loaded = read(disk)?;
    let mut finished = 0;
    each_finished(&mut loaded, |_| {
        finished += 1;
        Ok::<(), OpenError>(())
    })?;
    let index = &loaded.index;
    let segments = loaded.scans.iter().map(|scan| SegmentReport {
        name: segment_name(scan.id),
        batches: scan.batches,
        records: scan.records,
        bytes: scan.end,
        needed_bytes: index.segments.get(&scan.id).map_or(0, |segment| segment.needed),
        torn: scan.torn,
    });
    Ok(Report {
        segments: segments.collect(),
        live: index.live.len() as u64,
        finished,
        keys: index.kv.len() as u64,
        totals: index.totals(),
        damages: loaded.damages,
    })
}

/// Writes every global and every key that can be read as one line of JSON each, unfinished globals
/// first: `{"global":{…}}` and `{"kv":{…}}`. Changes nothing.
///
/// # Errors
///
/// [`ExportError`]. Damage is not an error here: it is in what is returned.
pub fn export(dir: &Path, out: &mut dyn Write) -> Result<Exported, ExportError> {
    export_from(&RealDisk::new(dir), out)
}

/// As [`export`], from any disk.
///
/// # Errors
///
/// As [`export`].
pub fn export_from(disk: &dyn Disk, out: &mut dyn Write) -> Result<Exported, ExportError> {
    let mut loaded = read(disk)?;
    let mut exported = Exported::default();
    let mut numbers: Vec<u64> = loaded.index.live.keys().copied().collect();
    numbers.sort_unstable();
    for number in numbers {
        if let Some(live) = loaded.index.live.get(&number) {
            write_global(out, &live.global)?;
            exported.globals += 1;
        }
    }
    each_finished(&mut loaded, |global| {
        exported.globals += 1;
        write_global(out, global)
    })?;
    for entry in loaded.index.kv.values() {
        let line = serde_json::to_string(&KvLine::of(&entry.kv)).map_err(io::Error::other)?;
        writeln!(out, "{{\"kv\":{line}}}")?;
        exported.keys += 1;
    }
    exported.damages = loaded.damages;
    Ok(exported)
}

fn read(disk: &dyn Disk) -> Result<Loaded, OpenError> {
    let io = |doing| {
        let dir = disk.location();
        move |source| OpenError::Io { dir, doing, source }
    };
    // Before the lock, which would make the directory.
    disk.names().map_err(io("listing the files"))?;
    let _lock = disk.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse { dir: disk.location() },
        _ => io("taking the lock")(error),
    })?;
    load(disk, Reading::Salvage)
}

/// Reads every finished global; notes those that cannot be read.
fn each_finished<E>(
    loaded: &mut Loaded,
    mut visit: impl FnMut(&dtmd_protocol::Global) -> Result<(), E>,
) -> Result<(), E> {
    for (number, _) in loaded.index.slots.from(0).filter(|(_, slot)| slot.used == Use::Finished) {
        let Some((file, at)) = loaded.index.finished(number) else { continue };
        match file.read_global(at) {
            Ok(global) => visit(&global)?,
            Err(error) => {
                let offset = u64::from(at.offset);
                loaded.damages.push(OpenError::corrupt(at.segment, offset, error.to_string()));
            }
        }
    }
    Ok(())
}

fn write_global(out: &mut dyn Write, global: &dtmd_protocol::Global) -> Result<(), ExportError> {
    let line = record::to_json(global).map_err(io::Error::other)?;
    Ok(writeln!(out, "{{\"global\":{line}}}")?)
}

#[derive(Serialize)]
struct KvLine<'a> {
    cat: &'a str,
    key: &'a str,
    value: &'a str,
    version: u64,
    created: i64,
    updated: i64,
}

impl<'a> KvLine<'a> {
    fn of(kv: &'a Kv) -> Self {
        Self {
            cat: &kv.cat,
            key: &kv.key,
            value: &kv.value,
            version: kv.version,
            created: kv.created.0,
            updated: kv.updated.0,
        }
    }
}
