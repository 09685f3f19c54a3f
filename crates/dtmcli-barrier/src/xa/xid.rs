//! The name a branch has in its database.

use std::fmt;

use crate::branch::Branch;

/// Longest xid, in bytes: MySQL's limit, the tightest.
const XID_MAX_BYTES: usize = 64;

/// `<gid>-<branch id>`, as in DTM, of harmless characters only: it goes into SQL as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xid(String);

impl Xid {
    /// The xid of a branch.
    ///
    /// # Errors
    ///
    /// [`XidError`] if the gid has other characters than letters, digits, `_`, `.`, `:`, `-`, or is
    /// too long together with the branch id. Choose another gid: no call of this one can succeed.
    pub fn of(branch: &Branch) -> Result<Self, XidError> {
        let xid = format!("{}-{}", branch.gid(), branch.branch_id());
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-');
        if xid.len() > XID_MAX_BYTES || !xid.chars().all(plain) {
            return Err(XidError);
        }
        Ok(Self(xid))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The gid and the branch id of an xid of ours: a branch id is all digits.
    pub(super) fn split(text: &str) -> Option<(&str, &str)> {
        let (gid, branch_id) = text.rsplit_once('-')?;
        let digits = !branch_id.is_empty() && branch_id.bytes().all(|b| b.is_ascii_digit());
        (digits && !gid.is_empty()).then_some((gid, branch_id))
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A gid and branch id that cannot name an XA branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the gid of an XA branch may have letters, digits, _ . : and -, and {XID_MAX_BYTES} bytes \
     together with the branch id"
)]
pub struct XidError;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::{Op, TransType};

    #[test]
    fn only_harmless_xids_are_made() {
        let xid = |gid: &str| {
            Xid::of(&Branch::new(TransType::Xa, gid, "01", Op::Action).unwrap())
                .map(|xid| xid.to_string())
        };
        assert_eq!(xid("a.b:c_d-e").unwrap(), "a.b:c_d-e-01");
        for gid in ["it's", "a\\b", "a b", "é", &"x".repeat(62)] {
            assert_eq!(xid(gid), Err(XidError), "{gid}");
        }
        assert!(xid(&"x".repeat(61)).is_ok());
    }

    #[test]
    fn ours_are_told_from_others() {
        assert_eq!(Xid::split("a-b-0102"), Some(("a-b", "0102")));
        for other in ["", "a", "a-", "-01", "a-b", "a-01x"] {
            assert_eq!(Xid::split(other), None, "{other}");
        }
    }
}
