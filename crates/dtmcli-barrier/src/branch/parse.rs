//! Reading a branch from a query string or from metadata, and what its parts may look like.

use std::borrow::Cow;

use super::{BRANCH_ID_MAX_CHARS, Branch, GID_MAX_CHARS, Op};

/// Longest op, in characters. A workflow's name travels as op, so this is wider than the column;
/// a barrier refuses what its column cannot hold.
const OP_MAX_CHARS: usize = 128;
/// Longest URL taken from a call, in bytes.
const URL_MAX_BYTES: usize = 4096;
/// Longest query string that is looked at, in bytes.
const QUERY_MAX_BYTES: usize = 64 * 1024;

/// Why a call could not be read as the call of a branch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// A part that every branch call has is not there, or empty.
    #[error("{0} is missing: was this called by a transaction manager?")]
    Missing(&'static str),
    /// A part cannot be used.
    #[error("{field} {why}")]
    Invalid {
        /// The part's name on the wire.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// The parts as they came, before they are checked. The first of several counts, as in DTM.
#[derive(Debug, Default)]
pub(super) struct Parts {
    trans_type: Option<String>,
    gid: Option<String>,
    branch_id: Option<String>,
    op: Option<String>,
    server: Option<String>,
    phase2_url: Option<String>,
}

impl Parts {
    pub(super) fn from_query(query: &str) -> Result<Self, ParseError> {
        if query.len() > QUERY_MAX_BYTES {
            return Err(ParseError::Invalid { field: "query", why: "is too long" });
        }
        let mut parts = Self::default();
        for pair in query.trim_start_matches('?').split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let Some(slot) = parts.slot(name) {
                let value = decode(value)
                    .ok_or(ParseError::Invalid { field: "query", why: "is not UTF-8" })?;
                slot.get_or_insert(value.into_owned());
            }
        }
        Ok(parts)
    }

    pub(super) fn from_metadata<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let mut parts = Self::default();
        for (name, value) in pairs {
            let name = name.as_ref().to_ascii_lowercase();
            if let Some(slot) = name.strip_prefix("dtm-").and_then(|name| parts.slot(name)) {
                slot.get_or_insert_with(|| value.as_ref().to_owned());
            }
        }
        parts
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "trans_type" => &mut self.trans_type,
            "gid" => &mut self.gid,
            "branch_id" => &mut self.branch_id,
            "op" => &mut self.op,
            "dtm" => &mut self.server,
            "phase2_url" => &mut self.phase2_url,
            _ => return None,
        })
    }

    pub(super) fn into_branch(self) -> Result<Branch, ParseError> {
        let trans_type = required(self.trans_type, "trans_type")?.parse()?;
        let gid = required(self.gid, "gid")?;
        let branch_id = required(self.branch_id, "branch_id")?;
        let op: Op = required(self.op, "op")?.parse()?;
        let mut branch = Branch::new(trans_type, &gid, &branch_id, op)?;
        branch.server = url(self.server, "dtm")?;
        branch.phase2_url = url(self.phase2_url, "phase2_url")?;
        Ok(branch)
    }
}

fn required(part: Option<String>, name: &'static str) -> Result<String, ParseError> {
    part.filter(|part| !part.is_empty()).ok_or(ParseError::Missing(name))
}

fn url(
    part: Option<String>,
    field: &'static str,
) -> Result<Option<std::sync::Arc<str>>, ParseError> {
    let Some(part) = part.filter(|part| !part.is_empty()) else { return Ok(None) };
    if part.len() > URL_MAX_BYTES || part.chars().any(|c| c.is_control() || c == ' ') {
        return Err(ParseError::Invalid { field, why: "is too long or has spaces" });
    }
    Ok(Some(part.into()))
}

/// Refuses what would be cut by a column, altered by DTM on the way (it deletes line ends and
/// semicolons, D49), or equal to another text for a database that ignores blanks at the end.
pub(super) fn check_gid(gid: &str) -> Result<(), ParseError> {
    check(gid, "gid", GID_MAX_CHARS)
}

pub(super) fn check_op(op: &str) -> Result<(), ParseError> {
    check(op, "op", OP_MAX_CHARS)
}

pub(super) fn check_branch_id(branch_id: &str) -> Result<(), ParseError> {
    check(branch_id, "branch_id", BRANCH_ID_MAX_CHARS)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if !branch_id.chars().all(plain) {
        let why = "may have letters, digits, '-', '_', '.' and ':'";
        return Err(ParseError::Invalid { field: "branch_id", why });
    }
    Ok(())
}

fn check(text: &str, field: &'static str, max_chars: usize) -> Result<(), ParseError> {
    if text.is_empty() {
        return Err(ParseError::Missing(field));
    }
    if text.chars().nth(max_chars).is_some() {
        return Err(ParseError::Invalid { field, why: "is too long" });
    }
    if text.chars().any(|c| c.is_control() || c == ';') {
        return Err(ParseError::Invalid { field, why: "has control characters or semicolons" });
    }
    if text.trim() != text {
        return Err(ParseError::Invalid { field, why: "begins or ends with a blank" });
    }
    Ok(())
}

/// Undoes the escaping of a query's value; nothing if the outcome is not UTF-8.
///
/// A `%` that no two hex digits follow stays: some SDKs do not escape at all.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| Some((hex(*bytes.get(at + 1)?)? << 4) | hex(*bytes.get(at + 2)?)?))
            .flatten();
        if let Some(escaped) = escaped {
            decoded.push(escaped);
            at += 3;
        } else {
            decoded.push(if byte == b'+' { b' ' } else { byte });
            at += 1;
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
