//! What a file holds: parts of a model, each with its prefix taken off.

use std::collections::{BTreeMap, BTreeSet};

use super::{FilesError, Role};
use crate::checkpoint::weights::{TensorInfo, Weights};
use crate::models::encoders::files as encoders;
use crate::models::family::{DenoiserFile, FAMILIES, Family, Recognised};
use crate::models::vae_files;

/// What a file holds.
pub struct Contents {
    /// The parts that are known.
    pub parts: BTreeMap<Role, Found>,
    /// The names of tensors that are left out on purpose: they are not needed to draw.
    pub ignored: Vec<String>,
    /// The names of tensors that belong to nothing that is known.
    pub unknown: Vec<String>,
}

/// A part that a file holds.
pub struct Found {
    /// How its names began in the file.
    pub prefix: &'static str,
    /// Its tensors under the file's names, the prefix taken off.
    pub tensors: Weights,
    /// Whose denoiser it is, and how that is read; `None` for other parts.
    pub denoiser: Option<(&'static dyn Family, &'static DenoiserFile)>,
}

/// Metadata of GGUF files that says nothing of what they hold.
const ANY_ARCHITECTURE: [&str; 4] = ["t5", "t5encoder", "pig", "cow"];

impl Contents {
    /// What `weights` hold. `asked` is what the user says that they are: it decides where widths do not.
    pub fn of(weights: &Weights, asked: Option<Role>) -> Result<Self, FilesError> {
        refuse(weights)?;
        let (ignored, mut left): (Vec<&TensorInfo>, Vec<&TensorInfo>) =
            weights.iter().partition(|info| is_ignored(&info.name));
        let mut parts = BTreeMap::new();
        for role in Role::ALL {
            for prefix in role.prefixes() {
                let tensors = stripped(weights, &left, prefix);
                if let Some(found) = found(role, prefix, tensors)? {
                    left.retain(|info| !info.name.starts_with(prefix));
                    parts.insert(role, found);
                    break;
                }
            }
        }
        for role in Role::ALL {
            if parts.contains_key(&role) {
                continue;
            }
            let own: Vec<&TensorInfo> =
                left.iter().copied().filter(|info| may_be_of(role, &info.name)).collect();
            let tensors = stripped(weights, &own, "");
            if is_clip(role) && clip_role(&tensors, asked) != Some(role) {
                continue;
            }
            if let Some(found) = found(role, "", tensors)? {
                let own: BTreeSet<&str> = own.iter().map(|info| &*info.name).collect();
                left.retain(|info| !own.contains(&*info.name));
                parts.insert(role, found);
            }
        }
        let names = |infos: Vec<&TensorInfo>| infos.iter().map(|i| i.name.to_string()).collect();
        Ok(Contents { parts, ignored: names(ignored), unknown: names(left) })
    }

    /// The parts, in words.
    pub fn in_words(&self) -> String {
        let parts: Vec<String> = self.parts.keys().map(|role| format!("a {role}")).collect();
        if parts.is_empty() { "nothing that is known".into() } else { parts.join(", ") }
    }
}

fn is_clip(role: Role) -> bool {
    matches!(role, Role::ClipL | Role::ClipG)
}

/// Which CLIP a file without prefixes has: by its width, else as the user says, else the usual one.
fn clip_role(tensors: &Weights, asked: Option<Role>) -> Option<Role> {
    if !encoders::is_clip(tensors) {
        return None;
    }
    match encoders::clip_width(tensors)? {
        768 => Some(Role::ClipL),
        1280 => Some(Role::ClipG),
        _ => asked.filter(|role| is_clip(*role)).or(Some(Role::ClipL)),
    }
}

/// Whether a name without prefix may be of a part. The denoiser's are all that is left.
fn may_be_of(role: Role, name: &str) -> bool {
    let starts = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    match role {
        Role::Vae => starts(&["decoder.", "encoder.", "quant_conv.", "post_quant_conv."]),
        Role::ClipL | Role::ClipG => starts(&[
            "text_model.",
            "text_projection",
            "embeddings.",
            "encoder.layers.",
            "final_layer_norm.",
            "token_embedding.",
            "positional_embedding",
            "transformer.resblocks.",
            "ln_final.",
        ]),
        Role::T5 => {
            starts(&["shared.", "encoder.", "decoder.", "enc.", "dec.", "token_embd.", "lm_head."])
        }
        Role::Denoiser => true,
    }
}

