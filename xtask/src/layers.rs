//! Which crate may use which, as data, compared with what the manifests say.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::shell::Project;

/// The crates of the workspace, lowest first, and which of them each may use. A new crate gets a
/// line here first. Dev-dependencies do not count: a test may put a real store below a transport.
const LAYERS: &[(&str, &[&str])] = &[
    ("dtmd-protocol", &[]),
    ("dtmd-failpoint", &[]),
    ("dtmd-wire", &["dtmd-protocol"]),
    ("dtmd-store", &["dtmd-protocol"]),
    ("dtmd-store-embedded", &["dtmd-failpoint", "dtmd-protocol", "dtmd-store"]),
    ("dtmd-engine", &["dtmd-failpoint", "dtmd-protocol", "dtmd-store"]),
    ("dtmd-testkit", &["dtmd-protocol", "dtmd-store", "dtmd-engine"]),
    ("dtmd-transport", &["dtmd-protocol", "dtmd-wire", "dtmd-engine"]),
    (
        "dtmd-transport-grpc",
        &["dtmd-protocol", "dtmd-wire", "dtmd-store", "dtmd-engine", "dtmd-transport"],
    ),
    ("dtmd-store-sql", &["dtmd-protocol", "dtmd-store"]),
    ("dtmd-store-redis", &["dtmd-protocol", "dtmd-store"]),
    ("dtmd-local-servers", &[]),
    ("dtmd-demo", &["dtmd-local-servers"]),
    ("dtmd-bench", &["dtmd-local-servers", "dtmd-demo"]),
    ("dtmcli-barrier", &[]),
    ("dtmcli", &["dtmcli-barrier"]),
    (
        "dtmd",
        &[
            "dtmd-protocol",
            "dtmd-wire",
            "dtmd-store",
            "dtmd-store-embedded",
            "dtmd-store-sql",
            "dtmd-store-redis",
            "dtmd-engine",
            "dtmd-transport",
            "dtmd-transport-grpc",
            "dtmd-demo",
            "dtmd-bench",
        ],
    ),
    ("dtmcli-test", &["dtmd"]),
    ("dtmd-examples", &["dtmd-local-servers", "dtmcli", "dtmcli-test"]),
    (
        "dtmd-fuzz-targets",
        &[
            "dtmd-protocol",
            "dtmd-wire",
            "dtmd-store",
            "dtmd-store-embedded",
            "dtmd-engine",
            "dtmd-testkit",
            "dtmd-transport",
            "dtmd-transport-grpc",
            "dtmd",
        ],
    ),
    ("dtmd-tests", &["dtmd-failpoint", "dtmd-demo", "dtmd-local-servers"]),
    ("xtask", &[]),
];

/// What the pure core must not reach, through anything it uses.
const NOT_IN_PROTOCOL: &[&str] = &["tokio", "serde", "tracing", "log", "rand", "hyper"];

/// Compares the workspace with the table.
pub(crate) fn check(project: &Project) -> Result<()> {
    let members: BTreeMap<&str, &Value> = project
        .members()
        .into_iter()
        .filter_map(|package| Some((package["name"].as_str()?, package)))
        .collect();
    let mut faults = Vec::new();
    for (&name, package) in &members {
        let Some((_, allowed)) = LAYERS.iter().find(|(known, _)| *known == name) else {
            faults.push(format!("{name} has no line in xtask/src/layers.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(used) = dependency["name"].as_str() else { continue };
            if dependency["kind"] == "dev" {
                continue;
            }
            if members.contains_key(used) && !allowed.contains(&used) {
                faults.push(format!("{name} must not use {used}"));
            }
        }
    }
    for (name, _) in LAYERS {
        if !members.contains_key(name) {
            faults.push(format!("{name} is in xtask/src/layers.rs, but not in the workspace"));
        }
    }
    let reached = reached(project, "dtmd-protocol");
    for name in NOT_IN_PROTOCOL.iter().filter(|name| reached.contains(**name)) {
        faults.push(format!(
            "dtmd-protocol reaches {name}; `cargo tree -p dtmd-protocol -e normal -i {name}`"
        ));
    }
    if faults.is_empty() { Ok(()) } else { bail!(faults.join("\n")) }
}

/// Returns the names of everything `root` uses, directly or not, outside its tests.
fn reached<'a>(project: &'a Project, root: &str) -> BTreeSet<&'a str> {
    let names: BTreeMap<&str, &str> = project
        .packages()
        .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
        .collect();
    let nodes: BTreeMap<&str, &Value> = project.metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| Some((node["id"].as_str()?, node)))
        .collect();
    let mut open: Vec<&str> =
        names.iter().filter(|(_, name)| **name == root).map(|(id, _)| *id).collect();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    while let Some(id) = open.pop() {
        let uses = nodes.get(id).and_then(|node| node["deps"].as_array()).into_iter().flatten();
        for dependency in uses.filter(|dependency| is_normal(dependency)) {
            if let Some(next) = dependency["pkg"].as_str().filter(|next| seen.insert(next)) {
                open.push(next);
            }
        }
    }
    seen.into_iter().filter_map(|id| names.get(id).copied()).collect()
}

/// Returns whether a dependency is there outside of tests and build scripts.
fn is_normal(dependency: &Value) -> bool {
    let kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
    kinds.into_iter().any(|kind| kind["kind"].is_null())
}
