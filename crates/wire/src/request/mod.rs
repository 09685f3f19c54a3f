//! What SDKs send, decoded with DTM's tolerance and made into protocol types (spec 02 §1.1, §2.3).

mod custom_data;
mod decode;
mod digest;
mod register;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{
    CallProtocol, Gid, Invalid, Mode, NewGlobal, NewStep, Options, StepDef, TransType,
};

pub use register::RegisterRequest;

/// Why a request was not understood. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The body is not JSON of the right shape; the text names the member.
    #[error("{0}")]
    Undecodable(String),
    /// A member holds a value that cannot be accepted; the text names it.
    #[error("{0}")]
    Invalid(String),
    /// A registration for a type that has no branches to register (DTM's text).
    #[error("unknow trans type: {0}")]
    UnknownType(String),
}

impl RequestError {
    fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }
}

impl From<Invalid> for RequestError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid.to_string())
    }
}

/// A number as it was sent. Options are whole and not negative; what is not is refused by name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole number.
    Whole(i64),
    /// Any other number.
    Fraction(f64),
}

impl Default for Number {
    fn default() -> Self {
        Self::Whole(0)
    }
}

/// One step as it was sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RequestStep<'a> {
    /// URL of the forward call.
    pub action: Cow<'a, str>,
    /// URL of the undoing call.
    pub compensate: Cow<'a, str>,
    /// Old style: the step's payload.
    pub data: Cow<'a, str>,
}

/// The request object that most routes share (spec 02 §2.3), as it was sent.
///
/// Only these members are read: nothing that the server keeps can be set from outside (spec 07
/// D27). A member that is missing or null has its type's zero value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TransRequest<'a> {
    /// `gid`.
    pub gid: Cow<'a, str>,
    /// `trans_type`.
    pub trans_type: Cow<'a, str>,
    /// `steps`.
    pub steps: Vec<RequestStep<'a>>,
    /// `payloads`: text where they come as JSON, any bytes over gRPC.
    pub payloads: Vec<Cow<'a, [u8]>>,
    /// `query_prepared`.
    pub query_prepared: Cow<'a, str>,
    /// `protocol`.
    pub protocol: Cow<'a, str>,
    /// `custom_data`.
    pub custom_data: Cow<'a, str>,
    /// `rollback_reason`.
    pub rollback_reason: Cow<'a, str>,
    /// `req_extra`.
    pub req_extra: BTreeMap<String, String>,
    /// `wait_result`.
    pub wait_result: bool,
    /// `concurrent`.
    pub concurrent: bool,
    /// `timeout_to_fail`, in seconds.
    pub timeout_to_fail: Number,
    /// `timeout_to_fail_ms`; wins over the seconds.
    pub timeout_to_fail_ms: Number,
    /// `request_timeout`, in seconds.
    pub request_timeout: Number,
    /// `request_timeout_ms`; wins over the seconds.
    pub request_timeout_ms: Number,
    /// `retry_interval`, in seconds.
    pub retry_interval: Number,
    /// `retry_interval_ms`; wins over the seconds.
    pub retry_interval_ms: Number,
    /// `retry_limit`.
    pub retry_limit: Number,
    /// `retry_count`.
    pub retry_count: Number,
    /// `branch_headers`.
    pub branch_headers: BTreeMap<String, String>,
}

/// The end of a workflow, as its application submits it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowEnd<'a> {
    /// True for `succeed`, false for `failed`.
    pub succeed: bool,
    /// Why it failed.
    pub reason: &'a str,
    /// Its result, base64 as sent.
    pub result: &'a str,
}

impl<'a> TransRequest<'a> {
    /// Decodes a request's body, whatever its Content-Type says.
    ///
    /// # Errors
    ///
    /// [`RequestError::Undecodable`], naming the member of the wrong type.
    pub fn parse(body: &'a [u8]) -> Result<Self, RequestError> {
        decode::from_json(body)
    }

    /// Decodes `steps` alone, as gRPC sends them: the JSON text of a list; empty for none.
    ///
    /// # Errors
    ///
    /// [`RequestError::Undecodable`], naming the member.
    pub fn parse_steps(text: &'a str) -> Result<Vec<RequestStep<'a>>, RequestError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let steps: decode::List<_> = decode::from_json(text.as_bytes())
            .map_err(|error| RequestError::Undecodable(format!("Steps: {error}")))?;
        Ok(steps.0)
    }

    /// Returns its gid.
    ///
    /// # Errors
    ///
    /// [`RequestError::Invalid`] if it is empty, too long, or holds a control character. DTM
    /// silently deletes some characters; then the caller's gid is not the stored one (spec 07 D49).
    pub fn gid(&self) -> Result<Gid, RequestError> {
        Gid::new(&self.gid).map_err(|error| RequestError::invalid(error.to_string()))
    }

    /// Returns its type.
    ///
    /// # Errors
    ///
    /// [`RequestError::Invalid`] if the word is not known.
    pub fn trans_type(&self) -> Result<TransType, RequestError> {
        TransType::parse(&self.trans_type).ok_or_else(|| {
            let known: Vec<_> = TransType::ALL.iter().map(|known| known.as_str()).collect();
            let text = &self.trans_type;
            let known = known.join(", ");
            RequestError::invalid(format!("trans_type: '{text}' is not one of {known}"))
        })
    }

