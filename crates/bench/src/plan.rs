//! The requests of one transaction, prepared once: only the gid changes.

mod over_grpc;

use crate::options::Mode;

/// Bytes of every gid a run uses: 6 hex digits of the run, 16 of the transaction.
pub(crate) const GID_BYTES: usize = 22;
const GID: [u8; GID_BYTES] = [b'~'; GID_BYTES];

/// Spreads consecutive numbers over all gids, as random gids would be; odd, so that it can be
/// undone.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const UNSPREAD: u64 = inverse(SPREAD);

/// Returns the number that undoes a multiplication by an odd one modulo 2^64 (Newton's method: each
/// round doubles the correct bits, from 3).
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}

/// Returns the gid of a run's transaction.
pub(crate) fn gid(run: u32, number: u64) -> String {
    format!("{:06x}{:016x}", run & 0x00ff_ffff, number.wrapping_mul(SPREAD))
}

/// Returns the spread number in a gid of ours.
pub(crate) fn spread_of(gid: &[u8]) -> Option<u64> {
    let digits = gid.get(6..GID_BYTES)?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Returns the number of a transaction from its spread one.
pub(crate) fn number_of(spread: u64) -> u64 {
    spread.wrapping_mul(UNSPREAD)
}

/// A whole HTTP request, or a gRPC message behind its prefix, with holes for the gid.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    path: &'static str,
    bytes: Vec<u8>,
    holes: Vec<usize>,
}

impl Template {
    fn new(method: &str, host: &str, path: &str, body: &str) -> Self {
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        Self::with_holes("", text.into_bytes())
    }

    fn with_holes(path: &'static str, bytes: Vec<u8>) -> Self {
        let windows = bytes.windows(GID_BYTES).enumerate();
        let holes = windows.filter(|(_, window)| *window == GID).map(|(at, _)| at).collect();
        Self { path, bytes, holes }
    }

    /// Returns the gRPC method; empty for HTTP, where the request says it.
    pub(crate) fn path(&self) -> &'static str {
        self.path
    }

    /// Writes the request for a gid over what `out` holds.
    pub(crate) fn fill(&self, gid: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.bytes);
        for &hole in &self.holes {
            if let Some(place) = out.get_mut(hole..hole + GID_BYTES) {
                place.copy_from_slice(gid);
            }
        }
    }
}

/// What a seat sends for one transaction, one request after the other, and what it waits for then.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) requests: Vec<Template>,
    /// How many calls the participants must tell of before the transaction counts as final.
    pub(crate) tells: u32,
}

