//! What blocks keep in f16 where their products round to that.

use std::collections::BTreeMap;

use ralu::models::builtin;
use ralu::pipeline::rehearsal::Rehearsal;
use ralu::pipeline::{Request, Settings};
use ralu::tensor::Caps;

/// What blocks write that products alone read.
const WRITTEN: [&str; 6] = ["norm1", "norm2", "norm", "norm_out", "mlp.in", "mlp"];
/// What attention writes, alone or beside an MLP.
const ATTENTION: [&str; 2] = ["attn", "attn_mlp"];

/// A card with units for matrices, or without.
fn card(f16: bool) -> Caps {
    let cooperative_matrix = f16.then_some(16);
    let (subgroup_sizes, max_workgroup_bytes) = (Some((32, 32)), 48 << 10);
    let max_binding_bytes = 2 << 30;
    Caps {
        f16,
        cooperative_matrix,
        subgroup_sizes,
        max_workgroup_bytes,
        max_binding_bytes,
        ..Caps::default()
    }
}

/// Bytes of the temporaries of a step, by name.
fn temporaries(
    model: &str,
    text: Option<usize>,
    caps: Caps,
    lora: Option<usize>,
) -> BTreeMap<String, u64> {
    let config = builtin::get(model).unwrap();
    let mut request = Request::new("");
    request.max_sequence_length = text;
    let settings = Settings::resolve(&request, &config).unwrap();
    let rehearsal = match lora {
        None => Rehearsal::new(&config, &settings, caps),
        Some(rank) => Rehearsal::with_lora(rank, &config, &settings, caps),
    };
    let step = &rehearsal.unwrap().steps[0];
    let mut bytes = BTreeMap::new();
    for (label, own) in step.temp_labels.iter().zip(&step.temp_bytes) {
        *bytes.entry(label.clone()).or_default() += own;
    }
    bytes
}

/// The names of the temporaries that take half where products round to f16. All others take as much.
fn halved(model: &str, text: Option<usize>, lora: Option<usize>) -> Vec<String> {
    let [plain, rounding] = [false, true].map(|f16| temporaries(model, text, card(f16), lora));
    let mut halved = Vec::new();
    for (label, bytes) in &plain {
        let found = rounding.get(label);
        if found.map(|found| 2 * found) == Some(*bytes) {
            halved.push(label.clone());
        } else {
            assert_eq!(found, Some(bytes), "{model}: {label}");
        }
    }
    halved
}

/// Whether a temporary has one of these names, in some block.
fn is_one(label: &str, names: &[&str]) -> bool {
    names.iter().any(|name| label == *name || label.ends_with(&format!(".{name}")))
}

fn all(model: &str) -> Vec<String> {
    temporaries(model, None, card(false), None).into_keys().collect()
}

#[test]
fn what_only_products_read_takes_half() {
    for model in ["flux.1-dev", "flux.2-klein-4b", "sd3.5-medium"] {
        let names = [&WRITTEN[..], &ATTENTION].concat();
        let expected: Vec<_> =
            all(model).into_iter().filter(|label| is_one(label, &names)).collect();
        assert!(expected.len() > 40, "{model}: {expected:?}");
        assert_eq!(halved(model, None, None), expected, "{model}");
    }
}

/// A layer with few rows has a kernel in f32, and then what it reads with others is in f32.
#[test]
fn what_few_rows_of_text_read_stays_in_f32() {
    let halved = halved("flux.1-dev", Some(16), None);
    let has = |label: &str| halved.iter().any(|own| own == label);
    assert!(!has("double.3.attn") && !has("double.3.txt.norm1") && !has("double.3.txt.mlp.in"));
    assert!(has("double.3.img.norm1") && has("double.3.img.mlp.in") && has("single.3.attn_mlp"));
}

/// A norm that makes a LoRA's narrow product writes f32.
#[test]
fn norms_that_make_narrow_products_write_f32() {
    let expected: Vec<_> = all("flux.1-dev")
        .into_iter()
        .filter(|label| is_one(label, &["mlp.in", "attn", "attn_mlp"]))
        .collect();
    assert_eq!(halved("flux.1-dev", None, Some(16)), expected);
}
