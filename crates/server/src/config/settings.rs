//! The layers: defaults, environment, file, flags; every value remembers where it came from.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::error::Problem;
use super::options::{Effect, Kind, OPTIONS, OptionSpec, find};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// This environment variable.
    Env(String),
    /// The configuration file.
    File {
        /// The file as given.
        path: PathBuf,
        /// The line of the key, counted from one.
        line: u64,
    },
    /// This flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Env(name) => write!(f, "env {name}"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One option's value as text, with its origin.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// The option.
    pub spec: &'static OptionSpec,
    /// Where the value came from.
    pub origin: Origin,
    text: String,
}

impl Setting {
    /// Returns the value as it may be shown: a secret is hidden.
    pub fn shown(&self) -> &str {
        match (self.spec.kind, self.text.is_empty()) {
            (Kind::Secret, false) => "(hidden)",
            _ => &self.text,
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?} ({})", self.spec.key, self.shown(), self.origin)
    }
}

/// The value of every option, in the table's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    values: Vec<Setting>,
}

impl Default for Settings {
    fn default() -> Self {
        let setting = |spec: &'static OptionSpec| Setting {
            spec,
            origin: Origin::Default,
            text: spec.default.into(),
        };
        Self { values: OPTIONS.iter().map(setting).collect() }
    }
}

impl Settings {
    /// Lays a value over what is there. A key that is not in the table is not set.
    pub fn set(&mut self, key: &str, text: impl Into<String>, origin: Origin) {
        if let Some(setting) = self.values.iter_mut().find(|setting| setting.spec.key == key) {
            setting.text = text.into();
            setting.origin = origin;
        }
    }

    /// Lays the environment over what is there; empty variables count as unset (spec 06 §1).
    pub fn apply_env(&mut self, env: &dyn Fn(&str) -> Option<String>) {
        for setting in &mut self.values {
            let name = setting.spec.env();
            if let Some(text) = env(&name).filter(|text| !text.is_empty()) {
                setting.text = text;
                setting.origin = Origin::Env(name);
            }
        }
    }

    /// Returns every option's value, for showing the configuration in force.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.values.iter()
    }

    /// Returns where an option's value came from.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.values.iter().find(|setting| setting.spec.key == key).map(|setting| &setting.origin)
    }

    /// Returns a line for each option that was set to something and has no effect here.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for setting in &self.values {
            if let Effect::Ignored(why) = setting.spec.effect
                && setting.text != setting.spec.default
            {
                let (key, origin) = (setting.spec.key, &setting.origin);
                notes.push(format!("{key} ({origin}) has no effect: {why}"));
            }
        }
        notes
    }
}

/// Reads typed values out of settings and collects every problem, so that the operator sees all
/// of them at once.
pub(super) struct Reader<'a> {
    settings: &'a Settings,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// Reads from `settings`.
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, problems: Vec::new() }
    }

    /// Returns the value of any option as text. The table decides the keys, so a key that is not
    /// in it is a slip in this crate, which the test of the defaults finds.
    pub(super) fn text(&self, key: &str) -> &'a str {
        let setting = self.settings.values.iter().find(|setting| setting.spec.key == key);
        setting.map_or("", |setting| setting.text.as_str())
    }

    /// Returns the value of a [`Kind::Seconds`] or [`Kind::Minutes`] option.
    pub(super) fn duration(&mut self, key: &'static str) -> Duration {
        let unit = match find(key).map(|spec| spec.kind) {
            Some(Kind::Minutes) => 60_000,
            _ => 1_000,
        };
        match parse_millis(self.text(key), unit) {
            Some(millis) => Duration::from_millis(millis),
            None => self.problem(key, "a time such as 10, 500ms, 10s or 5m", Duration::ZERO),
        }
    }

    /// Returns the value of a [`Kind::Integer`] option that fits its type.
    pub(super) fn integer<T: TryFrom<u64> + Default>(&mut self, key: &'static str) -> T {
        let number = self.text(key).trim().parse::<u64>().ok();
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) => number,
            None => self.problem(key, "a whole number in its range", T::default()),
        }
    }

    /// Returns the value of a [`Kind::Bytes`] option.
    pub(super) fn bytes(&mut self, key: &'static str) -> usize {
        match parse_bytes(self.text(key)) {
            Some(bytes) => bytes,
            None => self.problem(key, "a size such as 65536, 64KiB or 1MiB", 0),
        }
    }

    /// Returns the value of a [`Kind::Bool`] option.
    pub(super) fn boolean(&mut self, key: &'static str) -> bool {
        match self.text(key).trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" | "" => false,
            _ => self.problem(key, "true or false", false),
        }
    }

    /// Returns what `parse` makes of the value, or its default and a problem.
    pub(super) fn parsed<T: Default>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        match parse(self.text(key).trim()) {
            Some(value) => value,
            None => self.problem(key, expected, T::default()),
        }
    }

    /// Checks that options without effect could be read, as DTM does at start.
    pub(super) fn check_ignored(&mut self) {
        for spec in OPTIONS {
            match (spec.effect, spec.kind) {
                (Effect::Ignored(_), Kind::Integer) => _ = self.integer::<u64>(spec.key),
                (Effect::Ignored(_), Kind::Seconds | Kind::Minutes) => _ = self.duration(spec.key),
                _ => {}
            }
        }
    }

    /// Notes that a value cannot be read and returns the stand-in. The value itself is shown,
    /// except a secret, which has no form it could violate.
    fn problem<T>(&mut self, key: &'static str, expected: &str, stand_in: T) -> T {
        let text = format!("{key} is `{}`; it takes {expected}", self.text(key));
        self.problems.push(Problem::new(key, text));
        stand_in
    }
}

/// Parses a time into milliseconds; a bare number counts `unit_ms` each.
fn parse_millis(text: &str, unit_ms: u64) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let unit = match unit {
        "" => unit_ms,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Parses a size into bytes.
fn parse_bytes(text: &str) -> Option<usize> {
    let (number, unit) = split_unit(text)?;
    let unit = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    usize::try_from(number.checked_mul(unit)?).ok()
}

/// Splits `10s` into 10 and `s`.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}
