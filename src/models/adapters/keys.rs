//! How keys end: what of a layer a tensor is.

/// What of a layer's change a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    Down,
    Up,
    UpBias,
    Mid,
    Alpha,
    Scale,
    Magnitude,
    HadaW1A,
    HadaW1B,
    HadaW2A,
    HadaW2B,
    KronW1,
    KronW1A,
    KronW1B,
    KronW2,
    KronW2A,
    KronW2B,
    Diff,
    DiffBias,
    Replaced,
    /// The shape that a weight is padded to: says nothing that the factors do not.
    Reshape,
}

/// Ends of keys. `*` stands for the name of an adapter, `.default`, or for nothing.
const SUFFIXES: &[(&str, Slot)] = &[
    (".lora_A*.weight", Slot::Down),
    (".lora_down*.weight", Slot::Down),
    (".lora.down.weight", Slot::Down),
    ("_lora.down.weight", Slot::Down),
    (".lora_linear_layer.down.weight", Slot::Down),
    (".down.weight", Slot::Down),
    (".lora_A", Slot::Down),
    (".lora_B*.weight", Slot::Up),
    (".lora_up*.weight", Slot::Up),
    (".lora.up.weight", Slot::Up),
    ("_lora.up.weight", Slot::Up),
    (".lora_linear_layer.up.weight", Slot::Up),
    (".up.weight", Slot::Up),
    (".lora_B", Slot::Up),
    (".lora_B*.bias", Slot::UpBias),
    (".lora_up.bias", Slot::UpBias),
    (".lora_mid.weight", Slot::Mid),
    (".alpha", Slot::Alpha),
    (".dora_scale", Slot::Magnitude),
    (".lora_magnitude_vector*.weight", Slot::Magnitude),
    (".lora_magnitude_vector*", Slot::Magnitude),
    (".hada_w1_a", Slot::HadaW1A),
    (".hada_w1_b", Slot::HadaW1B),
    (".hada_w2_a", Slot::HadaW2A),
    (".hada_w2_b", Slot::HadaW2B),
    (".lokr_w1", Slot::KronW1),
    (".lokr_w1_a", Slot::KronW1A),
    (".lokr_w1_b", Slot::KronW1B),
    (".lokr_w2", Slot::KronW2),
    (".lokr_w2_a", Slot::KronW2A),
    (".lokr_w2_b", Slot::KronW2B),
    (".diff", Slot::Diff),
    (".w_norm", Slot::Diff),
    (".diff_b", Slot::DiffBias),
    (".b_norm", Slot::DiffBias),
    (".set_weight", Slot::Replaced),
    (".scale.set_weight", Slot::Replaced),
    (".weight.set_weight", Slot::Replaced),
    (".reshape_weight", Slot::Reshape),
    (".scale", Slot::Scale),
];

/// Ends of layers whose `.scale` or `.weight` is a norm's, given whole.
const NORMS: [&str; 8] =
    ["query_norm", "key_norm", "norm_q", "norm_k", "norm_added_q", "norm_added_k", "ln_q", "ln_k"];

/// Ends of keys of kinds that are not read, and what they are called.
const UNSUPPORTED: &[(&str, &str)] = &[
    (".oft_blocks", "OFT"),
    (".oft_diag", "OFT"),
    (".oft_R*", "OFT"),
    (".oft_R*.weight", "OFT"),
    (".boft_R*", "BOFT"),
    (".boft_s*", "BOFT"),
    (".a1.weight", "GLoRA"),
    (".a2.weight", "GLoRA"),
    (".b1.weight", "GLoRA"),
    (".b2.weight", "GLoRA"),
    (".on_input", "IA3"),
    (".lora_E", "AdaLoRA"),
    (".hada_t1", "LoHa in Tucker's form (hada_t1)"),
    (".hada_t2", "LoHa in Tucker's form (hada_t2)"),
    (".lokr_t2", "LoKr in Tucker's form (lokr_t2)"),
];

/// What is in front of `suffix`, if `key` ends with it.
fn before<'k>(key: &'k str, suffix: &str) -> Option<&'k str> {
    let Some((begin, end)) = suffix.split_once('*') else { return key.strip_suffix(suffix) };
    let rest = key.strip_suffix(end)?;
    if let Some(layer) = rest.strip_suffix(begin) {
        return Some(layer);
    }
    let (rest, name) = rest.rsplit_once('.')?;
    let is_name = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    is_name.then(|| rest.strip_suffix(begin)).flatten()
}

/// What a key may be: layers, and what of them, with the longest ends first. The first whose layer is known counts.
pub fn candidates(key: &str) -> Vec<(&str, Slot)> {
    let found = |(suffix, slot): &(&str, Slot)| Some((before(key, suffix)?, *slot));
    let mut all: Vec<(&str, Slot)> = SUFFIXES.iter().filter_map(found).collect();
    for end in [".scale", ".weight"] {
        if let Some(layer) = key.strip_suffix(end)
            && NORMS.iter().any(|norm| layer.ends_with(norm))
        {
            all.retain(|(_, slot)| *slot != Slot::Scale);
            all.push((layer, Slot::Replaced));
        }
    }
    all.sort_by_key(|(layer, _)| layer.len());
    all
}

/// The layer of a key whose kind is not read, and the kind.
pub fn unsupported(key: &str) -> Option<(&str, &'static str)> {
    UNSUPPORTED.iter().find_map(|(suffix, kind)| Some((before(key, suffix)?, *kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_end_comes_first() {
        let first = |key| candidates(key)[0];
        assert_eq!(first("a.lora_A.default.weight"), ("a", Slot::Down));
        assert_eq!(first("a.lora_B.weight"), ("a", Slot::Up));
        assert_eq!(first("a.lora_B.bias"), ("a", Slot::UpBias));
        assert_eq!(first("a.lora.down.weight"), ("a", Slot::Down));
        assert_eq!(first("a.lokr_w2_a"), ("a", Slot::KronW2A));
        assert_eq!(first("a.key_norm.scale"), ("a.key_norm", Slot::Replaced));
        assert_eq!(first("a.norm_q.weight"), ("a.norm_q", Slot::Replaced));
        assert_eq!(first("a.key_norm.scale.set_weight"), ("a.key_norm", Slot::Replaced));
        assert_eq!(first("a.lora_magnitude_vector.default"), ("a", Slot::Magnitude));
        assert_eq!(first("a.to_q.scale"), ("a.to_q", Slot::Scale));
        let xlabs: Vec<_> = candidates("b.0.processor.qkv_lora.down.weight");
        assert!(xlabs.contains(&("b.0.processor.qkv_lora", Slot::Down)), "{xlabs:?}");
        assert!(candidates("a.hessian").is_empty());
        assert_eq!(unsupported("a.oft_blocks"), Some(("a", "OFT")));
        assert_eq!(unsupported("a.lora_A.weight"), None);
    }
}
