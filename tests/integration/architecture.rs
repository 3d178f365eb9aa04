//! What the manual's architecture chapter says of the repository as a whole.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use serde::Deserialize;
use tests::modules::circles;
use tests::{Package, packages, root, sources};

/// Who may use whom, each crate after those that it uses; nothing else, and no crate that is not here. Crates that do
/// not exist yet are here already, so that what is built meanwhile leaves room for them.
const USES: [(&str, &[&str]); 18] = [
    ("host", &[]),
    ("crypto", &[]),
    ("iam", &[]),
    ("nbd", &[]),
    ("root", &["host", "crypto"]),
    ("catalogue", &["host", "crypto"]),
    ("audit", &["host", "crypto", "iam"]),
    ("jobs", &["host", "crypto", "root", "catalogue", "iam"]),
    ("parts", &["host", "crypto", "root", "catalogue"]),
    ("outbound", &["iam", "host"]),
    (
        "keyring",
        &[
            "root",
            "catalogue",
            "audit",
            "jobs",
            "iam",
            "crypto",
            "host",
        ],
    ),
    (
        "directory",
        &["root", "catalogue", "audit", "iam", "crypto", "host"],
    ),
    ("objects", &["host", "crypto", "outbound"]),
    (
        "volume",
        &[
            "keyring",
            "root",
            "catalogue",
            "jobs",
            "audit",
            "iam",
            "crypto",
            "host",
        ],
    ),
    (
        "s3",
        &[
            "objects",
            "keyring",
            "root",
            "catalogue",
            "jobs",
            "audit",
            "iam",
            "crypto",
            "host",
        ],
    ),
    (
        "secrets",
        &[
            "keyring",
            "root",
            "catalogue",
            "jobs",
            "audit",
            "iam",
            "crypto",
            "host",
        ],
    ),
    ("api", &["keyring", "directory", "volume", "secrets", "iam"]),
    (
        "gateway",
        &[
            "host",
            "crypto",
            "iam",
            "nbd",
            "root",
            "catalogue",
            "audit",
            "jobs",
            "parts",
            "outbound",
            "keyring",
            "directory",
            "objects",
            "volume",
            "s3",
            "secrets",
            "api",
        ],
    ),
];

fn ours() -> Vec<Package> {
    let crates = root().join("crates");
    packages()
        .unwrap()
        .into_iter()
        .filter(|p| p.manifest_path.starts_with(&crates))
        .collect()
}

#[test]
fn crates_use_only_those_they_may() {
    for package in ours() {
        let Some((_, may)) = USES.iter().find(|(name, _)| *name == package.name) else {
            panic!("{} is a new crate: say here whom it may use", package.name);
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| d.path.is_some() && d.kind.is_none())
        {
            assert!(
                may.contains(&dependency.name.as_str()),
                "{} uses {}",
                package.name,
                dependency.name
            );
        }
    }
    for (at, (name, uses)) in USES.iter().enumerate() {
        for used in *uses {
            assert!(
                USES[..at].iter().any(|(earlier, _)| earlier == used),
                "{name} may use {used}, which does not stand before it"
            );
        }
    }
}

