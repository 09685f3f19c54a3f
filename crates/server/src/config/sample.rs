//! Writes a configuration file with every option in it, each explained and commented out.
//!
//! Commented out, because a key that is present wins over the environment; what is taken in by
//! removing a `#` has the built-in value.

use super::options::{Effect, OPTIONS, OptionSpec};

const HEAD: &str = "\
# dtmd's configuration: every option with its built-in value.
# Take an option in by removing the `#` right before its name. Lines that begin with `# ` explain.
# The environment variable in brackets sets the same option; a key in this file wins over it.
# Times take a unit (500ms, 10s, 5m, 1h), sizes too (64KiB, 1MiB).
";

/// Returns the file's text.
pub fn sample() -> String {
    let mut text = String::from(HEAD);
    let mut section = "";
    for option in OPTIONS {
        let (of, name) = option.key.split_once('.').unwrap_or(("", option.key));
        text.push('\n');
        if of != section && !of.is_empty() {
            text.push_str(&format!("{of}:\n"));
        }
        section = of;
        let indent = if of.is_empty() { "" } else { "  " };
        let meaning = match option.effect {
            Effect::Used => option.doc.to_owned(),
            Effect::Ignored(why) => format!("Has no effect: {why}."),
        };
        let takes = format!("{meaning} Takes {} [{}].", option.kind.describe(), option.env());
        for line in wrapped(&takes, 96 - indent.len()) {
            text.push_str(&format!("{indent}# {line}\n"));
        }
        text.push_str(&format!("{indent}#{name}: {}\n", value(option)));
    }
    text
}

/// Returns the built-in value as YAML that cannot be taken for anything else.
fn value(option: &OptionSpec) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_');
    let default = option.default;
    match !default.is_empty() && default.chars().all(plain) {
        true => default.to_owned(),
        false => format!("'{}'", default.replace('\'', "''")),
    }
}

/// Breaks a text into lines of at most `width` characters, where a word allows it.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
