//! The generated pages.
//!
//! The table of options is compiled in here from the server's own file, so that neither the page
//! nor the check of it has to wait for the server to be built.

#[expect(unreachable_pub, reason = "they are public in the server")]
#[allow(dead_code, reason = "the server uses what the page does not need")]
#[path = "../../crates/server/src/config/options.rs"]
mod options;

#[expect(unreachable_pub, reason = "it is public in the server")]
#[path = "../../crates/server/src/config/docs.rs"]
mod configuration;

use std::fs;

use anyhow::{Context, Result, bail};

use crate::shell::Project;

/// A page's path in the project, and what writes it.
type Page = (&'static str, fn() -> String);

const PAGES: &[Page] = &[("docs/configuration.md", configuration::page)];

/// Writes every page; returns their paths.
pub(crate) fn write(project: &Project) -> Result<Vec<&'static str>> {
    for (path, page) in PAGES {
        let path = project.root.join(path);
        fs::write(&path, page()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(PAGES.iter().map(|(path, _)| *path).collect())
}

/// Checks that every page is what would be written now.
pub(crate) fn check(project: &Project) -> Result<()> {
    for (path, page) in PAGES {
        if fs::read_to_string(project.root.join(path)).unwrap_or_default() != page() {
            bail!("{path} is not up to date: run `cargo xtask docs`");
        }
    }
    Ok(())
}
