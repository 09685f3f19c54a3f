//! Pages that name tests must name tests that exist.

use std::collections::BTreeSet;
use std::path::Path;

/// Adds the names of all functions in the Rust files below a folder.
fn add_functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            add_functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let after = text.split("fn ").skip(1).filter_map(|rest| rest.split_once('('));
            names.extend(after.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn every_test_that_the_compatibility_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut names = BTreeSet::new();
    add_functions(&root.join("crates"), &mut names);
    add_functions(&root.join("tests"), &mut names);
    let page = std::fs::read_to_string(root.join("docs/compatibility.md")).unwrap();
    let mut named = 0;
    for row in page.lines().filter(|line| line.starts_with('|')) {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        for name in tests.split('`').skip(1).step_by(2) {
            assert!(names.contains(name), "there is no test {name}: {row}");
            named += 1;
        }
    }
    assert!(named > 60, "only {named} names were found");
    for number in (1..=29).chain(35..=46).chain(48..=49) {
        assert!(page.contains(&format!("| D{number:02} |")), "D{number:02} is not listed");
    }
}
