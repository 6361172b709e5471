//! The lines of `--events json` are those that the host kit's table says.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{root, run, stderr};
use crate::picture::{RALU, folder, small};
use serde_json::Value;

/// The rows of the table: an event and its fields.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let path = root().join("crates/ralu-host/src/events.rs");
    let source = std::fs::read_to_string(path).expect("a source");
    let rows = source.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let fields = |row: &str| {
        // What a field is stands in brackets.
        let mut depth = 0;
        let outside: String = row
            .chars()
            .filter(|c| {
                depth += i32::from(*c == '(') - i32::from(*c == ')');
                depth == 0
            })
            .collect();
        outside.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let rows = rows.filter_map(|row| row.split_once("` | "));
    rows.filter(|(name, _)| *name != "event")
        .map(|(name, rest)| (name.to_owned(), fields(rest)))
        .collect()
}

#[test]
fn lines_have_the_fields_of_the_table() {
    let table = table();
    assert!(table.len() > 10 && table["step"].contains("sigma"), "{table:?}");
    let folder = folder();
    let mut command = small("a fox", &folder.path().join("a.png"));
    command.args(RALU).args(["--events", "json", "--quiet"]);
    // Steps have no effect under RALU: a warning.
    command.args(["--steps", "3"]).arg("--stages").arg(folder.path());
    let output = run(&mut command);
    assert!(output.status.success(), "{}", stderr(&output));
    let mut told = BTreeSet::new();
    for line in String::from_utf8(output.stdout).expect("a text").lines() {
        let value: Value = serde_json::from_str(line).expect("an object");
        let fields = value.as_object().expect("an object");
        let name = fields["event"].as_str().expect("a name");
        let found: BTreeSet<String> =
            fields.keys().filter(|field| *field != "event").cloned().collect();
        assert_eq!(Some(&found), table.get(name), "{line}");
        // The name comes first, the rest in the alphabet's order.
        let places = fields.keys().map(|field| line.find(&format!("\"{field}\":")));
        let mut places: Vec<_> = places.collect();
        let first = fields.keys().position(|field| field == "event").expect("a name");
        assert_eq!(places.remove(first), Some(1), "{line}");
        assert!(places.is_sorted(), "{line}");
        told.insert(name.to_owned());
    }
    // These need a first run on an adapter, a failure, files of changes, and several requests.
    let others = ["error", "lora", "request", "tuned", "tuning"].map(str::to_owned);
    let all: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(&told | &others.into(), all);
}
