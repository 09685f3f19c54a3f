//! Query strings and percent-encoding.

use std::borrow::Cow;

/// The parameters of a query string. Of several with one name the first counts, as in DTM.
pub(super) struct QueryString<'a>(&'a str);

impl<'a> QueryString<'a> {
    pub(super) fn new(query: Option<&'a str>) -> Self {
        Self(query.unwrap_or_default())
    }

    /// Returns a parameter; one that is missing is empty.
    pub(super) fn get(&self, name: &str) -> Cow<'a, str> {
        let pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut values = pairs.filter(|(key, _)| decode(key, true) == name);
        values.next().map_or(Cow::Borrowed(""), |(_, value)| decode(value, true))
    }
}

/// Returns a text without percent-encoding; in a query a plus is a space.
///
/// What is not valid stays as it is written; bytes that are no UTF-8 become U+FFFD.
pub(super) fn decode(text: &str, is_query: bool) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || is_query && byte == b'+') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &after[2..];
            }
            (b'+', ..) if is_query => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let query = QueryString::new(Some("gid=a%2Fb+c&x&gid=second&u=http%3A%2F%2Fs%3Fa=b&%6B=v"));
        let table = [("gid", "a/b c"), ("x", ""), ("u", "http://s?a=b"), ("k", "v"), ("none", "")];
        for (name, value) in table {
            assert_eq!(query.get(name), value, "{name}");
        }
        assert_eq!(QueryString::new(None).get("gid"), "");
    }

    #[test]
    fn what_is_not_valid_stays() {
        for text in ["100%", "%zz", "%", "%4", "a%2"] {
            assert_eq!(decode(text, true), text);
        }
        assert_eq!(decode("%ff", true), "\u{fffd}");
        assert_eq!(decode("a+b", false), "a+b");
        assert_eq!(decode("%E8%AE%A2", true), "订");
    }
}
