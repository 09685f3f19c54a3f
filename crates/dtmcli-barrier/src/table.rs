//! Names of tables, which go into SQL as text.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest part of a name, in bytes: PostgreSQL cuts what is longer.
const PART_MAX_BYTES: usize = 63;

/// The name of a table, with or without its schema (MySQL: database).
///
/// Only letters, digits and `_` are allowed, because a name cannot be a parameter of a statement.
///
/// ```
/// use dtmcli_barrier::TableName;
///
/// let table: TableName = "dtm_barrier.barrier".parse()?;
/// assert_eq!((table.schema(), table.name()), (Some("dtm_barrier"), "barrier"));
/// assert!("barrier; drop table users".parse::<TableName>().is_err());
/// # Ok::<(), dtmcli_barrier::TableNameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName(Arc<str>);

impl TableName {
    /// The schema, if the name has one.
    pub fn schema(&self) -> Option<&str> {
        self.0.split_once('.').map(|(schema, _)| schema)
    }

    /// The table without its schema.
    pub fn name(&self) -> &str {
        self.0.split_once('.').map_or(&*self.0, |(_, name)| name)
    }

    /// The whole name, as it goes into SQL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(text: &str) -> Result<Self, TableNameError> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        if schema.is_some_and(|schema| !is_plain(schema)) || !is_plain(name) {
            return Err(TableNameError);
        }
        Ok(Self(text.into()))
    }
}

fn is_plain(part: &str) -> bool {
    part.len() <= PART_MAX_BYTES
        && part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A text that is not the name of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a table is named `name` or `schema.name`, of letters, digits and _, 63 bytes a part")]
pub struct TableNameError;
