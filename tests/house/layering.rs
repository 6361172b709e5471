//! Who may name whom, and what the library never does, read from the sources.
//!
//! The tables below are the rules; the rest of the file only reads. A new folder or a new dependency fails
//! here until it has a line.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

// ---- the rules -------------------------------------------------------------------------------

/// A folder or file of the library's `src`, or a package in `crates`.
struct Layer {
    name: &'static str,
    /// Folders of ours that it may name.
    may_use: &'static [&'static str],
    /// Outside crates that it may name, in addition to [`ANYWHERE`].
    crates: &'static [&'static str],
}

const EVERYTHING: &[&str] = &[
    "advice",
    "checkpoint",
    "escape",
    "names",
    "sync",
    "tensor",
    "text",
    "turns",
    "ops",
    "models",
    "sampling",
    "gpu",
    "pipeline",
    "workers",
];

const LAYERS: &[Layer] = &[
    Layer { name: "tensor", may_use: &["sync"], crates: &["serde", "strum"] },
    Layer { name: "ops", may_use: &["tensor"], crates: &[] },
    Layer {
        name: "checkpoint",
        may_use: &["advice", "escape", "sync", "tensor"],
        crates: &["serde", "serde_json"],
    },
    Layer {
        name: "text",
        may_use: &["advice", "checkpoint", "escape", "sync", "turns"],
        crates: &["fdeflate", "serde", "serde_json", "tokenizers"],
    },
    Layer {
        name: "models",
        // Presets and schedules are a family's facts.
        may_use: &[
            "advice",
            "checkpoint",
            "escape",
            "names",
            "ops",
            "sampling",
            "sync",
            "tensor",
            "text",
        ],
        crates: &["schemars", "serde", "serde_json"],
    },
    // Its parameters are what requests are written with.
    Layer { name: "sampling", may_use: &["names"], crates: &["schemars", "serde"] },
    Layer {
        name: "gpu",
        may_use: &["advice", "sync", "tensor", "turns"],
        crates: &["ash", "wgpu", "web_time"],
    },
    Layer {
        name: "pipeline",
        may_use: &[
            "advice",
            "checkpoint",
            "escape",
            "names",
            "sync",
            "tensor",
            "text",
            "turns",
            "ops",
            "models",
            "sampling",
            "gpu",
            "workers",
        ],
        crates: &[
            "async_lock",
            "crc32fast",
            "fdeflate",
            "png",
            "safetensors",
            "schemars",
            "serde",
            "serde_json",
            "strum",
            "web_time",
        ],
    },
    // What native faces share: below them, and outside of the library as they are.
    Layer {
        name: "ralu-host",
        // A module of its own has that name.
        may_use: &["models"],
        crates: &[
            "etcetera",
            "image",
            "pollster",
            "ralu",
            "rayon",
            "rustix",
            "serde_json",
            "sha2",
            "tempfile",
        ],
    },
    // The network, and models' files in a cache that other programs share.
    Layer {
        name: "ralu-hub",
        may_use: &["models"],
        crates: &["hf_hub", "ralu", "rustix", "serde", "serde_json", "sha2", "ureq"],
    },
    // Faces see the library from outside; what they need of it is decided by `pub`.
    Layer { name: "ralu-cli", may_use: &[], crates: FACE_CRATES },
    // What may help against an error: anyone's.
    Layer { name: "advice.rs", may_use: &[], crates: &[] },
    // Text from outside, made safe to show: anyone's.
    Layer { name: "escape.rs", may_use: &[], crates: &[] },
    // Names of choices and fields, as serde spells them: anyone's.
    Layer { name: "names.rs", may_use: &[], crates: &["serde"] },
    // Bounds and locks for threads: anyone's.
    Layer { name: "sync.rs", may_use: &[], crates: &[] },
    // Threads that a host lends.
    Layer { name: "workers.rs", may_use: &["sync"], crates: &[] },
    // When the library lets go of its thread.
    Layer {
        name: "turns.rs",
        may_use: &[],
        crates: &["web_time", "js_sys", "wasm_bindgen", "wasm_bindgen_futures", "web_sys"],
    },
    Layer { name: "lib.rs", may_use: EVERYTHING, crates: &[] },
];

