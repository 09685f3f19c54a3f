//! The store on real servers: one MariaDB and one PostgreSQL for all tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod adoption;
mod common;
mod conformance;
mod failures;
mod races;
mod shape;