    /// Returns the new global that it asks for, in the caller's namespace.
    ///
    /// Limits are not checked here; see [`NewGlobal::validate`].
    ///
    /// # Errors
    ///
    /// [`RequestError::Invalid`], naming the member.
    pub fn into_new_global(mut self, namespace: Arc<str>) -> Result<NewGlobal, RequestError> {
        let gid = self.gid()?;
        let trans_type = self.trans_type()?;
        let mode = custom_data::mode(trans_type, &self.custom_data, self.steps.len())?;
        let protocol = CallProtocol::parse(&self.protocol).ok_or_else(|| {
            let text = &self.protocol;
            RequestError::invalid(format!(
                "protocol: '{text}' is not known; use http or json-rpc, or leave it out"
            ))
        })?;
        let options = self.options()?;
        let steps = match mode {
            Mode::Saga { .. } | Mode::Msg { .. } => self.new_steps()?,
            Mode::Tcc | Mode::Xa | Mode::Workflow { .. } => Vec::new(),
        };
        let mut new = NewGlobal {
            gid,
            namespace,
            mode,
            protocol,
            query_prepared: Arc::from(self.query_prepared.as_ref()),
            custom_data: Arc::from(self.custom_data.as_ref()),
            options,
            steps,
            content: 0,
        };
        new.content = digest::content(&new);
        Ok(new)
    }

    /// Returns how it ends a workflow.
    ///
    /// # Errors
    ///
    /// [`RequestError::Invalid`] if `req_extra.status` is neither `succeed` nor `failed`; DTM
    /// stores any text there, and the workflow never ends.
    pub fn workflow_end(&self) -> Result<WorkflowEnd<'_>, RequestError> {
        let extra = |name| self.req_extra.get(name).map_or("", String::as_str);
        let succeed = match extra("status") {
            "succeed" => true,
            "failed" => false,
            other => {
                return Err(RequestError::invalid(format!(
                    "req_extra.status: '{other}' is neither succeed nor failed"
                )));
            }
        };
        let (reason, result) = (extra("rollback_reason"), extra("result"));
        Ok(WorkflowEnd { succeed, reason, result })
    }

    /// Pairs the steps with their payloads: `payloads` first, then the old-style `data` members.
    fn new_steps(&self) -> Result<Vec<NewStep>, RequestError> {
        let old_style = self.steps.iter().map(|step| step.data.as_bytes());
        let old_style = old_style.filter(|data| !data.is_empty());
        let mut payloads = self.payloads.iter().map(AsRef::as_ref).chain(old_style);
        let mut steps = Vec::with_capacity(self.steps.len());
        for (nth, step) in self.steps.iter().enumerate() {
            let payload = payloads.next().ok_or_else(|| {
                let count = self.steps.len();
                RequestError::invalid(format!(
                    "payloads: there are {count} steps but only {nth} payloads; give one a step, \
                     \"\" for none"
                ))
            })?;
            steps.push(NewStep {
                def: StepDef {
                    action: Arc::from(step.action.as_ref()),
                    compensate: Arc::from(step.compensate.as_ref()),
                },
                payload: Arc::from(payload),
            });
        }
        Ok(steps)
    }

    fn options(&mut self) -> Result<Options, RequestError> {
        Ok(Options {
            wait_result: self.wait_result,
            timeout_to_fail: duration(
                ("timeout_to_fail", self.timeout_to_fail),
                ("timeout_to_fail_ms", self.timeout_to_fail_ms),
            )?,
            request_timeout: duration(
                ("request_timeout", self.request_timeout),
                ("request_timeout_ms", self.request_timeout_ms),
            )?,
            retry_interval: duration(
                ("retry_interval", self.retry_interval),
                ("retry_interval_ms", self.retry_interval_ms),
            )?,
            retry_limit: count("retry_limit", self.retry_limit)?,
            retry_count: count("retry_count", self.retry_count)?,
            concurrent: self.concurrent,
            branch_headers: Arc::new(std::mem::take(&mut self.branch_headers)),
        })
    }
}

/// Returns a duration given in seconds and in milliseconds; `None` if neither is.
fn duration(
    (name, seconds): (&str, Number),
    (name_ms, millis): (&str, Number),
) -> Result<Option<Duration>, RequestError> {
    let seconds = Duration::from_secs(whole(name, seconds)?);
    let millis = Duration::from_millis(whole(name_ms, millis)?);
    let duration = if millis.is_zero() { seconds } else { millis };
    Ok(Some(duration).filter(|duration| !duration.is_zero()))
}

fn count(name: &str, number: Number) -> Result<u32, RequestError> {
    let number = whole(name, number)?;
    u32::try_from(number).map_err(|_| {
        let max = u32::MAX;
        RequestError::invalid(format!("{name}: {number} is more than the limit of {max}"))
    })
}

fn whole(name: &str, number: Number) -> Result<u64, RequestError> {
    match number {
        Number::Whole(number) => u64::try_from(number).map_err(|_| {
            RequestError::invalid(format!(
                "{name}: {number} is negative; 0 stands for the server's default"
            ))
        }),
        Number::Fraction(number) => {
            Err(RequestError::invalid(format!("{name}: {number} is not a whole number")))
        }
    }
}
