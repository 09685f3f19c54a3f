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
    run: fn(&[u8]),
}

impl Target {
    /// Runs the target on some bytes.
    ///
    /// # Panics
    ///
    /// It found something.
    pub fn run(&self, bytes: &[u8]) {
        if bytes.len() <= INPUT_MAX_BYTES {
            (self.run)(bytes);
        }
    }
}

// One constant each, and not only a table of all: libFuzzer goes over the counters of everything
// that is linked after every input, so a program must hold its own target alone.

/// Bodies of every JSON route.
pub const JSON_REQUEST: Target = Target { name: "json_request", run: requests::json };
/// JSON-RPC requests.
pub const JSON_RPC: Target = Target { name: "json_rpc", run: requests::json_rpc };
/// Services' answers.
pub const ANSWER: Target = Target { name: "answer", run: requests::answer };
/// Protobuf requests.
#[cfg(feature = "network")]
pub const GRPC_REQUEST: Target = Target { name: "grpc_request", run: grpc::request };
/// Configuration files.
#[cfg(feature = "configuration")]
pub const CONFIGURATION: Target = Target { name: "configuration", run: configuration::read };
/// Stored records.
pub const RECORD: Target = Target { name: "record", run: records::record };
/// Damaged segments of the log.
pub const SEGMENT: Target = Target { name: "segment", run: segments::segment };
/// Sequences of inputs to the protocol.
pub const STEPS: Target = Target { name: "steps", run: steps::steps };
/// URLs of branches, and addresses.
#[cfg(feature = "network")]
pub const URL: Target = Target { name: "url", run: urls::url };

/// All of them.
pub const TARGETS: &[Target] = &[
    JSON_REQUEST,
    JSON_RPC,
    ANSWER,
    #[cfg(feature = "network")]
    GRPC_REQUEST,
    #[cfg(feature = "configuration")]
    CONFIGURATION,
    RECORD,
    SEGMENT,
    STEPS,
    #[cfg(feature = "network")]
    URL,
];

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
