//! Private servers for tests and the demo: on a temporary directory and a free port, gone when
//! dropped.
//!
//! - [`Mariadb`], [`Postgres`], [`Redis`], [`RedisCluster`]: a server of one's own, to kill, freeze
//!   and start again.
//! - [`Galera`], [`Postgres::start_standby`]: databases that survive the loss of a server.
//! - [`Dtm`]: DTM itself, on one of them.
//! - [`Proxy`]: an address that can be moved from one server to another.
//! - [`shared`]: one server for all tests of a process, with a fresh database for each.
//!
//! A server dies with its parent: by its handle's drop, and by the parent death signal (where
//! `setpriv` exists) when the parent itself is killed. MariaDB and PostgreSQL refuse to run as
//! root, so root runs them as their own users. What a killed parent leaves in the temporary
//! directory is removed by the next start.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod child;
mod dtm;
mod galera;
mod home;
mod mariadb;
mod postgres;
mod proxy;
mod redis;
pub mod shared;

pub use child::{DeathSignal, User, find_program, spawn_command};
pub use dtm::{Dtm, DtmProgram};
pub use galera::Galera;
pub use mariadb::Mariadb;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use redis::{Redis, RedisCluster, RedisOptions};

/// How a private database runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatabaseOptions {
    /// Force commits to disk. Off is quicker, and safe against a killed process all the same.
    pub fsync: bool,
}
