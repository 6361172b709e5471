//! What somebody has on disk in place of a diffusers folder, and what to do about it.

use super::ConfigError;
use super::fields::{shortened, shown};
use crate::checkpoint::json;
use crate::checkpoint::source::{Source, unfinished_download};

/// The error for a configuration file that is not there.
pub(super) fn missing(source: &dyn Source, path: &str) -> ConfigError {
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    let found = source.list("").unwrap_or_default();
    let hint = match (unfinished_download(source, dir), path) {
        (Some(file), _) => {
            format!("; {file} is an unfinished download: fetch this part of the model again")
        }
        (None, "model_index.json") => {
            whole_model(source, &found).map(|hint| format!("; {hint}")).unwrap_or_default()
        }
        _ => String::new(),
    };
    let found = if found.is_empty() { "nothing".into() } else { found.join(", ") };
    ConfigError::MissingFile { path: shown(source, path), found: shortened(&found), hint }
}

/// What a folder without `model_index.json` is; `found` is what lies in it.
fn whole_model(source: &dyn Source, found: &[String]) -> Option<String> {
    let has = |name: &str| found.iter().any(|file| file == name);
    let ending = |ends: &[&str]| {
        found.iter().find(|file| ends.iter().any(|end| file.to_ascii_lowercase().ends_with(end)))
    };
    if let Some(snapshot) = snapshot(source) {
        return Some(format!(
            "this is the root of a model in the Hugging Face cache; give its snapshot folder, {}",
            shown(source, &snapshot)
        ));
    }
    if has("snapshots") || has("blobs") && has("refs") {
        return Some(
            "this is the root of a model in the Hugging Face cache, but no snapshot in it has a model_index.json: the \
             download is not complete, or is of a repository that is no diffusers model"
                .into(),
        );
    }
    let inner = found.iter().take(MAX_LOOKED_INTO);
    if let Some(inner) =
        inner.clone().find(|name| source.exists(&format!("{name}/model_index.json")))
    {
        return Some(format!("give the folder inside it, {}", shown(source, inner)));
    }
    if let Some(cached) = found.iter().find(|name| name.starts_with("models--")) {
        let cached = format!("{cached}/snapshots");
        return Some(format!(
            "this is the Hugging Face cache; give a model's snapshot folder, such as the one in {}",
            shown(source, &cached)
        ));
    }
    if has("modular_model_index.json") {
        return Some(
            "this is a modular pipeline, which is not supported; get the plain one".into(),
        );
    }
    if has("pytorch_lora_weights.safetensors") || has("adapter_config.json") {
        return Some("this folder has LoRA weights, not a model".into());
    }
    if has("config.json") || has("scheduler_config.json") || has("tokenizer_config.json") {
        let class = class_in(source).map(|class| format!(" ({class})")).unwrap_or_default();
        return Some(format!(
            "this is one part of a model{class}; give the folder above it, which holds model_index.json"
        ));
    }
    if let Some(file) = ending(&[".gguf"]) {
        return Some(format!("{file} (GGUF) may be a model's file: give it instead of the folder"));
    }
    if has("comfyui")
        || has("ComfyUI")
        || has("diffusion_models")
        || has("checkpoints")
        || has("unet")
    {
        return Some(
            "this is a folder of ComfyUI or another program that keeps models in single files; give the model's file".into(),
        );
    }
    if let Some(file) = ending(&[".safetensors", ".sft"]) {
        return Some(format!("{file} may be a model's file: give it instead of the folder"));
    }
    if let Some(file) = ending(&[".ckpt", ".pt", ".pth", ".bin"]) {
        return Some(format!(
            "{file} is a pickled checkpoint, which is not read; get the model as safetensors, as GGUF, or as a diffusers \
             folder"
        ));
    }
    if let Some(file) =
        ending(&[".onnx", ".engine", ".mlmodelc", ".mlpackage", "openvino_model.xml"])
    {
        return Some(format!(
            "{file} is of another program's format, which is not read; get the model as a diffusers folder"
        ));
    }
    let parts = ["transformer", "vae", "text_encoder", "scheduler", "tokenizer"];
    parts.iter().any(|part| has(part)).then(|| {
        "the folders of a diffusers model are here, but the download is not complete; fetch model_index.json as well"
            .into()
    })
}

/// Folders that are looked into for a model.
const MAX_LOOKED_INTO: usize = 100;

/// Where the model lies in a root folder of the Hugging Face cache: the snapshot that `refs/main` names, else any that
/// has a model.
fn snapshot(source: &dyn Source) -> Option<String> {
    let is_model = |path: &String| source.exists(&format!("{path}/model_index.json"));
    let named = source.text("refs/main").ok().flatten();
    let named = named.map(|hash| format!("snapshots/{}", hash.trim()));
    let listed = source.list("snapshots").unwrap_or_default();
    let listed = listed.into_iter().take(MAX_LOOKED_INTO).map(|hash| format!("snapshots/{hash}"));
    named.into_iter().chain(listed).find(is_model)
}

/// The class that a part's own `config.json` names.
fn class_in(source: &dyn Source) -> Option<String> {
    let text = source.text("config.json").ok()??;
    let wanted = ["_class_name", "architectures"];
    let fields = json::fields(&text, |name| wanted.contains(&name)).ok()?;
    let class = fields.get("_class_name").and_then(|class| json::value::<String>(class));
    let classes = || json::list::<String>(fields.get("architectures")?, 8)?.into_iter().next();
    class.or_else(classes).map(|class| shortened(&class))
}
