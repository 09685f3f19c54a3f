//! End to end: real server processes, real sockets, real files, real `kill -9`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod defects;
mod demo;
mod documents;
mod kill_loop;
mod limits;
mod modes;
mod operations;
mod readme;
mod test_clock;
mod turn;
mod wire;
