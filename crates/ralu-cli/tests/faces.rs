//! Every face has every field of a request: the command line, the web package's types, the page, the viewer.
//!
//! The fields are those that serde knows of [`Request`]; a new one fails here until each face has it, or a row below says
//! why not.

use std::collections::BTreeSet;

use crate::command::{ralu, root, stdout, succeeds};
use ralu::Request;
use ralu::names;
use ralu::sampling::{CustomStages, RuleOverrides};

/// Fields that are no part of a request's description, because they only mean something inside of one process.
const IN_PROCESS: [&str; 6] =
    ["given", "estimates", "keep_first_stage", "first_stage", "resume", "profile"];

/// Where a face has a field that it does not spell as others do.
enum Spelled {
    /// Where these words stand.
    As(&'static str),
    /// Nowhere, for this reason.
    Not(&'static str),
}
use Spelled::{As, Not};

struct Face {
    name: &'static str,
    /// What it shows, or its source.
    text: fn() -> String,
    /// Whether that has a field under its own name.
    has: fn(&str, &str) -> bool,
    /// Fields that it has otherwise.
    rows: &'static [(&'static str, Spelled)],
}

const STAGES: &str = "numbers of single stages are for programs and the command line";

const FACES: [Face; 4] = [
    Face {
        name: "the command line",
        text: || stdout(&succeeds(ralu().args(["generate", "--help"]))),
        has: |help, field| help.contains(&format!("--{} <", last(field).replace('_', "-"))),
        rows: &[
            ("prompt", As("[PROMPT]")),
            ("variant", As("--ralu-variant <")),
            ("mask", As("--regions <")),
            ("stage_pictures", As("--stages <")),
            ("tensors", As("--save-tensors <")),
        ],
    },
    Face {
        name: "the types of the web package",
        text: || source("examples/web/package/ralu.d.ts"),
        has: |types, field| {
            let name = names::camel(last(field));
            let request = types.split_once("interface GenerateRequest").expect("the request").1;
            let request = request.split_once("\n}").expect("its end").0;
            request.contains(&format!(" {name}?: ")) || request.contains(&format!(" {name}: "))
        },
        rows: &[],
    },
    Face {
        name: "the page",
        text: || source("examples/web/page/index.html") + &source("examples/web/page/page.js"),
        has: |page, field| page.contains(&format!("name=\"{}\"", names::camel(last(field)))),
        rows: &[
            ("width", As("name=\"size\"")),
            ("height", As("name=\"size\"")),
            ("mask", As("mask: paintedMask()")),
            ("count", Not("it draws one picture at a time")),
            ("stage_pictures", As("stagePictures: true")),
            ("tensors", Not("it has no use for them")),
            ("ralu.stage_steps", Not(STAGES)),
            ("ralu.stage_ends", Not(STAGES)),
            ("ralu.up_ratio", Not(STAGES)),
            ("ralu.stage_shifts", Not(STAGES)),
            ("ralu.stage_z", Not(STAGES)),
        ],
    },
    Face {
        name: "the viewer",
        text: || {
            source("examples/viewer/src/form.rs")
                + &source("examples/viewer/src/controls.rs")
                + &source("examples/viewer/src/controls/sampling.rs")
        },
        // The form makes it part of a request, and a control shows it.
        has: |source, field| {
            let whole = field.split('.').next().unwrap_or(field);
            let shown = ["form", "rules"].iter().any(|owner| {
                let places = format!("{owner}.{}", last(field));
                source.match_indices(&places).any(|(at, found)| {
                    !source[at + found.len()..]
                        .starts_with(|c: char| c.is_alphanumeric() || c == '_')
                })
            });
            let set = [" = ", " =\n"].map(|sign| format!("request.{whole}{sign}"));
            set.iter().any(|set| source.contains(set)) && shown
        },
        rows: &[
            (
                "width",
                As("(request.width, request.height) = (Some(self.width), Some(self.height))"),
            ),
            ("height", As("side(&mut app.form.height)")),
            ("mask", As("painted.mask(self.replace_regions)")),
            ("count", Not("it draws one picture at a time")),
            ("stage_pictures", Not("it shows an estimate after every step")),
            ("tensors", Not("it has no use for them")),
            ("ralu.stage_steps", Not(STAGES)),
            ("ralu.stage_ends", Not(STAGES)),
            ("ralu.up_ratio", Not(STAGES)),
            ("ralu.stage_shifts", Not(STAGES)),
            ("ralu.stage_z", Not(STAGES)),
        ],
    },
];

/// The part of a field's path that names it.
fn last(field: &str) -> &str {
    field.rsplit('.').next().unwrap_or(field)
}

fn source(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Paths of all fields of a request: rules, and numbers of stages, one by one.
fn fields() -> Vec<String> {
    let inside = |of: &str, fields: &[&str]| -> Vec<String> {
        fields.iter().map(|field| format!("{of}.{field}")).collect()
    };
    // Older names of these are read, too.
    let stages: Vec<&str> = names::of_fields::<CustomStages>().to_vec();
    let stages: Vec<&str> =
        stages.into_iter().filter(|name| !["shifts", "z"].contains(name)).collect();
    let mut fields: Vec<String> =
        names::of_fields::<Request>().iter().map(|field| (*field).to_owned()).collect();
    fields.retain(|field| field != "rules");
    fields.extend(inside("rules", names::of_fields::<RuleOverrides>()));
    fields.extend(inside("ralu", &stages));
    fields
}

#[test]
fn every_face_has_every_field() {
    let fields = fields();
    assert!(
        fields.len() > 20 && fields.iter().any(|field| field == "rules.rope_mode"),
        "{fields:?}"
    );
    for Face { name, text, has, rows } in FACES {
        let text = text();
        for field in &fields {
            let found = match rows.iter().find(|(row, _)| row == field) {
                None => has(&text, field),
                Some((_, As(words))) => text.contains(words),
                Some((_, Not(why))) => {
                    assert!(!has(&text, field), "{name} has {field}; a row says it has not: {why}");
                    true
                }
            };
            assert!(found, "{name} has not the field {field} of a request");
        }
        for (row, _) in rows {
            assert!(fields.iter().any(|field| field == row), "{name}: there is no field {row}");
        }
        assert!(!has(&text, "no_such_field"), "{name}");
    }
}

/// What serde skips is in no face's list.
#[test]
fn nothing_but_what_is_listed_is_left_out_of_the_description() {
    let shown = format!("{:#?}", Request::default());
    let fields = shown.lines().filter_map(|line| line.strip_prefix("    "));
    let fields = fields.filter(|line| !line.starts_with([' ', '}', ')']));
    let fields: BTreeSet<&str> = fields.filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let described: BTreeSet<&str> = names::of_fields::<Request>().iter().copied().collect();
    let renamed = fields.iter().map(|field| match *field {
        "collect_tensors" => "tensors",
        field => field,
    });
    let left_out: BTreeSet<&str> = renamed.filter(|field| !described.contains(field)).collect();
    assert_eq!(left_out, BTreeSet::from(IN_PROCESS));
}
