//! FLUX.2 in files of its own, which are recognised and not read.

use crate::checkpoint::weights::Weights;
use crate::models::adapters::AdapterNames;
use crate::models::family::Recognised;

/// Whether the tensors are a denoiser of FLUX.2.
pub fn recognise(tensors: &Weights) -> Recognised {
    let signs = [
        "double_stream_modulation_img.lin.weight",
        "single_stream_modulation.lin.weight",
        "double_stream_modulation_img.linear.weight",
    ];
    match signs.iter().any(|name| tensors.info(name).is_some()) {
        true => Recognised::Refused(
            "FLUX.2 in a file of its own is not supported; get FLUX.2 [klein] as a diffusers folder",
        ),
        false => Recognised::Other,
    }
}

/// Names in files of changes: diffusers' alone.
pub const ADAPTERS: &AdapterNames = &AdapterNames {
    rules: &[],
    input: "x_embedder",
    marks: &["single_transformer_blocks", "single_blocks", "double_blocks"],
    sure_marks: &["double_stream_modulation", "single_stream_modulation", "to_qkv_mlp_proj"],
    few_steps: &[],
};
