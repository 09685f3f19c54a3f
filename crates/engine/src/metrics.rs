//! Every metric's name and label, in one place.
use std::time::Duration;
/// x
#[derive(Debug)]
pub struct Metrics {}
impl Metrics {
    /// Counts a request. `api` is the route's name, never text from the request.
    pub fn request(&self, _transport: &'static str, _api: &'static str, _ok: bool, _elapsed: Duration) {}
    /// Returns all metrics in Prometheus' text form.
    pub fn encode(&self) -> String { String::new() }
}
