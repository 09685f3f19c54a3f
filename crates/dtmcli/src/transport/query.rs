//! Query strings.

use std::fmt::Write as _;

/// Appends parameters to a URL, after those that it has.
pub(crate) fn with_query(url: &str, pairs: &[(&str, &str)]) -> String {
    // A fragment never reaches a server; what is appended behind one would not either.
    let mut full = url.split('#').next().unwrap_or_default().to_owned();
    for (name, value) in pairs {
        let separator = match full.find('?') {
            None => "?",
            Some(_) if full.ends_with(['?', '&']) => "",
            Some(_) => "&",
        };
        full.push_str(separator);
        full.push_str(name);
        full.push('=');
        full.push_str(&encode(value));
    }
    full
}

/// Encodes all but unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_appended_and_encoded() {
        let pairs = [("dtm", "http://s:1/api"), ("gid", "g 1&ä")];
        let tail = "dtm=http%3A%2F%2Fs%3A1%2Fapi&gid=g%201%26%C3%A4";
        for (url, expected) in [
            ("http://b/x", format!("http://b/x?{tail}")),
            ("http://b/x?y=1", format!("http://b/x?y=1&{tail}")),
            ("http://b/x?", format!("http://b/x?{tail}")),
            ("http://b/x#top", format!("http://b/x?{tail}")),
        ] {
            assert_eq!(with_query(url, &pairs), expected);
        }
    }
}
