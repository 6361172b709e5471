//! What a model would take, before it is loaded.

use ralu::checkpoint::source::{Remote, Source, read};
use ralu::checkpoint::weights::Weights;
use ralu::models::config::{ModelConfig, folder, stem};
use ralu::pipeline::plan::{Caps, PlannedStage, plan};
use ralu::pipeline::{Error, Plan, Settings, unfamiliar};
use wasm_bindgen::prelude::*;

use crate::error::{from_error, js_error, shown, tell_panics};
use crate::load_settings::LoadSettings;
use crate::model::Files;
use crate::object::Object;
use crate::origin::JsOrigin;
use crate::request;

/// Plans a run of a model of which only configurations and headers are read, for what WebGPU guarantees on every adapter:
/// `ModelPlan` in `package/ralu.d.ts`.
#[wasm_bindgen]
pub async fn inspect(
    name: String,
    origin: JsOrigin,
    vocabularies: JsOrigin,
    settings: JsValue,
    asked: JsValue,
) -> Result<JsValue, JsValue> {
    tell_panics();
    let asked = request::parse(&asked).map_err(|reason| js_error("bad-request", &reason))?;
    let settings = LoadSettings::parse(&settings)?;
    let options = settings.options();
    let remote = Remote::new(name, Box::new(origin));
    let vocabularies = Remote::new("ready-made vocabularies", Box::new(vocabularies));
    let failed = |error: Error| from_error(&error);
    let files = Files::open(remote, settings.what(), vocabularies).await.map_err(failed)?;
    let source = &*files.source;
    let config = config_of(source).await.map_err(failed)?;
    let settings = Settings::resolve(&asked, &config).map_err(failed)?;
    let planned =
        plan(&config, Some(source), &settings, Caps::default(), options).map_err(failed)?;
    let warnings = unfamiliar(&asked, &settings, &config).into_iter().chain(settings.warnings);
    let warnings = warnings.map(|warning| JsValue::from(shown(&warning)));
    let object = described(&planned).with("warnings", warnings.collect::<js_sys::Array>());
    Ok(object.into())
}

/// The configuration of a model, after the headers of its weights have been fetched and read.
async fn config_of(source: &dyn Source) -> Result<ModelConfig, Error> {
    let config = read(source, || ModelConfig::load(source)).await?;
    read(source, || {
        let encoders = config.text_encoders.iter().map(|part| (part.folder, stem::TRANSFORMERS));
        let others = [folder::TRANSFORMER, folder::VAE].map(|part| (part, stem::DIFFUSERS));
        // All of them, so that they are fetched together.
        let opened = encoders.chain(others).map(|(part, stem)| Weights::open(source, part, stem));
        opened.fold(Ok(()), |before, weights| before.and(weights.map(drop)))
    })
    .await?;
    Ok(config)
}

fn described(plan: &Plan) -> Object {
    let stages = plan.stages.iter().map(|stage: &PlannedStage| {
        let tflops = stage.tflops_per_step.with_attention;
        let numbers = Object::new().number("tokens", stage.tokens).number("steps", stage.steps);
        JsValue::from(numbers.number("tflopsPerStep", tflops))
    });
    Object::new()
        .number("width", plan.width)
        .number("height", plan.height)
        .with("ralu", plan.ralu.as_str())
        .with("stages", stages.collect::<js_sys::Array>())
        .number("tflops", plan.tflops.with_attention)
        .number("speedup", plan.speedup_with_attention)
        .number("gpuBytes", plan.memory.peak_bytes)
}
