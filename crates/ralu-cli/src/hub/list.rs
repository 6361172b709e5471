//! `ralu list`: the models in the cache, LoRAs with names, and models that are known by name.

use ralu::escape::Escaped;
use ralu::gpu::human_bytes;
use ralu::models::builtin;
use ralu_host::loras::NamedLora;
use ralu_host::models::is_lora_file;
use ralu_hub::cache::CachedModel;
use serde_json::{Value, json};

use super::{hub, loras};
use crate::args::ListArgs;
use crate::error::Result;
use crate::output;

/// Lists them.
pub fn run(args: &ListArgs) -> Result<()> {
    let hub = hub();
    let models = hub.models();
    let cache = hub.settings().cache.to_string_lossy().into_owned();
    if args.json {
        let models: Vec<Value> = models.iter().map(as_json).collect();
        let known: Vec<Value> = known()
            .map(|known| {
                json!({
                    "name": known.name,
                    "repository": known.repository,
                    "licence": known.licence,
                    "bytes": known.bytes,
                    "formats": known.formats,
                })
            })
            .collect();
        let loras: Vec<Value> = named_loras()
            .iter()
            .map(|lora| {
                json!({ "name": lora.name, "path": lora.path.to_string_lossy(), "bytes": lora.bytes })
            })
            .collect();
        return output::json(
            &json!({ "cache": cache, "models": models, "known": known, "loras": loras }),
        );
    }
    output::line(format!("in {}:", Escaped(&cache)))?;
    if models.is_empty() {
        output::line("  nothing that ralu can read")?;
    }
    for model in &models {
        let name = model.known.unwrap_or(&model.snapshot.repository);
        let partial = if model.is_partial { "  (incomplete: `ralu pull` goes on)" } else { "" };
        output::line(format!("  {:<40} {:>10}{partial}", Escaped(name), human_bytes(model.bytes)))?;
        for file in &model.files {
            let lora =
                if is_lora_file(&model.snapshot.folder.join(file)) { "  (a LoRA)" } else { "" };
            let repository = Escaped(&model.snapshot.repository);
            output::line(format!("    {repository}:{}{lora}", Escaped(file)))?;
        }
    }
    if let Some(folder) = loras() {
        let folder = folder.folder().to_string_lossy().into_owned();
        output::line(format!("\nLoRAs in {} (`--lora NAME`):", Escaped(&folder)))?;
        let named = named_loras();
        if named.is_empty() {
            output::line("  none")?;
        }
        for lora in named {
            let bytes = human_bytes(lora.bytes);
            output::line(format!("  {:<40} {bytes:>10}", Escaped(&lora.name)))?;
        }
    }
    output::line("\nknown by name (`ralu pull NAME`, or `NAME:FORMAT` where formats are listed):")?;
    for known in known() {
        let here = models.iter().any(|model| model.known == Some(known.name));
        let here = if here { "  (in the cache)" } else { "" };
        let bytes = human_bytes(known.bytes);
        output::line(format!("  {:<22} {bytes:>10}  {}{here}", known.name, known.licence))?;
        if !known.formats.is_empty() {
            output::line(format!("  {:<22} {:>10}  {}", "", "", known.formats.join(", ")))?;
        }
    }
    Ok(())
}

fn named_loras() -> Vec<NamedLora> {
    loras().map_or(vec![], |folder| folder.list())
}

/// A model that can be pulled by its name.
struct Known {
    name: &'static str,
    repository: &'static str,
    licence: &'static str,
    /// Of its weights in 16 bits, as they are published; those of the VAE's decoder alone, which are few.
    bytes: u64,
    /// Number formats in which its denoiser can be had.
    formats: Vec<&'static str>,
}

fn known() -> impl Iterator<Item = Known> {
    builtin::known().filter_map(|known| {
        let weights = builtin::weight_bytes(&(known.config)(), 2);
        let bytes =
            weights.transformer + weights.text_encoders.iter().sum::<u64>() + weights.vae_decoder;
        let repository = known.repositories.first()?;
        let quantised = known.quantised.iter().flat_map(|files| files.formats);
        let formats = quantised.map(|(format, _)| *format).collect();
        Some(Known { name: known.name, repository, licence: known.licence, bytes, formats })
    })
}

fn as_json(model: &CachedModel) -> Value {
    json!({
        "name": model.known,
        "repository": model.snapshot.repository,
        "commit": model.snapshot.commit,
        "folder": model.snapshot.folder.to_string_lossy(),
        "bytes": model.bytes,
        "complete": !model.is_partial,
        "files": model.files,
    })
}
