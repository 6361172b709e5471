//! Which family of models a file is for, by its keys, and which program wrote it. The model at hand decides nothing here.

use crate::models::family::{FAMILIES, Family};

/// A family of models that files are for.
struct Origin {
    /// What it is called.
    name: &'static str,
    /// Parts of names that it alone has.
    marks: &'static [&'static str],
    /// Whether one such name is enough.
    is_sure: bool,
}

/// Families that are not in [`FAMILIES`].
const OTHERS: &[Origin] = &[
    Origin { name: "Chroma", marks: &["distilled_guidance_layer"], is_sure: true },
    Origin {
        name: "HunyuanVideo",
        marks: &[".img_attn_qkv", "individual_token_refiner"],
        is_sure: true,
    },
    Origin {
        name: "Qwen-Image",
        marks: &[".img_mod.1", "_img_mod_1", ".txt_mlp.net.", "_txt_mlp_net_"],
        is_sure: false,
    },
    Origin {
        name: "Stable Diffusion XL",
        marks: &["input_blocks", "output_blocks", "middle_block"],
        is_sure: false,
    },
    Origin {
        name: "Stable Diffusion 1 or XL",
        marks: &["down_blocks", "up_blocks", "mid_block"],
        is_sure: false,
    },
    Origin { name: "Wan", marks: &["cross_attn", "lora_unet__blocks"], is_sure: false },
    Origin {
        name: "Z-Image or Lumina",
        marks: &["context_refiner", "noise_refiner", ".attention.to_", ".attention.qkv"],
        is_sure: false,
    },
    Origin {
        name: "PixArt, LTX or Sana",
        marks: &["caption_projection", "adaln_single"],
        is_sure: false,
    },
];

/// What the keys of a file say.
pub struct Verdict {
    /// The other family that it is for.
    pub made_for: &'static str,
    /// A key that says so.
    pub key: String,
}

/// Whether a file with these keys is for another family than `own`. `knows_keys` says whether any key is known there.
pub fn other_family(keys: &[&str], own: &dyn Family, knows_keys: bool) -> Option<Verdict> {
    let mut origins: Vec<(Origin, bool)> = Vec::new();
    for family in FAMILIES {
        let Some(names) = family.adapter_names() else { continue };
        let (name, is_own) = (family.examples(), family.name() == own.name());
        origins.push((Origin { name, marks: names.sure_marks, is_sure: true }, is_own));
        origins.push((Origin { name, marks: names.marks, is_sure: false }, is_own));
    }
    let others = OTHERS.iter().map(|other| {
        (Origin { name: other.name, marks: other.marks, is_sure: other.is_sure }, false)
    });
    origins.extend(others);
    let has = |key: &str, origin: &Origin| origin.marks.iter().any(|mark| key.contains(mark));
    let votes = |origin: &Origin| keys.iter().filter(|key| has(key, origin)).count();
    let first = |origin: &Origin| {
        let key = keys.iter().copied().find(|key| has(key, origin)).unwrap_or_default();
        Verdict { made_for: origin.name, key: key.into() }
    };
    let sure: Vec<_> =
        origins.iter().filter(|(origin, _)| origin.is_sure && votes(origin) > 0).collect();
    if !sure.is_empty() {
        let is_own = sure.iter().any(|(_, is_own)| *is_own);
        return (!is_own).then(|| first(&sure[0].0));
    }
    let own_votes =
        origins.iter().filter(|(_, is_own)| *is_own).map(|(origin, _)| votes(origin)).sum();
    let best = origins
        .iter()
        .filter(|(_, is_own)| !is_own)
        .map(|(origin, _)| (votes(origin), origin))
        .rev()
        .max_by_key(|(votes, _)| *votes)?;
    let (n, origin) = best;
    (n > own_votes || n > 0 && n == own_votes && !knows_keys).then(|| first(origin))
}

/// Which program writes keys like these, by the beginnings of its names and a key.
pub fn form(prefix: &str, key: &str) -> &'static str {
    match prefix {
        _ if key.contains(".processor.") => "XLabs",
        "lora_unet_" | "lora_te1_" | "lora_te3_" | "lora_te_" => "kohya",
        "lora_transformer_" | "lora_te2_" => "OneTrainer",
        "lycoris_" => "LyCORIS",
        "diffusion_model." | "model.diffusion_model." => "ComfyUI",
        "base_model.model." | "transformer.base_model.model." => "PEFT",
        "" => "plain names",
        _ => "diffusers",
    }
}
