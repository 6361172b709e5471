//! Options that name a model's files.

use clap::Args;
use ralu::models::adapters::Lora;
use ralu::models::files::{ModelPaths, Role};

use super::parse::choice;

/// The model, and parts of it in files of their own.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A diffusers folder, a model's file (safetensors or GGUF: a denoiser, or all parts in one), an index of several
    /// (.safetensors.index.json), or ComfyUI's folder `models`. Parts that a file does not hold are looked for next to it.
    /// Or a name: tiny-flux, the bundled one, or one that `ralu pull` has downloaded. `plan`, `tune` and `bench` also take the
    /// name of a published model that is not here, such as flux.1-dev. [default: tiny-flux]
    #[arg(short, long, value_name = "PATH|NAME")]
    pub model: Option<String>,
    #[command(flatten)]
    pub parts: PartArgs,
}

/// Parts of a model in files of their own.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Model")]
pub struct PartArgs {
    /// A denoiser's file; the other parts are those of --model.
    #[arg(hide_short_help = true, long, value_name = "FILE", alias = "diffusion_model")]
    pub diffusion_model: Option<String>,
    /// The CLIP-L text encoder: a file, or a folder of a diffusers model.
    #[arg(hide_short_help = true, long, value_name = "FILE", alias = "clip_l")]
    pub clip_l: Option<String>,
    /// The CLIP-G text encoder (SD3).
    #[arg(hide_short_help = true, long, value_name = "FILE", alias = "clip_g")]
    pub clip_g: Option<String>,
    /// The T5 text encoder.
    #[arg(hide_short_help = true, long, value_name = "FILE")]
    pub t5xxl: Option<String>,
    /// The VAE.
    #[arg(hide_short_help = true, long, value_name = "FILE")]
    pub vae: Option<String>,
    /// Leaves T5 out (SD3).
    #[arg(hide_short_help = true, long)]
    pub no_t5: bool,
    /// CLIP's tokenizer: a folder with tokenizer.json, or with vocab.json and merges.txt; or a tokenizer.json.
    #[arg(hide_short_help = true, long, value_name = "PATH", alias = "clip_tokenizer")]
    pub clip_tokenizer: Option<String>,
    /// T5's tokenizer: a folder with tokenizer.json, or that file.
    #[arg(hide_short_help = true, long, value_name = "PATH", alias = "t5_tokenizer")]
    pub t5_tokenizer: Option<String>,
    /// A LoRA or one of its relatives (LoCon, LoHa, LoKr, DoRA), as safetensors, and what its changes are multiplied by, which may
    /// be negative, or three numbers with commas, one for each of RALU's stages. May be given several times; the order means
    /// nothing. [default weight: 1]
    #[arg(long = "lora", value_name = "FILE[:WEIGHT]", value_parser = choice::<Lora>)]
    pub loras: Vec<Lora>,
}

impl ModelArgs {
    /// The model's name or path, if nothing else is given.
    pub fn alone(&self) -> Option<&str> {
        let model = self.model.as_deref()?;
        (self.parts == PartArgs::default()).then_some(model)
    }
}

impl PartArgs {
    /// The options that give what a picture has kept.
    pub fn from_saved(paths: &ModelPaths) -> Self {
        let part = |role| paths.parts.get(&role).cloned();
        PartArgs {
            diffusion_model: paths.diffusion_model.clone(),
            clip_l: part(Role::ClipL),
            clip_g: part(Role::ClipG),
            t5xxl: part(Role::T5),
            vae: part(Role::Vae),
            no_t5: paths.without_t5,
            clip_tokenizer: paths.clip_tokenizer.clone(),
            t5_tokenizer: paths.t5_tokenizer.clone(),
            loras: paths.loras.clone(),
        }
    }

    /// These options, and those of `others` that are not given here.
    pub fn or(self, others: Self) -> Self {
        PartArgs {
            diffusion_model: self.diffusion_model.or(others.diffusion_model),
            clip_l: self.clip_l.or(others.clip_l),
            clip_g: self.clip_g.or(others.clip_g),
            no_t5: self.no_t5 || others.no_t5 && self.t5xxl.is_none(),
            t5xxl: self.t5xxl.or(others.t5xxl),
            vae: self.vae.or(others.vae),
            clip_tokenizer: self.clip_tokenizer.or(others.clip_tokenizer),
            t5_tokenizer: self.t5_tokenizer.or(others.t5_tokenizer),
            loras: if self.loras.is_empty() { others.loras } else { self.loras },
        }
    }

    /// The paths of `model` with these parts.
    pub fn paths(&self, model: String) -> ModelPaths {
        ModelPaths::default().with(|paths| {
            paths.model = model;
            paths.diffusion_model.clone_from(&self.diffusion_model);
            let parts = [
                (Role::ClipL, &self.clip_l),
                (Role::ClipG, &self.clip_g),
                (Role::T5, &self.t5xxl),
                (Role::Vae, &self.vae),
            ];
            let given = parts.into_iter().filter_map(|(role, path)| Some((role, path.clone()?)));
            paths.parts = given.collect();
            paths.clip_tokenizer.clone_from(&self.clip_tokenizer);
            paths.t5_tokenizer.clone_from(&self.t5_tokenizer);
            paths.without_t5 = self.no_t5;
            paths.loras.clone_from(&self.loras);
        })
    }
}
