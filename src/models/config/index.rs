//! `model_index.json`: which pipeline, made of which parts.

use serde::Serialize;

use super::fields::{Fields, shortened};
use super::{ConfigError, Family, Result};
use crate::checkpoint::json;
use crate::checkpoint::source::Source;

/// `model_index.json`: which pipeline, made of which parts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelIndex {
    /// `_class_name`, e.g. `FluxPipeline`.
    pub class: String,
    /// The family that class belongs to.
    pub family: Family,
    /// `(part, library, class)` of every part that is present, in file order of names.
    pub parts: Vec<(String, String, String)>,
    /// `_name_or_path`: where the folder was first saved from, if it says so.
    pub name_or_path: Option<String>,
}

impl ModelIndex {
    /// Reads `model_index.json`.
    pub fn load(source: &dyn Source) -> Result<Self> {
        let fields = Fields::open(source, "model_index.json")?;
        let class = fields.string("_class_name")?;
        let family = match class.as_str() {
            "FluxPipeline" => Family::Flux,
            "StableDiffusion3Pipeline" => Family::Sd3,
            _ => {
                let found = shortened(&class);
                return Err(ConfigError::Pipeline { path: fields.path, found });
            }
        };
        let mut parts = Vec::new();
        for (name, value) in &fields.map {
            if let Some((library, class)) = json::value::<(String, String)>(value) {
                parts.push((name.clone(), library, class));
            }
        }
        let name_or_path = fields.optional_string("_name_or_path")?;
        let index = Self { class, family, parts, name_or_path };
        let folders = family.folders();
        let t5_tokenizer = index.part(folders.t5).map(|_| folders.t5_tokenizer);
        for tokenizer in folders.clips.iter().map(|(_, name)| *name).chain(t5_tokenizer) {
            if is_null(&fields, tokenizer) {
                return Err(index.null(&fields, tokenizer, "a tokenizer"));
            }
        }
        match family {
            Family::Flux => {
                index.expect(&fields, "transformer", &["FluxTransformer2DModel"])?;
                index.expect(&fields, "text_encoder", &["CLIPTextModel"])?;
                index.expect(&fields, "text_encoder_2", &["T5EncoderModel"])?;
                // Not the tokenizers: transformers has renamed their classes, and their files say what they are.
                index.expect(&fields, "vae", &["AutoencoderKL"])?;
                index.expect(&fields, "scheduler", &["FlowMatchEulerDiscreteScheduler"])?;
            }
            Family::Sd3 => {
                index.expect(&fields, "transformer", &["SD3Transformer2DModel"])?;
                index.expect(&fields, "text_encoder", &["CLIPTextModelWithProjection"])?;
                index.expect(&fields, "text_encoder_2", &["CLIPTextModelWithProjection"])?;
                // As in diffusers, T5 may be left out: by no entry, or by null.
                let t5 = "text_encoder_3";
                if fields.get(t5).is_some() && !is_null(&fields, t5) {
                    index.expect(&fields, t5, &["T5EncoderModel"])?;
                }
                index.expect(&fields, "vae", &["AutoencoderKL"])?;
                index.expect(&fields, "scheduler", &["FlowMatchEulerDiscreteScheduler"])?;
            }
        }
        Ok(index)
    }

    /// The class of a part, if the model has that part.
    pub fn part(&self, name: &str) -> Option<&str> {
        self.parts.iter().find(|(part, ..)| part == name).map(|(_, _, class)| class.as_str())
    }

    fn expect(&self, fields: &Fields, part: &str, classes: &[&str]) -> Result<()> {
        let expected = format!("a part of class {}", classes.join(" or "));
        let found = self.parts.iter().find(|(name, ..)| name == part);
        match found {
            None if is_null(fields, part) => Err(self.null(fields, part, &expected)),
            None => Err(match fields.get(part) {
                None => fields.missing(part, &expected),
                Some(value) => {
                    let expected = format!("{expected}, as a list of its library and its class");
                    fields.wrong(part, shortened(value.get()), &expected)
                }
            }),
            Some((_, library, _)) if !["diffusers", "transformers"].contains(&library.as_str()) => {
                let found = format!("of the library {library}");
                Err(fields.unsupported(part, found, "parts of diffusers and transformers"))
            }
            Some((.., class)) if classes.contains(&class.as_str()) => Ok(()),
            Some((.., class)) => {
                Err(fields.unsupported(part, format!("a {class}"), &classes.join(", ")))
            }
        }
    }

    fn null(&self, fields: &Fields, part: &str, expected: &str) -> ConfigError {
        let (path, part) = (fields.path.clone(), part.to_owned());
        ConfigError::NullPart { path, part, expected: expected.to_owned() }
    }
}

/// Whether a part was left out when the pipeline was saved: `null`, or `[null, null]`.
fn is_null(fields: &Fields, part: &str) -> bool {
    let nulls = |value| json::list::<Option<String>>(value, 2);
    fields.is_null(part)
        || fields.get(part).and_then(nulls).is_some_and(|list| list.iter().any(Option::is_none))
}
