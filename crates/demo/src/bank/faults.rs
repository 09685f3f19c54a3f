//! Faults a test or the demo injects into the next calls of a bank.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Most rules a bank keeps at one time.
const RULES_MAX: usize = 256;

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The branch answers 409 FAILURE; nothing is done.
    Fail,
    /// The branch answers 425 ONGOING; nothing is done.
    Ongoing,
    /// The branch answers 500; nothing is done.
    Error,
    /// The call is held for [`Fault::ms`], then dropped without an answer; nothing is done.
    Hang,
    /// The call is held for [`Fault::ms`], then handled as usual, even if the caller is gone.
    Slow,
    /// The connection is dropped at once; the call never reaches the bank's database.
    Lose,
    /// The work is done and committed, then the connection is dropped without an answer.
    CrashAfterCommit,
}

/// A rule: which calls it meets, what happens to them, and how many times.
///
/// A matcher that is absent meets every call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Meets only calls of this op.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// Meets only calls for this account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Meets only calls of this global transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    /// Meets only calls of this branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch_id: Option<String>,
    /// For [`FaultKind::Hang`] and [`FaultKind::Slow`]: how long, in milliseconds.
    #[serde(default)]
    pub ms: u64,
    /// How many calls the rule meets before it is used up.
    #[serde(default = "once")]
    pub times: u32,
}

fn once() -> u32 {
    1
}

impl Fault {
    /// A rule that meets the next call, whatever it is.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, op: None, account: None, gid: None, branch_id: None, ms: 0, times: 1 }
    }

    /// Meets only calls of this op.
    #[must_use]
    pub fn op(mut self, op: &str) -> Self {
        self.op = Some(op.to_owned());
        self
    }

    /// Meets only calls of this global transaction.
    #[must_use]
    pub fn gid(mut self, gid: &str) -> Self {
        self.gid = Some(gid.to_owned());
        self
    }

    /// Meets only calls of this branch.
    #[must_use]
    pub fn branch_id(mut self, branch_id: &str) -> Self {
        self.branch_id = Some(branch_id.to_owned());
        self
    }

    /// Meets only calls for this account.
    #[must_use]
    pub fn account(mut self, account: &str) -> Self {
        self.account = Some(account.to_owned());
        self
    }

    /// How long a held call is held.
    #[must_use]
    pub fn hold(mut self, time: Duration) -> Self {
        self.ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// How many calls the rule meets.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    fn meets(&self, op: &str, account: Option<&str>, gid: &str, branch_id: &str) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == value)
        };
        is(&self.op, Some(op))
            && is(&self.account, account)
            && is(&self.gid, Some(gid))
            && is(&self.branch_id, Some(branch_id))
    }
}

/// The rules of one bank, in the order they came.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Mutex<Vec<Fault>>,
}

impl Faults {
    pub(super) fn new(rules: Vec<Fault>) -> Self {
        Self { rules: Mutex::new(rules) }
    }

    /// Adds a rule; false if there are too many, which means that rules are never used up.
    pub(super) fn add(&self, fault: Fault) -> bool {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if rules.len() >= RULES_MAX {
            return false;
        }
        rules.push(fault);
        true
    }

    pub(super) fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Takes the first rule that meets the call, counting it down.
    pub(super) fn take(
        &self,
        op: &str,
        account: Option<&str>,
        gid: &str,
        branch_id: &str,
    ) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let at = rules.iter().position(|rule| rule.meets(op, account, gid, branch_id))?;
        let rule = rules.get_mut(at)?;
        let met = rule.clone();
        rule.times = rule.times.saturating_sub(1);
        if rule.times == 0 {
            rules.remove(at);
        }
        Some(met)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_used_up_in_order_and_only_by_calls_they_meet() {
        let faults = Faults::new(vec![
            Fault::new(FaultKind::Error).op("action").times(2),
            Fault::new(FaultKind::Fail).gid("g").account("bob"),
        ]);
        let take = |op, account, gid| faults.take(op, account, gid, "01").map(|fault| fault.kind);
        assert_eq!(take("compensate", Some("bob"), "other"), None);
        assert_eq!(take("compensate", None, "g"), None);
        assert_eq!(take("action", Some("bob"), "g"), Some(FaultKind::Error));
        assert_eq!(take("action", Some("bob"), "g"), Some(FaultKind::Error));
        assert_eq!(take("action", Some("bob"), "g"), Some(FaultKind::Fail));
        assert_eq!(take("action", Some("bob"), "g"), None);
    }

    #[test]
    fn too_many_rules_are_refused_until_cleared() {
        let faults = Faults::default();
        for _ in 0..RULES_MAX {
            assert!(faults.add(Fault::new(FaultKind::Fail)));
        }
        assert!(!faults.add(Fault::new(FaultKind::Fail)));
        faults.clear();
        assert!(faults.add(Fault::new(FaultKind::Fail)));
    }
}
