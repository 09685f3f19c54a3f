//! The digest by which a repeated submit is told from another one with the same gid.

use std::time::Duration;

use dtmd_protocol::{Mode, NewGlobal};
use xxhash_rust::xxh3::xxh3_128;

/// Returns the digest of everything that a repeated request must repeat. Never 0.
///
/// Not in it: `wait_result`, for who repeats a submit may now want to wait; `retry_count`, which is
/// the server's; and `branch_headers`, which carry trace ids that differ between two attempts. A
/// repeat that is taken for another transaction would be told FAILURE while the first one goes on.
pub(super) fn content(new: &NewGlobal) -> u128 {
    let mut bytes = Canonical(Vec::with_capacity(512));
    bytes.text(new.mode.trans_type().as_str());
    bytes.text(new.protocol.as_str());
    bytes.text(&new.query_prepared);
    bytes.mode(&new.mode, &new.custom_data);
    bytes.duration(new.options.timeout_to_fail);
    bytes.duration(new.options.request_timeout);
    bytes.duration(new.options.retry_interval);
    bytes.number(u64::from(new.options.retry_limit));
    bytes.number(u64::from(new.options.concurrent));
    bytes.number(new.steps.len() as u64);
    for step in &new.steps {
        bytes.text(&step.def.action);
        bytes.text(&step.def.compensate);
        bytes.bytes(&step.payload);
    }
    // 0 stands for "no submit yet" in a stored global.
    xxh3_128(&bytes.0).max(1)
}

/// Bytes from which every part can be told from its neighbours.
struct Canonical(Vec<u8>);

impl Canonical {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn duration(&mut self, duration: Option<Duration>) {
        let duration = duration.unwrap_or_default();
        self.number(duration.as_secs());
        self.number(u64::from(duration.subsec_nanos()));
    }

    /// What `custom_data` means, where it means something: its text may be in another order.
    fn mode(&mut self, mode: &Mode, custom_data: &str) {
        match mode {
            Mode::Saga { concurrent, orders } => {
                self.number(u64::from(*concurrent));
                self.number(orders.len() as u64);
                for before in orders.iter() {
                    self.number(before.len() as u64);
                    before.iter().for_each(|&step| self.number(step as u64));
                }
            }
            Mode::Msg { delay } => self.duration(Some(*delay)),
            Mode::Workflow { name, data } => {
                self.text(name);
                self.bytes(data);
            }
            Mode::Tcc | Mode::Xa => self.text(custom_data),
        }
    }
}
