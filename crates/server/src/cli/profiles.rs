//! Which server is meant: flags, environment, the profiles file, the built-in one.
//!
//! ```toml
//! [profile.production]
//! server = "http://dtm.internal:36789"
//! ```
//!
//! A profile named `default` is taken when nothing else says which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ClientError;

/// The server when nothing says another.
const BUILT_IN: &str = "http://127.0.0.1:36789";
/// The profile that need not be named.
const DEFAULT: &str = "default";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    profile: BTreeMap<String, Profile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    server: String,
}

/// Returns the server's URL.
///
/// # Errors
///
/// The file cannot be understood, or does not have the profile that was named.
pub(super) fn server(flag: Option<&str>, profile: Option<&str>) -> Result<String, ClientError> {
    let env = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    resolve(flag, profile, &env)
}

/// As [`server`], with any environment.
fn resolve(
    flag: Option<&str>,
    profile: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, ClientError> {
    if let Some(url) = flag {
        return Ok(url.to_owned());
    }
    let named = match profile {
        Some(name) => Some(name.to_owned()),
        None => match env("DTMD_SERVER") {
            Some(url) => return Ok(url),
            None => env("DTMD_PROFILE"),
        },
    };
    let Some(path) = path(env) else {
        return match named {
            None => Ok(BUILT_IN.to_owned()),
            Some(_) => Err(ClientError::Usage("there is no home directory with profiles".into())),
        };
    };
    let mut profiles = read(&path)?;
    match (profiles.remove(named.as_deref().unwrap_or(DEFAULT)), named) {
        (Some(profile), _) => Ok(profile.server),
        (None, None) => Ok(BUILT_IN.to_owned()),
        (None, Some(name)) => {
            let known: Vec<String> = profiles.into_keys().collect();
            Err(ClientError::Usage(format!(
                "there is no [profile.{name}] in {}; it has: {}",
                path.display(),
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )))
        }
    }
}

/// Returns where the file would be.
fn path(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let folder = match env("XDG_CONFIG_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(&env("HOME")?).join(".config"),
    };
    Some(folder.join("dtmd/config.toml"))
}

fn read(path: &Path) -> Result<BTreeMap<String, Profile>, ClientError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => {
            let text = format!("cannot read {}: {error}", path.display());
            return Err(ClientError::Usage(text));
        }
    };
    let file: File = toml::from_str(&text)
        .map_err(|error| ClientError::Usage(format!("{}: {error}", path.display())))?;
    Ok(file.profile)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_nearest_word_counts() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("dtmd");
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("config.toml");
        let home = dir.path().to_string_lossy().into_owned();
        let env = |server: &'static str, profile: &'static str| {
            let home = home.clone();
            move |name: &str| match name {
                "XDG_CONFIG_HOME" => Some(home.clone()),
                "DTMD_SERVER" => Some(server.to_owned()).filter(|text| !text.is_empty()),
                "DTMD_PROFILE" => Some(profile.to_owned()).filter(|text| !text.is_empty()),
                _ => None,
            }
        };
        assert_eq!(resolve(None, None, &env("", "")).unwrap(), BUILT_IN, "no file, no profile");
        let text =
            "[profile.prod]\nserver = \"http://prod\"\n[profile.test]\nserver = 'http://t'\n";
        std::fs::write(&file, text).unwrap();
        assert_eq!(resolve(None, None, &env("", "")).unwrap(), BUILT_IN);
        assert_eq!(resolve(None, None, &env("", "test")).unwrap(), "http://t");
        assert_eq!(resolve(None, None, &env("http://e", "test")).unwrap(), "http://e");
        assert_eq!(resolve(None, Some("prod"), &env("http://e", "test")).unwrap(), "http://prod");
        assert_eq!(resolve(Some("http://f"), None, &env("http://e", "")).unwrap(), "http://f");
        let error = resolve(None, Some("what"), &env("", "")).unwrap_err();
        assert_eq!(error.exit_code(), super::super::EXIT_USAGE);
        assert!(error.to_string().ends_with("it has: prod, test"), "{error}");
        std::fs::write(&file, format!("{text}[profile.default]\nserver = 'http://d'\n")).unwrap();
        assert_eq!(resolve(None, None, &env("", "")).unwrap(), "http://d");
        std::fs::write(&file, "[profile.x]\nurl = 'http://d'\n").unwrap();
        assert!(resolve(None, None, &env("", "")).unwrap_err().to_string().contains("config.toml"));
    }
}
