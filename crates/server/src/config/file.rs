//! Reads the YAML file: known keys into settings, unknown ones into errors with a suggestion.
//!
//! Values are taken as the text that was written, whatever YAML would make of it: a password
//! `007` stays three characters. Parser errors are shown without the file's text, which may
//! hold a password.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::{Spanned, UserMessageFormatter};

use super::error::{ConfigError, UnknownKey};
use super::options::{OPTIONS, find};
use super::settings::{Origin, Settings};

/// The longest configuration file; DTM's sample has 5 KB.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Lays the file's values over `settings`.
///
/// # Errors
///
/// The file cannot be read, is not YAML, or has keys nobody knows.
pub fn apply_file(settings: &mut Settings, path: &Path) -> Result<(), ConfigError> {
    let read = |source| ConfigError::Read { path: path.into(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(read)?;
    let length = file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text).map_err(read)?;
    if length as u64 > FILE_MAX_BYTES {
        return Err(ConfigError::TooLong { path: path.into(), max_bytes: FILE_MAX_BYTES });
    }
    apply_text(settings, path, &text)
}

/// Lays a file's text over `settings`; `path` is for messages.
///
/// # Errors
///
/// The text is not YAML or has keys nobody knows.
pub fn apply_text(settings: &mut Settings, path: &Path, text: &str) -> Result<(), ConfigError> {
    let mut found = Found::default();
    let options = serde_saphyr::options! { with_snippet: false, emit_comments: false };
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        Section { prefix: "", found: &mut found }.deserialize(yaml)
    });
    if let Err(error) = parsed {
        let line = error.location().map_or(0, |location| location.line());
        return Err(ConfigError::Syntax {
            path: path.into(),
            line,
            message: error.render_with_formatter(&UserMessageFormatter),
        });
    }
    if !found.unknown.is_empty() {
        let unknown = |(key, line): (String, u64)| UnknownKey {
            path: path.into(),
            line,
            suggestion: suggest(&key),
            key,
        };
        return Err(ConfigError::UnknownKeys {
            keys: found.unknown.into_iter().map(unknown).collect(),
        });
    }
    for (key, line, value) in found.values {
        settings.set(key, value, Origin::File { path: path.into(), line });
    }
    Ok(())
}

/// What one reading of a file found.
#[derive(Default)]
struct Found {
    /// Key, line, value.
    values: Vec<(&'static str, u64, String)>,
    /// Key path, line.
    unknown: Vec<(String, u64)>,
}

/// One mapping of the file: the whole of it, or what stands under a key such as `Store`.
struct Section<'a> {
    /// Empty, or the key path with a point at its end.
    prefix: &'a str,
    found: &'a mut Found,
}

impl<'de> DeserializeSeed<'de> for Section<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Section<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix.strip_suffix('.') {
            Some(name) => write!(f, "keys under `{name}`"),
            None => f.write_str("keys such as `HttpPort: 36789`"),
        }
    }

    /// A key without anything under it, or an empty file, says nothing.
    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Spanned<String>>()? {
            let line = name.referenced.line();
            let key = format!("{}{}", self.prefix, name.value);
            if let Some(spec) = find(&key) {
                let value = map.next_value::<Option<String>>()?;
                // A key with nothing behind it counts as absent, as in DTM.
                if let Some(value) = value {
                    self.found.values.push((spec.key, line, value));
                }
            } else if self.prefix.is_empty() && is_section(&key) {
                let prefix = format!("{key}.");
                map.next_value_seed(Section { prefix: &prefix, found: &mut *self.found })?;
            } else {
                self.found.unknown.push((key, line));
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Returns whether some option stands under this key.
fn is_section(key: &str) -> bool {
    OPTIONS.iter().any(|option| section_of(option.key) == Some(key))
}

/// Returns `Store` for `Store.Driver`.
fn section_of(key: &str) -> Option<&str> {
    key.split_once('.').map(|(section, _)| section)
}

/// Returns the known key path or section nearest to `key`, if one is near enough to be meant.
fn suggest(key: &str) -> Option<String> {
    let written = plain(key);
    let last = written.rsplit('.').next().unwrap_or_default().to_owned();
    let keys = OPTIONS.iter().map(|option| option.key);
    let sections = OPTIONS.iter().filter_map(|option| section_of(option.key));
    let mut nearest: Option<(usize, &str)> = None;
    for known in sections.chain(keys) {
        let candidate = plain(known);
        let mut distance = edits(&written, &candidate);
        // The right name in the wrong place is as good as a slip of one letter.
        if candidate.rsplit('.').next() == Some(last.as_str()) {
            distance = distance.min(1);
        }
        if nearest.is_none_or(|(best, _)| distance < best) {
            nearest = Some((distance, known));
        }
    }
    let limit = (written.chars().count() / 3).max(1);
    nearest.filter(|(distance, _)| *distance <= limit).map(|(_, known)| known.to_owned())
}

/// Returns a key without what people vary: case, `_` and `-`.
fn plain(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// Counts the letters to insert, delete or replace to make `b` of `a`.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    // A key is a short name; text far longer than any known one is not near any.
    for (i, letter) in a.chars().take(128).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
