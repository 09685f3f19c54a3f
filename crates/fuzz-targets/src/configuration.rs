//! Configuration files and environments.

use std::path::Path;

use dtmd_server::config::{Config, Settings, apply_text};

/// A YAML file; lines of `NAME=value` after a zero byte are the environment.
pub(crate) fn read(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let env = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let mut settings = Settings::default();
    let value_of = |name: &str| {
        let mut pairs = env.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    };
    settings.apply_env(&value_of);
    if let Err(error) = apply_text(&mut settings, Path::new("dtmd.yml"), &text) {
        assert!(!error.to_string().is_empty(), "an error that says nothing");
        return;
    }
    let _ = settings.notes();
    for setting in settings.iter() {
        let _ = setting.shown();
    }
    match Config::read(&settings) {
        Ok(config) => {
            assert_eq!(Ok(&config), Config::read(&settings).as_ref().map_err(drop));
            if config.validate().is_ok() {
                let _ = config.listen.warnings();
            }
        }
        Err(error) => assert!(!error.to_string().is_empty(), "an error that says nothing"),
    }
}
