//! Misuse that must not compile does not compile, and for the reason it should.
//!
//! rustdoc runs the `compile_fail` examples too, but a stable one takes any error for the
//! right one: a renamed type would keep them "failing". Here each is given to the compiler
//! alone and must give the very error code beside its fence.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use tests::{root, sources};

/// One `compile_fail` example.
struct Example {
    /// File and line of its fence.
    at: String,
    /// The error it must give.
    code: String,
    text: String,
}

fn examples() -> Vec<Example> {
    let mut found = Vec::new();
    for file in sources(&root().join("crates")).unwrap() {
        let text = fs::read_to_string(&file).unwrap();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let Some(code) = comment(line).and_then(|line| line.strip_prefix("```compile_fail,"))
            else {
                assert!(
                    !(line.contains("```") && line.contains("compile_fail")),
                    "{}:{}: which error?",
                    file.display(),
                    number + 1
                );
                continue;
            };
            let body: Vec<&str> = lines
                .by_ref()
                .map_while(|(_, line)| comment(line))
                .take_while(|line| *line != "```")
                .map(|line| line.strip_prefix("# ").unwrap_or(line))
                .collect();
            found.push(Example {
                at: format!("{}:{}", file.display(), number + 1),
                code: code.to_owned(),
                text: body.join("\n"),
            });
        }
    }
    found
}

/// A line of documentation without its slashes.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let text = line
        .strip_prefix("///")
        .or_else(|| line.strip_prefix("//!"))?;
    Some(text.strip_prefix(' ').unwrap_or(text))
}

/// Where cargo put the libraries that this test was built beside.
fn built() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().to_path_buf()
}

/// The newest library of one of our crates.
fn library(name: &str) -> Option<PathBuf> {
    let files = fs::read_dir(built()).unwrap().map(|file| file.unwrap());
    let prefix = format!("lib{name}-");
    files
        .filter(|file| {
            let file = file.file_name();
            let file = file.to_string_lossy();
            file.starts_with(&prefix) && file.ends_with(".rlib")
        })
        .max_by_key(|file| file.metadata().unwrap().modified().unwrap())
        .map(|file| file.path())
}

/// The error codes `rustc` gives for a program that uses our crates.
fn errors(program: &str, room: &Path) -> BTreeSet<String> {
    #[derive(Deserialize)]
    struct Message {
        level: String,
        message: String,
        code: Option<Code>,
    }
    #[derive(Deserialize)]
    struct Code {
        code: String,
    }
    let source = room.join("example.rs");
    fs::write(&source, format!("fn main() {{\n{program}\n}}\n")).unwrap();
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--edition=2024", "--emit=metadata", "--error-format=json"])
        .arg("--out-dir")
        .arg(room)
        .arg("-L")
        .arg(format!("dependency={}", built().display()));
    for name in ["crypto", "iam", "keyring", "volume", "nbd", "s3", "api"] {
        if program.contains(&format!("{name}::")) {
            let library = library(name).unwrap_or_else(|| panic!("{name} is not built"));
            rustc
                .arg("--extern")
                .arg(format!("{name}={}", library.display()));
        }
    }
    let output = rustc.arg(&source).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let errors: BTreeSet<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Message>(line).unwrap())
        .filter(|message| message.level == "error")
        // "aborting due to 1 previous error" has none.
        .filter_map(|message| match message.code {
            Some(code) => Some(code.code),
            None if message.message.starts_with("aborting due to") => None,
            None => Some(message.message),
        })
        .collect();
    // A compiler that was killed says nothing.
    assert_eq!(output.status.success(), errors.is_empty(), "{text}");
    errors
}

#[test]
fn every_misuse_in_the_documentation_gives_the_error_it_names_and_no_other() {
    let room = tempfile::tempdir().unwrap();
    let examples = examples();
    for example in &examples {
        assert_eq!(
            errors(&example.text, room.path()),
            BTreeSet::from([example.code.clone()]),
            "{}",
            example.at
        );
    }
    assert!(examples.len() >= 15, "only {} are left", examples.len());
}

#[test]
fn right_use_compiles() {
    let room = tempfile::tempdir().unwrap();
    let right = "use crypto::chunk::{Algorithm, ChunkSealer, ObjectKey, StreamAad};\n\
                 fn seal(key: &ObjectKey, place: StreamAad) {\n\
                     let (key, _) = key.part_key(&crypto::random::SystemRandom);\n\
                     ChunkSealer::new(Algorithm::Aes256Gcm, key, place);\n\
                 }";
    assert_eq!(errors(right, room.path()), BTreeSet::new());
}