fn is_ignored(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    matches!(last, "logit_scale" | "position_ids" | "num_batches_tracked" | "spiece_model")
        || name.starts_with("model_ema.")
        || name.starts_with("denoiser.sigmas")
}

/// The tensors among `left` whose names begin with `prefix`, without it.
fn stripped(weights: &Weights, left: &[&TensorInfo], prefix: &str) -> Weights {
    let under = left.iter().filter_map(|info| {
        let name = info.name.strip_prefix(prefix).filter(|name| !name.is_empty())?;
        Some(info.renamed(name))
    });
    weights.with_views(under)
}

/// The part `role`, if that is what `tensors` are.
fn found(role: Role, prefix: &'static str, tensors: Weights) -> Result<Option<Found>, FilesError> {
    if tensors.is_empty() {
        return Ok(None);
    }
    let refused = |what: &str| {
        let file = tensors.place().to_owned();
        Err(FilesError::Refused { file, what: what.to_owned() })
    };
    let mut denoiser = None;
    let is_there = match role {
        Role::Vae => {
            if vae_files::is_vae(&tensors)
                && let Some(what) = vae_files::refusal(&tensors)
            {
                return refused(what);
            }
            vae_files::is_vae(&tensors)
        }
        Role::ClipL | Role::ClipG => encoders::is_clip(&tensors),
        Role::T5 => {
            if encoders::is_t5(&tensors)
                && let Some(what) = encoders::t5_refusal(&tensors)
            {
                return refused(what);
            }
            encoders::is_t5(&tensors)
        }
        Role::Denoiser => {
            for family in FAMILIES {
                match family.recognise(&tensors) {
                    Recognised::Other => {}
                    Recognised::Own(file) => denoiser = Some((*family, file)),
                    Recognised::Refused(what) => return refused(what),
                }
            }
            denoiser.is_some()
        }
    };
    Ok(is_there.then_some(Found { prefix, tensors, denoiser }))
}

/// Whether these are changes to a model: a LoRA or one of its relatives.
pub fn is_lora(weights: &Weights) -> bool {
    const PARTS: [&str; 11] = [
        ".lora_A.",
        ".lora_B.",
        ".lora_up.",
        ".lora_down.",
        ".lora.up.",
        ".lora.down.",
        ".lokr_w",
        ".hada_w",
        "_lora.down.",
        "_lora1.down.",
        ".dora_scale",
    ];
    weights
        .names()
        .any(|name| name.starts_with("lora_") || PARTS.iter().any(|part| name.contains(part)))
}

/// Refuses what is known by its names and no model of any family here.
fn refuse(weights: &Weights) -> Result<(), FilesError> {
    let any = |is: &dyn Fn(&str) -> bool| weights.names().any(is);
    let refused =
        |what: String| Err(FilesError::Refused { file: weights.place().to_owned(), what });
    if is_lora(weights) {
        return refused(
            "a LoRA, a change to a model and no model of its own; give the model that it is for, and this file as a LoRA of it"
                .into(),
        );
    }
    let is_svdquant = |name: &str| {
        [".wscales", ".proj_down", ".smooth_factor", ".lora_down"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    if any(&|name| name.ends_with(".qweight")) && any(&is_svdquant) {
        return refused(
            "a model that nunchaku quantised (SVDQuant), which is not supported; get it as GGUF, in fp8 or in 16 bits".into(),
        );
    }
    let of_unet = |name: &str| {
        name.starts_with("model.diffusion_model.input_blocks.")
            || name.starts_with("input_blocks.0.")
    };
    if any(&of_unet) {
        return refused(
            "a model with a U-Net (Stable Diffusion 1, 2 or XL), which is not supported; models with a transformer are"
                .into(),
        );
    }
    let architecture = weights.gguf().and_then(|metadata| metadata.text("general.architecture"));
    if let Some(architecture) = architecture
        && !ANY_ARCHITECTURE.contains(&architecture)
        && !FAMILIES.iter().any(|family| family.name() == architecture)
    {
        let architecture: String = architecture.chars().take(60).collect();
        return refused(format!(
            "a GGUF file of the architecture {architecture:?}, which is not supported; give a model of {}",
            super::supported()
        ));
    }
    Ok(())
}
