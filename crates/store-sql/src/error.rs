//! Errors: the database's, sorted by what is to be done about them.

use dtmd_store::{BoxError, StoreError};
use mysql_async::Error as MysqlError;
use tokio_postgres::Error as PostgresError;
use tokio_postgres::error::SqlState;

use crate::inner::chain;

/// Why a store cannot be opened, migrated or examined. Passwords are in none of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// An option is wrong; change the configuration.
    #[error("{0}")]
    Options(String),
    /// The database did not answer, or refused; check address, user, password and rights.
    #[error("the database {location} failed while {doing}")]
    Database {
        /// Where it is, without secrets.
        location: String,
        /// What was attempted.
        doing: &'static str,
        /// Whether nobody answered, or only to say that it starts, stops or is full: it may be
        /// better in a moment.
        is_passing: bool,
        /// The driver's error.
        source: BoxError,
    },
    /// The schema lacks something and may not be changed by this process.
    #[error(
        "the schema of {location} is not up to date; run `dtmd migrate`, or have these statements \
         run: {}", missing.join("; ")
    )]
    Schema {
        /// Where it is, without secrets.
        location: String,
        /// The statements that are missing.
        missing: Vec<String>,
    },
}

impl SqlError {
    /// Returns whether it is worth waiting and trying again: the database could not be reached, or
    /// was not ready yet.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Database { is_passing: true, .. })
    }
}

/// What is to be done about an error of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Rolled back because of another transaction: try again.
    Race,
    /// A unique key is taken; rolled back.
    Duplicate,
    /// The connection is gone: what was under way may or may not have happened.
    Lost,
    /// This server takes no writes (any more): try on a new connection.
    ReadOnly,
    /// No room.
    Full,
    /// A table or column is missing.
    Schema,
    /// Anything else: it is of no use to try again.
    Other,
}

/// An error of the database.
#[derive(Debug)]
pub(crate) struct DbError {
    pub(crate) kind: Kind,
    pub(crate) source: BoxError,
    /// The database's own number of it, where it has one (MySQL).
    pub(crate) code: u16,
}

impl DbError {
    pub(crate) fn lost(text: &str) -> Self {
        // The kind of error by which callers know that it is worth waiting.
        let source = std::io::Error::new(std::io::ErrorKind::TimedOut, text);
        Self { kind: Kind::Lost, source: Box::new(source), code: 0 }
    }

    pub(crate) fn race(text: &str) -> Self {
        Self { kind: Kind::Race, source: text.into(), code: 0 }
    }

    pub(crate) fn other(text: impl Into<String>) -> Self {
        Self { kind: Kind::Other, source: text.into().into(), code: 0 }
    }

    /// The error of an attempt to open the store.
    pub(crate) fn into_open(self, location: String, doing: &'static str) -> SqlError {
        // A driver's complaint about what it was given stays the same however long one waits.
        let is_complaint = self.source.is::<MysqlError>() || self.source.is::<PostgresError>();
        let is_passing = self.kind == Kind::Lost && !is_complaint;
        SqlError::Database { location, doing, is_passing, source: self.source }
    }

    /// The error of a call as a whole.
    pub(crate) fn into_store(self, doing: &'static str) -> StoreError {
        match self.kind {
            Kind::Full => StoreError::Full { doing, source: self.source },
            _ => StoreError::Unavailable { doing, source: self.source },
        }
    }
}

impl From<MysqlError> for DbError {
    fn from(error: MysqlError) -> Self {
        use mysql_async::{DriverError, IoError};
        let (kind, code) = match &error {
            MysqlError::Server(server) => (mysql_kind(server.code, &server.message), server.code),
            // Nothing was sent, and nothing would be the next time.
            MysqlError::Driver(DriverError::PacketTooLarge) => (Kind::Other, 0),
            MysqlError::Driver(_)
            | MysqlError::Io(_)
            | MysqlError::Other(_)
            | MysqlError::Url(_) => (Kind::Lost, 0),
        };
        // The driver's errors repeat their sources in their own texts.
        let source: BoxError = match error {
            MysqlError::Server(server) => {
                format!("{} ({}, {})", server.message, server.code, server.state).into()
            }
            MysqlError::Io(IoError::Io(error)) => Box::new(error),
            MysqlError::Driver(DriverError::ConnectionClosed) => {
                "the database closed the connection".into()
            }
            error => Box::new(error),
        };
        Self { kind, source, code }
    }
}

/// The numbers of MySQL, MariaDB, Galera and TiDB (9007, 8002, 8022, 8028).
fn mysql_kind(code: u16, message: &str) -> Kind {
    match code {
        1205 | 1213 | 1020 | 1047 | 1317 | 1615 | 9007 | 8002 | 8022 | 8028 => Kind::Race,
        1062 | 1586 => Kind::Duplicate,
        1290 | 1792 | 1836 => Kind::ReadOnly,
        1114 | 1021 => Kind::Full,
        1030 if message.contains(" 28 ") => Kind::Full,
        1146 | 1054 | 1049 => Kind::Schema,
        // 1180: an error during the commit itself, which may have happened nevertheless.
        1040 | 1053 | 3169 | 4031 | 1079 | 1152 | 1158..=1161 | 1180 | 1203 | 1226 | 1927 => {
            Kind::Lost
        }
        _ => Kind::Other,
    }
}

impl From<PostgresError> for DbError {
    fn from(error: PostgresError) -> Self {
        let kind = match error.code() {
            Some(state) => postgres_kind(state),
            None => Kind::Lost,
        };
        // The driver's own text says "db error" only; the server's says which.
        let source: BoxError = match error.as_db_error() {
            Some(db) => format!("{} ({})", db.message(), db.code().code()).into(),
            None if error.is_closed() => "the database closed the connection".into(),
            None => match io_kind(&error) {
                Some(kind) => Box::new(std::io::Error::new(kind, chain(&error))),
                None => Box::new(error),
            },
        };
        Self { kind, source, code: 0 }
    }
}

/// Returns the system's error, if one is behind the driver's.
fn io_kind(error: &PostgresError) -> Option<std::io::ErrorKind> {
    let cause = std::error::Error::source(error)?.downcast_ref::<std::io::Error>()?;
    Some(cause.kind())
}

fn postgres_kind(state: &SqlState) -> Kind {
    match state.code() {
        // 57014 is a cancelled statement, 55P03 a lock that took too long, YB: restart the read.
        "40001" | "40P01" | "55P03" | "57014" | "53200" => Kind::Race,
        "23505" => Kind::Duplicate,
        "25006" => Kind::ReadOnly,
        "53100" => Kind::Full,
        "42P01" | "42703" | "3D000" | "3F000" => Kind::Schema,
        // 40003: CockroachDB does not know whether it committed.
        "40003" | "53300" | "25P03" => Kind::Lost,
        code if code.starts_with("08") || code.starts_with("57P") => Kind::Lost,
        _ => Kind::Other,
    }
}

impl DbError {
    /// Whether a read may be repeated at once.
    pub(crate) fn is_worth_another_try(&self) -> bool {
        match self.kind {
            Kind::Race | Kind::Lost => true,
            Kind::Duplicate | Kind::ReadOnly | Kind::Full | Kind::Schema | Kind::Other => false,
        }
    }
}
