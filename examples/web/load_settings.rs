//! How a model is opened, as JavaScript writes it.

use ralu::gpu::{AdapterChoice, AdapterPreference, LimitsPolicy};
use ralu::models::adapters::Lora;
use ralu::models::files::{ModelPaths, Role};
use ralu::models::layers::Precision;
use ralu::models::quantise::Quantise;
use ralu::pipeline::{MemoryBudget, Options};
use serde::Deserialize;
use wasm_bindgen::JsValue;

use crate::error::js_error;
use crate::model::What;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LimitsField {
    #[default]
    Adapter,
    WebGpu,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PreferenceField {
    #[default]
    HighPerformance,
    LowPower,
}

/// `LoadOptions.adapter` in `package/ralu.d.ts`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdapterFields {
    #[serde(default)]
    preference: PreferenceField,
    #[serde(default)]
    limits: LimitsField,
}

/// What a page says of a model that it opens: `LoadOptions` in `package/ralu.d.ts`, without what its script takes itself.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadSettings {
    #[serde(default)]
    precision: Precision,
    quantize: Option<Quantise>,
    #[serde(default)]
    memory_budget: MemoryBudget,
    #[serde(default)]
    adapter: AdapterFields,
    files: Option<FilesFields>,
    /// Files that are what they are; not used together with `files`.
    list: Option<Vec<String>>,
}

/// `ModelFiles` in `package/ralu.d.ts`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FilesFields {
    #[serde(default)]
    model: String,
    diffusion_model: Option<String>,
    clip_l: Option<String>,
    clip_g: Option<String>,
    t5xxl: Option<String>,
    vae: Option<String>,
    clip_tokenizer: Option<String>,
    t5_tokenizer: Option<String>,
    #[serde(default)]
    no_t5: bool,
    #[serde(default)]
    loras: Vec<Lora>,
}

impl FilesFields {
    fn paths(self) -> ModelPaths {
        ModelPaths::default().with(|paths| {
            paths.model = self.model;
            paths.diffusion_model = self.diffusion_model;
            let parts = [
                (Role::ClipL, self.clip_l),
                (Role::ClipG, self.clip_g),
                (Role::T5, self.t5xxl),
                (Role::Vae, self.vae),
            ];
            paths.parts =
                parts.into_iter().filter_map(|(role, path)| Some((role, path?))).collect();
            paths.clip_tokenizer = self.clip_tokenizer;
            paths.t5_tokenizer = self.t5_tokenizer;
            paths.without_t5 = self.no_t5;
            paths.loras = self.loras;
        })
    }
}

impl LoadSettings {
    /// Reads an object; an error of the code `bad-request` says what is wrong with it.
    pub fn parse(object: &JsValue) -> Result<Self, JsValue> {
        let json = js_sys::JSON::stringify(object).ok().and_then(|json| json.as_string());
        serde_json::from_str(json.as_deref().unwrap_or("{}")).map_err(|error| {
            js_error("bad-request", &format!("the options are not valid: {error}"))
        })
    }

    /// Which adapter to ask for.
    pub fn adapter(&self) -> AdapterChoice {
        AdapterChoice {
            preference: match self.adapter.preference {
                PreferenceField::HighPerformance => AdapterPreference::Fast,
                PreferenceField::LowPower => AdapterPreference::LowPower,
            },
            limits: match self.adapter.limits {
                LimitsField::Adapter => LimitsPolicy::Adapter,
                LimitsField::WebGpu => LimitsPolicy::WebGpuDefaults,
            },
            ..AdapterChoice::default()
        }
    }

    /// How its weights are kept.
    pub fn options(&self) -> Options {
        Options::default().with(|options| {
            options.precision = self.precision;
            options.quantise = self.quantize;
            options.memory_budget = self.memory_budget;
        })
    }

    /// What it consists of.
    pub fn what(self) -> What {
        match (self.files, self.list) {
            (Some(files), _) => What::Files(files.paths()),
            (None, Some(list)) => What::List(list),
            (None, None) => What::Folder,
        }
    }
}
