//! No test is left out: cargo is told which programs there are, so a file that none of them names would never run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Packages with `autotests = false`.
const PACKAGES: [&str; 2] = [".", "crates/ralu-cli"];

/// Folders of `tests` that have other things than modules of test programs.
const OTHERS: [&str; 4] = ["browser", "dawn", "fixtures", "kit"];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Rust files under a folder.
fn sources(folder: &Path, all: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !OTHERS.contains(&name.as_str()) {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.insert(path);
        }
    }
}

/// A file and the files of its modules, with theirs.
fn modules(file: &Path, found: &mut BTreeSet<PathBuf>) {
    if !found.insert(file.to_owned()) {
        return;
    }
    let folder = file.parent().unwrap();
    let stem = file.file_stem().unwrap().to_string_lossy();
    // A program's own file is in the list of programs.
    let root = stem == "mod" || stem == "main" || folder.ends_with("tests") || stem == "browser";
    let inner = if root { folder.to_owned() } else { folder.join(&*stem) };
    let mut given = None;
    for line in read(file).lines() {
        let line = line.trim();
        if let Some(path) = line.strip_prefix("#[path = \"") {
            given = Some(path.trim_end_matches("\"]").to_owned());
        } else if let Some(name) = line
            .trim_start_matches("pub ")
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        {
            let file = inner.join(format!("{name}.rs"));
            let path = match given.take() {
                Some(path) => normal(&folder.join(path)),
                None if file.exists() => file,
                None => inner.join(name).join("mod.rs"),
            };
            modules(&path, found);
        }
    }
}

/// Without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

#[test]
fn every_file_is_part_of_a_program() {
    for package in PACKAGES {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join(package);
        let package = normal(&package.components().collect::<PathBuf>());
        let manifest = read(&package.join("Cargo.toml"));
        assert!(manifest.contains("\nautotests = false\n"), "{}", package.display());
        let programs = manifest
            .lines()
            .filter_map(|line| line.strip_prefix("path = \"tests/")?.strip_suffix('"'));
        let mut found = BTreeSet::new();
        for program in programs {
            modules(&package.join("tests").join(program), &mut found);
        }
        let mut all = BTreeSet::new();
        sources(&package.join("tests"), &mut all);
        assert!(all.len() > 10, "{}: {} files", package.display(), all.len());
        let left: Vec<_> = all.difference(&found).collect();
        assert!(left.is_empty(), "make these modules of tests/main.rs or of a mod.rs: {left:#?}");
    }
}
