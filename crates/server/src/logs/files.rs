//! A log file that is set aside when it is long (DTM's `Log.RotationConfigJSON`).
//!
//! A file set aside is renamed to `NAME-2026-05-01T12-00-00.000.EXT` beside it, as DTM names it,
//! so that what collects such files goes on working. The names sort by time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local, Utc};

use crate::config::Rotation;

/// A name's time; its length tells such names from others.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const STAMP_LEN: usize = "2026-05-01T12-00-00.000".len();
/// Tries to find a free name within one millisecond.
const NAMES_MAX: u32 = 1000;

/// An open log file.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    rotation: Option<Rotation>,
    /// The time in the last name given: a later one is always greater, so that names sort by age.
    named: SystemTime,
}

impl LogFile {
    /// Opens a file for appending; makes it and its directory if they are missing.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(super) fn open(path: &Path, rotation: Option<Rotation>) -> io::Result<Self> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent)?;
        }
        let file = open(path)?;
        let bytes = file.metadata()?.len();
        let named = SystemTime::UNIX_EPOCH;
        let opened = Self { path: path.to_owned(), file, bytes, rotation, named };
        opened.tidy();
        Ok(opened)
    }

    /// Appends a line, in a new file if this one would become too long.
    ///
    /// # Errors
    ///
    /// The system's; the line is then lost, the next one is tried.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if let Some(rotation) = self.rotation
            && self.bytes > 0
            && self.bytes + length > rotation.max_bytes
        {
            self.set_aside(rotation)?;
        }
        self.file.write_all(line)?;
        self.bytes += length;
        Ok(())
    }

    fn set_aside(&mut self, rotation: Rotation) -> io::Result<()> {
        let name = self.free_name(rotation);
        fs::rename(&self.path, name)?;
        self.file = open(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        self.tidy();
        Ok(())
    }

    /// Returns a name with the time in it that no file has.
    fn free_name(&mut self, rotation: Rotation) -> PathBuf {
        let begin = SystemTime::now().max(self.named + Duration::from_millis(1));
        let (stem, extension) = self.parts();
        let mut name = PathBuf::new();
        for millis in 0..NAMES_MAX {
            let at = begin + Duration::from_millis(millis.into());
            self.named = at;
            let stamp = match rotation.local_time {
                true => DateTime::<Local>::from(at).format(STAMP),
                false => DateTime::<Utc>::from(at).format(STAMP),
            };
            name = self.path.with_file_name(format!("{stem}-{stamp}{extension}"));
            if !name.exists() {
                break;
            }
        }
        name
    }

    /// Returns the name before and after the last point, the point with the latter.
    fn parts(&self) -> (String, String) {
        let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
        let stem = self.path.file_stem().map(text).unwrap_or_default();
        let extension = self.path.extension().map(|part| format!(".{}", text(part)));
        (stem, extension.unwrap_or_default())
    }

    /// Deletes files set aside that are too many or too old. What cannot be deleted now is tried
    /// at the next occasion.
    fn tidy(&self) {
        let Some(rotation) = self.rotation else { return };
        let mut names = self.set_aside_before();
        names.sort_unstable_by(|a, b| b.cmp(a));
        for (index, path) in names.iter().enumerate() {
            let too_many = rotation.backups_max.is_some_and(|max| index >= max);
            let age = fs::metadata(path).and_then(|meta| meta.modified()).ok();
            let age = age.and_then(|modified| modified.elapsed().ok());
            let too_old = rotation.age_max.zip(age).is_some_and(|(max, age)| age > max);
            if too_many || too_old {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Returns the files that were set aside for this one, and no other's.
    fn set_aside_before(&self) -> Vec<PathBuf> {
        let (stem, extension) = self.parts();
        let folder = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let is_ours = |name: &str| {
            let stamp = name
                .strip_prefix(&format!("{stem}-"))
                .and_then(|rest| rest.strip_suffix(&extension));
            stamp.is_some_and(|stamp| {
                stamp.len() == STAMP_LEN
                    && stamp.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'T' | b'.'))
            })
        };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_ours));
        ours.map(|entry| entry.path()).collect()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn rotation(max_bytes: u64, backups_max: Option<usize>) -> Rotation {
        Rotation { max_bytes, backups_max, age_max: None, local_time: false }
    }

    #[test]
    fn long_files_are_set_aside_and_the_newest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dtmd.log");
        // Others' files, which must stay.
        fs::write(dir.path().join("dtmd-notes.log"), "").unwrap();
        fs::write(dir.path().join("dtmd-2026-05-01T12-00-00.000.txt"), "").unwrap();
        let mut file = LogFile::open(&path, Some(rotation(10, Some(2)))).unwrap();
        for number in 0..5 {
            file.append(format!("line {number}\n").as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 4\n");
        let mut kept = file.set_aside_before();
        kept.sort_unstable();
        let texts: Vec<_> = kept.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!(texts, ["line 2\n", "line 3\n"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
    }

    #[test]
    fn a_file_goes_on_where_it_was_and_a_long_line_stays_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "before\n").unwrap();
        let mut file = LogFile::open(&path, Some(rotation(8, None))).unwrap();
        file.append(b"a line that is longer than a file\n").unwrap();
        file.append(b"x\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "x\n");
        let mut texts: Vec<_> =
            file.set_aside_before().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        texts.sort_unstable();
        assert_eq!(texts, ["a line that is longer than a file\n", "before\n"]);
        // Without rotation it only grows.
        let mut file = LogFile::open(&path, None).unwrap();
        file.append(b"yyyyyyyyyyyyyyyyy\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "x\nyyyyyyyyyyyyyyyyy\n");
    }
}
