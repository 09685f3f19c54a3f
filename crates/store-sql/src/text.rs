//! Statements as text: literals of both databases.
//!
//! Statements are sent as text, several in one exchange. Whatever came from outside is written as a
//! literal that cannot end early: on MySQL as hexadecimal digits unless every byte of it is
//! harmless, on PostgreSQL between quotes that are doubled, which is exact under the
//! `standard_conforming_strings` that every connection sets.

use crate::options::{Driver, SqlOptions};

/// What a statement needs to know of the database.
#[derive(Debug, Clone)]
pub(crate) struct Dialect {
    pub(crate) driver: Driver,
    /// Seconds east of UTC of wall-clock columns.
    pub(crate) zone: i64,
    pub(crate) globals: String,
    pub(crate) branches: String,
    pub(crate) kv: String,
}

/// The latest second that both databases can hold, a day before the year 10000.
const LATEST: i64 = 253_402_214_400;

impl Dialect {
    pub(crate) fn new(options: &SqlOptions) -> Self {
        let quoted = |name: &str| quoted(options.driver, name);
        Self {
            driver: options.driver,
            zone: options.zone(),
            globals: quoted(&options.trans_global),
            branches: quoted(&options.trans_branch_op),
            kv: quoted(&options.kv),
        }
    }

    /// Appends a text literal.
    pub(crate) fn text(&self, out: &mut String, text: &str) {
        match self.driver {
            Driver::Mysql if text.bytes().all(is_harmless) => quote(out, text),
            Driver::Mysql => {
                out.push_str("_utf8mb4 x'");
                hex(out, text.as_bytes());
                out.push('\'');
            }
            Driver::Postgres if text.bytes().all(is_harmless) => quote(out, text),
            Driver::Postgres => {
                out.push('\'');
                for c in text.chars() {
                    match c {
                        '\'' => out.push_str("''"),
                        // PostgreSQL has no such character; the record keeps the exact text.
                        '\0' => out.push('\u{FFFD}'),
                        c => out.push(c),
                    }
                }
                out.push('\'');
            }
        }
    }

    /// Appends a literal of bytes.
    pub(crate) fn bytes(&self, out: &mut String, bytes: &[u8]) {
        match self.driver {
            // An empty x'' is a text on some servers, and as good.
            Driver::Mysql => out.push_str("x'"),
            Driver::Postgres => out.push_str("'\\x"),
        }
        hex(out, bytes);
        out.push('\'');
    }

    /// Appends a number.
    pub(crate) fn number(out: &mut String, number: i64) {
        use std::fmt::Write as _;
        let _ = write!(out, "{number}");
    }

    /// Appends a point in time, in whole seconds since the epoch; null if there is none.
    pub(crate) fn time(&self, out: &mut String, seconds: Option<i64>) {
        use std::fmt::Write as _;
        let Some(seconds) = seconds else { return out.push_str("null") };
        let seconds = clamp(seconds);
        match self.driver {
            Driver::Mysql => {
                out.push('\'');
                wall(out, seconds + self.zone);
                out.push('\'');
            }
            Driver::Postgres => {
                let _ = write!(out, "to_timestamp({seconds})");
            }
        }
    }

    /// Returns the expression of a time column in whole seconds; see [`Dialect::seconds_of`].
    pub(crate) fn seconds(&self, column: &str) -> String {
        match self.driver {
            // Wall clock only: no zone of the session comes into it.
            Driver::Mysql => format!("timestampdiff(second,'1970-01-01',{column})"),
            Driver::Postgres => format!("floor(extract(epoch from {column}))::bigint"),
        }
    }

    /// Returns seconds since the epoch of what [`Dialect::seconds`] gave.
    pub(crate) fn seconds_of(&self, column: i64) -> i64 {
        column - self.zone
    }

    /// Returns what comes after the values of an insert that changes rows which exist.
    pub(crate) fn on_conflict(&self, key: &str, columns: &[&str]) -> String {
        let (head, set): (String, fn(&str) -> String) = match self.driver {
            Driver::Mysql => {
                (" on duplicate key update ".to_owned(), |name| format!("{name}=values({name})"))
            }
            Driver::Postgres => (format!(" on conflict ({key}) do update set "), |name| {
                format!("{name}=excluded.{name}")
            }),
        };
        let sets: Vec<String> = columns.iter().map(|name| set(name)).collect();
        head + &sets.join(",")
    }

