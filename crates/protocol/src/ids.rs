//! Identifiers of globals and branches.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The longest gid accepted, in bytes: the width of DTM's column (spec 05 §2.1).
pub const GID_MAX_BYTES: usize = 128;
/// The longest branch id accepted, in bytes (spec 05 §2.2).
pub const BRANCH_ID_MAX_BYTES: usize = 128;
/// The branch id of query-prepared calls and workflow callbacks (spec 01 §1.7).
pub const RESERVED_BRANCH_ID: &str = "00";

/// The caller-chosen, unique id of a global transaction.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gid(Arc<str>);

/// The id of a branch within its global, for instance `01`, `0102` or `01-02`.
///
/// Most are short, and every state of a global holds several: a short one is held in place.
#[derive(Clone)]
pub struct BranchId(Text);

/// The longest text that is held in place: what fits beside an `Arc`'s two words.
const SHORT_MAX_BYTES: usize = 22;

/// A text that fits is always held in place, so equal texts are equal variants.
#[derive(Clone, PartialEq, Eq)]
enum Text {
    Short { len: u8, bytes: [u8; SHORT_MAX_BYTES] },
    Long(Arc<str>),
}

impl Text {
    fn of(text: &str) -> Self {
        let mut bytes = [0; SHORT_MAX_BYTES];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Short { len, bytes }
            }
            _ => Self::Long(Arc::from(text)),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            // It was made from a text of this length, so both steps hold.
            Self::Short { len, bytes } => bytes
                .get(..usize::from(*len))
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .unwrap_or_default(),
            Self::Long(text) => text,
        }
    }
}

/// Why a text cannot be an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    /// The text is empty.
    #[error("{what} is empty")]
    Empty {
        /// Which id: `gid` or `branch_id`.
        what: &'static str,
    },
    /// The text is longer than any store keeps.
    #[error("{what} has {bytes} bytes, the longest accepted is {max}")]
    TooLong {
        /// Which id.
        what: &'static str,
        /// The text's length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A control character would make the id ambiguous in logs, headers and keys.
    #[error("{what} contains a control character")]
    Control {
        /// Which id.
        what: &'static str,
    },
}

fn check(what: &'static str, text: &str, max: usize) -> Result<(), BadId> {
    if text.is_empty() {
        return Err(BadId::Empty { what });
    }
    if text.len() > max {
        return Err(BadId::TooLong { what, bytes: text.len(), max });
    }
    if text.chars().any(char::is_control) {
        return Err(BadId::Control { what });
    }
    Ok(())
}

macro_rules! id {
    ($name:ident, $what:literal, $max:expr, $make:expr, $text:expr) => {
        impl $name {
            /// Returns the id, if the text can be one.
            ///
            /// # Errors
            ///
            /// [`BadId`] when the text is empty, too long or holds a control character.
            pub fn new(text: impl AsRef<str>) -> Result<Self, BadId> {
                let text = text.as_ref();
                check($what, text, $max)?;
                Ok(Self($make(text)))
            }

            /// Returns the id's text.
            pub fn as_str(&self) -> &str {
                $text(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
    };
}

id!(Gid, "gid", GID_MAX_BYTES, Arc::<str>::from, Arc::as_ref);
id!(BranchId, "branch_id", BRANCH_ID_MAX_BYTES, Text::of, Text::as_str);

impl PartialEq for BranchId {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for BranchId {}

impl PartialOrd for BranchId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BranchId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for BranchId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As its text, for which it can be borrowed.
        self.as_str().hash(state);
    }
}

impl BranchId {
    /// Returns the id the server gives to step `index` (from 0): two digits or more, from `01`.
    pub fn of_step(index: usize) -> Self {
        match u8::try_from(index + 1) {
            Ok(number @ 1..=99) => {
                let mut bytes = [0; SHORT_MAX_BYTES];
                (bytes[0], bytes[1]) = (b'0' + number / 10, b'0' + number % 10);
                Self(Text::Short { len: 2, bytes })
            }
            _ => Self(Text::of(&format!("{:02}", index + 1))),
        }
    }

    /// Returns the id of subscriber `subscriber` (from 0) of a message's step that fans out.
    pub fn of_subscriber(step: usize, subscriber: usize) -> Self {
        Self(Text::of(&format!("{:02}-{:02}", step + 1, subscriber + 1)))
    }

    /// Returns the reserved id `00`.
    pub fn reserved() -> Self {
        Self(Text::of(RESERVED_BRANCH_ID))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_ids_have_two_digits_and_widen_past_99() {
        for (index, id) in [(0, "01"), (8, "09"), (98, "99"), (99, "100"), (999, "1000")] {
            assert_eq!(BranchId::of_step(index).as_str(), id);
        }
        assert_eq!(BranchId::of_subscriber(0, 1).as_str(), "01-02");
    }

    #[test]
    fn short_and_long_branch_ids_are_their_texts() {
        let mut texts: Vec<String> = (1..=30).map(|length| "ab".repeat(length)).collect();
        texts.extend((0..40).map(|length| format!("{}ü", "x".repeat(length))));
        let ids: Vec<BranchId> = texts.iter().map(|text| BranchId::new(text).unwrap()).collect();
        for (text, id) in texts.iter().zip(&ids) {
            assert_eq!(id.as_str(), text);
            assert_eq!(format!("{id} {id:?}"), format!("{text} {text:?}"));
            assert_eq!(*id, id.clone());
            for (other_text, other) in texts.iter().zip(&ids) {
                assert_eq!(id.cmp(other), text.cmp(other_text));
                assert_eq!(id == other, text == other_text);
            }
        }
        let by_id: std::collections::HashMap<BranchId, usize> =
            ids.into_iter().enumerate().map(|(at, id)| (id, at)).collect();
        for (at, text) in texts.iter().enumerate() {
            assert_eq!(by_id.get(text.as_str()), Some(&at));
        }
    }

    #[test]
    fn ids_are_refused_when_empty_long_or_with_control_characters() {
        assert_eq!(Gid::new(""), Err(BadId::Empty { what: "gid" }));
        assert!(matches!(Gid::new("x".repeat(129)), Err(BadId::TooLong { bytes: 129, .. })));
        assert!(Gid::new("x".repeat(128)).is_ok());
        for bad in ["a\nb", "a\0", "\r", "\u{7f}"] {
            assert!(matches!(Gid::new(bad), Err(BadId::Control { .. })), "{bad:?}");
        }
        assert!(Gid::new("order-1; drop' 订单").is_ok());
    }
}
