//! DTM's tolerance as serde visitors: unknown members are passed over, null is the zero value, the
//! last of several members with one name wins, and names match in any letter case.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::{Number, RegisterRequest, RequestError, RequestStep, TransRequest};
use crate::outcome::truncate;

/// Longest decoder's text handed back: it may quote what was sent.
const ERROR_MAX_BYTES: usize = 512;

pub(super) fn from_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RequestError> {
    // Texts are checked once, as a whole. What is not UTF-8 fails where it stands, if it is read.
    let decoded = match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    };
    decoded.map_err(|error| {
        let mut text = error.to_string();
        if text.len() > ERROR_MAX_BYTES {
            // The place of the error is at the end; the middle may be a megabyte.
            let place = format!("… at line {} column {}", error.line(), error.column());
            truncate(&mut text, ERROR_MAX_BYTES);
            text.push_str(&place);
        }
        RequestError::Undecodable(text)
    })
}

/// A string, or null for an empty one.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed("")))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// A bool, or null for false.
pub(super) struct Flag(pub(super) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::deserialize(deserializer)?.unwrap_or_default()))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;

        impl Visitor<'_> for NumberVisitor {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number::Whole(number))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
                // Every limit is far below.
                Ok(Number::Whole(i64::try_from(number).unwrap_or(i64::MAX)))
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Number, E> {
                Ok(Number::Fraction(number))
            }
            fn visit_unit<E: Error>(self) -> Result<Number, E> {
                Ok(Number::default())
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

/// A list, or null for an empty one.
pub(super) struct List<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(List(items))
            }
            fn visit_unit<E: Error>(self) -> Result<List<T>, E> {
                Ok(List(Vec::new()))
            }
        }
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

/// A map of strings, null for an empty one, with null for empty strings.
pub(super) struct TextMap(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for TextMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextMapVisitor;

        impl<'de> Visitor<'de> for TextMapVisitor {
            type Value = TextMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TextMap, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some(Text(key)) = map.next_key()? {
                    let value: Text<'de> = named(&key, map.next_value())?;
                    texts.insert(key.into_owned(), value.0.into_owned());
                }
                Ok(TextMap(texts))
            }
            fn visit_unit<E: Error>(self) -> Result<TextMap, E> {
                Ok(TextMap(BTreeMap::new()))
            }
        }
        deserializer.deserialize_any(TextMapVisitor)
    }
}

/// Puts the member's name before the decoder's text.
fn named<T, E: Error + fmt::Display>(name: &str, value: Result<T, E>) -> Result<T, E> {
    value.map_err(|error| E::custom(format_args!("{name}: {error}")))
}

macro_rules! members {
    ($($variant:ident = $word:literal),+ $(,)?) => {
        #[derive(Clone, Copy)]
        enum Member { $($variant,)+ Other }

        impl Member {
            fn exact(name: &str) -> Self {
                match name { $($word => Self::$variant,)+ _ => Self::Other }
            }

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ Self::Other => "" }
            }
        }
    };
}

members! {
    Gid = "gid",
    TransType = "trans_type",
    Steps = "steps",
    Payloads = "payloads",
    QueryPrepared = "query_prepared",
    Protocol = "protocol",
    CustomData = "custom_data",
    RollbackReason = "rollback_reason",
    ReqExtra = "req_extra",
    WaitResult = "wait_result",
    Concurrent = "concurrent",
    TimeoutToFail = "timeout_to_fail",
    TimeoutToFailMs = "timeout_to_fail_ms",
    RequestTimeout = "request_timeout",
    RequestTimeoutMs = "request_timeout_ms",
    RetryInterval = "retry_interval",
    RetryIntervalMs = "retry_interval_ms",
    RetryLimit = "retry_limit",
    RetryCount = "retry_count",
    BranchHeaders = "branch_headers",
    Action = "action",
    Compensate = "compensate",
    Data = "data",
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MemberVisitor;

        impl Visitor<'_> for MemberVisitor {
            type Value = Member;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Member, E> {
                Ok(match Member::exact(name) {
                    Member::Other if name.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                        Member::exact(&name.to_ascii_lowercase())
                    }
                    member => member,
                })
            }
        }
        deserializer.deserialize_str(MemberVisitor)
    }
}

