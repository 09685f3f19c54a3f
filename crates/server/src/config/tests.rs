//! Tests of layers, names, refusals and secrets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::options::{Effect, OPTIONS, env_name};
use super::*;

/// Every key that DTM's own sample shows, each with a value.
const DTM_SAMPLE: &str = include_str!("tests/dtm.yml");

fn from_text(text: &str) -> Result<(Config, Settings), ConfigError> {
    let mut settings = Settings::default();
    apply_text(&mut settings, Path::new("c.yml"), text)?;
    let config = Config::read(&settings)?;
    config.validate()?;
    Ok((config, settings))
}

fn refusal(text: &str) -> String {
    from_text(text).unwrap_err().to_string()
}

fn flag(key: &'static str, value: &str) -> Flag {
    Flag { key, value: value.into(), flag: "--flag" }
}

/// The table and the `Default` of the structs say the same, so the page tells the truth.
#[test]
fn table_defaults_are_the_structs_defaults() {
    let config = Config::read(&Settings::default()).unwrap();
    assert_eq!(config, Config::default());
    config.validate().unwrap();
    assert!(Settings::default().notes().is_empty());
}

#[test]
fn environment_names_follow_dtms_rule() {
    let rows = [
        ("Store.Driver", "STORE_DRIVER"),
        ("Store.ConnMaxLifeTime", "STORE_CONN_MAX_LIFE_TIME"),
        ("JsonRpcPort", "JSON_RPC_PORT"),
        ("MicroService.EndPoint", "MICRO_SERVICE_END_POINT"),
        ("HttpMicroService.RegistryOptions", "HTTP_MICRO_SERVICE_REGISTRY_OPTIONS"),
        ("UpdateBranchAsyncGoroutineNum", "UPDATE_BRANCH_ASYNC_GOROUTINE_NUM"),
        ("Log.RotationConfigJSON", "LOG_ROTATION_CONFIG_JSON"),
        ("AlertWebHook", "ALERT_WEB_HOOK"),
        ("Listen", "LISTEN"),
    ];
    for (key, env) in rows {
        assert_eq!(env_name(key), env);
        assert!(options::find(key).is_some(), "{key} is in the table");
    }
}

#[test]
fn table_is_sound() {
    let mut keys: Vec<_> = OPTIONS.iter().map(|option| option.key).collect();
    keys.sort_unstable();
    let count = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), count, "a key is there twice");
    for option in OPTIONS {
        let says_why = matches!(option.effect, Effect::Ignored(why) if !why.is_empty());
        assert!(says_why || !option.doc.is_empty(), "{} is not explained", option.key);
    }
    let page = docs::page();
    assert!(OPTIONS.iter().all(|option| page.contains(&format!("`{}`", option.key))));
}

#[test]
fn later_layers_win_and_are_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yml");
    std::fs::write(&path, "# a comment\nHttpPort: 2\nGrpcPort: 2\n").unwrap();
    let vars = HashMap::from([
        ("HTTP_PORT", "1"),
        ("GRPC_PORT", "1"),
        ("ALERT_RETRY_LIMIT", "1"),
        ("REQUEST_TIMEOUT", ""),
    ]);
    let env = |name: &str| vars.get(name).map(|text| (*text).to_owned());
    let loaded = load_with(&env, Some(&path), &[flag("HttpPort", "3")]).unwrap();
    let config = &loaded.config;
    assert_eq!((config.listen.http_port, config.listen.grpc_port), (3, 2));
    assert_eq!(config.alert.retry_limit, 1);
    assert_eq!(config.calls.request_timeout, Duration::from_secs(3), "an empty variable is unset");
    let origin = |key| loaded.settings.origin(key).unwrap().clone();
    assert_eq!(origin("HttpPort"), Origin::Flag("--flag"));
    assert_eq!(origin("GrpcPort"), Origin::File { path: path.clone(), line: 3 });
    assert_eq!(origin("AlertRetryLimit"), Origin::Env("ALERT_RETRY_LIMIT".into()));
    assert_eq!(origin("RequestTimeout"), Origin::Default);
}

