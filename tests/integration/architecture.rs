//! What the manual's architecture chapter says of the repository as a whole.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use tests::{Package, packages, root, sources};

/// Who uses whom. Nothing else.
const USES: [(&str, &[&str]); 10] = [
    ("host", &[]),
    ("crypto", &[]),
    ("catalogue", &["crypto", "host"]),
    ("iam", &[]),
    ("nbd", &[]),
    ("keyring", &["crypto", "iam"]),
    ("volume", &["crypto", "iam", "keyring"]),
    ("s3", &["crypto", "iam", "keyring"]),
    ("api", &["iam", "keyring", "volume"]),
    (
        "gateway",
        &["api", "crypto", "iam", "keyring", "nbd", "s3", "volume"],
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
    let found = ours();
    let names: BTreeSet<&str> = found.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(
        names,
        USES.iter().map(|(name, _)| *name).collect(),
        "a crate came or went: say here whom it may use"
    );
    for package in &found {
        let may = USES
            .iter()
            .find(|(name, _)| *name == package.name)
            .unwrap()
            .1;
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
}

#[test]
fn protocol_crates_know_nothing_of_http_servers_and_stores_nothing_of_protocols() {
    for (package, never) in [
        ("crypto", ["tokio", "hyper", "http", "rusqlite"].as_slice()),
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
    const MAY: [&str; 13] = [
        "MIT",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "MPL-2.0",
        "Zlib",
        "0BSD",
        "Unlicense",
        "CC0-1.0",
        "Unicode-3.0",
        "BSL-1.0",
    ];
    /// True if one alternative of the expression has only licences from the list.
    fn may(expression: &str) -> bool {
        let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
        expression
            .split(" OR ")
            .any(|all| all.split(" AND ").all(|one| MAY.contains(&one.trim())))
    }
    for package in packages().unwrap().iter().filter(|p| p.source.is_some()) {
        let license = package.license.as_deref().unwrap_or_default();
        assert!(may(license), "{} is under {license:?}", package.name);
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
    let formats: Vec<_> = ["crypto", "keyring", "s3", "volume"]
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