/// Of the library, what a face may reach for.
const FACE_MAY_USE: &[&str] =
    &["advice", "checkpoint", "escape", "pipeline", "gpu", "models", "names", "sampling", "text"];
const FACES: &[&str] = &["ralu-cli"];
/// What the host kit may reach for: also the choice of kernels, which it keeps.
const HOST_MAY_USE: &[&str] =
    &["checkpoint", "escape", "gpu", "models", "pipeline", "sampling", "tensor", "text"];

/// Packages that nobody depends on.
const FACE_PACKAGES: &[&str] = &["ralu-cli", "ralu-viewer", "ralu-web"];

/// Crates that are no layer's own.
const ANYWHERE: &[&str] = &["bytemuck", "half", "libm", "thiserror", "tracing"];

/// The folders of single families of models, which name each other nowhere.
const FAMILIES: &[&str] = &["flux1", "sd3", "flux2"];

/// The modules of `pipeline` that need each other, from the lowest to the front, with the types that they are known by.
/// Each may name those before it, none may name one after it.
const PIPELINE_FLOORS: &[(&str, &[&str])] = &[
    ("model", &["Model", "ModelPart", "Parts", "check_widths"]),
    ("device", &["Device"]),
    ("residency", &["Residency", "NeedsEncoders"]),
    ("programs", &["Programs", "RunMemory", "RunRecordings", "ResidentPlanner"]),
    ("encoders", &["EncoderMemory"]),
    ("text_cache", &["TextCache", "TextKey", "Embedding"]),
    ("conditioning", &["Prompts", "Encoders", "Encoded"]),
    ("run_cache", &["RunCache", "ProgramsKey"]),
    ("context", &["RunContext"]),
    ("run", &["Run", "Prepared"]),
    ("pipeline", &["Pipeline"]),
];

/// Files that may name a family: the list of them, and the module that holds their folders.
const MAY_NAME_FAMILIES: &[&str] = &["src/models/family.rs", "src/models/mod.rs"];

const FACE_CRATES: &[&str] = &[
    "base64",
    "clap",
    "clap_complete",
    "clap_mangen",
    "ctrlc",
    "font8x8",
    "getrandom",
    "image",
    "indicatif",
    "libc",
    "pollster",
    "ralu",
    "ralu_host",
    "ralu_hub",
    "rustix",
    "serde",
    "serde_json",
    "signal_hook",
    "tempfile",
    "toml_edit",
    "tracing_subscriber",
];

/// What reads and writes PNGs.
const PNG_FILES: &[&str] = &[
    "src/pipeline/png_file/mod.rs",
    "src/pipeline/png_file/mask.rs",
    "src/pipeline/png_file/text.rs",
];

/// Crates that only these files may name.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("tokenizers", &["src/text/words.rs", "src/text/byte_pairs.rs", "src/text/pieces.rs"]),
    // So that the wasm build, which has no such file, has no such crate either.
    ("png", PNG_FILES),
    ("crc32fast", PNG_FILES),
    (
        "fdeflate",
        &[
            "src/pipeline/png_file/mod.rs",
            "src/pipeline/png_file/mask.rs",
            "src/pipeline/png_file/text.rs",
            "src/text/vocabularies.rs",
        ],
    ),
    // What wgpu does not tell of an adapter.
    ("ash", &["src/gpu/int8.rs", "src/gpu/memory.rs"]),
    ("js_sys", &["src/turns.rs"]),
    ("wasm_bindgen", &["src/turns.rs"]),
    ("wasm_bindgen_futures", &["src/turns.rs"]),
    ("web_sys", &["src/turns.rs"]),
];

/// Faces that measure single ops, and so reach for what programs do not need.
const OP_BENCHMARKS: &[&str] =
    &["crates/ralu-cli/src/bench/op.rs", "crates/ralu-cli/src/bench/ops.rs"];

