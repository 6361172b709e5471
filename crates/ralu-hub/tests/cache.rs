//! What lies in the cache: listed, and removed.

use std::path::{Path, PathBuf};

use ralu_hub::{Hub, Name, Settings};

const OLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const NEW: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const INDEX: &[u8] = br#"{"_class_name": "FluxPipeline"}"#;

fn hub(cache: &Path) -> Hub {
    Hub::new(Settings {
        cache: cache.to_owned(),
        offline: true,
        ..Settings::from_variables(|_| None)
    })
}

/// Adds a file to a snapshot, as `huggingface_hub` does.
#[cfg(unix)]
fn add(cache: &Path, repo: &str, commit: &str, file: &str, blob: &str, bytes: &[u8]) {
    let repo = cache.join(format!("models--{}", repo.replace('/', "--")));
    let path = repo.join("snapshots").join(commit).join(file);
    for folder in [repo.join("blobs"), repo.join("refs"), path.parent().unwrap().into()] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(repo.join("blobs").join(blob), bytes).unwrap();
    std::fs::write(repo.join("refs/main"), commit).unwrap();
    let up: PathBuf = file.split('/').map(|_| "..").collect();
    std::os::unix::fs::symlink(up.join("..").join("blobs").join(blob), path).unwrap();
}

#[cfg(unix)]
#[test]
fn models_are_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path();
    let flux = "black-forest-labs/FLUX.1-dev";
    add(cache, flux, OLD, "model_index.json", "index", INDEX);
    add(cache, flux, OLD, "vae/a.safetensors", "old", &[0; 1000]);
    add(cache, flux, NEW, "model_index.json", "index", INDEX);
    add(cache, flux, NEW, "vae/a.safetensors", "new", &[0; 2000]);
    // The same bytes under two names count once.
    add(cache, flux, NEW, "vae/b.safetensors", "new", &[0; 2000]);
    add(cache, "me/files", NEW, "x-Q4_0.gguf", "q4", &[0; 10]);
    add(cache, "me/files", NEW, "y-Q8_0.gguf", "q8", &[0; 20]);
    // Nothing of ours.
    add(cache, "llm/words", NEW, "config.json", "c", b"{}");
    add(cache, "llm/words", NEW, "model.safetensors", "m", &[0; 30]);
    add(cache, "wan/video", NEW, "model_index.json", "i", br#"{"_class_name": "WanPipeline"}"#);
    std::fs::create_dir_all(cache.join("datasets--a--b")).unwrap();
    std::fs::create_dir_all(cache.join("models--no-refs--b/snapshots")).unwrap();

    let hub = hub(cache);
    let models = hub.models();
    let names: Vec<&str> = models.iter().map(|model| model.snapshot.repository.as_str()).collect();
    assert_eq!(names, [flux, "me/files"]);
    assert_eq!(models[0].known, Some("flux.1-dev"));
    assert_eq!(models[0].snapshot.commit, NEW);
    assert_eq!(models[0].bytes, 2000 + INDEX.len() as u64);
    assert!(models[0].is_folder && !models[0].is_partial && models[0].files.is_empty());
    assert_eq!(
        (models[1].bytes, models[1].files.as_slice()),
        (30, &["x-Q4_0.gguf".into(), "y-Q8_0.gguf".into()][..])
    );

    // A link without a blob, and a part of one.
    std::fs::write(cache.join("models--me--files/blobs/q9.incomplete"), [0; 5]).unwrap();
    let blob = cache.join("models--black-forest-labs--FLUX.1-dev/blobs/new");
    std::fs::rename(&blob, cache.join("aside")).unwrap();
    assert!(hub.models().iter().all(|model| model.is_partial));
    std::fs::rename(cache.join("aside"), &blob).unwrap();

    // What the older snapshot needs, stays.
    let removal = hub.removal(&Name::parse("flux.1-dev").unwrap()).unwrap();
    assert!((2000..3000).contains(&removal.bytes), "{removal:?}");
    hub.remove(&removal).unwrap();
    let repo = cache.join("models--black-forest-labs--FLUX.1-dev");
    assert!(!repo.join("blobs/new").exists() && repo.join("blobs/index").exists());
    for file in ["model_index.json", "vae/a.safetensors"] {
        assert!(repo.join("snapshots").join(OLD).join(file).is_file(), "{file}");
    }
    assert_eq!(hub.cached(&Name::parse("flux.1-dev").unwrap()), None);

    // One file of two, then the last one with everything.
    let one = Name::parse("me/files:x-Q4_0.gguf").unwrap();
    assert!(hub.cached(&one).is_some());
    hub.remove(&hub.removal(&one).unwrap()).unwrap();
    let files = cache.join("models--me--files");
    assert!(!files.join("blobs/q4").exists() && files.join("blobs/q8").exists());
    assert!(hub.cached(&one).is_none() && hub.removal(&one).is_none());
    let removal = hub.removal(&Name::parse("me/files:y-Q8_0.gguf").unwrap()).unwrap();
    hub.remove(&removal).unwrap();
    assert!(!files.exists());
    assert!(hub.removal(&Name::parse("me/files").unwrap()).is_none());
}

/// A link that leads out of the repository's blobs is removed, what it leads to is not.
#[cfg(unix)]
#[test]
fn nothing_outside_of_the_cache_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let precious = folder.path().join("precious");
    std::fs::write(&precious, "x").unwrap();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    std::fs::write(folder.path().join("folder/file"), "x").unwrap();
    for commit in [OLD, NEW] {
        add(&cache, "me/model", commit, "model_index.json", commit, INDEX);
        let snapshot = cache.join("models--me--model/snapshots").join(commit);
        std::os::unix::fs::symlink(&precious, snapshot.join("link")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("folder"), snapshot.join("folder")).unwrap();
    }
    let hub = hub(&cache);
    for _ in 0..2 {
        if let Some(removal) = hub.removal(&Name::parse("me/model").unwrap()) {
            hub.remove(&removal).unwrap();
        }
        std::fs::write(cache.join("models--me--model/refs/main"), OLD).ok();
    }
    assert!(!cache.join("models--me--model").exists());
    assert!(precious.is_file() && folder.path().join("folder/file").is_file());
}
