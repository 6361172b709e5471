//! Weights files: values, types, names of checkpoints, and damaged ones.

use ralu::checkpoint::source::{Memory, Source, SourceError};
use ralu::checkpoint::weights::*;
use ralu::models::config::*;
use ralu::models::cost::Parameters;

use crate::folders::{Lcg, assert_mentions, bundled, damage, fixture, safetensors};

fn open_bytes(bytes: &[u8]) -> Result<Weights, WeightError> {
    Weights::open_file(&Memory::new("m").with("f.safetensors", bytes), "f.safetensors")
}

/// One F32 tensor of two elements.
fn one(name: &str) -> Vec<u8> {
    safetensors(
        &format!(r#"{{"{name}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#),
        &[0; 8],
    )
}

#[test]
fn opens_every_checkpoint_of_the_test_models() {
    let fixtures = ["flux-a", "flux-b", "sd3-a", "sd3-calm", "sd35m-b"].map(fixture);
    for folder in [bundled()].into_iter().chain(fixtures) {
        let config = ModelConfig::load(&folder).unwrap();
        let count = |dir: &str, stem: &str, keep: &str| -> u64 {
            let weights = Weights::open(&folder, dir, stem).unwrap();
            assert!(!weights.is_empty());
            assert_eq!(weights.names().count(), weights.len());
            weights
                .iter()
                // SD3's table of positions is computed, not learned.
                .filter(|info| info.name.starts_with(keep) && *info.name != *"pos_embed.pos_embed")
                .map(TensorInfo::n_elements)
                .sum()
        };
        // The configuration tells the number of parameters.
        let found = Parameters {
            transformer: count(folder::TRANSFORMER, stem::DIFFUSERS, ""),
            text_encoders: (config.text_encoders.iter())
                .map(|encoder| count(encoder.folder, stem::TRANSFORMERS, ""))
                .collect(),
            vae_decoder: count(folder::VAE, stem::DIFFUSERS, "decoder."),
        };
        assert_eq!(found, Parameters::of(&config), "{}", folder.name());
    }
    let sharded = Weights::open(&fixture("flux-a"), "transformer", stem::DIFFUSERS).unwrap();
    assert_eq!(sharded.files().count(), 3);
    assert_eq!(sharded.total_bytes(), 8_422_912);
    assert!(sharded.info("proj_out.weight").unwrap().file.ends_with("00003-of-00003.safetensors"));
}

#[test]
fn values_equal_those_of_the_safetensors_crate() {
    let path = "vae/diffusion_pytorch_model.safetensors";
    for folder in [bundled(), fixture("flux-a")] {
        let bytes = std::fs::read(format!("{}/{path}", folder.name())).unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let ours = Weights::open(&folder, "vae", stem::DIFFUSERS).unwrap();
        assert_eq!(ours.len(), theirs.len());
        for (name, view) in theirs.iter() {
            let info = ours.info(name).unwrap();
            assert_eq!(info.shape, view.shape());
            assert_eq!(*ours.bytes(info, 0..info.n_bytes()).unwrap(), *view.data(), "{name}");
        }
        let info = ours.info("decoder.conv_in.weight").unwrap();
        let all = ours.tensor_f32(info).unwrap();
        assert_eq!(all.len() as u64, info.n_elements());
        let row = all.len() / info.shape[0];
        assert_eq!(ours.rows_f32(info, 3..5).unwrap(), all[3 * row..5 * row]);
        let mut part = vec![7.0];
        ours.read_f32(info, 10..12, &mut part).unwrap();
        assert_eq!(part, [7.0, all[10], all[11]]);
        assert!(matches!(
            ours.rows_f32(info, 0..info.shape[0] + 1),
            Err(WeightError::Range { unit: "rows", .. })
        ));
        assert!(matches!(
            ours.read_f32(info, 5..u64::MAX, &mut part),
            Err(WeightError::Range { .. })
        ));
        assert!(matches!(
            ours.bytes(info, 1..info.n_bytes() + 1),
            Err(WeightError::Range { unit: "bytes", .. })
        ));
    }
}

#[test]
fn converts_every_supported_type_and_finds_what_is_not_finite() {
    let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},
        "b":{"dtype":"F16","shape":[4],"data_offsets":[16,24]}, "c":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},
        "d":{"dtype":"F64","shape":[1],"data_offsets":[32,40]}, "e":{"dtype":"F8_E4M3FNUZ","shape":[5],"data_offsets":[40,45]},
        "s":{"dtype":"F32","shape":[],"data_offsets":[45,49]}, "z":{"dtype":"F32","shape":[0,3],"data_offsets":[49,49]}}"#;
    let mut data = Vec::new();
    [1.0f32, -2.5, f32::NEG_INFINITY, 1e-40].iter().for_each(|x| data.extend(x.to_le_bytes()));
    [1.0f32, 0.333, f32::NAN, -65504.0]
        .iter()
        .for_each(|x| data.extend(half::f16::from_f32(*x).to_le_bytes()));
    [1.0f32, 3e38, -0.5, f32::INFINITY]
        .iter()
        .for_each(|x| data.extend(half::bf16::from_f32(*x).to_le_bytes()));
    data.extend(0.1f64.to_le_bytes());
    data.extend([1, 2, 3, 4, 5]);
    data.extend(4.5f32.to_le_bytes());
    let weights = open_bytes(&safetensors(header, &data)).unwrap();
    let read = |name: &str, range| {
        let mut out = Vec::new();
        weights.read_f32(weights.info(name).unwrap(), range, &mut out).map(|()| out)
    };
    assert_eq!(read("a", 0..2).unwrap(), [1.0, -2.5]);
    assert_eq!(read("a", 3..4).unwrap(), [1e-40]);
    assert_eq!(read("b", 0..2).unwrap(), [1.0, half::f16::from_f32(0.333).to_f32()]);
    assert_eq!(read("b", 3..4).unwrap(), [-65504.0]);
    assert_eq!(read("c", 2..3).unwrap(), [-0.5]);
    assert_eq!(read("d", 0..1).unwrap(), [0.1]);
    assert_eq!(read("s", 0..1).unwrap(), [4.5]);
    assert_eq!(weights.rows_f32(weights.info("z").unwrap(), 0..0).unwrap(), [0.0; 0]);
    for (name, at) in [("a", 2), ("b", 2), ("c", 3)] {
        let info = weights.info(name).unwrap();
        let error = read(name, 1..4).unwrap_err();
        assert!(matches!(error, WeightError::NotFinite { index, .. } if index == at), "{error}");
        assert_mentions(&error.to_string(), &["m/f.safetensors", name]);
        let bytes = weights.bytes(info, 0..info.n_bytes()).unwrap();
        let dtype = info.dtype.known().unwrap();
        assert_eq!(dtype.first_not_finite(&bytes), Some(at as usize));
        let size = dtype.block.bytes;
        let error = weights.check_finite(info, size as u64, &bytes[size..]).unwrap_err();
        assert!(matches!(error, WeightError::NotFinite { index, .. } if index == at), "{error}");
        weights.check_finite(info, 0, &bytes[..size]).unwrap();
    }
    // An unknown type is no obstacle until it is asked for.
    assert_eq!(weights.info("e").unwrap().dtype.name(), "F8_E4M3FNUZ");
    assert_mentions(&read("e", 0..1).unwrap_err().to_string(), &["e", "F8_E4M3FNUZ", "BF16"]);
    let manifest = Manifest::new(&weights);
    manifest.root().require("e", &[5]);
    assert!(matches!(manifest.finish(&[]), Err(WeightError::DType { .. })));
}

