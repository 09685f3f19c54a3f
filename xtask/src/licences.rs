//! Which licences the things we build on may have.

use anyhow::{Result, bail};

use crate::shell::Project;

/// Licences that ask for no more than a notice.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages that may have another one, with the reason. None needs it now; MPL-2.0 could be let
/// in for a single package, because it asks nothing of the code around it.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// Checks every package of the dependency graph.
pub(crate) fn check(project: &Project) -> Result<()> {
    let mut faults = Vec::new();
    for package in project.packages() {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or("none stated");
        let excepted = EXCEPTIONS.contains(&(name, licence));
        if !excepted && !is_allowed(licence) {
            faults.push(format!("{name} has the licence {licence}, see xtask/src/licences.rs"));
        }
    }
    if faults.is_empty() { Ok(()) } else { bail!(faults.join("\n")) }
}

/// Returns whether an SPDX expression can be met with allowed licences only.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest) && rest.is_empty()
}

/// Reads `a OR b OR …`; what follows stays in `words`.
fn any_of(words: &mut &[&str]) -> bool {
    let mut met = all_of(words);
    while let [first, rest @ ..] = words
        && *first == "OR"
    {
        *words = rest;
        met |= all_of(words);
    }
    met
}

/// Reads `a AND b AND …`, which binds closer.
fn all_of(words: &mut &[&str]) -> bool {
    let mut met = one(words);
    while let [first, rest @ ..] = words
        && *first == "AND"
    {
        *words = rest;
        met &= one(words);
    }
    met
}

/// Reads one licence, with its exception, or an expression in parentheses.
fn one(words: &mut &[&str]) -> bool {
    match **words {
        ["(", ref rest @ ..] => {
            *words = rest;
            let met = any_of(words);
            match **words {
                [")", ref rest @ ..] => {
                    *words = rest;
                    met
                }
                _ => false,
            }
        }
        [licence, "WITH", exception, ref rest @ ..] => {
            *words = rest;
            ALLOWED.contains(&format!("{licence} WITH {exception}").as_str())
        }
        [licence, ref rest @ ..] => {
            *words = rest;
            ALLOWED.contains(&licence)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_spdx_means_them() {
        let rows = [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
            ("MIT OR Apache-2.0 OR LGPL-2.1-or-later", true),
            ("GPL-3.0", false),
            ("MIT AND GPL-3.0", false),
            ("(MIT AND GPL-3.0) OR ISC", true),
            ("MIT OR ISC AND GPL-3.0", true),
            ("MPL-2.0", false),
            ("GPL-2.0 WITH Classpath-exception-2.0", false),
            ("(MIT", false),
            ("MIT )", false),
            ("", false),
            ("none stated", false),
        ];
        for (expression, allowed) in rows {
            assert_eq!(is_allowed(expression), allowed, "{expression}");
        }
    }
}
