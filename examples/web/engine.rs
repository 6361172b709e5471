//! An open model on an open device.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ralu::checkpoint::source::Remote;
use ralu::models::adapters::LoraWeight;
use ralu::models::files::PartPlace;
use ralu::pipeline::{Options, unfamiliar};
use wasm_bindgen::prelude::*;

use crate::about::About;
use crate::error::{from_error, js_error, shown, tell_panics};
use crate::generation::Generation;
use crate::load_settings::LoadSettings;
use crate::model::Model;
use crate::object::Object;
use crate::origin::JsOrigin;
use crate::request;

/// A model, ready to draw.
#[wasm_bindgen]
pub struct Engine {
    model: Rc<Model>,
    remote: Remote,
    options: Options,
    /// What stands for the model's files in pictures.
    hash: RefCell<Option<String>>,
    busy: Rc<Cell<bool>>,
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
        tell_panics();
        let settings = LoadSettings::parse(&settings)?;
        let (choice, options) = (settings.adapter(), settings.options());
        let remote = Remote::new(name, Box::new(origin));
        let vocabularies = Remote::new("ready-made vocabularies", Box::new(vocabularies));
        let model = Model::open(choice, remote.clone(), settings.what(), vocabularies, options)
            .await
            .map_err(|error| from_error(&error))?;
        let model = Rc::new(model);
        Ok(Engine { model, remote, options, hash: RefCell::default(), busy: Rc::default() })
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
        let unfamiliar = unfamiliar(&request, &settings, pipeline.config());
        let about = About::new(&pipeline, settings, self.options, self.hash.borrow().clone());
        Ok(Generation::new(self.model.clone(), request, about, unfamiliar, self.busy.clone()))
    }

    /// Says what stands for the model's files in pictures that are begun from now on.
    #[wasm_bindgen(js_name = setModelHash)]
    pub fn set_model_hash(&self, hash: Option<String>) {
        *self.hash.borrow_mut() = hash;
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

    /// Every path that is read, of files and of folders as a whole, but for changes to the model.
    #[wasm_bindgen(getter)]
    pub fn paths(&self) -> Vec<String> {
        self.model.paths().to_vec()
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
