//! Starts servers and banks as processes of their own, and kills them.
//!
//! A child dies with its parent: by `kill_on_drop` when its handle is dropped, and by the parent
//! death signal (where `setpriv` exists) when the parent itself is killed.

mod bank;
mod output;
mod server;

pub use bank::{BankProcess, BankSetup};
pub use output::{find_grpc, find_url};
pub use server::{ServerOptions, ServerProcess};
