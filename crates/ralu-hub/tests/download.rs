//! Downloads: what is fetched, where it goes, what is checked, and every way to fail.

use std::path::Path;

use ralu_hub::{Hub, HubError, Name, Progress, Settings, Snapshot};

use crate::server::{COMMIT, Seen, Server, sha256};

const REPO: &str = "Me/Model";

fn large(seed: u8) -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8 ^ seed).collect()
}

/// A repository with a diffusers model, and much that ralu does not read.
fn model() -> Server {
    let index = br#"{"_class_name": "FluxPipeline", "scheduler": ["diffusers", "S"],
        "text_encoder": ["transformers", "C"], "tokenizer": ["transformers", "T"], "transformer": ["diffusers", "F"],
        "vae": ["diffusers", "A"], "image_encoder": [null, null], "requires_safety_checker": [true, false]}"#;
    let (a, b, vae) = (large(1), large(2), large(3));
    let file = |path: &'static str, bytes: &'static [u8]| (path, bytes.to_vec());
    let files = [
        ("model_index.json", index.to_vec()),
        file("README.md", b"about"),
        ("flux1-dev.safetensors", large(4)),
        file("scheduler/scheduler_config.json", b"{}"),
        file("text_encoder/config.json", b"{\"t\": 1}"),
        ("text_encoder/model.safetensors", vae.clone()),
        ("text_encoder/model.fp16.safetensors", large(5)),
        ("text_encoder/pytorch_model.bin", large(6)),
        file("tokenizer/vocab.json", b"{\"a\": 1}"),
        file("tokenizer/merges.txt", b"#version"),
        file("tokenizer/spiece.model", b"spiece"),
        file("transformer/config.json", b"{\"f\": 1}"),
        file("transformer/diffusion_pytorch_model.safetensors.index.json", b"{\"i\": 1}"),
        ("transformer/diffusion_pytorch_model-00001-of-00002.safetensors", a),
        ("transformer/diffusion_pytorch_model-00002-of-00002.safetensors", b),
        file("vae/config.json", b"{\"v\": 1}"),
        // The same bytes twice in a repository are one blob.
        ("vae/diffusion_pytorch_model.safetensors", vae),
        ("image_encoder/model.safetensors", large(7)),
    ];
    let files: Vec<(String, Vec<u8>)> =
        files.into_iter().map(|(path, bytes)| (format!("{REPO}/{path}"), bytes)).collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    Server::start(&files)
}

fn pull(settings: Settings, name: &str) -> Result<(Snapshot, Vec<Progress>), HubError> {
    let hub = Hub::new(settings);
    let name = Name::parse(name).unwrap();
    let mut seen = vec![];
    let download = hub.plan(&name, &mut |progress| seen.push(progress))?;
    let snapshot = hub.download(&download, &mut |progress| seen.push(progress))?;
    Ok((snapshot, seen))
}

#[track_caller]
fn fails(settings: Settings, name: &str, words: &[&str]) -> HubError {
    let error = pull(settings, name).expect_err("an error");
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
    assert!(!message.contains(['\u{1b}', '\n']), "{message}");
    error
}

fn waits(seen: &[Progress]) -> usize {
    seen.iter().filter(|one| matches!(one, Progress::Waiting { .. })).count()
}

#[test]
fn a_model_is_fetched_once_and_found_again() {
    let (server, cache) = (model(), tempfile::tempdir().unwrap());
    let settings = server.settings(cache.path());
    // The hub answers in its own spelling, which the cache has.
    let (snapshot, _) = pull(settings.clone(), "me/model").unwrap();
    assert_eq!((snapshot.repository.as_str(), snapshot.commit.as_str()), (REPO, COMMIT));
    let repo = cache.path().join("models--Me--Model");
    assert_eq!(snapshot.folder, repo.join("snapshots").join(COMMIT));
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);

    let mut found = vec![];
    files(&snapshot.folder, &snapshot.folder, &mut found);
    found.sort();
    let expected = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ];
    assert_eq!(found, expected);
    let state = server.state.lock().unwrap();
    for path in expected {
        let bytes = std::fs::read(snapshot.folder.join(path)).unwrap();
        assert!(bytes == state.files[&format!("{REPO}/{path}")], "{path}");
        #[cfg(unix)]
        {
            let link = std::fs::read_link(snapshot.folder.join(path)).unwrap();
            assert!(link.is_relative(), "{link:?}");
        }
    }
    drop(state);
    assert!(repo.join("blobs").join(sha256(&large(3))).is_file());
    let asked = server.files_asked();
    assert_eq!(asked.iter().filter(|seen| seen.host.starts_with("127.")).count(), 11, "{asked:?}");

    // Again: only the API is asked, and without a network not even that.
    let (again, _) = pull(settings.clone(), REPO).unwrap();
    assert_eq!((again, server.files_asked()), (snapshot.clone(), vec![]));
    let offline = Settings { offline: true, ..settings };
    let name = Name::parse("me/MODEL").unwrap();
    assert_eq!(Hub::new(offline.clone()).cached(&name), Some(snapshot));
    fails(offline, REPO, &["Me/Model", "HF_HUB_OFFLINE"]);
}