impl Plan {
    /// The transaction of a mode, against the server `host` with participants at `base`.
    pub(crate) fn transaction(
        mode: Mode,
        steps: usize,
        wait: bool,
        host: &str,
        base: &str,
    ) -> Self {
        let gid = String::from_utf8_lossy(&GID);
        let tell = if wait { "act" } else { "tell" };
        let common =
            format!(r#""gid":"{gid}","trans_type":"{}","wait_result":{wait}"#, mode.as_str());
        let post = |path: &str, body: &str| {
            Template::new("POST", host, &format!("/api/dtmsvr/{path}"), body)
        };
        let requests = match mode {
            Mode::Saga => {
                let last = |step| if step + 1 == steps { tell } else { "act" };
                let body = with_steps(&common, steps, |step| {
                    format!(r#"{{"action":"{base}/{}","compensate":"{base}/undo"}}"#, last(step))
                });
                vec![post("submit", &body)]
            }
            Mode::Msg => {
                let common = format!(r#"{common},"query_prepared":"{base}/act""#);
                let body =
                    with_steps(&common, steps, |_| format!(r#"{{"action":"{base}/{tell}"}}"#));
                vec![post("prepare", &body), post("submit", &body)]
            }
            Mode::Tcc | Mode::Xa => {
                let urls = match mode {
                    Mode::Xa => format!(r#""url":"{base}/{tell}""#),
                    _ => format!(r#""confirm":"{base}/{tell}","cancel":"{base}/undo""#),
                };
                let whole = format!("{{{common}}}");
                let mut requests = vec![post("prepare", &whole)];
                requests.extend((1..=steps).map(|branch| {
                    let body = format!(
                        r#"{{"gid":"{gid}","trans_type":"{}","branch_id":"{branch:02}","data":"{{\"amount\":30}}",{urls}}}"#,
                        mode.as_str()
                    );
                    post("registerBranch", &body)
                }));
                requests.push(post("submit", &whole));
                requests
            }
        };
        Self { requests, tells: tells(mode, steps, wait) }
    }

    /// The cheapest request there is, again and again.
    pub(crate) fn echo(host: &str) -> Self {
        Self { requests: vec![Template::new("GET", host, "/api/ping", "")], tells: 0 }
    }

    /// A branch call made directly.
    pub(crate) fn bare_call(host: &str) -> Self {
        let body = r#"{"amount":30}"#;
        Self { requests: vec![Template::new("POST", host, "/act", body)], tells: 0 }
    }

    /// A message that is prepared and never submitted: it lives until its timeout in a day.
    pub(crate) fn unfinished(host: &str, base: &str) -> Self {
        let gid = String::from_utf8_lossy(&GID);
        let common = format!(
            r#""gid":"{gid}","trans_type":"msg","query_prepared":"{base}/act","timeout_to_fail":86400"#
        );
        let body = with_steps(&common, 1, |_| format!(r#"{{"action":"{base}/act"}}"#));
        Self { requests: vec![Template::new("POST", host, "/api/dtmsvr/prepare", &body)], tells: 0 }
    }
}

/// Returns how many calls make a transaction final that nobody waits for.
fn tells(mode: Mode, steps: usize, wait: bool) -> u32 {
    match (wait, mode) {
        (true, _) => 0,
        (false, Mode::Saga) => 1,
        (false, Mode::Msg | Mode::Tcc | Mode::Xa) => u32::try_from(steps).unwrap_or(u32::MAX),
    }
}

fn with_steps(common: &str, steps: usize, step: impl Fn(usize) -> String) -> String {
    let payloads = vec![r#""{\"amount\":30}""#; steps].join(",");
    let steps = (0..steps).map(step).collect::<Vec<_>>().join(",");
    format!(r#"{{{common},"steps":[{steps}],"payloads":[{payloads}]}}"#)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::http1;

    fn bodies(plan: &Plan, gid: &str) -> Vec<(String, Value)> {
        let mut out = Vec::new();
        let read = |template: &Template| {
            template.fill(gid.as_bytes(), &mut out);
            let head = http1::head(&out).unwrap().unwrap();
            assert_eq!(head.message_bytes(), out.len(), "the length fits");
            let target = String::from_utf8_lossy(head.target()).into_owned();
            (target, serde_json::from_slice(&out[head.head_bytes..]).unwrap())
        };
        plan.requests.iter().map(read).collect()
    }

    #[test]
    fn gids_are_unique_and_can_be_read_back() {
        for number in [0, 1, 77, 1 << 40, u64::MAX] {
            let text = gid(0x1234_5678, number);
            assert_eq!((text.len(), &text[..6]), (GID_BYTES, "345678"));
            assert_eq!(spread_of(text.as_bytes()).map(number_of), Some(number));
        }
        assert_eq!(spread_of(b"short"), None);
    }

    #[test]
    fn only_the_last_step_of_a_saga_is_told_of() {
        let plan = Plan::transaction(Mode::Saga, 3, false, "h:1", "http://p:2");
        let gid = gid(1, 2);
        let [(path, body)] = &bodies(&plan, &gid)[..] else { panic!("not one request") };
        assert_eq!(path, "/api/dtmsvr/submit");
        assert_eq!(body["gid"], gid);
        assert_eq!(body["wait_result"], false);
        let action = |step: usize| body["steps"][step]["action"].as_str().unwrap();
        assert_eq!(
            (action(0), action(1), action(2)),
            ("http://p:2/act", "http://p:2/act", "http://p:2/tell")
        );
        assert_eq!(body["payloads"].as_array().unwrap().len(), 3);
        assert_eq!(plan.tells, 1);
    }

    #[test]
    fn who_waits_is_told_nothing() {
        for mode in [Mode::Saga, Mode::Msg, Mode::Tcc, Mode::Xa] {
            let plan = Plan::transaction(mode, 2, true, "h:1", "http://p:2");
            assert_eq!(plan.tells, 0);
            for (_, body) in bodies(&plan, &gid(1, 2)) {
                assert!(!body.to_string().contains("/tell"), "{body}");
            }
        }
    }

    #[test]
    fn a_tcc_registers_every_branch_between_prepare_and_submit() {
        let plan = Plan::transaction(Mode::Tcc, 2, false, "h:1", "http://p:2");
        let requests = bodies(&plan, &gid(1, 2));
        let paths: Vec<_> = requests.iter().map(|(path, _)| path.rsplit('/').next()).collect();
        let expected = ["prepare", "registerBranch", "registerBranch", "submit"].map(Some);
        assert_eq!(paths, expected);
        assert_eq!(requests[2].1["branch_id"], "02");
        assert_eq!(plan.tells, 2);
    }

    #[test]
    fn an_xa_branch_has_one_url_for_commit_and_rollback() {
        let plan = Plan::transaction(Mode::Xa, 2, false, "h:1", "http://p:2");
        let requests = bodies(&plan, &gid(1, 2));
        assert_eq!((requests.len(), plan.tells), (4, 2));
        let branch = &requests[1].1;
        assert_eq!((&branch["trans_type"], &branch["branch_id"]), (&"xa".into(), &"01".into()));
        assert_eq!(branch["url"], "http://p:2/tell");
        assert!(branch.get("confirm").is_none());
    }

    #[test]
    fn a_message_is_submitted_as_it_was_prepared() {
        let plan = Plan::transaction(Mode::Msg, 1, false, "h:1", "http://p:2");
        let requests = bodies(&plan, &gid(1, 2));
        assert_eq!(requests[0].1, requests[1].1);
        assert_eq!(requests[0].1["query_prepared"], "http://p:2/act");
    }
}
