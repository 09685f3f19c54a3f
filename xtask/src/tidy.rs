//! What a program can check of our style: sizes of files, and that every crate inherits the lints.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::Project;

/// The most lines of a file, its tests not counted.
const LINES_MAX: usize = 600;

/// Files that may be longer, with how long. The numbers only ever go down.
const LONGER: &[(&str, usize)] = &[];

/// Checks that every crate says `[lints] workspace = true`.
pub(crate) fn check_lints(project: &Project) -> Result<()> {
    let mut faults = Vec::new();
    for package in project.members() {
        let path = package["manifest_path"].as_str().context("a package without a manifest")?;
        let manifest = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        if !inherits_lints(&manifest) {
            faults.push(format!("{path} does not say `[lints] workspace = true`"));
        }
    }
    if faults.is_empty() { Ok(()) } else { bail!(faults.join("\n")) }
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.find(|line| !line.is_empty() && !line.starts_with('#')) == Some("workspace = true")
}

/// Checks that no file of ours is longer than it may be.
pub(crate) fn check_sizes(project: &Project) -> Result<()> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask"] {
        collect(&project.root.join(folder), &mut files)?;
    }
    let mut faults = Vec::new();
    for path in files {
        let name = path.strip_prefix(&project.root).unwrap_or(&path).to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        let lines = lines_without_tests(&text);
        let longer = LONGER.iter().find(|(known, _)| *known == name);
        let max = longer.map_or(LINES_MAX, |(_, max)| *max);
        if lines > max {
            faults.push(format!("{name} has {lines} lines; at most {max}: cut it along meaning"));
        }
    }
    if faults.is_empty() { Ok(()) } else { bail!(faults.join("\n")) }
}

/// Collects the Rust files under a folder, except those that only hold tests.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "tests" | "benches" | "target") {
                collect(&path, files)?;
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Counts the lines before a test module that closes the file.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let is_tests = |index: &usize| {
        lines[*index] == "#[cfg(test)]"
            && lines.get(index + 1).is_some_and(|next| next.starts_with("mod tests"))
    };
    (0..lines.len()).find(is_tests).unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lints_are_found() {
        assert!(inherits_lints("[package]\n\n[lints]\n# all\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nversion.workspace = true\n"));
        assert!(!inherits_lints("[lints]\n[dependencies]\nworkspace = true\n"));
    }

    #[test]
    fn a_closing_test_module_is_not_counted() {
        assert_eq!(lines_without_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
        assert_eq!(lines_without_tests("a\n#[cfg(test)]\nfn x() {}\n"), 3);
    }
}