/// What must not stand in a source.
struct Ban {
    text: &'static str,
    why: &'static str,
    /// Faces may.
    faces: bool,
    /// Files that may, with a reason in the line.
    except: &'static [&'static str],
}

const BANS: &[Ban] = &[
    Ban { text: "todo!", why: "nothing is left undone", faces: false, except: &[] },
    Ban { text: "unimplemented!", why: "nothing is left undone", faces: false, except: &[] },
    Ban { text: "dbg!", why: "it is for debugging", faces: false, except: &[] },
    Ban {
        text: "println!",
        why: "the library is silent: events, errors",
        faces: true,
        except: &[],
    },
    Ban {
        text: "eprintln!",
        why: "the library is silent: events, errors",
        faces: true,
        except: &[],
    },
    Ban {
        text: "std::thread",
        why: "the library neither spawns nor sleeps",
        faces: true,
        // The one thread there is polls the device while a future waits under an executor that does not. `block_on`,
        // which the library itself never calls, yields where the driver cannot wait. The host kit's engine is a thread.
        except: &[
            "src/gpu/poller.rs",
            "src/gpu/block_on.rs",
            "crates/ralu-host/src/engine/mod.rs",
            "crates/ralu-host/src/engine/worker.rs",
            // Waits before it asks the hub again.
            "crates/ralu-hub/src/remote.rs",
        ],
    },
    Ban { text: "std::process", why: "the library starts no programs", faces: true, except: &[] },
    Ban {
        text: "block_on(",
        why: "the library never blocks",
        faces: true,
        // The host kit is for native programs: it waits where it opens devices, takes over kept pipelines, and moves a
        // model to another device.
        except: &[
            "src/gpu/block_on.rs",
            "crates/ralu-host/src/device.rs",
            "crates/ralu-host/src/pipelines.rs",
            "crates/ralu-host/src/session.rs",
        ],
    },
    Ban { text: "env::var", why: "no variable changes results", faces: true, except: &[] },
    Ban { text: "option_env!", why: "no variable changes results", faces: true, except: &[] },
    Ban {
        text: "std::time::Instant",
        why: "it panics in a browser; web_time has one that does not",
        faces: true,
        except: &[],
    },
    Ban { text: "static mut", why: "there is no global state", faces: false, except: &[] },
    Ban { text: "thread_local!", why: "there is no global state", faces: false, except: &[] },
    Ban { text: "OnceLock", why: "there is no global state", faces: true, except: &[] },
    Ban { text: "LazyLock", why: "there is no global state", faces: true, except: &[] },
];

// ---- the tests -------------------------------------------------------------------------------

#[test]
fn folders_name_only_what_lies_below() {
    let folders: Vec<&str> = LAYERS.iter().map(|layer| layer.name).collect();
    for source in sources() {
        let layer = source.layer();
        for named in source.folders_named(&folders) {
            assert!(
                named == layer.name || layer.may_use.contains(&named),
                "{} names `{named}`; {} may use {:?}",
                source.path,
                layer.name,
                layer.may_use
            );
        }
        let may_use = match layer.name {
            "ralu-host" => HOST_MAY_USE,
            "ralu-hub" => &["escape", "gpu", "models"],
            name if FACES.contains(&name) => FACE_MAY_USE,
            _ => continue,
        };
        if !OP_BENCHMARKS.contains(&source.path.as_str()) {
            for named in after(&source.code, "ralu::") {
                // A type that `lib.rs` hands on is anyone's.
                let folder = folders.contains(&named.as_str());
                assert!(
                    !folder || may_use.contains(&named.as_str()),
                    "{} names `ralu::{named}`; {} may use {may_use:?}",
                    source.path,
                    layer.name
                );
            }
        }
    }
}

