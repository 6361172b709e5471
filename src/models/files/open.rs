//! Puts a model together from files.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Contents, FilesError, Found, ModelFiles, ModelPaths, PartOrigin, PartPlace, Role, search,
};
use crate::checkpoint::source::{Padding, Source};
use crate::checkpoint::weights::Weights;
use crate::models::config::{ModelIndex, VaeConfig, folder};
use crate::models::encoders::files as encoders;
use crate::models::family::{EncoderSlot, FAMILIES, Family};
use crate::models::vae_files;
use crate::text::GgufVocabulary;

type Result<T> = std::result::Result<T, FilesError>;

/// See [`ModelFiles::open`].
pub(super) fn open(source: Arc<dyn Source>, paths: &ModelPaths) -> Result<ModelFiles> {
    let place = Place::of(&*source, &paths.model)?;
    if let Place::Folder(path) = &place
        && paths.without_loras().is_model_alone()
    {
        return Ok(ModelFiles::folder(source, path));
    }
    Opening::new(source, paths, place)?.finish()
}

/// What the path of a model leads to.
enum Place {
    /// A diffusers folder, or at least no folder of another kind.
    Folder(String),
    /// A file.
    File(String),
}

impl Place {
    fn of(source: &dyn Source, path: &str) -> Result<Self> {
        if source.exists(&search::join(path, "model_index.json")) {
            return Ok(Place::Folder(path.to_owned()));
        }
        if !path.is_empty() && source.exists(path) {
            return Ok(Place::File(path.to_owned()));
        }
        Ok(match search::model_in(source, path)? {
            Some(file) => Place::File(file),
            None => Place::Folder(path.to_owned()),
        })
    }
}

/// An open file.
struct Opened {
    path: String,
    contents: Contents,
}

impl Opened {
    fn open(source: &dyn Source, path: &str, asked: Option<Role>) -> Result<Self> {
        let weights = Weights::open_path(source, path)?;
        let contents = Contents::of(&weights, asked)?;
        if contents.parts.is_empty() {
            let first: String =
                weights.names().next().unwrap_or("none").chars().take(200).collect();
            let file = weights.place().to_owned();
            return Err(FilesError::Unknown { file, n: weights.len(), first });
        }
        Ok(Opened { path: path.to_owned(), contents })
    }

    /// The part `role`, which it was given as.
    fn expect(mut self, source: &dyn Source, role: Role) -> Result<(String, Found)> {
        match self.contents.parts.remove(&role) {
            Some(found) => Ok((self.path, found)),
            None => Err(FilesError::OtherPart {
                file: source.shown(&self.path),
                expected: role,
                found: self.contents.in_words(),
            }),
        }
    }
}

/// A model on its way.
struct Opening<'p> {
    files: ModelFiles,
    paths: &'p ModelPaths,
    family: &'static dyn Family,
    /// The folder's own `model_index.json`.
    index: Option<ModelIndex>,
    /// The model's file, without the parts that have been taken out.
    model: Option<Opened>,
    /// The file that parts are looked for next to.
    next_to: Option<String>,
    /// Scale and shift of latents before the VAE.
    vae_factors: (f64, f64),
    /// Parts for `model_index.json`: library and class.
    entries: BTreeMap<&'static str, Value>,
}

impl<'p> Opening<'p> {
    fn new(source: Arc<dyn Source>, paths: &'p ModelPaths, place: Place) -> Result<Self> {
        let (base, mut model) = match place {
            Place::Folder(folder) => (Some(folder), None),
            Place::File(file) => (None, Some(Opened::open(&*source, &file, None)?)),
        };
        let mut files = ModelFiles::folder(source.clone(), base.as_deref().unwrap_or_default());
        files.base.clone_from(&base);
        let index = base.as_ref().map(|_| ModelIndex::load(&files)).transpose()?;

        let own = model.as_mut().and_then(|model| {
            Some((model.path.clone(), model.contents.parts.remove(&Role::Denoiser)?))
        });
        let denoiser = match (&paths.diffusion_model, own) {
            (None, own) => own.map(|own| (own, PartOrigin::Model)),
            (Some(path), own) => {
                if let Some((file, _)) = own {
                    files.notes.push(format!(
                        "the denoiser is taken from {}, not from {}",
                        source.shown(path),
                        source.shown(&file)
                    ));
                }
                let opened = Opened::open(&*source, path, Some(Role::Denoiser))?;
                Some((opened.expect(&*source, Role::Denoiser)?, PartOrigin::Given))
            }
        };
        let next_to = match (&model, &denoiser) {
            (Some(model), _) => Some(model.path.clone()),
            (None, Some(((path, _), _))) if base.is_none() => Some(path.clone()),
            _ => None,
        };
        let mut opening = Opening {
            files,
            paths,
            family: match (&index, &denoiser) {
                (_, Some(((_, Found { denoiser: Some((family, _)), .. }), _))) => *family,
                (Some(index), _) => index.family,
                (None, _) => {
                    let model = model.as_ref();
                    return Err(FilesError::OtherPart {
                        file: model.map_or_else(String::new, |model| source.shown(&model.path)),
                        expected: Role::Denoiser,
                        found: model.map_or_else(String::new, |model| model.contents.in_words()),
                    });
                }
            },
            index,
            model,
            next_to,
            vae_factors: (1.0, 0.0),
            entries: BTreeMap::new(),
        };
        opening.denoiser(denoiser)?;
        Ok(opening)
    }

