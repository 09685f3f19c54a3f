//! What is done with hostile bytes.
//!
//! Each target is a function of bytes that panics if something is wrong. `fuzz/` runs them under
//! libFuzzer, and `tests/corpus.rs` feeds them every file of `fuzz/corpus` in the ordinary tests.
//! The way in is [`TARGETS`].
//!
//! A target does not only look for panics: it says what must be true of whatever was accepted.

#![allow(clippy::panic, reason = "a panic is how a target reports")]

#[cfg(feature = "configuration")]
mod configuration;
#[cfg(feature = "network")]
mod grpc;
mod records;
mod requests;
mod segments;
mod steps;
#[cfg(feature = "network")]
mod urls;

/// The longest input that is looked at; what is longer is mutated slowly and finds nothing new.
pub const INPUT_MAX_BYTES: usize = 16 * 1024;

/// One fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also of its corpus.
    pub name: &'static str,
    /// What it does with the bytes.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "json_request", run: requests::json },
    Target { name: "json_rpc", run: requests::json_rpc },
    Target { name: "answer", run: requests::answer },
    #[cfg(feature = "network")]
    Target { name: "grpc_request", run: grpc::request },
    #[cfg(feature = "configuration")]
    Target { name: "configuration", run: configuration::read },
    Target { name: "record", run: records::record },
    Target { name: "segment", run: segments::segment },
    Target { name: "steps", run: steps::steps },
    #[cfg(feature = "network")]
    Target { name: "url", run: urls::url },
];

/// Runs the target of a name on some bytes.
///
/// # Panics
///
/// There is no such target, or it found something.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let Some(target) = target else { panic!("there is no target {name}") };
    if bytes.len() <= INPUT_MAX_BYTES {
        (target.run)(bytes);
    }
}

/// Bytes that are taken one by one, to make something other than text of them.
#[derive(Debug)]
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the next byte, if there is one.
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Returns the next byte as a number below `end`; 0 when there is none.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.next().unwrap_or(0)) % end.max(1)
    }

    /// Returns what was not taken.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }
}
