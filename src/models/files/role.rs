//! The parts of a model that files hold, and how their names begin.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A part of a model that a file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The network that denoises.
    Denoiser,
    /// The first CLIP text encoder, ViT-L.
    ClipL,
    /// The second CLIP text encoder, ViT-bigG.
    ClipG,
    /// The T5 text encoder.
    T5,
    /// What makes a picture of latents.
    Vae,
}

impl Role {
    /// All, in the order in which files are looked through.
    pub const ALL: [Role; 5] = [Role::Vae, Role::ClipL, Role::ClipG, Role::T5, Role::Denoiser];

    /// How the names of its tensors begin in files that hold several parts; the first that fits counts.
    pub(super) fn prefixes(self) -> &'static [&'static str] {
        match self {
            Role::Denoiser => &[
                "model.diffusion_model.",
                "diffusion_model.",
                "model.model.",
                "transformer.",
                "net.",
            ],
            Role::Vae => &["first_stage_model.", "vae."],
            Role::ClipL => &[
                "text_encoders.clip_l.transformer.",
                "text_encoders.clip_l.",
                "clip_l.transformer.",
                "clip_l.",
                "te1.",
                "text_encoder.",
            ],
            Role::ClipG => &[
                "text_encoders.clip_g.transformer.",
                "text_encoders.clip_g.",
                "clip_g.transformer.",
                "clip_g.",
                "text_encoder_2.",
            ],
            Role::T5 => &[
                "text_encoders.t5xxl.transformer.",
                "text_encoders.t5xxl.",
                "t5xxl.transformer.",
                "t5xxl.",
                "text_encoder_2.",
                "text_encoder_3.",
            ],
        }
    }

    /// What its file is usually called.
    pub fn usual_names(self) -> &'static str {
        match self {
            Role::Denoiser => {
                "flux1-dev.safetensors, sd3.5_medium.safetensors, flux1-dev-Q4_K_S.gguf"
            }
            Role::ClipL => "clip_l.safetensors",
            Role::ClipG => "clip_g.safetensors",
            Role::T5 => {
                "t5xxl_fp16.safetensors, t5xxl_fp8_e4m3fn.safetensors, t5-v1_1-xxl-encoder-Q8_0.gguf"
            }
            Role::Vae => "ae.safetensors",
        }
    }

    /// Whether a file of that name may hold it.
    pub(super) fn is_named(self, file: &str) -> bool {
        let low = file.to_ascii_lowercase();
        let stem = match low.rsplit_once('.') {
            Some((stem, "safetensors" | "sft" | "gguf")) => stem,
            _ => return false,
        };
        match self {
            Role::Denoiser => false,
            Role::ClipL => stem.starts_with("clip_l"),
            Role::ClipG => stem.starts_with("clip_g"),
            Role::T5 => stem.starts_with("t5xxl") || stem.starts_with("t5-v1_1-xxl"),
            Role::Vae => stem == "ae" || stem.contains("vae"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Denoiser => "denoiser",
            Role::ClipL => "CLIP-L text encoder",
            Role::ClipG => "CLIP-G text encoder",
            Role::T5 => "T5 text encoder",
            Role::Vae => "VAE",
        })
    }
}