#[test]
fn crates_are_named_where_they_belong() {
    let dependencies = dependencies();
    for source in sources() {
        let layer = source.layer();
        // In the library itself that is a module of `sampling`.
        let others = dependencies.iter().filter(|name| *name != "ralu" || !source.is_of_library());
        for name in others.filter(|name| source.names_crate(name)) {
            let allowed =
                ANYWHERE.contains(&name.as_str()) || layer.crates.contains(&name.as_str());
            assert!(allowed, "{} names the crate `{name}`; {} may not", source.path, layer.name);
            for (owned, files) in ONLY_IN {
                assert!(
                    name != owned || files.contains(&source.path.as_str()),
                    "{} names the crate `{name}`; only {files:?} may",
                    source.path
                );
            }
        }
    }
}

/// To add a family is to add a folder and one line.
#[test]
fn families_are_named_in_their_folder_and_the_list() {
    for family in FAMILIES {
        let own = format!("src/models/{family}/");
        assert!(Path::new(&own).exists(), "{own} is in a rule and not there");
        let camel = family[..1].to_uppercase() + &family[1..];
        let base = camel.trim_end_matches(char::is_numeric);
        let mut names = vec![(*family).to_owned(), camel.clone(), format!("{camel}Config")];
        // A name without its number is the first family's that has it.
        let stem = |family: &str| family.trim_end_matches(char::is_numeric).to_owned();
        if FAMILIES.iter().find(|other| stem(other) == stem(family)) == Some(family) {
            names.extend([base.to_owned(), format!("{base}Config")]);
        }
        for source in sources() {
            if source.path.starts_with(&own) || MAY_NAME_FAMILIES.contains(&source.path.as_str()) {
                continue;
            }
            for (i, line) in source.code.lines().enumerate() {
                let line = without_texts(line);
                let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
                let named = words.find(|word| names.iter().any(|name| name == word));
                assert_eq!(named, None, "{}:{}: names the family {family}", source.path, i + 1);
            }
        }
    }
    let listed = std::fs::read_to_string("src/models/mod.rs").unwrap();
    for entry in fs::read_dir("src/models").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_family = path.join("network.rs").exists();
        assert_eq!(is_family, FAMILIES.contains(&name.as_str()), "{name}: give it a line here");
        assert!(!is_family || listed.contains(&format!("pub mod {name};")), "{name}");
    }
}

/// A part of the engine takes what it needs, not the whole: what is below can be read, tested and changed without what is
/// above it.
#[test]
fn floors_of_the_pipeline_name_only_those_below() {
    let sources = sources();
    for (i, (floor, _)) in PIPELINE_FLOORS.iter().enumerate() {
        let file = format!("src/pipeline/{floor}.rs");
        let folder = format!("src/pipeline/{floor}/");
        let own = |source: &&Source| source.path == file || source.path.starts_with(&folder);
        assert!(sources.iter().any(|s| own(&s)), "{file} is in a rule and not there");
        for source in sources.iter().filter(own) {
            for (above, types) in &PIPELINE_FLOORS[i + 1..] {
                let named = source.floor_named(above, types);
                assert_eq!(named, None, "{}: {floor} lies below {above}", source.path);
            }
        }
    }
}

#[test]
fn nobody_depends_on_a_face() {
    for (path, manifest) in manifests() {
        for name in dependencies_in(&manifest) {
            assert!(!FACE_PACKAGES.contains(&&*name), "{path} depends on {name}, which is a face");
        }
    }
}

#[test]
fn nothing_forbidden_stands_in_a_source() {
    for source in sources() {
        let face = FACES.contains(&source.layer().name);
        for ban in BANS {
            if (face && ban.faces) || ban.except.contains(&source.path.as_str()) {
                continue;
            }
            // `println!` must not be found in `eprintln!`.
            for (i, line) in source.code.lines().enumerate() {
                let found = line.match_indices(ban.text).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
                });
                assert!(!found, "{}:{}: `{}`: {}", source.path, i + 1, ban.text, ban.why);
            }
        }
    }
}

/// Options and commands are words of one face: the library gives [`Advice`](ralu::advice::Advice).
#[test]
fn the_library_speaks_no_command_line() {
    for source in sources().iter().filter(|source| !FACES.contains(&source.layer().name)) {
        for (i, line) in source.code.lines().enumerate() {
            let said = speaks_command_line(line);
            assert!(!said, "{}:{}: a word of the command line: {line}", source.path, i + 1);
        }
    }
}

