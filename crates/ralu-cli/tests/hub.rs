//! Models by name, from the server of ralu-hub's tests: downloaded, listed, looked into, removed.

use std::path::Path;
use std::process::Command;

use crate::command::{MODEL, fails, json, ralu, stderr, stdout, succeeds};
use crate::hub_server::{COMMIT, Server};

/// Everything in a folder, as files of a repository.
fn files(repository: &str, folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{repository}/{}", path.file_name().unwrap().to_str().unwrap());
        match path.is_dir() {
            true => files(&name, &path, found),
            false => found.push((name, std::fs::read(&path).unwrap())),
        }
    }
}

#[test]
fn a_model_by_name() {
    let mut found = vec![("me/files/x.gguf".to_owned(), b"GGUF".to_vec())];
    files("Me/Flux", Path::new(MODEL), &mut found);
    let found: Vec<(&str, &[u8])> =
        found.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    let server = Server::start(&found);
    let cache = tempfile::tempdir().unwrap();
    let endpoint = server.settings(cache.path()).endpoint;
    let hub = |words: &[&str]| -> Command {
        let mut command = ralu();
        command.args(words).env("HF_HUB_CACHE", cache.path()).env("HF_ENDPOINT", &endpoint);
        command.env("HF_HUB_OFFLINE", "0").env_remove("HF_TOKEN").env("HF_HOME", cache.path());
        command
    };
    let listed = |command: &mut Command| json(command)["models"].as_array().unwrap().clone();

    let message = fails(&mut hub(&["inspect", "me/flux"]), 1, &["me/flux", "ralu pull me/flux"]);
    assert!(!message.contains("licence"), "{message}");
    assert_eq!(listed(&mut hub(&["list", "--json"])), [] as [serde_json::Value; 0]);
    assert!(stdout(&succeeds(&mut hub(&["list"]))).contains("flux.1-schnell"));

    let pulled = succeeds(&mut hub(&["pull", "me/flux"]));
    let folder = cache.path().join("models--Me--Flux/snapshots").join(COMMIT);
    assert_eq!(stdout(&pulled).trim_end(), folder.to_str().unwrap());
    let said = stderr(&pulled);
    for words in ["Me/Flux: ", "files, ", " to download", "--model me/flux"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    let again = stderr(&succeeds(&mut hub(&["pull", "me/flux"])));
    assert!(again.contains("all of it is in the cache"), "{again}");
    succeeds(&mut hub(&["pull", "--quiet", "me/files:x.gguf"]));

    // Nobody needs the hub to use what is here.
    let report = json(hub(&["inspect", "--json", "me/flux"]).env("HF_HUB_OFFLINE", "1"));
    assert_eq!((&report["supported"], &report["family"]), (&true.into(), &"flux".into()));
    let models = listed(&mut hub(&["list", "--json"]));
    assert_eq!(models.len(), 2, "{models:?}");
    assert_eq!(models[0]["folder"], folder.to_str().unwrap());
    assert_eq!(models[0]["complete"], true);
    assert_eq!(models[1]["files"], serde_json::json!(["x.gguf"]));
    assert!(stdout(&succeeds(&mut hub(&["list"]))).contains("me/files:x.gguf"));

    fails(&mut hub(&["rm", "me/flux"]), 1, &["me/flux", "--yes"]);
    fails(&mut hub(&["rm", "me/other", "--yes"]), 1, &["me/other", "not in the cache"]);
    assert!(folder.exists());
    succeeds(&mut hub(&["rm", "me/flux", "--yes"]));
    succeeds(&mut hub(&["rm", "me/files:x.gguf", "-y"]));
    assert_eq!(listed(&mut hub(&["list", "--json"])), [] as [serde_json::Value; 0]);
    fails(&mut hub(&["pull", "no model"]), 1, &["no model", "owner/repo:file"]);
    fails(hub(&["pull", "me/flux"]).env("HF_HUB_OFFLINE", "1"), 1, &["me/flux", "HF_HUB_OFFLINE"]);
}

/// A known model whose denoiser is taken from a file in another number format.
#[test]
fn a_model_by_name_and_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("denoiser.gguf");
    succeeds(ralu().arg("convert").arg(MODEL).arg(&path));
    let file = "city96/FLUX.1-dev-gguf/flux1-dev-Q4_K_S.gguf".to_owned();
    let mut found = vec![(file, std::fs::read(&path).unwrap())];
    files("black-forest-labs/FLUX.1-dev", Path::new(MODEL), &mut found);
    let found: Vec<(&str, &[u8])> =
        found.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    let server = Server::start(&found);
    let endpoint = server.settings(folder.path()).endpoint;
    let hub = |words: &[&str]| -> Command {
        let mut command = ralu();
        command.args(words).env("HF_HUB_CACHE", folder.path()).env("HF_ENDPOINT", &endpoint);
        command.env("HF_HUB_OFFLINE", "0").env_remove("HF_TOKEN").env("HF_HOME", folder.path());
        command
    };
    let name = "flux.1-dev:q4_k";
    fails(&mut hub(&["inspect", name]), 1, &["ralu pull flux.1-dev:q4_k"]);
    let said = stderr(&succeeds(&mut hub(&["pull", name])));
    assert!(said.contains("--model flux.1-dev:q4_k"), "{said}");
    let model = format!("models--black-forest-labs--FLUX.1-dev/snapshots/{COMMIT}/transformer");
    assert_eq!(
        std::fs::read_dir(folder.path().join(model)).unwrap().count(),
        1,
        "only config.json"
    );
    let report = json(&mut hub(&["inspect", "--json", name]));
    assert_eq!(report["supported"], true, "{report}");
    let file = report["parts"][0]["files"][0]["file"].as_str().unwrap();
    assert!(file.ends_with("flux1-dev-Q4_K_S.gguf"), "{report}");
    let plan = json(&mut hub(&["plan", "--json", "--steps=1", "--model", name]));
    assert!(plan["memory"]["denoiser_weights_bytes"].as_u64() > Some(0));
    fails(&mut hub(&["plan", "--model", "flux.1-dev:q9"]), 1, &["q9", "q8_0"]);
    assert!(stdout(&succeeds(&mut hub(&["list"]))).contains("q4_k"));
    // What is left is what any other format needs, too.
    succeeds(&mut hub(&["rm", name, "--yes"]));
    let models = json(&mut hub(&["list", "--json"]))["models"].clone();
    assert_eq!(models[0]["name"], "flux.1-dev", "{models}");
    assert_eq!(models[1], serde_json::Value::Null);
}
