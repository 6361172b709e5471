//! An open model on an open device.

use std::cell::Cell;
use std::rc::Rc;

use ralu::checkpoint::source::Remote;
use ralu::gpu::{AdapterChoice, AdapterPreference, LimitsPolicy};
use ralu::models::adapters::{Lora, LoraWeight};
use ralu::models::files::{ModelPaths, PartPlace, Role};
use ralu::models::layers::Precision;
use ralu::models::quantise::Quantise;
use ralu::pipeline::{MemoryBudget, Options};
use serde::Deserialize;
use wasm_bindgen::prelude::*;

use crate::about::About;
use crate::error::{from_error, js_error, shown};
use crate::generation::Generation;
use crate::model::{Model, What};
use crate::object::Object;
use crate::origin::JsOrigin;
use crate::request;

/// A model, ready to draw.
#[wasm_bindgen]
pub struct Engine {
    model: Rc<Model>,
    remote: Remote,
    options: Options,
    busy: Rc<Cell<bool>>,
}

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

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Settings {
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

#[wasm_bindgen]
impl Engine {
    /// Opens the adapter and reads everything of the model but the weights. `vocabularies` has the files of
    /// [`ralu::text::Vocabularies`].
    pub async fn open(
        name: String,
        origin: JsOrigin,
        vocabularies: JsOrigin,
        settings: JsValue,
    ) -> Result<Engine, JsValue> {
        let json = js_sys::JSON::stringify(&settings).ok().and_then(|json| json.as_string());
        let settings: Settings =
            serde_json::from_str(json.as_deref().unwrap_or("{}")).map_err(|error| {
                js_error("bad-request", &format!("the options are not valid: {error}"))
            })?;
        let choice = AdapterChoice {
            preference: match settings.adapter.preference {
                PreferenceField::HighPerformance => AdapterPreference::Fast,
                PreferenceField::LowPower => AdapterPreference::LowPower,
            },
            limits: match settings.adapter.limits {
                LimitsField::Adapter => LimitsPolicy::Adapter,
                LimitsField::WebGpu => LimitsPolicy::WebGpuDefaults,
            },
            ..AdapterChoice::default()
        };
        let remote = Remote::new(name, Box::new(origin));
        let options = Options::default().with(|options| {
            options.precision = settings.precision;
            options.quantise = settings.quantize;
            options.memory_budget = settings.memory_budget;
        });
        let what = match (settings.files, settings.list) {
            (Some(files), _) => What::Files(files.paths()),
            (None, Some(list)) => What::List(list),
            (None, None) => What::Folder,
        };
        let vocabularies = Remote::new("ready-made vocabularies", Box::new(vocabularies));
        let model = Model::open(choice, remote.clone(), what, vocabularies, options)
            .await
            .map_err(|error| from_error(&error))?;
        Ok(Engine { model: Rc::new(model), remote, options, busy: Rc::default() })
    }

    /// Starts a request. Nothing happens until the first `next`.
    pub fn start(&self, request: JsValue) -> Result<Generation, JsValue> {
        if self.busy.get() {
            return Err(js_error(
                "busy",
                "this engine is drawing already; wait for the end or cancel, or load another engine",
            ));
        }
        let request =
            request::parse(&request).map_err(|reason| js_error("bad-request", &reason))?;
        // Checked here, so that a bad request fails at once.
        let pipeline = self.model.pipeline();
        let settings = pipeline.settings(&request).map_err(|error| from_error(&error))?;
        let about = About::new(&pipeline, settings, self.options);
        Ok(Generation::new(self.model.clone(), request, about, self.busy.clone()))
    }

    /// Multiplies the changes of LoRAs by other weights from the next request on: an array with a number, or three, for each file.
    #[wasm_bindgen(js_name = setLoraWeights)]
    pub fn set_lora_weights(&self, weights: JsValue) -> Result<(), JsValue> {
        let json = js_sys::JSON::stringify(&weights).ok().and_then(|json| json.as_string());
        let weights: Vec<LoraWeight> = serde_json::from_str(json.as_deref().unwrap_or("null"))
            .map_err(|error| {
                let expected = "expected an array with a finite number, or three, for each LoRA";
                js_error("bad-request", &format!("the weights are not valid ({error}); {expected}"))
            })?;
        self.model.pipeline().set_lora_weights(&weights).map_err(|error| from_error(&error))
    }

    /// Frees everything on the GPU.
    pub fn close(&self) {
        self.model.pipeline().gpu().destroy();
    }

    /// What draws: `AdapterInfo` in `package/ralu.d.ts`.
    #[wasm_bindgen(getter)]
    pub fn adapter(&self) -> JsValue {
        let report = self.model.adapter();
        let features: js_sys::Array = report.features.iter().map(|f| JsValue::from(*f)).collect();
        Object::new()
            .with("name", &report.name)
            .with("driver", &report.driver)
            .with("kind", report.kind.name())
            .with("features", features)
            .number("maxBufferBytes", report.max_buffer_bytes)
            .number("maxBindingBytes", report.max_binding_bytes)
            .into()
    }

    /// Where parts are from: `ModelPart[]` in `package/ralu.d.ts`.
    #[wasm_bindgen(getter)]
    pub fn parts(&self) -> JsValue {
        let object = |part: &PartPlace| {
            let role = serde_json::to_value(part.role).unwrap_or_default();
            let role = role.as_str().unwrap_or_default();
            JsValue::from(Object::new().with("part", role).with("path", shown(&part.path)))
        };
        self.model.parts().iter().map(object).collect::<js_sys::Array>().into()
    }

    /// What the user should know of how the model was put together.
    #[wasm_bindgen(getter)]
    pub fn notes(&self) -> JsValue {
        let notes = self.model.notes().iter().map(|note| JsValue::from(shown(note)));
        notes.collect::<js_sys::Array>().into()
    }

    /// Memory in use: `MemoryInfo` in `package/ralu.d.ts`.
    #[wasm_bindgen(getter)]
    pub fn memory(&self) -> JsValue {
        let counters = self.model.pipeline().gpu().counters();
        Object::new()
            .number("gpuBytes", counters.bytes_alive)
            .number("gpuPeakBytes", counters.bytes_peak)
            .number("stagingBytes", self.remote.held_bytes())
            .into()
    }
}
