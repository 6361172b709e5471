//! `generation_config.json`: what a model wants by default.

use serde::Serialize;

use super::Result;
use super::fields::Fields;
use super::ranges::{SIDES, STEPS, TEXT_LENGTHS};
use crate::checkpoint::source::Source;

/// Optional `generation_config.json` next to `model_index.json`: the settings a model wants by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GenerationConfig {
    /// Pixels.
    pub width: Option<usize>,
    /// Pixels.
    pub height: Option<usize>,
    /// Plain sampling steps.
    pub num_inference_steps: Option<usize>,
    /// Distilled guidance.
    pub guidance_scale: Option<f64>,
    /// Classifier-free guidance; 1 = off.
    pub true_cfg_scale: Option<f64>,
    /// The text that classifier-free guidance steers away from.
    pub negative_prompt: Option<String>,
    /// Text tokens, padding included, where they can be chosen.
    pub max_sequence_length: Option<usize>,
}

impl GenerationConfig {
    /// Reads `generation_config.json`; all `None` if there is no such file.
    pub fn load(source: &dyn Source) -> Result<Self> {
        let Some(fields) = Fields::open_if_there(source, "generation_config.json")? else {
            return Ok(Self::default());
        };
        Ok(Self {
            width: fields.optional_in("width", SIDES)?,
            height: fields.optional_in("height", SIDES)?,
            num_inference_steps: fields.optional_in("num_inference_steps", STEPS)?,
            guidance_scale: fields.optional_scale("guidance_scale")?,
            true_cfg_scale: fields.optional_scale("true_cfg_scale")?,
            negative_prompt: fields.optional_string("negative_prompt")?,
            max_sequence_length: fields.optional_in("max_sequence_length", TEXT_LENGTHS)?,
        })
    }
}