fn files(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(root, &path, found),
            false => {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"))
            }
        }
    }
}

#[test]
fn a_token_goes_to_the_hub_and_nowhere_else() {
    let (server, cache) = (model(), tempfile::tempdir().unwrap());
    server.change(|state| state.token = Some(("secret".into(), 401, "GatedRepo")));
    let settings = Settings { token: Some("secret".into()), ..server.settings(cache.path()) };
    pull(settings, &format!("{REPO}:flux1-dev.safetensors")).unwrap();
    let asked = server.files_asked();
    let of = |host: &str| -> Vec<&Seen> {
        asked.iter().filter(|seen| seen.host.starts_with(host)).collect()
    };
    let (own, other) = (of("127."), of("localhost"));
    assert!(own.len() == 1 && own[0].token, "{asked:?}");
    assert!(other.len() == 1 && !other[0].token, "{asked:?}");
}

#[test]
fn broken_transfers_go_on() {
    let (server, cache) = (model(), tempfile::tempdir().unwrap());
    let settings = server.settings(cache.path());
    let one = format!("{REPO}:flux1-dev.safetensors");
    let file =
        cache.path().join(format!("models--Me--Model/snapshots/{COMMIT}/flux1-dev.safetensors"));
    // As often as it gets further, it is patient; then the program is stopped, here by a transfer without a byte.
    server.change(|state| state.break_after = vec![100_000, 50_000, 30_000, 10_000, 0, 0, 0]);
    fails(settings.clone(), &one, &["flux1-dev.safetensors", "190000 of 300000 bytes", "kept"]);
    assert!(!file.exists());
    let ranges: Vec<Option<String>> = server
        .files_asked()
        .into_iter()
        .filter(|seen| seen.host.starts_with("localhost"))
        .map(|seen| seen.range)
        .collect();
    let expected = [None, Some(100_000), Some(150_000), Some(180_000)];
    let expected = expected.map(|start: Option<u32>| start.map(|start| format!("bytes={start}-")));
    assert_eq!(ranges[..4], expected);

    // Another run takes it from there, and the whole is checked.
    let (_, seen) = pull(settings.clone(), &one).unwrap();
    let had = seen.iter().find_map(|one| match one {
        Progress::File { path, had, bytes: 300_000 } if path == "flux1-dev.safetensors" => {
            Some(*had)
        }
        _ => None,
    });
    assert_eq!(had, Some(190_000));
    let arrived: u64 =
        seen.iter().map(|one| if let Progress::Bytes(n) = one { *n } else { 0 }).sum();
    assert_eq!(arrived, 110_000);
    assert!(std::fs::read(&file).unwrap() == large(4));

    // A server that knows no ranges sends everything again.
    std::fs::remove_dir_all(cache.path()).unwrap();
    server.change(|state| {
        state.no_ranges = true;
        state.break_after = vec![70_000];
    });
    let (_, seen) = pull(settings, &one).unwrap();
    assert!(seen.iter().any(|one| matches!(one, Progress::Lost(70_000))), "{seen:?}");
    assert!(std::fs::read(&file).unwrap() == large(4));
}