    fn denoiser(&mut self, denoiser: Option<((String, Found), PartOrigin)>) -> Result<()> {
        let family = self.family;
        self.entries.insert(folder::TRANSFORMER, json!(["diffusers", family.transformer()]));
        self.entries
            .insert(folder::SCHEDULER, json!(["diffusers", "FlowMatchEulerDiscreteScheduler"]));
        let Some(((path, found), origin)) = denoiser else {
            if family.text_encoders().iter().any(|slot| slot.role.is_none()) {
                return Err(FilesError::FolderOnly { folder: self.files.name.clone() });
            }
            let vae = VaeConfig::load(&self.files, "vae/config.json", family.vae())?;
            self.vae_factors = (vae.scaling_factor, vae.shift_factor);
            return Ok(());
        };
        let shown = self.files.source.shown(&path);
        if let Some(index) = &self.index
            && index.family.name() != family.name()
        {
            return Err(FilesError::OtherFamily {
                file: shown,
                found: family.examples(),
                folder: self.files.name.clone(),
                expected: index.family.examples(),
            });
        }
        if self.index.is_none() || origin == PartOrigin::Model {
            self.files.name.clone_from(&shown);
        }
        let Found { prefix, tensors, denoiser } = found;
        let Some((_, file)) = denoiser else { return Ok(()) };
        let views = (file.views)(&tensors)?;
        let config = (file.configuration)(&views, &shown)?;
        self.vae_factors = (config.vae_scale, config.vae_shift);
        self.files.notes.extend(config.note.map(|note| format!("{shown}: {note}")));
        if self.files.base.is_none() {
            let path = format!("{}/scheduler_config.json", folder::SCHEDULER);
            self.files.made.insert(path, config.scheduler.to_string());
        }
        let part =
            PartPlace { role: Role::Denoiser, folder: folder::TRANSFORMER, path, prefix, origin };
        self.add(part, views, &config.transformer);
        Ok(())
    }

    /// A part that is in a file.
    fn add(&mut self, part: PartPlace, views: Weights, config: &Value) {
        self.files.made.insert(format!("{}/config.json", part.folder), config.to_string());
        self.files.weights.insert(part.folder, views);
        self.files.parts.push(part);
    }

    fn finish(mut self) -> Result<ModelFiles> {
        let family = self.family;
        for slot in family.text_encoders() {
            self.encoder(slot)?;
        }
        if let Some((part, found)) = self.find(Role::Vae, folder::VAE)? {
            self.warn_of_vae(&part.path);
            let views = vae_files::views(&found.tensors)?;
            let config = vae_files::configuration(&views, family.vae(), self.vae_factors)?;
            self.add(part, views, &config);
        } else if self.files.base.is_none() && !self.files.moved.contains_key(folder::VAE) {
            return Err(self.missing(Role::Vae));
        }
        self.entries.insert(folder::VAE, json!(["diffusers", family.vae()]));
        self.unused();

        let mut index = json!({ "_class_name": family.pipeline() });
        for (part, entry) in self.entries {
            index[part] = entry;
        }
        if let Some(own) = self.index {
            index["is_distilled"] = json!(own.is_distilled);
            index["_name_or_path"] = json!(own.name_or_path);
        }
        self.files.made.insert("model_index.json".into(), index.to_string());
        Ok(self.files)
    }

    /// Adds a text encoder and its tokenizer.
    fn encoder(&mut self, slot: &'static EncoderSlot) -> Result<()> {
        let in_base = self.index.as_ref().is_some_and(|index| index.part(slot.folder).is_some());
        if let Some(role) = slot.role {
            if role == Role::T5 && self.paths.without_t5 {
                let model = self.files.name.clone();
                let needed = FilesError::Needed { role, model };
                if let Some(model) = &mut self.model {
                    model.contents.parts.remove(&role);
                }
                return if slot.optional { Ok(()) } else { Err(needed) };
            }
            if let Some((part, found)) = self.find(role, slot.folder)? {
                let (views, config) = match role {
                    Role::T5 => {
                        let views = encoders::t5_views(&found.tensors)?;
                        let config = encoders::t5_config(&views)?;
                        (views, config)
                    }
                    _ => {
                        let activation = if role == Role::ClipG { "gelu" } else { "quick_gelu" };
                        let views = encoders::clip_views(&found.tensors)?;
                        let config = encoders::clip_config(&views, activation)?;
                        (views, config)
                    }
                };
                self.add(part, views, &config);
            } else if !in_base && !self.files.moved.contains_key(slot.folder) {
                return if slot.optional { Ok(()) } else { Err(self.missing(role)) };
            }
        }
        self.entries.insert(slot.folder, json!(["transformers", slot.class]));
        self.entries.insert(slot.tokenizer, json!(["transformers", "Tokenizer"]));
        self.tokenizer(slot, in_base)
    }