#[test]
fn dtms_sample_loads_with_a_note_for_what_has_no_effect() {
    let (config, settings) = from_text(DTM_SAMPLE).unwrap();
    assert_eq!(config.config_update_interval, Duration::from_secs(10));
    assert_eq!(config.log.level, LogLevel::Warn);
    assert_eq!(config.zone, Zone::parse("+8").unwrap());
    let from_file = settings.iter().filter(|setting| setting.origin != Origin::Default).count();
    assert_eq!(from_file, OPTIONS.iter().filter(|option| option.from_dtm).count());
    let notes = settings.notes();
    let noted = |key: &str| notes.iter().filter(|note| note.starts_with(key)).count();
    assert_eq!(noted("GrpcBalancer "), 1, "{notes:?}");
    assert_eq!(noted("MicroService.Target "), 1);
    assert_eq!(noted("Store.Db "), 0, "its value is the default");
    assert_eq!(noted("HttpPort "), 0, "it has an effect");
}

#[test]
fn the_sample_has_every_option_and_its_built_in_value() {
    let sample = sample::sample();
    let (config, settings) = from_text(&sample).unwrap();
    assert_eq!(config, Config::default());
    assert!(settings.iter().all(|setting| setting.origin == Origin::Default));
    // Every option taken in, the built-in values stay.
    let taken_in: String = sample
        .lines()
        .map(|line| {
            let text = line.trim_start();
            let is_option = text.starts_with('#') && !text.starts_with("# ");
            if is_option { line.replacen('#', "", 1) + "\n" } else { format!("{line}\n") }
        })
        .collect();
    let (config, settings) = from_text(&taken_in).unwrap();
    assert_eq!(config, Config::default());
    assert!(settings.iter().all(|setting| setting.origin != Origin::Default), "{taken_in}");
    assert!(settings.notes().is_empty());
    assert!(sample.lines().all(|line| line.len() <= 100), "{sample}");
}

#[test]
fn log_files_are_taken_as_dtm_writes_them() {
    let text = "Log:\n  Outputs: stderr, /var/log/dtm.log\n  RotationEnable: 1\n  \
                RotationConfigJSON: '{\"maxsize\": 5, \"maxage\": 2, \"maxbackups\": 3, \
                \"localtime\": true, \"compress\": false}'\n";
    let (config, _) = from_text(text).unwrap();
    let file = LogOutput::File("/var/log/dtm.log".into());
    assert_eq!(config.log.outputs, [LogOutput::Stderr, file]);
    let expected = Rotation {
        max_bytes: 5 << 20,
        backups_max: Some(3),
        age_max: Some(Duration::from_secs(2 * 86_400)),
        local_time: true,
    };
    assert_eq!(config.log.rotation, Some(expected));
    assert_eq!(from_text(&text.replace("Enable: 1", "Enable: 0")).unwrap().0.log.rotation, None);
}

#[test]
fn files_without_values_say_nothing() {
    for text in ["", "# nothing\n", "Store:\n", "Store:\n  Host:\nHttpPort: ~\n", "---\n"] {
        let (config, _) = from_text(text).unwrap();
        assert_eq!(config, Config::default(), "{text:?}");
    }
}

#[test]
fn values_are_taken_as_written() {
    let text = "Store:\n  Password: 007\n  User: yes\n  Db: \"\"\n";
    let (config, _) = from_text(text).unwrap();
    assert_eq!(config.store.password.reveal(), "007");
    assert_eq!(config.store.user, "yes");
    assert_eq!(config.store.db, "");
}