#[test]
fn what_is_not_what_the_hub_has_is_removed() {
    let (server, cache) = (model(), tempfile::tempdir().unwrap());
    let settings = server.settings(cache.path());
    let one = format!("{REPO}:flux1-dev.safetensors");
    server.change(|state| state.damage = true);
    fails(
        settings.clone(),
        &one,
        &["flux1-dev.safetensors", "SHA-256", &sha256(&large(4)), "removed"],
    );
    server.change(|state| state.damage = false);
    // So is a part of something else, once it is found out.
    let blobs = cache.path().join("models--Me--Model/blobs");
    assert_eq!(std::fs::read_dir(&blobs).unwrap().count(), 0);
    std::fs::write(blobs.join(format!("{}.incomplete", sha256(&large(4)))), [7; 1000]).unwrap();
    fails(settings.clone(), &one, &["SHA-256", "removed"]);
    pull(settings.clone(), &one).unwrap();
    // More bytes than the hub says are not waited for.
    std::fs::remove_dir_all(cache.path()).unwrap();
    server.change(|state| {
        let info = r#"{"id": "Me/Model", "sha": "COMMIT", "siblings": [{"rfilename": "flux1-dev.safetensors", "size": 9, "blobId": "aaaaaaaaaa"}]}"#;
        state.info = Some(info.replace("COMMIT", COMMIT));
    });
    fails(settings, &one, &["flux1-dev.safetensors", "more than the 9 bytes"]);
}

#[test]
fn a_busy_hub_is_asked_again() {
    let (server, cache) = (model(), tempfile::tempdir().unwrap());
    let settings = server.settings(cache.path());
    let one = format!("{REPO}:README.md");
    server.change(|state| state.refuse = vec![(429, Some(0)), (503, None)]);
    let (_, seen) = pull(settings.clone(), &one).unwrap();
    assert_eq!(waits(&seen), 2, "{seen:?}");
    let throttled = seen.iter().any(
        |one| matches!(one, Progress::Waiting { throttled: true, wait, .. } if wait.is_zero()),
    );
    assert!(throttled, "{seen:?}");
    std::fs::remove_dir_all(cache.path()).unwrap();
    server.change(|state| state.refuse = vec![(429, Some(0)); 3]);
    fails(settings.clone(), &one, &["too many requests", "3 tries", "try again later"]);
    // What another try does not change is not tried again.
    server.files_asked();
    server.change(|state| state.refuse = vec![(418, None)]);
    fails(settings, &one, &["status 418"]);
    assert_eq!(server.files_asked().len(), 1);
}

#[test]
fn repositories_that_are_not_given() {
    let (server, cache) = (model(), tempfile::tempdir().unwrap());
    let settings = server.settings(cache.path());
    let with_token = Settings { token: Some("mine".into()), ..settings.clone() };
    for (status, code, with_token, words) in [
        (401, "GatedRepo", None, ["licence has to be accepted", "hf auth login"]),
        (
            403,
            "GatedRepo",
            Some(&with_token),
            ["licence has to be accepted", "has not accepted it"],
        ),
        (401, "RepoNotFound", None, ["not there, or private", "log in"]),
        (404, "RepoNotFound", Some(&with_token), ["not there, or private", "for the token"]),
        (401, "", Some(&with_token), ["refuses the token", "expired"]),
        (401, "", None, ["licence has to be accepted", "HF_TOKEN"]),
    ] {
        server.change(|state| state.token = Some(("another".into(), status, code)));
        let settings = with_token.unwrap_or(&settings);
        fails(settings.clone(), REPO, &[&[REPO][..], &words].concat());
        let gated = words[0].starts_with("licence");
        if gated {
            fails(settings.clone(), REPO, &[&format!("{}/{REPO}", settings.endpoint)]);
        }
    }
    server.change(|state| state.token = None);
    fails(settings.clone(), "me/other", &["me/other", "not there, or private"]);
    fails(
        settings,
        &format!("{REPO}:flux1-dev.gguf"),
        &["no file flux1-dev.gguf", "it has flux1-dev.safetensors"],
    );
}

