//! How bytes and digests are written: compactly for stores, legibly for people.

use std::borrow::Cow;

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A payload. In JSON `{"text":…}` when it is UTF-8, `{"base64":…}` otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payload<'a>(pub(super) Cow<'a, [u8]>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Legible<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Base64(#[serde(borrow)] Cow<'a, str>),
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(&self.0);
        }
        match std::str::from_utf8(&self.0) {
            Ok(text) => Legible::Text(Cow::Borrowed(text)).serialize(serializer),
            Err(_) => Legible::Base64(Cow::Owned(to_base64(&self.0))).serialize(serializer),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Payload<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <&[u8]>::deserialize(deserializer).map(|bytes| Self(Cow::Borrowed(bytes)));
        }
        match Legible::deserialize(deserializer)? {
            Legible::Text(text) => Ok(Self(Cow::Owned(text.into_owned().into_bytes()))),
            Legible::Base64(text) => from_base64(&text)
                .map(|bytes| Self(Cow::Owned(bytes)))
                .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &"base64")),
        }
    }
}

/// A digest. In JSON a string of hexadecimal digits: readers of JSON lose the digits of a number
/// this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(pub(super) u128);

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("{:032x}", self.0))
        } else {
            serializer.serialize_u128(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u128::deserialize(deserializer).map(Self);
        }
        let text = <Cow<'_, str>>::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(Self).map_err(D::Error::custom)
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Returns standard base64 with padding (RFC 4648 §4).
pub(super) fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit <= group.len() {
                let value = bits >> (18 - 6 * digit) & 63;
                text.push(char::from(ALPHABET[value as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// Returns the bytes of what [`to_base64`] wrote, `None` for anything else.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for digit in 0..4 {
            let value = match group.get(digit) {
                Some(digit) => ALPHABET.iter().position(|of| of == digit)?,
                None => 0,
            };
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        let [_, group_bytes @ ..] = bits.to_be_bytes();
        bytes.extend(&group_bytes[..group.len() - 1]);
    }
    Some(bytes)
}
