//! VAEs in files of their own, without a configuration: the names of the first latent diffusion models, which Black Forest
//! Labs and Stability AI have kept, and what shapes say.

use serde_json::{Value, json};

use super::files::rules;
use crate::checkpoint::weights::{TensorInfo, WeightError, Weights};

/// Latent channels of the VAEs of models without a transformer.
const OLDER_CHANNELS: usize = 4;

/// Whether the tensors are a VAE.
pub fn is_vae(tensors: &Weights) -> bool {
    tensors.info("decoder.conv_in.weight").is_some()
        && tensors.names().any(|name| name.starts_with("decoder.up"))
}

/// What a VAE is that no model here has, and what to do.
pub fn refusal(tensors: &Weights) -> Option<&'static str> {
    let channels = tensors.info("decoder.conv_in.weight")?.shape.get(1);
    (channels == Some(&OLDER_CHANNELS)).then_some(
        "the VAE of Stable Diffusion 1, 2 or XL (4 latent channels), which is not supported: no model here has it; get \
         ae.safetensors, or the VAE that belongs to the model",
    )
}

/// The decoder under diffusers' names.
pub fn views(tensors: &Weights) -> Result<Weights, WeightError> {
    let levels = rules::blocks(tensors, "decoder.up")?;
    let views = tensors.iter().map(|info| view(info, levels)).collect::<Vec<_>>();
    Ok(tensors.with_views(views))
}

fn view(info: &TensorInfo, levels: usize) -> TensorInfo {
    let Some(name) = diffusers_name(&info.name, levels) else { return info.clone() };
    let view = info.renamed(name.as_str());
    // Convolutions over single pixels are layers.
    match (name.contains(".attentions."), &info.shape[..]) {
        (true, [n, k, 1, 1]) => view.reshaped(&[*n, *k]).unwrap_or(view),
        _ => view,
    }
}

/// diffusers' name of a tensor of the decoder, which has `levels` levels; `None` if it is not an original one.
fn diffusers_name(name: &str, levels: usize) -> Option<String> {
    let rest = name.strip_prefix("decoder.")?;
    let (layer, suffix) = rest.rsplit_once('.')?;
    let parts: Vec<&str> = layer.split('.').collect();
    let layer = match parts[..] {
        ["norm_out"] => "conv_norm_out".to_owned(),
        ["mid", block, layer] if block.starts_with("block_") => {
            let resnet = if block == "block_1" { 0 } else { 1 };
            format!("mid_block.resnets.{resnet}.{}", inner(layer))
        }
        ["mid", "attn_1", layer] => {
            let layer = match layer {
                "norm" => "group_norm",
                "q" => "to_q",
                "k" => "to_k",
                "v" => "to_v",
                "proj_out" => "to_out.0",
                other => other,
            };
            format!("mid_block.attentions.0.{layer}")
        }
        // The file's first level is the largest, diffusers' the smallest.
        ["up", level, "block", block, layer] => {
            let level = levels.checked_sub(1 + level.parse::<usize>().ok()?)?;
            format!("up_blocks.{level}.resnets.{block}.{}", inner(layer))
        }
        ["up", level, "upsample", "conv"] => {
            let level = levels.checked_sub(1 + level.parse::<usize>().ok()?)?;
            format!("up_blocks.{level}.upsamplers.0.conv")
        }
        _ => return None,
    };
    Some(format!("decoder.{layer}.{suffix}"))
}

fn inner(layer: &str) -> &str {
    if layer == "nin_shortcut" { "conv_shortcut" } else { layer }
}

/// `config.json` of a VAE of the class `class`, from the shapes of [`views`] and its family's factors.
pub fn configuration(
    views: &Weights,
    class: &str,
    (scale, shift): (f64, f64),
) -> Result<Value, WeightError> {
    let side = |name: &str, axis| rules::side(views, name, 4, axis);
    let levels = rules::blocks(views, "decoder.up_blocks")?;
    let mut channels = Vec::new();
    for level in (0..levels).rev() {
        let name = format!("decoder.up_blocks.{level}.resnets.0.conv1.weight");
        channels.push(side(&name, 0)?);
    }
    let resnets = rules::blocks(views, "decoder.up_blocks.0.resnets")?;
    let has = |name: &str| views.info(name).is_some();
    Ok(json!({
        "_class_name": class,
        "block_out_channels": channels,
        "layers_per_block": resnets.saturating_sub(1),
        "latent_channels": side("decoder.conv_in.weight", 1)?,
        "out_channels": side("decoder.conv_out.weight", 0)?,
        "norm_num_groups": 32,
        "scaling_factor": scale,
        "shift_factor": shift,
        "use_post_quant_conv": has("post_quant_conv.weight"),
        "mid_block_add_attention": has("decoder.mid_block.attentions.0.to_q.weight"),
    }))
}
