//! Names and settings.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use ralu_hub::{Name, Settings};

#[test]
fn names_are_understood() {
    let parsed = |text: &str| {
        let name = Name::parse(text)?;
        Some((name.repository, name.file, name.known.map(|known| known.name)))
    };
    let flux = "black-forest-labs/FLUX.1-dev".to_owned();
    assert_eq!(parsed("flux.1-dev"), Some((flux.clone(), None, Some("flux.1-dev"))));
    assert_eq!(parsed("Black-Forest-Labs/flux.1-DEV"), Some((flux, None, Some("flux.1-dev"))));
    // The repository that is named, also where a model has two.
    let other = "stabilityai/stable-diffusion-3-medium".to_owned();
    assert_eq!(parsed(&other), Some((other.clone(), None, Some("sd3-medium"))));
    assert_eq!(
        parsed("sd3-medium"),
        Some((format!("{other}-diffusers"), None, Some("sd3-medium")))
    );
    let file = Some("sub/a-Q4_K_S.gguf".to_owned());
    assert_eq!(parsed("me/repo_1:sub/a-Q4_K_S.gguf"), Some(("me/repo_1".into(), file, None)));
    // The denoiser in another number format comes from elsewhere.
    let name = Name::parse("FLUX.1-dev:Q4_K").unwrap();
    assert_eq!((name.repository.as_str(), &name.file), ("black-forest-labs/FLUX.1-dev", &None));
    let denoiser = name.denoiser().unwrap();
    let parts = (denoiser.repository.as_str(), denoiser.file.as_deref());
    assert_eq!(parts, ("city96/FLUX.1-dev-gguf", Some("flux1-dev-Q4_K_S.gguf")));
    let name = Name::parse("flux.1-dev:q9").unwrap();
    assert!(name.denoiser().is_none() && name.file.as_deref() == Some("q9"));
    for text in [
        "",
        "flux",
        "a/b/c",
        "/a/b",
        "a/..",
        "../a",
        "a//b",
        "a/b c",
        "a/b:",
        "a/b:/etc/passwd",
        "a/b:../c",
        "a/b:c/../d",
        "a/b:c\\d",
        "a/b:c\u{1b}",
        "a--b/c",
        "a/.git",
        "C:\\models\\a",
        "./a/b",
        "~/a",
        "a/b:c:d",
    ] {
        assert_eq!(parsed(text), None, "{text:?}");
    }
}

#[test]
fn settings_are_those_of_huggingface_hub() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
    let of = |variables: &[(&str, &str)]| {
        let all: BTreeMap<&str, OsString> =
            variables.iter().map(|(name, value)| (*name, value.into())).collect();
        Settings::from_variables(|name| all.get(name).cloned())
    };
    let at = home.path().to_str().unwrap();
    let found =
        of(&[("HF_HOME", at), ("HF_ENDPOINT", "https://mirror.example/"), ("HF_HUB_OFFLINE", "0")]);
    assert_eq!(found.cache, home.path().join("hub"));
    assert_eq!(found.token.as_deref(), Some("hf_file"));
    assert_eq!((found.endpoint.as_str(), found.offline), ("https://mirror.example", false));
    let found = of(&[
        ("HF_HOME", at),
        ("HF_HUB_CACHE", "/x"),
        ("HF_TOKEN", " hf_own "),
        ("HF_HUB_OFFLINE", "1"),
    ]);
    assert_eq!(
        (found.cache, found.token.as_deref(), found.offline),
        ("/x".into(), Some("hf_own"), true)
    );
    let found = of(&[("XDG_CACHE_HOME", "/c"), ("HF_HOME", "")]);
    assert_eq!(found.cache, PathBuf::from("/c/huggingface/hub"));
    assert_eq!((found.endpoint.as_str(), found.token), ("https://huggingface.co", None));
    let path = home.path().join("token");
    let found = of(&[("HF_TOKEN_PATH", path.to_str().unwrap())]);
    assert!(found.cache.ends_with(".cache/huggingface/hub"), "{:?}", found.cache);
    assert_eq!(found.token.as_deref(), Some("hf_file"));
}
