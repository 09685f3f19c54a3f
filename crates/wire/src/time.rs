//! Times as text (spec 02 §1.3).

use std::fmt;

use chrono::{DateTime, FixedOffset};
use dtmd_protocol::Timestamp;

/// The zone in which times are shown. What is stored is always UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone(FixedOffset);

/// Why a text is not a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a zone; give hours between -14 and +14, for instance +8, or leave it empty")]
pub struct BadZone(String);

impl Zone {
    /// Coordinated universal time, shown as `Z`.
    pub const UTC: Self = Self(match FixedOffset::east_opt(0) {
        Some(offset) => offset,
        None => panic!("zero is an offset"),
    });

    /// Returns the zone of DTM's `TimeZoneOffset`: hours, `+8` for instance; empty is UTC.
    ///
    /// # Errors
    ///
    /// [`BadZone`] for anything else.
    pub fn parse(text: &str) -> Result<Self, BadZone> {
        if text.is_empty() {
            return Ok(Self::UTC);
        }
        let hours = text.parse::<i32>().ok().filter(|hours| (-14..=14).contains(hours));
        let offset = hours.and_then(|hours| FixedOffset::east_opt(hours * 3600));
        offset.map(Self).ok_or_else(|| BadZone(text.to_owned()))
    }

    /// Returns how far it is east of UTC, in seconds.
    pub fn offset_seconds(&self) -> i32 {
        self.0.local_minus_utc()
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

/// Shows a time as RFC 3339 with the fraction's trailing zeros dropped.
#[derive(Debug, Clone, Copy)]
pub struct Rfc3339(pub Timestamp, pub Zone);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(time, Zone(offset)) = *self;
        // Far out of the calendar's range only if a clock is broken; show its edge then.
        let utc = DateTime::from_timestamp_micros(time.0).unwrap_or(DateTime::UNIX_EPOCH);
        let local = utc.with_timezone(&offset);
        write!(f, "{}", local.format("%Y-%m-%dT%H:%M:%S"))?;
        let micros = local.timestamp_subsec_micros();
        if micros > 0 {
            let fraction = format!("{micros:06}");
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        if offset.local_minus_utc() == 0 {
            f.write_str("Z")
        } else {
            write!(f, "{}", local.format("%:z"))
        }
    }
}

impl serde::Serialize for Rfc3339 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339_without_trailing_zeros() {
        let east = Zone::parse("+8").unwrap();
        let west = Zone::parse("-5").unwrap();
        let table = [
            (1_714_536_000_123_456, Zone::UTC, "2024-05-01T04:00:00.123456Z"),
            (1_714_536_000_200_000, east, "2024-05-01T12:00:00.2+08:00"),
            (1_714_536_000_000_001, west, "2024-04-30T23:00:00.000001-05:00"),
            (1_714_536_000_000_000, Zone::UTC, "2024-05-01T04:00:00Z"),
            (0, Zone::default(), "1970-01-01T00:00:00Z"),
            (i64::MAX, Zone::UTC, "1970-01-01T00:00:00Z"),
        ];
        for (micros, zone, text) in table {
            assert_eq!(Rfc3339(Timestamp(micros), zone).to_string(), text);
        }
    }

    #[test]
    fn zones() {
        assert_eq!(Zone::parse(""), Ok(Zone::UTC));
        assert_eq!(Zone::parse("8"), Zone::parse("+8"));
        for bad in ["15", "-15", "x", "+8:00", " 8"] {
            assert!(Zone::parse(bad).is_err(), "{bad}");
        }
    }
}