    fn tokenizer(&mut self, slot: &'static EncoderSlot, in_base: bool) -> Result<()> {
        let Some(role) = slot.role else { return Ok(()) };
        let given = match role {
            Role::T5 => &self.paths.t5_tokenizer,
            _ => &self.paths.clip_tokenizer,
        };
        match given {
            Some(given) => {
                let to = match self.files.source.exists(given) {
                    true => format!("{}/tokenizer.json", slot.tokenizer),
                    false => slot.tokenizer.to_owned(),
                };
                self.files.moved.insert(to, given.clone());
            }
            // That of the file's own weights goes before that of a folder whose weights are not used.
            None if in_base && self.has_own_vocabulary(slot) => {
                self.files.hidden.insert(slot.tokenizer);
            }
            None if in_base => return Ok(()),
            // A GGUF file may have one, and published encoders have the one that is built in.
            None => {}
        }
        match role {
            // One tokenizer serves both, and it can say only what one of them pads with.
            Role::ClipL => self.files.padding.insert(slot.tokenizer, Padding::End),
            Role::ClipG => self.files.padding.insert(slot.tokenizer, Padding::Id(0)),
            _ => None,
        };
        Ok(())
    }

    /// Whether the encoder is in a GGUF file that has its vocabulary.
    fn has_own_vocabulary(&self, slot: &EncoderSlot) -> bool {
        let weights = self.files.weights.get(slot.folder);
        weights.is_some_and(GgufVocabulary::is_in)
    }

    /// A part in a file: the given one, the model's, or one next to it. `None` if it is in a folder, or nowhere.
    fn find(&mut self, role: Role, to: &'static str) -> Result<Option<(PartPlace, Found)>> {
        let own = self
            .model
            .as_mut()
            .and_then(|model| Some((model.path.clone(), model.contents.parts.remove(&role)?)));
        let source = self.files.source.clone();
        let place = |path: String, found: &Found, origin| PartPlace {
            role,
            folder: to,
            path,
            prefix: found.prefix,
            origin,
        };
        if let Some(given) = self.paths.parts.get(&role) {
            if let Some((file, _)) = own {
                let (given, file) = (source.shown(given), source.shown(&file));
                self.files.notes.push(format!("the {role} is taken from {given}, not from {file}"));
            }
            if source.exists(&search::join(given, "config.json")) {
                self.files.moved.insert(to.to_owned(), given.clone());
                return Ok(None);
            }
            let opened = Opened::open(&*source, given, Some(role))?;
            let (path, found) = opened.expect(&*source, role)?;
            return Ok(Some((place(path, &found, PartOrigin::Given), found)));
        }
        if let Some((path, found)) = own {
            return Ok(Some((place(path, &found, PartOrigin::Model), found)));
        }
        let Some(next_to) = self.next_to.clone().filter(|_| self.files.base.is_none()) else {
            return Ok(None);
        };
        let Some((path, mut contents)) = search::part(&*source, &next_to, role)? else {
            return Ok(None);
        };
        self.files.notes.push(format!("{role}: {} (found next to the model)", source.shown(&path)));
        let found = contents.parts.remove(&role);
        Ok(found.map(|found| (place(path, &found, PartOrigin::Found), found)))
    }

    /// The shapes of all VAEs are the same: only its name says that one may be another family's.
    fn warn_of_vae(&mut self, path: &str) {
        let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
        let own = self.family.name();
        let other =
            FAMILIES.iter().find(|family| name.contains(family.name()) && family.name() != own);
        if let Some(other) = other.filter(|_| !name.contains(own)) {
            let (path, own) = (self.files.source.shown(path), self.family.examples());
            self.files.notes.push(format!(
                "{path} may be the VAE of {} by its name, and this is a model of {own}: pictures would have wrong colours",
                other.examples()
            ));
        }
    }

    fn missing(&self, role: Role) -> FilesError {
        let places = self.next_to.as_deref().map(search::places).unwrap_or_default();
        let here = |place: &String| if place.is_empty() { ".".to_owned() } else { place.clone() };
        let places: Vec<String> = places.iter().flatten().map(here).collect();
        FilesError::MissingPart {
            role,
            model: self.files.name.clone(),
            looked_in: places.join(", "),
        }
    }

    /// Says which parts nothing uses.
    fn unused(&mut self) {
        let shown = self.files.name.clone();
        let left = self.model.iter().flat_map(|model| model.contents.parts.keys());
        let notes: Vec<String> =
            left.map(|role| format!("{shown}: its {role} is not used")).collect();
        self.files.notes.extend(notes);
        let slots = self.family.text_encoders();
        for (role, path) in &self.paths.parts {
            let has_slot = *role == Role::Vae || slots.iter().any(|slot| slot.role == Some(*role));
            if !has_slot {
                let path = self.files.source.shown(path);
                let family = self.family.examples();
                self.files.notes.push(format!("{path}: {family} has no {role}; it is not used"));
            }
        }
    }
}