#[test]
fn unknown_keys_are_refused_with_line_and_suggestion() {
    let rows = [
        ("HttpPort: 1\nHttpPrt: 2\n", "c.yml:2: unknown key `HttpPrt`; did you mean `HttpPort`?"),
        ("store:\n  Driver: memory\n", "c.yml:1: unknown key `store`; did you mean `Store`?"),
        (
            "Store:\n  Drivr: memory\n",
            "c.yml:2: unknown key `Store.Drivr`; did you mean `Store.Driver`?",
        ),
        ("http_port: 1\n", "c.yml:1: unknown key `http_port`; did you mean `HttpPort`?"),
        (
            "RedisPrefix: x\n",
            "c.yml:1: unknown key `RedisPrefix`; did you mean `Store.RedisPrefix`?",
        ),
        (
            "Elephants: [1, {a: b}]\n",
            "c.yml:1: unknown key `Elephants`; docs/configuration.md lists the known ones",
        ),
    ];
    for (text, message) in rows {
        assert_eq!(refusal(text), message);
    }
    let all = refusal("A: 1\nHttpPrt: 2\n");
    assert_eq!(all.lines().count(), 2, "all of them at once: {all}");
}

#[test]
fn malformed_files_are_refused_with_their_line() {
    for text in ["HttpPort: [1]\n", "Store: 3\n", "HttpPort: 1\nHttpPort: 2\n", "a: [\n", "- 1\n"] {
        let message = refusal(text);
        assert!(message.starts_with("c.yml:"), "{text:?}: {message}");
    }
}

#[test]
fn dtms_validation_texts_are_kept() {
    let rows = [
        ("RetryInterval: 9\n", "RetryInterval should not be less than 10"),
        ("TimeoutToFail: 9\n", "TimeoutToFail should not be less than RetryInterval"),
        ("Store: {Driver: mysql}\n", "Db host not valid "),
        ("Store: {Driver: mysql}\n", "Db port not valid "),
        ("Store: {Driver: postgres}\n", "Db user not valid "),
        ("Store: {Driver: postgres, Schema: ''}\n", "Postgres schema not valid"),
        ("Store: {Driver: redis}\n", "Redis host not valid"),
        ("Store: {Driver: redis}\n", "Redis port not valid"),
        (
            "Store: {Driver: sqlserver}\n",
            "Store.Driver sqlserver is not supported; move to mysql or postgres",
        ),
    ];
    for (text, expected) in rows {
        let message = refusal(text);
        assert!(message.lines().any(|line| line == expected), "{text:?}: {message}");
    }
}

#[test]
fn problems_name_the_option_and_its_origin() {
    let env = |name: &str| (name == "RETRY_INTERVAL").then(|| "5".to_owned());
    let message = load_with(&env, None, &[]).unwrap_err().to_string();
    let expected =
        "RetryInterval should not be less than 10 (RetryInterval is set by env RETRY_INTERVAL)";
    assert_eq!(message, expected);
    let rows = [
        ("HttpPort: x\n", "HttpPort is `x`; it takes a whole number in its range"),
        ("HttpPort: 70000\n", "HttpPort is `70000`; it takes a whole number in its range"),
        ("RequestTimeout: 3 days\n", "RequestTimeout is `3 days`; it takes a time"),
        ("BodyMaxBytes: 1GB\n", "BodyMaxBytes is `1GB`; it takes a size"),
        ("AllowAnonymous: maybe\n", "AllowAnonymous is `maybe`; it takes true or false"),
        ("LogLevel: loud\n", "LogLevel is `loud`; it takes debug, info, warn or error"),
        (
            "Store: {Driver: bolt}\n",
            "Store.Driver is `bolt`; it takes boltdb, embedded, memory, mysql, postgres or redis",
        ),
        (
            "Store: {MaxWriteConns: 0}\n",
            "Store.MaxWriteConns is `0`; it takes a number from 1 to 64",
        ),
        ("Listen: 0.0.0.0:80\n", "Listen is `0.0.0.0:80`; it takes an IP address"),
        ("StepsMax: 0\n", "StepsMax should not be less than 1"),
        ("MemoryMax: 1MiB\n", "MemoryMax should be 0, or not less than 64MiB"),
        ("AlertWebHook: example\n", "AlertWebHook should be a URL"),
        ("MicroService: {}\nJsonRpcPort: x\n", "JsonRpcPort is `x`"),
        ("TimeZoneOffset: Berlin\n", "TimeZoneOffset is `Berlin`; it takes hours from -14"),
        (
            "Log: {RotationEnable: 1, RotationConfigJSON: '{\"compress\": true}'}\n",
            "Log.RotationConfigJSON: compress is not in this build",
        ),
        (
            "Log: {RotationEnable: 1, RotationConfigJSON: '{\"size\": 1}'}\n",
            "Log.RotationConfigJSON: unknown field `size`",
        ),
    ];
    for (text, expected) in rows {
        let message = refusal(text);
        assert!(message.starts_with(expected), "{text:?}: {message}");
    }
}

