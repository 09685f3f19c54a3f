//! New gids, and the ids of branches (spec 01 §1.1, §1.7).

use std::sync::atomic::{AtomicU32, Ordering};

use uuid::Uuid;

use crate::error::{Error, Result};

/// Digits and letters without those that are easily mistaken for others.
const ALPHABET: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const GID_CHARS: usize = 22;
/// A parent's id of this length has no children: theirs would not fit everywhere.
const PARENT_CHARS_MAX: usize = 20;
/// Children have two digits.
const CHILDREN_MAX: u32 = 99;

/// A gid that nobody has, in the look of DTM's: 22 letters and digits that stand for a UUID.
pub(crate) fn new_gid() -> String {
    let mut number = Uuid::now_v7().as_u128();
    let mut gid = String::with_capacity(GID_CHARS);
    for _ in 0..GID_CHARS {
        // Below 57, so the cast and the index are exact.
        let digit = (number % 57) as usize;
        gid.push(char::from(ALPHABET[digit]));
        number /= 57;
    }
    gid
}

/// Hands out the ids of the branches below one parent: `01`, `02`, … behind the parent's.
#[derive(Debug)]
pub(crate) struct BranchIds {
    parent: String,
    used: AtomicU32,
}

impl BranchIds {
    /// The ids below a parent; the whole transaction's have the empty parent.
    pub(crate) fn below(parent: &str) -> Result<Self> {
        if parent.len() >= PARENT_CHARS_MAX {
            let text = format!("the branch {parent} is nested too deeply to have branches");
            return Err(Error::Invalid(text));
        }
        Ok(Self { parent: parent.to_owned(), used: AtomicU32::new(0) })
    }

    /// The ids of a whole transaction's branches.
    pub(crate) fn top() -> Self {
        Self { parent: String::new(), used: AtomicU32::new(0) }
    }

    pub(crate) fn next(&self) -> Result<String> {
        let took = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            (used < CHILDREN_MAX).then_some(used + 1)
        });
        match took {
            Ok(before) => Ok(format!("{}{:02}", self.parent, before + 1)),
            Err(_) => {
                Err(Error::invalid(format!("more than {CHILDREN_MAX} branches of one parent")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gids_look_like_dtms_and_differ() {
        let (one, other) = (new_gid(), new_gid());
        assert_eq!(one.len(), GID_CHARS);
        assert!(one.bytes().all(|byte| ALPHABET.contains(&byte)));
        assert_ne!(one, other);
    }

    #[test]
    fn ids_of_branches() {
        let ids = BranchIds::below("02").unwrap();
        assert_eq!((ids.next().unwrap(), ids.next().unwrap()), ("0201".into(), "0202".into()));
        let top = BranchIds::top();
        for number in 1..=99 {
            assert_eq!(top.next().unwrap(), format!("{number:02}"));
        }
        assert!(top.next().is_err());
        assert!(BranchIds::below(&"01".repeat(10)).is_err());
    }
}