    /// Appends `(a,b,c)`.
    pub(crate) fn texts<'a>(&self, out: &mut String, texts: impl Iterator<Item = &'a str>) {
        let texts: Vec<&str> = texts.collect();
        out.push('(');
        self.texts_in_row(out, &texts);
        out.push(')');
    }

    /// Appends `a,b,c`.
    pub(crate) fn texts_in_row(&self, out: &mut String, texts: &[&str]) {
        for (index, text) in texts.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            self.text(out, text);
        }
    }

    /// Returns the expression that sorts a text column by its bytes.
    pub(crate) fn by_bytes(&self, column: &str) -> String {
        match self.driver {
            Driver::Mysql => format!("binary {column}"),
            Driver::Postgres => format!("{column} collate \"C\""),
        }
    }
}

/// Keeps a time within what both databases can hold.
pub(crate) fn clamp(seconds: i64) -> i64 {
    seconds.clamp(0, LATEST)
}

/// Returns a table's name as it is put into statements.
pub(crate) fn quoted(driver: Driver, name: &str) -> String {
    match driver {
        Driver::Mysql => {
            let parts: Vec<String> = name.split('.').map(|part| format!("`{part}`")).collect();
            parts.join(".")
        }
        Driver::Postgres => {
            // DTM does not quote, so its names are in lower case whatever was written.
            let parts = name.split('.').map(|part| format!("\"{}\"", part.to_ascii_lowercase()));
            parts.collect::<Vec<_>>().join(".")
        }
    }
}

fn quote(out: &mut String, text: &str) {
    out.push('\'');
    out.push_str(text);
    out.push('\'');
}

/// Printable ASCII but for what ends or escapes a literal.
fn is_harmless(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'\'' && byte != b'\\'
}

fn hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    // In pieces: a record has some hundred bytes, and a character at a time is slow.
    let mut piece = [0; 128];
    for part in bytes.chunks(piece.len() / 2) {
        for (pair, byte) in piece.chunks_exact_mut(2).zip(part) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        // Digits are text.
        out.push_str(std::str::from_utf8(&piece[..part.len() * 2]).unwrap_or_default());
    }
}

/// Returns the bytes of hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// Appends `YYYY-MM-DD hh:mm:ss` of seconds since 1970 on a wall clock.
fn wall(out: &mut String, seconds: i64) {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days are counted from the first of March, so that the leap day is the last of a year.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let digit = |number: i64| char::from(b'0' + (number % 10).unsigned_abs() as u8);
    // By hand: a row has up to five of them, and formatting is slow.
    for (number, then) in [(year / 100, ""), (year % 100, "-"), (month, "-"), (day, " ")]
        .into_iter()
        .chain([(hour, ":"), (minute, ":"), (second, "")])
    {
        out.push(digit(number / 10));
        out.push(digit(number));
        out.push_str(then);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_clocks_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_700_000_000, "2023-11-14 22:13:20"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (LATEST, "9999-12-31 00:00:00"),
            (-1, "1969-12-31 23:59:59"),
        ] {
            let mut out = String::new();
            wall(&mut out, seconds);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn no_text_ends_its_literal_early() {
        let dialect = |driver| Dialect::new(&SqlOptions::new(driver));
        let literal = |driver, text: &str| {
            let mut out = String::new();
            dialect(driver).text(&mut out, text);
            out
        };
        assert_eq!(literal(Driver::Mysql, "a-1"), "'a-1'");
        assert_eq!(literal(Driver::Mysql, "'; drop"), "_utf8mb4 x'273b2064726f70'");
        assert_eq!(literal(Driver::Mysql, "\\"), "_utf8mb4 x'5c'");
        assert_eq!(literal(Driver::Postgres, "'; drop\\"), "'''; drop\\'");
        assert_eq!(literal(Driver::Postgres, "a\0é"), "'a\u{FFFD}é'");
    }

    #[test]
    fn bytes_survive_their_literal() {
        let all: Vec<u8> = (0..=255).chain(7..50).collect();
        let mut out = String::new();
        hex(&mut out, &all);
        assert_eq!(unhex(&out), Some(all));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("0g"), None);
    }
}
