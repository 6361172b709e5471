//! `model_index.json`: which pipeline, made of which parts.

use serde::Serialize;

use super::fields::{Fields, shortened};
use super::{ConfigError, Result, folder};
use crate::checkpoint::json;
use crate::checkpoint::source::Source;
use crate::models::family::{FAMILIES, Family};

/// `model_index.json`: which pipeline, made of which parts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelIndex {
    /// `_class_name`, e.g. `FluxPipeline`.
    pub class: String,
    /// The family that class belongs to.
    pub family: &'static dyn Family,
    /// `(part, library, class)` of every part that is present, in file order of names.
    pub parts: Vec<(String, String, String)>,
    /// `is_distilled`: whether the pipeline says that its model is timestep-distilled, if it says anything.
    pub is_distilled: Option<bool>,
    /// `_name_or_path`: where the folder was first saved from, if it says so.
    pub name_or_path: Option<String>,
}

impl ModelIndex {
    /// Reads `model_index.json`.
    pub fn load(source: &dyn Source) -> Result<Self> {
        let fields = Fields::open(source, "model_index.json")?;
        let class = fields.string("_class_name")?;
        let Some(family) = FAMILIES.iter().copied().find(|family| family.pipeline() == class)
        else {
            let found = shortened(&class);
            return Err(ConfigError::Pipeline { path: fields.path, found });
        };
        let mut parts = Vec::new();
        for (name, value) in &fields.map {
            if let Some((library, class)) = json::value::<(String, String)>(value) {
                parts.push((name.clone(), library, class));
            }
        }
        let name_or_path = fields.optional_string("_name_or_path")?;
        let is_distilled = fields.optional_flag("is_distilled")?;
        let index = Self { class, family, parts, is_distilled, name_or_path };
        for slot in family.text_encoders() {
            let wanted = !slot.optional || index.part(slot.folder).is_some();
            if wanted && is_null(&fields, slot.tokenizer) {
                return Err(index.null(&fields, slot.tokenizer, "a tokenizer"));
            }
        }
        index.expect(&fields, folder::TRANSFORMER, family.transformer())?;
        for slot in family.text_encoders() {
            // An optional part may be left out by no entry, or by null.
            let is_out = fields.get(slot.folder).is_none() || is_null(&fields, slot.folder);
            if !(slot.optional && is_out) {
                index.expect(&fields, slot.folder, slot.class)?;
            }
        }
        // Not the tokenizers: transformers has renamed their classes, and their files say what they are.
        index.expect(&fields, folder::VAE, family.vae())?;
        index.expect(&fields, folder::SCHEDULER, "FlowMatchEulerDiscreteScheduler")?;
        Ok(index)
    }

    /// The class of a part, if the model has that part.
    pub fn part(&self, name: &str) -> Option<&str> {
        self.parts.iter().find(|(part, ..)| part == name).map(|(_, _, class)| class.as_str())
    }

    fn expect(&self, fields: &Fields, part: &str, class: &str) -> Result<()> {
        let expected = format!("a part of class {class}");
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
            Some((.., found)) if found == class => Ok(()),
            Some((.., found)) => Err(fields.unsupported(part, format!("a {found}"), class)),
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
