//! `dtmd config`: what the server would run with.

use std::path::Path;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::{complain, say};
use crate::cli::{ConfigCommand, OutputFormat};
use crate::config::options::{Effect, Kind};
use crate::config::{self, Loaded, Origin, Setting};

pub(super) fn run(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Show { config, changed, output } => {
            let loaded = config::load(config.as_deref(), &[])?;
            let settings: Vec<&Setting> = loaded
                .settings
                .iter()
                .filter(|setting| !changed || setting.origin != Origin::Default)
                .collect();
            say(&show(&settings, output)?);
        }
        ConfigCommand::Check { config } => say(&check(config.as_deref())?),
        ConfigCommand::Sample => say(config::sample::sample().trim_end()),
    }
    Ok(())
}

/// Shows settings; a secret is never among what is shown.
fn show(settings: &[&Setting], output: OutputFormat) -> anyhow::Result<String> {
    match output {
        OutputFormat::Table => Ok(table(settings)),
        OutputFormat::Json => Ok(format!("{:#}", records(settings))),
        OutputFormat::Yaml => Ok(serde_saphyr::to_string(&records(settings))
            .context("the settings cannot be written as YAML")?
            .trim_end()
            .to_owned()),
    }
}

fn table(settings: &[&Setting]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["KEY", "VALUE", "FROM", ""]);
    for setting in settings {
        let note = match setting.spec.effect {
            Effect::Used => "",
            Effect::Ignored(_) => "no effect",
        };
        let origin = setting.origin.to_string();
        table.add_row([setting.spec.key, setting.shown(), origin.as_str(), note]);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}

fn records(settings: &[&Setting]) -> Value {
    let record = |setting: &&Setting| {
        json!({
            "key": setting.spec.key,
            "value": setting.shown(),
            "origin": setting.origin.to_string(),
            "env": setting.spec.env(),
            "secret": setting.spec.kind == Kind::Secret,
            "used": setting.spec.effect == Effect::Used,
        })
    };
    settings.iter().map(record).collect()
}

/// Loads the configuration as the server would, and says what it would say.
fn check(file: Option<&Path>) -> anyhow::Result<String> {
    let Loaded { settings, notes, warnings, .. } = config::load(file, &[])?;
    for note in &notes {
        complain(&format!("note: {note}"));
    }
    for warning in &warnings {
        complain(&format!("warning: {warning}"));
    }
    let set = settings.iter().filter(|setting| setting.origin != Origin::Default).count();
    let what = match file {
        Some(path) => path.display().to_string(),
        None => "the environment (no file was given: -c FILE)".to_owned(),
    };
    Ok(format!("{what} is valid: {set} options set, {} notes", notes.len() + warnings.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_form_shows_values_with_origins_and_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yml");
        let text = "Store:\n  Password: hunter2\nAlertWebHook: http://h/token\nHttpPort: 7\n";
        std::fs::write(&path, text).unwrap();
        let env = |name: &str| (name == "RETRY_INTERVAL").then(|| "12".to_owned());
        let loaded = config::load_with(&env, Some(&path), &[]).unwrap();
        let all: Vec<&Setting> = loaded.settings.iter().collect();
        for output in [OutputFormat::Table, OutputFormat::Json, OutputFormat::Yaml] {
            let shown = show(&all, output).unwrap();
            assert!(!shown.contains("hunter2") && !shown.contains("token"), "{shown}");
            for text in ["HttpPort", "(hidden)", "env RETRY_INTERVAL", "c.yml:4", "TimeZoneOffset"]
            {
                assert!(shown.contains(text), "{text} in {shown}");
            }
        }
        let records = records(&all);
        let port = records.as_array().unwrap().iter().find(|r| r["key"] == "HttpPort").unwrap();
        assert_eq!(port["value"], "7");
        assert!(table(&all).lines().any(|line| line.split_whitespace().eq([
            "RetryInterval",
            "12",
            "env",
            "RETRY_INTERVAL"
        ])));
        assert!(check(Some(&path)).unwrap().contains("valid"));
    }
}
