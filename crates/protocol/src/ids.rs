//! Identifiers of globals and branches.

use std::fmt;
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
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BranchId(Arc<str>);

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
    ($name:ident, $what:literal, $max:expr) => {
        impl $name {
            /// Returns the id, if the text can be one.
            ///
            /// # Errors
            ///
            /// [`BadId`] when the text is empty, too long or holds a control character.
            pub fn new(text: impl AsRef<str>) -> Result<Self, BadId> {
                let text = text.as_ref();
                check($what, text, $max)?;
                Ok(Self(Arc::from(text)))
            }

            /// Returns the id's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(Gid, "gid", GID_MAX_BYTES);
id!(BranchId, "branch_id", BRANCH_ID_MAX_BYTES);

impl BranchId {
    /// Returns the id the server gives to step `index` (from 0): two digits or more, from `01`.
    pub fn of_step(index: usize) -> Self {
        Self(Arc::from(format!("{:02}", index + 1)))
    }

    /// Returns the id of subscriber `subscriber` (from 0) of a message's step that fans out.
    pub fn of_subscriber(step: usize, subscriber: usize) -> Self {
        Self(Arc::from(format!("{:02}-{:02}", step + 1, subscriber + 1)))
    }

    /// Returns the reserved id `00`.
    pub fn reserved() -> Self {
        Self(Arc::from(RESERVED_BRANCH_ID))
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