#[test]
fn repositories_without_a_model() {
    let cache = tempfile::tempdir().unwrap();
    let bytes = large(1);
    let server = Server::start(&[
        ("a/gguf/flux1-dev-Q4_K_S.gguf", &bytes),
        ("a/gguf/README.md", b"x"),
        ("a/wan/model_index.json", br#"{"_class_name": "Wan\u001bPipeline"}"#),
        (
            "a/part/model_index.json",
            br#"{"_class_name": "FluxPipeline", "vae": ["diffusers", "A"]}"#,
        ),
        ("a/no-json/model_index.json", b"<html>"),
    ]);
    let settings = server.settings(cache.path());
    fails(
        settings.clone(),
        "a/gguf",
        &["a/gguf", "model_index.json", "a/gguf:FILE", "flux1-dev-Q4_K_S.gguf"],
    );
    fails(settings.clone(), "a/wan", &["a/wan", "Pipeline", "supported are", "FluxPipeline"]);
    fails(settings.clone(), "a/part", &["a/part", "lacks", "vae"]);
    fails(settings.clone(), "a/no-json", &["a/no-json", "cannot be used"]);
    let (snapshot, _) = pull(settings, "a/gguf:flux1-dev-Q4_K_S.gguf").unwrap();
    assert!(std::fs::read(snapshot.folder.join("flux1-dev-Q4_K_S.gguf")).unwrap() == bytes);
}

#[test]
fn answers_that_would_write_elsewhere() {
    let (server, cache) = (model(), tempfile::tempdir().unwrap());
    let settings = server.settings(cache.path());
    let good = format!(
        r#"{{"id": "Me/Model", "sha": "{COMMIT}", "siblings": [{{"rfilename": "README.md", "size": 5, "blobId": "aaaaaaaaaa"}}]}}"#
    );
    for (from, to) in [
        ("Me/Model", "../up"),
        ("Me/Model", "a/../../b"),
        (COMMIT, "../../../../tmp"),
        (COMMIT, ""),
        ("README.md", "../../../../evil"),
        ("README.md", "/etc/evil"),
        ("README.md", "a\\\\..\\\\b"),
        ("README.md", "C:evil"),
        ("aaaaaaaaaa", "../../evil"),
        ("aaaaaaaaaa", ""),
        ("\"siblings\"", "\"other\""),
        ("{", "<html>"),
    ] {
        server.change(|state| state.info = Some(good.replacen(from, to, 1)));
        let error = fails(settings.clone(), &format!("{REPO}:README.md"), &[]);
        assert!(
            matches!(error, HubError::Answer { .. } | HubError::FileName { .. }),
            "{to}: {error}"
        );
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 0, "{to}");
    }
    server.change(|state| state.info = Some(" ".repeat(17 << 20)));
    fails(settings, REPO, &["more than 16777216 bytes"]);
}

#[test]
fn a_network_that_is_not_there() {
    let cache = tempfile::tempdir().unwrap();
    let settings = Server::start(&[]).settings(cache.path());
    // A port that nobody listens at.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for endpoint in [
        format!("http://127.0.0.1:{port}"),
        "http://no-such-host.invalid".into(),
        "no address".into(),
    ] {
        let settings = Settings { endpoint: endpoint.clone(), ..settings.clone() };
        fails(settings, REPO, &[&endpoint, "cannot be reached", "HTTPS_PROXY", "HF_HUB_OFFLINE"]);
    }
}

#[cfg(unix)]
#[test]
fn disks_and_other_programs() {
    let (server, cache) = (model(), tempfile::tempdir().unwrap());
    let settings = server.settings(cache.path());
    // A model that no disk takes.
    server.change(|state| {
        let info = r#"{"id": "Me/Model", "sha": "COMMIT", "siblings": [{"rfilename": "a.gguf", "size": 1, "lfs": {"sha256": "aaaaaaaaaa", "size": 9000000000000000000}}]}"#;
        state.info = Some(info.replace("COMMIT", COMMIT));
    });
    fails(settings.clone(), &format!("{REPO}:a.gguf"), &["are needed", "are free", "HF_HOME"]);
    server.change(|state| state.info = None);
    // Another program writes the same file.
    let blobs = cache.path().join("models--Me--Model/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let part =
        std::fs::File::create(blobs.join(format!("{}.incomplete", sha256(&large(4))))).unwrap();
    rustix::fs::flock(&part, rustix::fs::FlockOperation::LockExclusive).unwrap();
    fails(settings, &format!("{REPO}:flux1-dev.safetensors"), &["another program is downloading"]);
    // A folder that cannot be made: a file is in its place.
    let file = cache.path().join("file");
    std::fs::write(&file, "x").unwrap();
    fails(server.settings(&file), REPO, &["file", "cannot make the folder"]);
}