#[test]
fn no_files_of_a_crate_use_one_another_in_a_circle() {
    let mut wrong = String::new();
    for package in ours() {
        let src = package.manifest_path.parent().unwrap().join("src");
        for circle in circles(&src).unwrap() {
            wrong += &format!("{}: {circle}", package.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn protocol_crates_know_nothing_of_http_servers_and_stores_nothing_of_protocols() {
    for (package, never) in [
        ("crypto", ["tokio", "hyper", "http", "rusqlite"].as_slice()),
        ("root", &["hyper", "http", "rusqlite"]),
        ("iam", &["tokio", "hyper", "rusqlite", "reqwest"]),
        ("keyring", &["hyper", "http", "s3s"]),
        ("volume", &["hyper", "http", "s3s", "quick-xml"]),
        ("nbd", &["hyper", "http", "s3s", "rusqlite"]),
    ] {
        let package = ours().into_iter().find(|p| p.name == package).unwrap();
        for dependency in package.dependencies.iter().filter(|d| d.kind.is_none()) {
            assert!(
                !never.contains(&dependency.name.as_str()),
                "{} uses {}",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn iam_knows_no_http_codes() {
    for file in sources(&root().join("crates/iam/src")).unwrap() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("StatusCode"), "{}", file.display());
    }
}

#[test]
fn unsafe_code_is_forbidden_or_in_a_module_that_allows_it_openly() {
    for package in ours() {
        let src = package.manifest_path.parent().unwrap().join("src");
        let top = ["lib.rs", "main.rs"]
            .map(|f| src.join(f))
            .into_iter()
            .find(|f| f.exists())
            .unwrap();
        let text = fs::read_to_string(&top).unwrap();
        let forbids = text.contains("#![forbid(unsafe_code)]");
        assert!(
            forbids || text.contains("#![deny(unsafe_code)]"),
            "{} neither forbids nor denies unsafe code",
            package.name
        );
        let mut allowed = 0;
        for file in sources(&src).unwrap() {
            let text = fs::read_to_string(&file).unwrap();
            allowed += usize::from(text.contains("allow(unsafe_code)"));
            let blocks = text
                .lines()
                .filter(|l| l.contains("unsafe {") || l.trim_start().starts_with("unsafe impl"))
                .count();
            let reasons = text.matches("SAFETY:").count();
            assert!(
                blocks <= reasons,
                "{}: {blocks} unsafe blocks, {reasons} reasons",
                file.display()
            );
        }
        assert!(!forbids || allowed == 0);
    }
}

#[test]
fn every_dependency_has_a_licence_we_may_ship() {
    /// True if one alternative of the expression has only licences from the list.
    fn may(expression: &str, allowed: &[String]) -> bool {
        let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
        expression.split(" OR ").any(|all| {
            all.split(" AND ").all(|one| {
                // "+" is "this version or, at our choice, a later one" (SPDX, annex D).
                let one = one.trim().trim_end_matches('+');
                allowed.iter().any(|allowed| allowed == one)
            })
        })
    }
    let allowed = deny().licenses.allow;
    for package in packages().unwrap().iter().filter(|p| p.source.is_some()) {
        let license = package.license.as_deref().unwrap_or_default();
        assert!(
            may(license, &allowed),
            "{} is under {license:?}",
            package.name
        );
    }
}

/// What this file reads of `deny.toml`, so that it and `cargo deny` cannot differ.
#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    /// Who may use it all the same.
    #[serde(default)]
    wrappers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

fn deny() -> Deny {
    toml::from_str(&fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

/// A package of a lock file.
#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

fn lock(file: &str) -> Vec<Locked> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    toml::from_str::<Lock>(&text).unwrap().package
}

#[test]
fn banned_packages_come_in_for_their_wrappers_alone_and_never_into_what_is_shipped() {
    let bans = deny().bans.deny;
    assert!(!bans.is_empty());
    for file in ["Cargo.lock", "tests/fuzz/Cargo.lock"] {
        for package in lock(file) {
            for dependency in &package.dependencies {
                // "name" or "name version"
                let name = dependency.split(' ').next().unwrap();
                for ban in bans.iter().filter(|ban| ban.name == name) {
                    assert!(
                        ban.wrappers.contains(&package.name),
                        "{file}: {} uses {name}",
                        package.name
                    );
                }
            }
        }
    }
    for package in ours() {
        for dependency in package.dependencies.iter().filter(|d| d.kind.is_none()) {
            assert!(
                bans.iter().all(|ban| ban.name != dependency.name),
                "{} ships {}",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn packages_come_from_the_registries_that_are_allowed() {
    let allowed = deny().sources.allow_registry;
    for file in ["Cargo.lock", "tests/fuzz/Cargo.lock"] {
        for package in lock(file) {
            let Some(source) = package.source else {
                continue;
            };
            assert!(
                allowed
                    .iter()
                    .any(|registry| source == format!("registry+{registry}")),
                "{file}: {} is from {source}",
                package.name
            );
        }
    }
}

#[test]
fn fuzz_targets_are_built_from_the_versions_that_the_binary_has() {
    let workspace: BTreeSet<_> = lock("Cargo.lock")
        .into_iter()
        .map(|package| (package.name, package.version))
        .collect();
    for package in lock("tests/fuzz/Cargo.lock") {
        // The fuzz package and what it alone needs.
        if ["fuzz", "libfuzzer-sys", "arbitrary"].contains(&package.name.as_str()) {
            continue;
        }
        assert!(
            workspace.contains(&(package.name.clone(), package.version.clone())),
            "tests/fuzz/Cargo.lock has {} {}: see tests/fuzz/run",
            package.name,
            package.version
        );
    }
}

#[test]
fn modules_are_named_after_their_subject() {
    for package in ours() {
        for file in sources(&package.manifest_path.parent().unwrap().join("src")).unwrap() {
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(
                !["common", "util", "utils", "types", "helpers", "misc"].contains(&name.as_str()),
                "{}",
                file.display()
            );
        }
    }
}

#[test]
fn every_test_is_run() {
    for directory in ["crates", "tests/integration", "tests/src", "benches"] {
        for file in sources(&root().join(directory)).unwrap() {
            // Written in two pieces, so that this file passes its own test.
            let ignored = concat!("#[", "ignore");
            let text = fs::read_to_string(&file).unwrap();
            assert!(
                !text.contains(ignored),
                "{} has a test that nobody runs",
                file.display()
            );
        }
    }
}

#[test]
fn a_format_is_written_down_beside_its_codec() {
    let formats: Vec<_> = ["crypto", "keyring", "root", "s3", "volume"]
        .into_iter()
        .filter(|name| {
            let mut open = vec![root().join("crates").join(name)];
            while let Some(directory) = open.pop() {
                for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                    if entry.path().is_dir() {
                        open.push(entry.path());
                    } else if entry.file_name() == "FORMAT.md" {
                        return false;
                    }
                }
            }
            true
        })
        .collect();
    assert!(formats.is_empty(), "no FORMAT.md in {formats:?}");
}