impl<'de> Deserialize<'de> for TransRequest<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RequestVisitor;

        impl<'de> Visitor<'de> for RequestVisitor {
            type Value = TransRequest<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut request = TransRequest::default();
                while let Some(member) = map.next_key::<Member>()? {
                    named(member.name(), read_member(&mut request, member, &mut map))?;
                }
                Ok(request)
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(TransRequest::default())
            }
        }
        deserializer.deserialize_any(RequestVisitor)
    }
}

fn read_member<'de, A: MapAccess<'de>>(
    request: &mut TransRequest<'de>,
    member: Member,
    map: &mut A,
) -> Result<(), A::Error> {
    match member {
        Member::Gid => request.gid = map.next_value::<Text<'de>>()?.0,
        Member::TransType => request.trans_type = map.next_value::<Text<'de>>()?.0,
        Member::Steps => request.steps = map.next_value::<List<_>>()?.0,
        Member::Payloads => {
            let payloads = map.next_value::<List<Text<'de>>>()?.0;
            request.payloads = payloads.into_iter().map(|payload| bytes(payload.0)).collect();
        }
        Member::QueryPrepared => request.query_prepared = map.next_value::<Text<'de>>()?.0,
        Member::Protocol => request.protocol = map.next_value::<Text<'de>>()?.0,
        Member::CustomData => request.custom_data = map.next_value::<Text<'de>>()?.0,
        Member::RollbackReason => request.rollback_reason = map.next_value::<Text<'de>>()?.0,
        Member::ReqExtra => request.req_extra = map.next_value::<TextMap>()?.0,
        Member::WaitResult => request.wait_result = map.next_value::<Flag>()?.0,
        Member::Concurrent => request.concurrent = map.next_value::<Flag>()?.0,
        Member::TimeoutToFail => request.timeout_to_fail = map.next_value()?,
        Member::TimeoutToFailMs => request.timeout_to_fail_ms = map.next_value()?,
        Member::RequestTimeout => request.request_timeout = map.next_value()?,
        Member::RequestTimeoutMs => request.request_timeout_ms = map.next_value()?,
        Member::RetryInterval => request.retry_interval = map.next_value()?,
        Member::RetryIntervalMs => request.retry_interval_ms = map.next_value()?,
        Member::RetryLimit => request.retry_limit = map.next_value()?,
        Member::RetryCount => request.retry_count = map.next_value()?,
        Member::BranchHeaders => request.branch_headers = map.next_value::<TextMap>()?.0,
        Member::Action | Member::Compensate | Member::Data | Member::Other => {
            map.next_value::<IgnoredAny>()?;
        }
    }
    Ok(())
}

/// A text's bytes, borrowed if the text is.
fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

impl<'de> Deserialize<'de> for RequestStep<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StepVisitor;

        impl<'de> Visitor<'de> for StepVisitor {
            type Value = RequestStep<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut step = RequestStep::default();
                while let Some(member) = map.next_key::<Member>()? {
                    let text = match member {
                        Member::Action => &mut step.action,
                        Member::Compensate => &mut step.compensate,
                        Member::Data => &mut step.data,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *text = named(member.name(), map.next_value::<Text<'de>>())?.0;
                }
                Ok(step)
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(RequestStep::default())
            }
        }
        deserializer.deserialize_any(StepVisitor)
    }
}

impl<'de> Deserialize<'de> for RegisterRequest<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RegisterVisitor;

        impl<'de> Visitor<'de> for RegisterVisitor {
            type Value = RegisterRequest<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a flat map of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut request = RegisterRequest::default();
                while let Some(Text(name)) = map.next_key()? {
                    // Every value must be a string here, those that are passed over as well.
                    let Text(value) = named(&name, map.next_value())?;
                    if let Some(member) = request.member(&name) {
                        *member = value;
                    }
                }
                Ok(request)
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Err(E::invalid_type(Unexpected::Unit, &self))
            }
        }
        deserializer.deserialize_any(RegisterVisitor)
    }
}
