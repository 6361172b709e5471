//! `generation_config.json`: what a model wants by default.

use serde::Serialize;

use super::Result;
use super::fields::Fields;
use super::ranges::{SIDES, STEPS, TEXT_LENGTHS};
use crate::checkpoint::source::Source;
use crate::names::UnknownName;
use crate::sampling::Preset;

/// More words are no list of few.
const MOST_WORDS: usize = 4096;

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
    /// The preset of RALU that suits the model best. Written as `"7x"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ralu: Option<Preset>,
    /// Widths and heights that the model was trained on, if it was on few. Written as `"256x256"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<[usize; 2]>,
    /// Words that the model was trained on, in small letters, if it was on few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known_words: Vec<String>,
}

/// A size as it is written.
fn size(text: &str) -> Option<[usize; 2]> {
    let (width, height) = text.split_once('x')?;
    let side = |text: &str| text.parse().ok().filter(|side| SIDES.contains(side));
    Some([side(width)?, side(height)?])
}

impl GenerationConfig {
    /// Reads `generation_config.json`; all `None` if there is no such file.
    pub fn load(source: &dyn Source) -> Result<Self> {
        let Some(fields) = Fields::open_if_there(source, "generation_config.json")? else {
            return Ok(Self::default());
        };
        let mut sizes = Vec::new();
        for text in fields.optional_strings("sizes", 64)?.unwrap_or_default() {
            let found = size(&text).ok_or_else(|| {
                let (least, most) = (SIDES.start(), SIDES.end());
                let expected = format!("sizes such as 256x256, with sides of {least} to {most}");
                fields.wrong("sizes", &text, &expected)
            })?;
            sizes.push(found);
        }
        let preset = |name: String| {
            name.parse::<Preset>().map_err(|error: UnknownName| {
                let expected = format!("a preset of RALU ({})", error.expected.join(", "));
                fields.wrong("ralu", &name, &expected)
            })
        };
        Ok(Self {
            ralu: fields.optional_string("ralu")?.map(preset).transpose()?,
            width: fields.optional_in("width", SIDES)?,
            height: fields.optional_in("height", SIDES)?,
            num_inference_steps: fields.optional_in("num_inference_steps", STEPS)?,
            guidance_scale: fields.optional_scale("guidance_scale")?,
            true_cfg_scale: fields.optional_scale("true_cfg_scale")?,
            negative_prompt: fields.optional_string("negative_prompt")?,
            max_sequence_length: fields.optional_in("max_sequence_length", TEXT_LENGTHS)?,
            sizes,
            known_words: fields.optional_strings("known_words", MOST_WORDS)?.unwrap_or_default(),
        })
    }
}