#[test]
fn units_are_understood() {
    let text = "RequestTimeout: 500ms\nRetryIntervalMax: 2h\nBodyTimeout: 7\nBodyMaxBytes: 2MiB\n";
    let (config, _) = from_text(text).unwrap();
    assert_eq!(config.calls.request_timeout, Duration::from_millis(500));
    assert_eq!(config.retry.interval_max, Duration::from_secs(7200));
    assert_eq!(config.timeouts.body, Duration::from_secs(7));
    assert_eq!(config.limits.body_max_bytes, 2 << 20);
}

#[test]
fn public_addresses_need_a_word_and_give_a_warning() {
    let none = |_: &str| None;
    let refused = load_with(&none, None, &[flag("Listen", "0.0.0.0")]).unwrap_err().to_string();
    for fix in ["Listen: 127.0.0.1", "--listen", "AllowAnonymous: true", "--allow-anonymous"] {
        assert!(refused.contains(fix), "{refused}");
    }
    let flags = [flag("Listen", "0.0.0.0"), flag("AllowAnonymous", "true")];
    let loaded = load_with(&none, None, &flags).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    for loopback in ["127.0.0.1", "localhost", "::1", "[::1]", "127.8.8.8"] {
        let loaded = load_with(&none, None, &[flag("Listen", loopback)]).unwrap();
        assert!(loaded.warnings.is_empty(), "{loopback}");
        assert!(loaded.config.listen.http().ip().is_loopback());
    }
    let mut config = Config::default();
    config.listen.test_control = Some("10.0.0.1:1".parse().unwrap());
    assert!(config.validate().unwrap_err().to_string().contains("loopback"));
}

#[test]
fn secrets_are_never_printed() {
    let secret = "hunter2-and-more";
    let text = format!("Store:\n  Driver: mysql\n  Password: {secret}\n");
    let mut settings = Settings::default();
    apply_text(&mut settings, Path::new("c.yml"), &text).unwrap();
    let config = Config::read(&settings).unwrap();
    assert_eq!(config.store.password.reveal(), secret);
    let shown: Vec<_> = settings.iter().map(|setting| setting.shown().to_owned()).collect();
    let printed = [
        format!("{config:?} {settings:?} {shown:?} {:?}", settings.notes()),
        config.store.password.to_string(),
        config.validate().unwrap_err().to_string(),
        // Errors near a password: wrong nesting, wrong key, broken syntax.
        refusal(&format!("Store:\n  Password: {secret}\n  Password: {secret}\n")),
        refusal(&format!("Store:\n  Password: {{a: {secret}}}\n")),
        refusal(&format!("Store:\n  Passwort: {secret}\n")),
        refusal(&format!("Store:\n  Password: {secret}\n   Host: x\n")),
        refusal(&format!("Store: {secret}\n")),
        refusal(&format!("Password: {secret}\n")),
    ];
    for text in printed {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn grpc_follows_http_to_a_port_of_its_own() {
    // HttpPort, GrpcPort, where gRPC listens, whether it may move.
    let table = [
        (36789, 36790, 36790, false),
        (0, 36790, 0, true),
        (8080, 36790, 36790, true),
        (0, 9090, 9090, false),
        (36789, 0, 0, false),
    ];
    for (http_port, grpc_port, port, moves) in table {
        let listen = ListenConfig { http_port, grpc_port, ..ListenConfig::default() };
        assert_eq!((listen.grpc().port(), listen.grpc_may_move()), (port, moves), "{http_port}");
    }
}
