//! `custom_data`, whose shape depends on the type (spec 01 §1.5).

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{Invalid, Mode, TransType};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::decode::{Flag, List, Text};
use super::{Number, RequestError, whole};
use crate::base64;

/// Returns what only one mode has, from a request's `custom_data`.
///
/// # Errors
///
/// [`RequestError::Invalid`]. DTM finds such mistakes in every pass, for ever; here the request is
/// refused.
pub(super) fn mode(
    trans_type: TransType,
    custom_data: &str,
    steps: usize,
) -> Result<Mode, RequestError> {
    match trans_type {
        TransType::Saga => saga(&Members::parse(custom_data)?, steps),
        TransType::Tcc => Ok(Mode::Tcc),
        TransType::Xa => Ok(Mode::Xa),
        TransType::Msg => {
            let delay: Number = Members::parse(custom_data)?.get("delay")?;
            Ok(Mode::Msg { delay: Duration::from_secs(whole("custom_data.delay", delay)?) })
        }
        TransType::Workflow => workflow(&Members::parse(custom_data)?),
    }
}

/// A member's name in lower case: DTM's decoder does not care for the case.
#[derive(PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
struct Name(String);

impl From<String> for Name {
    fn from(mut name: String) -> Self {
        name.make_ascii_lowercase();
        Self(name)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The members of `custom_data`. They are put in in the order of the text, so that of several with
/// one name, in any case, the last one wins.
struct Members<'a>(HashMap<Name, &'a RawValue>);

impl<'a> Members<'a> {
    /// Empty text and null have no members.
    fn parse(custom_data: &'a str) -> Result<Self, RequestError> {
        if custom_data.is_empty() {
            return Ok(Self(HashMap::new()));
        }
        let members = serde_json::from_str::<Option<HashMap<Name, &'a RawValue>>>(custom_data)
            .map_err(|error| RequestError::invalid(format!("custom_data: {error}")))?;
        Ok(Self(members.unwrap_or_default()))
    }

    /// Returns a member; one that is missing is as null.
    fn get<T: Deserialize<'a>>(&self, name: &str) -> Result<T, RequestError> {
        let text = self.0.get(name).map_or("null", |value| value.get());
        serde_json::from_str(text)
            .map_err(|error| RequestError::invalid(format!("custom_data.{name}: {error}")))
    }
}

fn saga(members: &Members<'_>, steps: usize) -> Result<Mode, RequestError> {
    let Flag(concurrent) = members.get("concurrent")?;
    let Orders(listed) = members.get("orders")?;
    let mut orders = Vec::new();
    for (step, before) in listed {
        // Checked before it becomes a length.
        if step >= steps {
            return Err(Invalid::OrderOutOfRange { step, steps }.into());
        }
        if orders.len() <= step {
            orders.resize(step + 1, Vec::new());
        }
        orders[step] = before;
    }
    Ok(Mode::Saga { concurrent, orders: Arc::from(orders) })
}

fn workflow(members: &Members<'_>) -> Result<Mode, RequestError> {
    let Text(name) = members.get("name")?;
    let Text(data) = members.get("data")?;
    if name.is_empty() {
        return Err(RequestError::invalid(
            "custom_data: a workflow needs {\"name\":\"<as registered>\",\"data\":\"<base64>\"}",
        ));
    }
    let data = base64::decode(&data)
        .ok_or_else(|| RequestError::invalid("custom_data.data: the text is not base64"))?;
    Ok(Mode::Workflow { name: Arc::from(name.as_ref()), data: Arc::from(data) })
}

/// A saga's orders: a map from the step's index, as text, to the steps before it.
///
/// PHP writes a map whose keys happen to be 0, 1, 2, … as a list (spec 04 §9).
struct Orders(Vec<(usize, Vec<usize>)>);

impl<'de> Deserialize<'de> for Orders {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OrdersVisitor;

        impl<'de> serde::de::Visitor<'de> for OrdersVisitor {
            type Value = Orders;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map from a step's index to the steps before it")
            }
            fn visit_map<A>(self, mut map: A) -> Result<Orders, A::Error>
            where
                A: serde::de::MapAccess<'de>,
            {
                let mut orders = Vec::new();
                while let Some(Text(key)) = map.next_key()? {
                    let step = key.parse().map_err(|_| {
                        let text = format!("'{key}' is not the index of a step");
                        <A::Error as serde::de::Error>::custom(text)
                    })?;
                    orders.push((step, map.next_value::<List<usize>>()?.0));
                }
                Ok(Orders(orders))
            }
            fn visit_seq<A>(self, mut seq: A) -> Result<Orders, A::Error>
            where
                A: serde::de::SeqAccess<'de>,
            {
                let mut orders = Vec::new();
                while let Some(List(before)) = seq.next_element()? {
                    orders.push((orders.len(), before));
                }
                Ok(Orders(orders))
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Orders, E> {
                Ok(Orders(Vec::new()))
            }
        }
        deserializer.deserialize_any(OrdersVisitor)
    }
}