#[test]
fn damaged_files_are_refused_with_a_reason() {
    let tensor = |rest: &str| format!(r#"{{"a":{{{rest}}}}}"#);
    let good = r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#;
    let cases: &[(Vec<u8>, &str)] = &[
        (vec![1, 2, 3], "only 3 bytes"),
        (vec![0; 8], "header"),
        ((1u64 << 60).to_le_bytes().to_vec(), "announce"),
        (u64::MAX.to_le_bytes().to_vec(), "announce"),
        (b"PK\x03\x04 this is a zip, such as pytorch_model.bin".to_vec(), "pickled"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(),
            "git lfs pull",
        ),
        (safetensors(&tensor(good), &[0; 8])[..40].to_vec(), "truncated"),
        (safetensors(&tensor(good), &[0; 7]), "0..8"),
        (safetensors("{\"\u{0}\"", &[]), "JSON"),
        (safetensors("[]", &[]), "JSON"),
        (safetensors("", &[]), "JSON"),
        (safetensors(&"[".repeat(100_000), &[]), "JSON"),
        (safetensors(&format!("{} x", tensor(good)), &[0; 8]), "JSON"),
        ([&2u64.to_le_bytes()[..], &[b'{', 0xff]].concat(), "UTF-8"),
        ([&2u64.to_le_bytes()[..], b"  "].concat(), "does not begin with {"),
        (safetensors(&tensor(r#""shape":[2],"data_offsets":[0,8]"#), &[0; 8]), "no dtype"),
        (safetensors(&tensor(r#""dtype":"F32","data_offsets":[0,8]"#), &[0; 8]), "no shape"),
        (
            safetensors(&tensor(r#""dtype":"F32","shape":[-2],"data_offsets":[0,8]"#), &[0; 8]),
            "no shape",
        ),
        (safetensors(&tensor(r#""dtype":"F32","shape":[2]"#), &[0; 8]), "no data_offsets"),
        (
            safetensors(&tensor(r#""dtype":"F32","shape":[2],"data_offsets":[0]"#), &[0; 8]),
            "no data_offsets",
        ),
        (
            safetensors(&tensor(r#""dtype":"F32","shape":[2],"data_offsets":[8,0]"#), &[0; 8]),
            "8..0",
        ),
        (
            safetensors(
                &tensor(r#""dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]"#),
                &[0; 8],
            ),
            "inside",
        ),
        (
            safetensors(&tensor(r#""dtype":"F32","shape":[3],"data_offsets":[0,8]"#), &[0; 8]),
            "does not make 8 bytes",
        ),
        (
            safetensors(
                &tensor(r#""dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]"#),
                &[0; 8],
            ),
            "does not make",
        ),
        (
            safetensors(
                &tensor(r#""dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]"#),
                &[],
            ),
            "overflows",
        ),
        (
            safetensors(
                &format!(
                    r#"{{"a":{{{good}}},"b":{{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}}}"#
                ),
                &[0; 12],
            ),
            "overlap",
        ),
        (safetensors(&format!(r#"{{"a":{{{good}}},"a":{{{good}}}}}"#), &[0; 8]), "twice"),
        (safetensors(r#"{"a":3}"#, &[]), "no dtype"),
    ];
    for (bytes, part) in cases {
        let error = open_bytes(bytes).expect_err(part);
        assert_mentions(&error.to_string(), &["m/f.safetensors", part]);
    }
    assert!(matches!(open_bytes(&[]), Err(WeightError::Source(SourceError::Empty { .. }))));
    assert_eq!(open_bytes(&safetensors("{}", &[])).unwrap().len(), 0);
    assert_eq!(
        open_bytes(&safetensors(r#"{"__metadata__":{"format":"pt"}}  "#, &[])).unwrap().len(),
        0
    );
}

#[test]
fn damaged_headers_never_panic() {
    let mut random = Lcg(2);
    let folder = fixture("flux-a");
    let whole =
        std::fs::read(format!("{}/text_encoder_2/model.safetensors", folder.name())).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for _ in 0..2_000 {
        let mut bytes = damage(&whole[..header], &mut random);
        bytes.extend_from_slice(&whole[header..header + 1000]);
        if let Ok(weights) = open_bytes(&bytes) {
            weights.iter().for_each(|info| drop(weights.tensor_f32(info)));
        }
        let mut bytes = damage(&whole[..header], &mut random);
        bytes.extend_from_slice(&whole[header..]);
        if let Ok(weights) = open_bytes(&bytes) {
            weights.iter().for_each(|info| drop(weights.rows_f32(info, 0..1)));
        }
    }
}

#[test]
fn finds_checkpoints_by_their_names() {
    let open = |files: &[(&str, Vec<u8>)]| {
        let source = files
            .iter()
            .fold(Memory::new("m"), |m, (name, bytes)| m.with(format!("vae/{name}"), bytes));
        Weights::open(&source, "vae", "model")
    };
    let index = |map: &str| format!(r#"{{"weight_map":{map}}}"#).into_bytes();
    assert_eq!(
        open(&[("model.safetensors", one("a"))]).unwrap().names().collect::<Vec<_>>(),
        ["a"]
    );
    assert!(open(&[("model.fp16.safetensors", one("a"))]).is_ok());
    let sharded = [("1.safetensors", one("a")), ("2.safetensors", one("b"))];
    let with = |map: &str| [&sharded[..], &[("model.safetensors.index.json", index(map))]].concat();
    let both = open(&with(r#"{"a":"1.safetensors","b":"2.safetensors"}"#)).unwrap();
    assert_eq!((both.len(), both.total_bytes()), (2, 16));

    let message = |result: Result<Weights, WeightError>| result.unwrap_err().to_string();
    assert_mentions(&message(open(&[])), &["m/vae", "model.safetensors", "found nothing"]);
    assert_mentions(&message(open(&[("model.bin", vec![1])])), &["model.bin", "pickled"]);
    assert_mentions(
        &message(open(&with(r#"{"a":"3.safetensors"}"#))),
        &["3.safetensors", "not there", "index.json"],
    );
    // The index of one variant, the file of another.
    let mut mixed = with(r#"{"a":"3.safetensors"}"#);
    mixed.push(("model.fp16.safetensors", one("c")));
    assert_eq!(open(&mixed).unwrap().names().collect::<Vec<_>>(), ["c"]);
    assert_mentions(
        &message(open(&with(r#"{"a":"2.safetensors"}"#))),
        &["a", "2.safetensors", "does not have it"],
    );
    assert_mentions(&message(open(&with(r#"{"c":"2.safetensors"}"#))), &["c", "2.safetensors"]);
    for evil in [r#""../../secret""#, r#""/etc/passwd""#, r#""..""#, r#""""#, "3", "null"] {
        assert_mentions(&message(open(&with(&format!(r#"{{"a":{evil}}}"#)))), &["plain file name"]);
    }
    for bad in ["{}", r#"{"weight_map":3}"#, "not json", "[]"] {
        let files = [("model.safetensors.index.json", bad.as_bytes().to_vec())];
        assert!(matches!(open(&files), Err(WeightError::Index { .. })), "{bad}");
    }
    assert!(matches!(open(&with("{}")), Err(WeightError::Index { .. })));
    let twice = [("1.safetensors", one("a")), ("2.safetensors", one("a"))];
    let map = index(r#"{"a":"1.safetensors","b":"2.safetensors"}"#);
    let files = [&twice[..], &[("model.safetensors.index.json", map)]].concat();
    assert_mentions(&message(open(&files)), &["a is also in", "1.safetensors"]);
}

#[test]
fn manifest_reports_everything_at_once() {
    let folder = fixture("flux-a");
    let weights = Weights::open(&folder, "transformer", stem::DIFFUSERS).unwrap();
    let manifest = Manifest::new(&weights);
    let w = manifest.root();
    let block = w.pp("transformer_blocks").pp(1);
    assert_eq!(block.prefix(), "transformer_blocks.1");
    let to_q = block.require("attn.to_q.weight", &[128, 128]);
    assert_eq!(&*to_q.name, "transformer_blocks.1.attn.to_q.weight");
    assert_eq!(to_q.dtype.name(), "F32");
    block.require("attn.to_q.weight", &[128, 128]);
    assert_eq!((manifest.total_bytes(), manifest.tensors().len()), (128 * 128 * 4, 1));
    assert!(w.optional("no.such", &[1]).is_none());
    assert!(w.has("proj_out.weight") && !w.has("proj_out"));
    let extra = manifest.finish(&[]).unwrap();
    assert_eq!(extra.len(), weights.len() - 1);
    let extra =
        manifest.finish(&["single_transformer_blocks.", "transformer_blocks.0.", "bias"]).unwrap();
    assert!(
        extra.iter().all(|name| !name.starts_with("single_") && !name.ends_with(".bias")),
        "{extra:?}"
    );

    // Two problems at once, one of them a shape.
    let absent = w.require("proj_in.weight", &[3, 4]);
    let wrong = w.require("proj_out.weight", &[64, 129]);
    assert_eq!((absent.shape.as_slice(), wrong.shape.as_slice()), (&[3, 4][..], &[64, 129][..]));
    assert!(matches!(
        weights.tensor_f32(&absent),
        Err(WeightError::Missing { .. } | WeightError::Range { .. })
    ));
    assert!(weights.bytes(&wrong, 0..1).is_err());
    let message = manifest.finish(&[]).unwrap_err().to_string();
    assert_mentions(
        &message,
        &["2 tensors", "proj_in.weight is missing", "[64, 128]", "[64, 129]", "flux-a"],
    );
    assert_eq!(message.lines().count(), 3);

    // A long list is cut off.
    for i in 0..100 {
        w.pp("blocks").pp(i).require("weight", &[1]);
    }
    let message = manifest.finish(&[]).unwrap_err().to_string();
    assert_mentions(&message, &["100 tensors", "blocks.19.weight", "and 80 more"]);
    assert_eq!(message.lines().count(), 22);
}

#[test]
fn manifest_knows_prefixes_and_aliases() {
    for name in ["text_model.final_layer_norm.bias", "final_layer_norm.bias"] {
        let weights = open_bytes(&one(name)).unwrap();
        let manifest = Manifest::new(&weights);
        let w = manifest.root().pp_if_present("text_model");
        assert_eq!(&*w.require("final_layer_norm.bias", &[2]).name, name);
        assert!(manifest.finish(&[]).unwrap().is_empty());
    }
    let names = ["shared.weight", "encoder.embed_tokens.weight"];
    for name in names {
        let weights = open_bytes(&one(name)).unwrap();
        let manifest = Manifest::new(&weights);
        assert_eq!(&*manifest.root().require_any(&names, &[2]).name, name);
        assert!(manifest.finish(&[]).unwrap().is_empty());
    }
    let weights = open_bytes(&one("text_model.embeddings.position_ids")).unwrap();
    assert!(Manifest::new(&weights).finish(&["position_ids"]).unwrap().is_empty());
    assert_eq!(Manifest::new(&weights).finish(&["ids"]).unwrap().len(), 1);
    let manifest = Manifest::new(&weights);
    manifest.root().require_any(&names, &[2]);
    assert_mentions(
        &manifest.finish(&[]).unwrap_err().to_string(),
        &["shared.weight or encoder.embed_tokens.weight"],
    );
}
