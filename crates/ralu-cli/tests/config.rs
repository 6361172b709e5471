//! The user's configuration: defaults of options.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::command::{MODEL, fails, json as json_of, on_adapter, ralu, stdout, succeeds};
use crate::picture::{bytes, folder, small};

/// A folder of configurations, in which ralu's says that.
fn configured(folder: &Path, text: &str) -> PathBuf {
    let home = folder.join("configurations");
    fs::create_dir_all(home.join("ralu")).expect("a folder");
    fs::write(home.join("ralu/config.toml"), text).expect("a file");
    home
}

#[cfg(target_os = "linux")]
#[test]
fn defaults_stand_behind_options() {
    let folder = folder();
    let text = format!(
        "# mine\nmodel = \"{MODEL}\"\nwidth = 96\nheight = 64\nralu = \"off\"\nsteps = 3\nno_tune = true\nquiet = false\n"
    );
    let home = configured(folder.path(), &text);
    let with = || {
        let mut command = ralu();
        command.env("XDG_CONFIG_HOME", &home);
        command
    };
    let planned = |options: &[&str]| {
        let plan = json_of(with().args(["plan", "--json"]).args(options));
        let steps = plan["stages"][0]["steps"].as_u64().expect("a number");
        [
            plan["width"].as_u64().expect("a number"),
            plan["height"].as_u64().expect("a number"),
            steps,
        ]
    };
    assert_eq!(planned(&[]), [96, 64, 3]);
    assert_eq!(planned(&["--width", "128"]), [128, 64, 3]);
    // What excludes a default silences it.
    assert_eq!(planned(&["--size", "64x96", "-s", "4"]), [64, 96, 4]);
    let own = planned(&["--no-config", "--model", MODEL]);
    assert!(own[0] != 96 && own[2] != 3, "{own:?}");

    let shown = stdout(&succeeds(with().arg("config")));
    for part in ["configurations/ralu/config.toml", "line 3   width = 96", "memory-budget"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    let shown = json_of(with().args(["config", "--json"]));
    assert_eq!((&shown["exists"], &shown["settings"]["no-tune"]), (&json!(true), &json!(true)));
    let shown = stdout(&succeeds(ralu().arg("config")));
    assert!(shown.contains("not there"), "{shown}");
}

/// A picture says what makes it again: the request is not the configuration's.
#[cfg(target_os = "linux")]
#[test]
fn a_picture_is_repeated_whatever_is_configured() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    succeeds(small("a fox", &path("a.png")).args(["--steps", "1"]));
    let home =
        configured(folder.path(), "width = 96\nsteps = 2\nguidance = 2\nmodel = \"nowhere\"\n");
    let mut again = on_adapter("generate");
    again.env("XDG_CONFIG_HOME", home).arg("--from").arg(path("a.png"));
    succeeds(again.arg("--model").arg(MODEL).arg("-o").arg(path("b.png")));
    assert!(bytes(&path("a.png")) == bytes(&path("b.png")));
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_wrong_is_named_with_its_line() {
    let folder = folder();
    let cases: [(&str, &[&str]); 8] = [
        ("# mine\n\nwidht = 96\n", &["line 3", "widht", "the name of an option"]),
        ("prompt = \"a fox\"\n", &["line 1", "prompt", "not known"]),
        ("width = 96\nheight = \"high\"\n", &["line 2", "--height", "whole number"]),
        ("width = 96\nwidth = 64\n", &["line 2", "duplicate key"]),
        ("no-tune = true\nno_tune = true\n", &["line 2", "twice"]),
        ("width = \n", &["line 1"]),
        ("[generate]\nwidth = 96\n", &["line 1", "generate", "not known"]),
        ("adapter = { name = 1 }\n", &["line 1", "expected a text"]),
    ];
    for (text, parts) in cases {
        let home = configured(folder.path(), text);
        for words in [&["generate", "a fox"][..], &["plan"], &["config"]] {
            let mut command = ralu();
            command.env("XDG_CONFIG_HOME", &home).args(words);
            fails(&mut command, 1, &[parts, &["config.toml", "--no-config"]].concat());
        }
        succeeds(ralu().env("XDG_CONFIG_HOME", &home).args(["config", "--no-config"]));
        // No default of these.
        succeeds(ralu().env("XDG_CONFIG_HOME", &home).args(["inspect", MODEL]));
    }
}
