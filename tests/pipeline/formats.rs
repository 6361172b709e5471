//! Models as people have them, against what diffusers makes of the same numbers: `tests/fixtures/formats`, random weights in
//! real layouts. Each case has the options that open it; what is in no case is in `tests/models/files.rs`.

use std::path::Path;

use ralu::models::files::{ModelPaths, Role};

use super::references::{Case, Limits, fixture};

/// The cases agree with themselves in float64 to 1e-6. The smallest mistake in a map of names, a bias of one block lost,
/// moves the latents by 7e-4, and weights rounded to f16 move them by 3e-4.
pub(super) const LIMITS: Limits = Limits { embeddings: 1e-4, latents: 2e-4, psnr: 50.0 };

/// What options of the command line name, which are relative to `folder`.
pub(super) fn paths(folder: &Path, args: &[&str]) -> ModelPaths {
    let mut paths = ModelPaths::default();
    for pair in args.chunks(2) {
        let [option, path] = pair else { panic!("{args:?}") };
        let path = folder.join(path).to_str().unwrap().to_owned();
        let role = match *option {
            "--model" => {
                paths.model = path;
                continue;
            }
            "--diffusion-model" => {
                paths.diffusion_model = Some(path);
                continue;
            }
            "--clip-tokenizer" => {
                paths.clip_tokenizer = Some(path);
                continue;
            }
            "--t5-tokenizer" => {
                paths.t5_tokenizer = Some(path);
                continue;
            }
            "--clip-l" => Role::ClipL,
            "--clip-g" => Role::ClipG,
            "--t5xxl" => Role::T5,
            "--vae" => Role::Vae,
            other => panic!("{other}"),
        };
        paths.parts.insert(role, path);
    }
    paths
}

fn check(name: &str) {
    Case::open(&fixture("formats").join(name)).check_plain(LIMITS);
}

/// Black Forest Labs' names, each part in a file of its own, configurations from shapes.
#[test]
fn flux_in_separate_files_equals_diffusers() {
    check("flux-bfl-bf16");
}

/// All tensors in e4m3fn, biases and norms too.
#[test]
fn flux_in_fp8_equals_diffusers() {
    check("flux-fp8");
}

/// Prefixes, tensors that are ignored, a VAE without its encoder.
#[test]
fn flux_all_in_one_equals_diffusers() {
    check("flux-aio-fp8");
}

/// Every block format of GGUF in one denoiser, and T5 under llama.cpp's names.
#[test]
fn flux_in_gguf_equals_diffusers() {
    check("flux-gguf");
}

/// fp8 with scales: one a tensor, in ComfyUI's older spelling, with scales of activations; T5, too.
#[test]
fn flux_in_scaled_fp8_equals_diffusers() {
    check("flux-fp8-scaled");
}

/// fp8 with scales in some layers, by their own descriptions; bf16 in others.
#[test]
fn flux_in_fp8_by_layers_equals_diffusers() {
    check("flux-fp8-layers");
}

/// NF4 of bitsandbytes.
#[test]
fn flux_in_nf4_equals_diffusers() {
    check("flux-nf4");
}

/// The original names with two attentions in a block, both CLIPs, T5 in scaled fp8.
#[test]
fn sd35_all_in_one_equals_diffusers() {
    check("sd35m-aio");
}