/// Whether a line has an option, `--name`, or a command in backticks, `` `ralu name` ``.
fn speaks_command_line(line: &str) -> bool {
    let word_after = |text: &str| {
        line.match_indices(text).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + text.len()..].chars().next();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '-')
                && after.is_some_and(|c| c.is_ascii_lowercase())
        })
    };
    word_after("--") || word_after("`ralu ")
}

#[test]
fn every_folder_and_file_of_the_rules_is_known() {
    let names: BTreeSet<&str> = LAYERS.iter().map(|layer| layer.name).collect();
    for source in sources() {
        assert!(names.contains(source.layer_name()), "{}: no such layer", source.path);
    }
    let files = ONLY_IN.iter().flat_map(|(_, files)| *files);
    for path in files.chain(BANS.iter().flat_map(|ban| ban.except)) {
        // A folder that is not there yet breaks no rule; a file that moved within one does.
        let folder = Path::new(path).parent().unwrap();
        assert!(!folder.exists() || Path::new(path).exists(), "{path} is in a rule and not there");
    }
}

#[test]
fn rules_see_what_they_should() {
    let manifest = "[dependencies]\n# no = 1\na-b = \"1\"\n\n[package]\nname = \"x\"\n\n\
                    [target.'cfg(unix)'.dev-dependencies]\nc.workspace = true\n";
    assert_eq!(dependencies_in(manifest), ["a-b", "c"]);
    let source = |code: &str| Source { path: "src/models/x.rs".into(), code: strip(code) };
    let folders = ["gpu", "tensor", "ops"];
    let named = |code: &str| source(code).folders_named(&folders);
    assert_eq!(named("use crate::gpu::Gpu;"), ["gpu"]);
    assert_eq!(named("use crate::{ops::{self, linear}, tensor};"), ["ops", "tensor"]);
    assert_eq!(named("fn f(x: &super::super::gpu::Gpu) {}"), ["gpu"]);
    assert_eq!(named("//! See [`crate::gpu`].\nlet a = 1; // crate::gpu"), [""; 0]);
    assert_eq!(named("use crate::{\n    gpu,\n    tensor::Shape,\n};"), ["gpu", "tensor"]);
    let floor = |code: &str| source(code).floor_named("run", &["Run"]).is_some();
    assert!(floor("use super::run::Checkpoint;"));
    assert!(floor("use crate::pipeline::{Error, Run};"));
    assert!(!floor("use super::run_cache::RunCache; // Run\nlet a = \"Run\";"));
    assert!(source("use wgpu::Device;").names_crate("wgpu"));
    assert!(source("let d: &::wgpu::Device;").names_crate("wgpu"));
    assert!(source("use serde::Deserialize;").names_crate("serde"));
    assert!(!source("use serde_json::Value;").names_crate("serde"));
    assert!(!source("use crate::image::Picture;").names_crate("image"));
    assert!(!source("// wgpu::Device").names_crate("wgpu"));
    assert!(speaks_command_line(r#""make it smaller (--width, --height)""#));
    assert!(speaks_command_line(r#""`ralu devices` lists them""#));
    assert!(!speaks_command_line(r#""a picture that ralu made; 3 -- or 4 - -1""#));
}

// ---- reading ---------------------------------------------------------------------------------

struct Source {
    /// From the root of the repository, with `/`.
    path: String,
    /// Without comments; lines keep their numbers.
    code: String,
}

impl Source {
    fn layer_name(&self) -> &str {
        self.path.split('/').nth(1).unwrap_or("")
    }

    fn is_of_library(&self) -> bool {
        self.path.starts_with("src/")
    }

    fn layer(&self) -> &'static Layer {
        LAYERS.iter().find(|layer| layer.name == self.layer_name()).unwrap_or_else(|| {
            panic!("{}: give its folder a line in tests/house/layering.rs", self.path)
        })
    }

    /// Those of `folders` that follow `crate::` or `super::`.
    fn folders_named<'f>(&self, folders: &[&'f str]) -> Vec<&'f str> {
        let mut named: Vec<String> = after(&self.code, "crate::");
        named.extend(after(&self.code, "super::"));
        let mut found: Vec<&str> =
            folders.iter().filter(|f| named.iter().any(|n| n == *f)).copied().collect();
        found.sort_unstable();
        found
    }

    /// How a module of `pipeline` is named, if it is: as such, or by one of its types.
    fn floor_named(&self, module: &str, types: &[&str]) -> Option<String> {
        let paths = ["super::", "crate::pipeline::"];
        let mut modules = paths.iter().flat_map(|prefix| after(&self.code, prefix));
        modules.find(|named| named == module).or_else(|| {
            let code = self.code.lines().map(without_texts).collect::<Vec<_>>().join("\n");
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.find(|word| types.contains(word)).map(str::to_owned)
        })
    }

    fn names_crate(&self, name: &str) -> bool {
        let path = format!("{name}::");
        self.code.match_indices(&path).any(|(at, _)| {
            let before = &self.code[..at];
            let part_of_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
            // `crate::image::` is ours, `::image::` and `{image::` are not.
            let ours = before.ends_with("crate::")
                || before.ends_with("super::")
                || before.ends_with("self::");
            !part_of_word && !ours
        })
    }
}

/// A line of code without what stands in quotation marks.
fn without_texts(line: &str) -> String {
    line.split('"').step_by(2).collect::<Vec<_>>().join(" ")
}

/// The names that follow `prefix`: one, or those of a group in braces.
fn after(code: &str, prefix: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        names.push(word(group));
        let mut depth = 1;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => names.push(word(&group[i + 1..])),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

/// Takes comments out. Good enough for sources that rustfmt has seen: a comment starts a line or follows a
/// space, so the `//` of an address in a string stays.
fn strip(code: &str) -> String {
    let line = |line: &str| -> String {
        if line.trim_start().starts_with("//") {
            return String::new();
        }
        line.split(" // ").next().unwrap_or("").to_owned()
    };
    code.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Every `*.rs` of the library and of the packages in `crates`, without their tests.
fn sources() -> Vec<Source> {
    fn walk(folder: &Path, all: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder:?}: {e}")) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, all);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let code = fs::read_to_string(&path).unwrap();
                let path = path.to_string_lossy().replace('\\', "/");
                all.push(Source { path, code: strip(&code) });
            }
        }
    }
    let mut all = Vec::new();
    walk(Path::new("src"), &mut all);
    assert!(all.len() > 10, "the sources were not found");
    for package in packages() {
        walk(&package.join("src"), &mut all);
    }
    all
}

/// The folders in `crates`.
fn packages() -> Vec<PathBuf> {
    let entries = fs::read_dir("crates").unwrap();
    let packages: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(!packages.is_empty(), "the packages were not found");
    packages
}

/// Path and text of the manifests of the workspace's packages.
fn manifests() -> Vec<(String, String)> {
    let folders =
        ["", "examples/viewer", "examples/web", "examples/web/types", "fuzz"].map(PathBuf::from);
    let paths = folders.into_iter().chain(packages()).map(|folder| folder.join("Cargo.toml"));
    paths.map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap())).collect()
}

/// The names of all dependencies of the library and of the packages in `crates`, as code spells them.
fn dependencies() -> BTreeSet<String> {
    let read = |path: &Path| dependencies_in(&fs::read_to_string(path).unwrap());
    let mut names = read(Path::new("Cargo.toml"));
    for package in packages() {
        names.extend(read(&package.join("Cargo.toml")));
    }
    assert!(names.iter().any(|name| name == "wgpu"), "no dependencies were found");
    names.into_iter().map(|name| name.replace('-', "_")).collect()
}

/// The names of all dependencies in a manifest.
fn dependencies_in(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if inside
            && let Some((name, _)) = line.split_once([' ', '=', '.'])
            && !name.is_empty()
            && !name.starts_with('#')
        {
            names.push(name.to_owned());
        }
    }
    names
}
