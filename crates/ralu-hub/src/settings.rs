//! Where the hub and its cache are: the environment variables that `huggingface_hub` documents.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Where the hub and its cache are, and how long to be patient.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder with the cached repositories.
    pub cache: PathBuf,
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// What the hub knows the user by.
    pub token: Option<String>,
    /// Whether the network is left alone.
    pub offline: bool,
    /// Tries of a request or transfer that get no further, before it fails.
    pub tries: u32,
    /// Waiting time before the second try; doubled for each further one.
    pub wait: Duration,
}

impl Settings {
    /// From the variables that `variable` gives: `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_ENDPOINT`, `HF_TOKEN`,
    /// `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`. What is empty counts as not set. Without a token the file that `hf auth login`
    /// writes is read.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .map(|home| hf_hub::Cache::new(home.join("hub")))
            .or_else(|| {
                let user = std::env::home_dir()?;
                Some(hf_hub::Cache::new(user.join(".cache").join("huggingface").join("hub")))
            })
            .unwrap_or_else(|| hf_hub::Cache::new("huggingface/hub".into()));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .unwrap_or_else(|| home.path().clone());
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| match path("HF_TOKEN_PATH") {
                Some(path) => std::fs::read_to_string(path).ok(),
                None => home.token(),
            })
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let off = ["0", "false", "no", "off"];
        let offline = text("HF_HUB_OFFLINE")
            .is_some_and(|value| !off.contains(&value.to_ascii_lowercase().as_str()));
        Settings {
            cache,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            offline,
            tries: 5,
            wait: Duration::from_secs(1),
        }
    }
}
