//! Quantised weights whose scales are other tensors: every spelling of scaled fp8, NF4, and what is refused.
//!
//! The numbers of files of other programs are compared with decoding them here, from the files' bytes and by the formats'
//! definitions, as the `safetensors` crate finds them.

use std::collections::BTreeMap;

use ralu::checkpoint::pack::{self, Packer};
use ralu::checkpoint::source::Memory;
use ralu::checkpoint::weights::*;
use ralu::models::layers::{LoadContext, Loader, Precision, Upload};
use ralu::tensor::{PackedWeight, ResidentIds, Storage};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use crate::common::f8_e4m3_number;
use crate::folders::{assert_mentions, repository};

fn read(path: &str) -> Vec<u8> {
    std::fs::read(repository("tests/fixtures/formats").join(path)).unwrap()
}

fn open(bytes: &[u8]) -> Result<Weights, WeightError> {
    Weights::open_file(&Memory::new("m").with("f.safetensors", bytes), "f.safetensors")
}

/// Tensors of a file that is to be written: name, type, shape, bytes.
#[derive(Clone, Default)]
struct File {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    metadata: Option<String>,
}

impl File {
    fn with(mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Self {
        self.tensors.insert(name.into(), (dtype, shape.to_vec(), bytes.to_vec()));
        self
    }

    fn floats(self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.with(name, Dtype::F32, shape, &bytes)
    }

    fn json(self, name: &str, text: &str) -> Self {
        self.with(name, Dtype::U8, &[text.len()], text.as_bytes())
    }

    fn without(mut self, name: &str) -> Self {
        self.tensors.remove(name).expect(name);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let metadata = self.metadata.iter();
        let metadata = metadata.map(|text| ("_quantization_metadata".into(), text.clone()));
        serialize(views, Some(metadata.collect())).unwrap()
    }

    fn open(&self) -> Result<Weights, WeightError> {
        open(&self.bytes())
    }

    #[track_caller]
    fn says(&self, parts: &[&str]) {
        assert_mentions(&self.open().unwrap_err().to_string(), parts);
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// 4 rows of 64 codes of fp8, none of them NaN.
fn codes() -> Vec<u8> {
    (0..=255u8).map(|code| if code & 0x7f == 0x7f { 3 } else { code }).collect()
}

fn fp8(name: &str) -> File {
    File::default().with(name, Dtype::F8_E4M3, &[4, 64], &codes())
}

/// All numbers of the file's tensor, by all ways to read it.
#[track_caller]
fn numbers(weights: &Weights, name: &str) -> Vec<f32> {
    let info = weights.info(name).unwrap();
    let all = weights.tensor_f32(info).unwrap();
    let [rows, width] = [info.shape[0], all.len() / info.shape[0]];
    for row in [0, rows / 2, rows - 1] {
        let found = weights.rows_f32(info, row..row + 1).unwrap();
        assert_eq!(found, all[row * width..(row + 1) * width], "{name} row {row}");
    }
    all
}

#[track_caller]
fn assert_scaled(weights: &Weights, name: &str, scale: impl Fn(usize) -> f32) {
    let expected: Vec<f32> = (codes().iter().enumerate())
        .map(|(i, code)| f8_e4m3_number(*code) * scale(i / 64))
        .collect();
    assert_eq!(numbers(weights, name), expected, "{name}");
    let rows: Vec<f32> = (1..3).map(scale).collect();
    assert_eq!(weights.scales(weights.info(name).unwrap(), 1..3).unwrap(), rows);
}

#[test]
fn every_spelling_of_scaled_fp8_is_read() {
    let layers = |layer: &str| {
        let layers = format!(r#"{{"{layer}":{{"format":"float8_e4m3fn"}}}}"#);
        Some(format!(r#"{{"format_version":"1.0","layers":{layers}}}"#))
    };
    let e4m3 = r#"{"format": "float8_e4m3fn", "full_precision_matrix_mult": true}"#;
    let file = fp8("p.a.weight");
    let sign = |file: File| file.with("p.scaled_fp8", Dtype::F8_E4M3, &[0], &[]);
    let f32_sign = |file: File| file.floats("p.scaled_fp8", &[2], &[0.0; 2]);
    let newer = file.clone().floats("p.a.weight_scale", &[], &[0.3]);
    let as_bytes = File::default().with("p.a.weight", Dtype::U8, &[4, 64], &codes()).floats(
        "p.a.weight_scale",
        &[],
        &[0.3],
    );
    for (what, file) in [
        ("older", sign(file.clone().floats("p.a.scale_weight", &[1], &[0.3]))),
        ("older, f32", f32_sign(file.clone().floats("p.a.scale_weight", &[], &[0.3]))),
        ("no sign", newer.clone()),
        ("tensor", newer.clone().json("p.a.comfy_quant", e4m3)),
        ("header", File { metadata: layers("p.a"), ..newer.clone() }),
        ("header without prefix", File { metadata: layers("a"), ..newer.clone() }),
        ("bytes, tensor", as_bytes.clone().json("p.a.comfy_quant", e4m3)),
        ("bytes, header", File { metadata: layers("p.a"), ..as_bytes.clone() }),
        ("bytes, older", sign(as_bytes.clone())),
    ] {
        // Activation scales are for products that are not done here.
        for input in ["p.a.scale_input", "p.a.input_scale"] {
            let file = file.clone().floats(input, &[], &[7.0]).floats("p.a.bias", &[4], &[1.0; 4]);
            let weights = file.open().unwrap_or_else(|error| panic!("{what}: {error}"));
            let names: Vec<&str> = weights.names().collect();
            assert_eq!(names, ["p.a.bias", "p.a.weight"], "{what}");
            assert_eq!(weights.info("p.a.weight").unwrap().dtype.name(), "F8_E4M3", "{what}");
            assert_scaled(&weights, "p.a.weight", |_| 0.3);
            assert_eq!(numbers(&weights, "p.a.bias"), [1.0; 4]);
        }
    }
    // One a row.
    let scales = [0.3, 1.0, 2e-3, 7.5];
    for shape in [&[4][..], &[4, 1]] {
        let weights = file.clone().floats("p.a.weight_scale", shape, &scales).open().unwrap();
        assert_scaled(&weights, "p.a.weight", |row| scales[row]);
        // From the middle of one row to the middle of another.
        let mut part = Vec::new();
        let info = weights.info("p.a.weight").unwrap();
        weights.read_f32(info, 50..150, &mut part).unwrap();
        assert_eq!(part, numbers(&weights, "p.a.weight")[50..150]);
        let view = info.rows(1..3).unwrap();
        assert_eq!(weights.scales(&view, 0..2).unwrap(), scales[1..3]);
        assert_eq!(numbers(&weights, "p.a.weight")[64..192], weights.tensor_f32(&view).unwrap());
        let swapped = info.with_halves_swapped().unwrap();
        let order = [scales[2], scales[3], scales[0], scales[1]];
        assert_eq!(weights.scales(&swapped, 0..4).unwrap(), order);
        assert_eq!(weights.scales(&swapped, 1..3).unwrap(), order[1..3]);
        let all = numbers(&weights, "p.a.weight");
        assert_eq!(weights.tensor_f32(&swapped).unwrap(), [&all[128..], &all[..128]].concat());
    }
    // E5M2, also as bytes.
    let expected = (codes().into_iter())
        .map(|code| half::f16::from_bits(u16::from(code & 0x7b) << 8).to_f32() * 0.5);
    let expected: Vec<f32> = expected.collect();
    let e5m2: Vec<u8> = codes().iter().map(|code| code & 0x7b).collect();
    let e5m2_format = r#"{"format": "float8_e5m2"}"#;
    for (dtype, format) in [(Dtype::F8_E5M2, None), (Dtype::U8, Some(e5m2_format))] {
        let file = File::default().with("a.weight", dtype, &[4, 64], &e5m2);
        let file = file.floats("a.weight_scale", &[], &[0.5]);
        let file = format.into_iter().fold(file, |file, text| file.json("a.comfy_quant", text));
        assert_eq!(numbers(&file.open().unwrap(), "a.weight"), expected);
    }
    // A layer may be wide in a scaled file, and have no scale.
    let wide =
        sign(file.floats("p.a.scale_weight", &[], &[0.3]).floats("p.b.weight", &[1, 2], &[5.0; 2]));
    assert_eq!(numbers(&wide.open().unwrap(), "p.b.weight"), [5.0; 2]);
}

#[test]
fn scales_that_are_missing_or_wrong_are_refused() {
    let scaled = |scale: f32| fp8("a.weight").floats("a.weight_scale", &[], &[scale]);
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        scaled(bad).says(&["m/f.safetensors", "a.weight_scale", &bad.to_string()]);
        let rows = fp8("a.weight").floats("a.weight_scale", &[4], &[1.0, 1.0, bad, 1.0]);
        let weights = rows.open().unwrap();
        let error = weights.tensor_f32(weights.info("a.weight").unwrap()).unwrap_err();
        assert_mentions(&error.to_string(), &["a.weight_scale", &bad.to_string(), "element 2"]);
    }
    let sign = |file: File| file.with("scaled_fp8", Dtype::F8_E4M3, &[0], &[]);
    sign(fp8("p.a.weight")).says(&["p.a.weight", "has no scale"]);
    let e4m3 = r#"{"format": "float8_e4m3fn"}"#;
    fp8("a.weight").json("a.comfy_quant", e4m3).says(&["a.weight", "has no scale"]);
    fp8("a.weight")
        .floats("a.weight_scale", &[2, 2], &[1.0; 4])
        .says(&["[2, 2]", "[4, 64]", "4 rows"]);
    fp8("a.weight").with("a.weight_scale", Dtype::I8, &[], &[1]).says(&["I8", "expected F32"]);
    scaled(1.0).floats("a.scale_weight", &[], &[1.0]).says(&["two scales", "a.scale_weight"]);
    scaled(1.0)
        .json("a.comfy_quant", r#"{"format": "float8_e5m2"}"#)
        .says(&["a.weight", "F8_E5M2", "F8_E4M3"]);
    scaled(1.0).json("a.comfy_quant", "{").says(&["a.comfy_quant", "JSON"]);
    scaled(1.0).json("a.comfy_quant", "{}").says(&["a.comfy_quant", "format"]);
    scaled(1.0).floats("a.comfy_quant", &[1], &[1.0]).says(&["a.comfy_quant", "F32", "U8"]);
    for text in ["{", "{}", r#"{"layers":{"a":{}}}"#, r#"{"layers":3}"#] {
        File { metadata: Some(text.into()), ..scaled(1.0) }.says(&["_quantization_metadata"]);
    }
    // NaN in a weight is found when it is read.
    let nan = File::default().with("a.weight", Dtype::F8_E4M3, &[1, 2], &[1, 0xff]);
    let weights = nan.floats("a.weight_scale", &[], &[2.0]).open().unwrap();
    let error = weights.tensor_f32(weights.info("a.weight").unwrap()).unwrap_err();
    assert!(matches!(error, WeightError::NotFinite { index: 1, .. }), "{error}");
}

/// Formats that are not read are refused by name when their weights are asked for.
#[test]
fn other_formats_are_refused_by_name() {
    let fp8 = fp8("a.weight").floats("a.weight_scale", &[], &[1.0]);
    let bytes = |name: &str| File::default().with(name, Dtype::U8, &[4, 64], &codes());
    let format =
        |format: &str| fp8.clone().json("a.comfy_quant", &format!("{{\"format\":\"{format}\"}}"));
    let rotated = r#"{"format": "float8_e4m3fn", "convrot": true}"#;
    let state = r#"{"quant_type": "fp4", "blocksize": 64, "shape": [4, 128]}"#;
    let int8 = File::default().with("a.weight", Dtype::I8, &[4, 64], &codes());
    for (file, parts) in [
        (format("nvfp4"), &["nvfp4", "a.weight"][..]),
        (format("mxfp8"), &["mxfp8", "a.weight"]),
        (format("int8_tensorwise"), &["int8_tensorwise"]),
        (fp8.clone().json("a.comfy_quant", rotated), &["convrot"]),
        (fp8.clone().floats("a.weight_scale_2", &[], &[1.0]), &["weight_scale_2"]),
        (fp8.clone().floats("a.pre_quant_scale", &[64], &[1.0; 64]), &["pre_quant_scale"]),
        (int8.floats("a.SCB", &[4], &[1.0; 4]), &["int8 of bitsandbytes"]),
        (
            bytes("a.weight")
                .floats("a.weight.absmax", &[8], &[1.0; 8])
                .json("a.weight.quant_state.bitsandbytes__fp4", state),
            &["fp4 of bitsandbytes"],
        ),
        (
            File::default().with("a.qweight", Dtype::I32, &[16, 4], &codes()),
            &["GPTQ or AWQ", "a.qweight"],
        ),
        (
            bytes("a.qweight").floats("a.wscales", &[1], &[1.0]),
            &["SVDQuant of nunchaku", "a.wscales"],
        ),
    ] {
        let weights = file.open().unwrap();
        let manifest = Manifest::new(&weights);
        manifest.root().require("a.weight", &[4, 64]);
        let error = manifest.finish(&[]).unwrap_err().to_string();
        assert_mentions(&error, &["m/f.safetensors", "quantised", "16 or 32 bits"]);
        assert_mentions(&error, parts);
    }
    // Nobody asks for it: nothing is wrong.
    assert!(Manifest::new(&format("nvfp4").open().unwrap()).finish(&[]).is_ok());
    // How many there are.
    let many = (0..3).fold(File::default(), |file, i| {
        file.with(&format!("{i}.weight"), Dtype::U8, &[4, 64], &codes())
    });
    let weights = many.open().unwrap();
    let manifest = Manifest::new(&weights);
    manifest.root().require("0.weight", &[4, 64]);
    assert_mentions(
        &manifest.finish(&[]).unwrap_err().to_string(),
        &["3 tensors have type U8", "0.weight"],
    );
}

/// Known answers, under the names of a weight and of a checkpoint in two files.
fn nf4(kind: &str) -> (File, Vec<f32>) {
    let file = read("blocks.safetensors");
    let blocks = SafeTensors::deserialize(&file).unwrap();
    let mut out = File::default();
    let start = format!("{kind}.");
    for (name, view) in blocks.tensors() {
        if let Some(part) = name.strip_prefix(&start).filter(|part| *part != "f32") {
            let suffix = if part == "raw" { String::new() } else { format!(".{part}") };
            let name = format!("layer.weight{suffix}");
            out = out.with(&name, view.dtype(), view.shape(), view.data());
        }
    }
    (out, floats(blocks.tensor(&format!("{kind}.f32")).unwrap().data()))
}

const STATE: &str = "layer.weight.quant_state.bitsandbytes__nf4";

#[test]
fn nf4_gives_the_known_numbers() {
    for kind in ["NF4", "NF4_double"] {
        let (file, expected) = nf4(kind);
        let weights = file.open().unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["layer.weight"], "{kind}");
        let info = weights.info("layer.weight").unwrap();
        assert_eq!((info.dtype.name(), &info.shape[..]), ("NF4", &[8, 4160][..]), "{kind}");
        let found = numbers(&weights, "layer.weight");
        assert_eq!(found, expected, "{kind}");
        // Blocks of some rows: the code of level 1 or -1 stands for the scale itself.
        let scales = weights.scales(info, 3..5).unwrap();
        assert_eq!(scales.len(), 2 * 65, "{kind}");
        for (block, scale) in found[3 * 4160..5 * 4160].chunks_exact(64).zip(&scales) {
            assert!(block.iter().all(|value| value.abs() <= scale.abs()), "{kind}");
        }
        // A view of rows, as fused weights are cut.
        let view = info.rows(5..8).unwrap();
        assert_eq!(weights.rows_f32(&view, 1..3).unwrap(), expected[6 * 4160..], "{kind}");
        // The file's levels are the authority.
        let doubled: Vec<f32> = floats(&file.tensors["layer.weight.quant_map"].2);
        let doubled: Vec<f32> = doubled.iter().map(|level| 2.0 * level).collect();
        let weights = file.floats("layer.weight.quant_map", &[16], &doubled).open().unwrap();
        let expected: Vec<f32> = expected.iter().map(|value| 2.0 * value).collect();
        assert_eq!(numbers(&weights, "layer.weight"), expected, "{kind}");
    }
}

#[test]
fn nf4_that_does_not_fit_is_refused() {
    let (file, _) = nf4("NF4");
    let (double, _) = nf4("NF4_double");
    let name = "layer.weight";
    file.clone().without(STATE).says(&[name, STATE, "missing"]);
    for part in ["absmax", "quant_map"] {
        let full = format!("layer.weight.{part}");
        file.clone().without(&full).says(&[name, part, "missing"]);
        file.clone().floats(&full, &[2], &[1.0; 2]).says(&[name, part, "2 numbers of type F32"]);
        file.clone().with(&full, Dtype::I8, &[2], &[1; 2]).says(&[
            name,
            part,
            "2 numbers of type I8",
        ]);
    }
    for part in ["nested_absmax", "nested_quant_map"] {
        let full = format!("layer.weight.{part}");
        double.clone().without(&full).says(&[name, part, "missing"]);
        double.clone().floats(&full, &[2], &[1.0; 2]).says(&[name, part, "2 numbers of type F32"]);
    }
    let state = |text: &str| file.clone().json(STATE, text);
    let shape = |text: &str| {
        state(&format!(r#"{{"quant_type": "nf4", "blocksize": 64, "shape": {text}}}"#))
    };
    state("{").says(&[name, "JSON"]);
    state("{}").says(&[name, "quant_type", "missing"]);
    state(r#"{"quant_type": "nf4"}"#).says(&[name, "blocksize", "missing"]);
    state(r#"{"quant_type": "nf4", "blocksize": 128}"#).says(&[
        name,
        "blocksize",
        "128",
        "expected 64",
    ]);
    shape("[8, 4161]").says(&[name, "shape", "[8, 4161]", "16640 bytes"]);
    shape("[4294967295, 4294967295, 4294967295]").says(&[name, "shape"]);
    shape("[]").says(&[name, "shape"]);
    shape("[-8, 4160]").says(&[name, "shape"]);
    shape("[1040, 32]").says(&[name, "32", "multiple of 64"]);
    let nested = r#"{"quant_type": "nf4", "blocksize": 64, "shape": [8, 4160], "nested_blocksize": 0, "nested_offset": 1}"#;
    double.clone().json(STATE, nested).says(&[name, "nested_blocksize", "0"]);
    file.clone().floats(name, &[4160], &[0.0; 4160]).says(&[name, "F32", "U8"]);
    // Scales are read with the numbers.
    let mut scales = vec![1.0; 520];
    scales[70] = f32::NAN;
    let weights = file.floats("layer.weight.absmax", &[520], &scales).open().unwrap();
    let error = weights.tensor_f32(weights.info(name).unwrap()).unwrap_err().to_string();
    assert_mentions(&error, &["layer.weight.absmax", "NaN", "element 70"]);
}

/// Every tensor of the cases' files against decoding it here.
#[test]
fn files_of_other_programs_are_read_as_they_define_it() {
    for path in [
        "flux-fp8-scaled/flux1-dev-fp8-scaled.safetensors",
        "flux-fp8-layers/flux1-dev-fp8-mixed.safetensors",
        "flux-nf4/flux1-dev-bnb-nf4.safetensors",
        "common/t5xxl_fp8_e4m3fn_scaled.safetensors",
    ] {
        let bytes = read(path);
        let theirs = SafeTensors::deserialize(&bytes).unwrap();
        let weights = open(&bytes).unwrap();
        let (mut scaled, mut wide) = (0, 0);
        for info in weights.iter() {
            let view = theirs.tensor(&info.name).unwrap();
            let layer = info.name.strip_suffix("weight").unwrap_or("none");
            let scale = ["scale_weight", "weight_scale"]
                .iter()
                .find_map(|last| theirs.tensor(&format!("{layer}{last}")).ok());
            let expected: Vec<f32> = match (view.dtype(), scale) {
                (Dtype::F8_E4M3, Some(scale)) => {
                    let scale = floats(scale.data())[0];
                    view.data().iter().map(|code| f8_e4m3_number(*code) * scale).collect()
                }
                (Dtype::U8, _) => {
                    let of = |part: &str| {
                        floats(theirs.tensor(&format!("{}.{part}", info.name)).unwrap().data())
                    };
                    let (levels, absmax) = (of("quant_map"), of("absmax"));
                    let codes = view.data().iter().flat_map(|byte| [byte >> 4, byte & 15]);
                    let number = |(i, code): (usize, u8)| levels[code as usize] * absmax[i / 64];
                    codes.enumerate().map(number).collect()
                }
                _ => {
                    assert!(info.scaling.is_none(), "{}", info.name);
                    wide += 1;
                    continue;
                }
            };
            assert_eq!(numbers(&weights, &info.name), expected, "{path}: {}", info.name);
            scaled += 1;
        }
        assert!(scaled > 10 && wide > 3, "{path}: {scaled} and {wide}");
        // What others need is no tensor of its own.
        let ends = [".weight", ".bias", "_norm.scale"];
        assert!(weights.names().all(|name| ends.iter().any(|end| name.ends_with(end))), "{path}");
    }
}

/// A packed weight: itself, its tiles one after the other, and what its outputs are multiplied by.
struct Packed {
    weight: PackedWeight,
    bytes: Vec<u8>,
    scales: Vec<f32>,
}

/// What a loader makes of weights, in order.
fn packed(weights: &Weights, load: impl FnOnce(&Loader<'_>)) -> Vec<Packed> {
    let manifest = Manifest::new(weights);
    let ids = ResidentIds::default();
    let context = LoadContext::new(&ids, Precision::Auto, u64::MAX);
    load(&Loader::new(manifest.root(), &context));
    manifest.finish(&[]).unwrap();
    let mut packer = Packer::default();
    let (mut all, mut scales) = (Vec::new(), BTreeMap::new());
    for upload in context.uploads.take() {
        match upload {
            Upload::Scales { resident, sources } => {
                scales.insert(resident.id, pack::scales(weights, &sources).unwrap());
            }
            Upload::Packed { weight, sources } => {
                let firsts = weight.shards.iter().flat_map(|s| s.row0..s.row0 + s.rows);
                let mut bytes = Vec::new();
                for first in firsts.step_by(weight.tile) {
                    bytes.extend(packer.tile(weights, &sources, &weight, first).unwrap());
                }
                let of_weight = weight.scale.as_ref().map(|scale| scales[&scale.id].clone());
                let scales = of_weight.unwrap_or(vec![1.0; weight.n]);
                all.push(Packed { weight, bytes, scales });
            }
            other => panic!("{other:?}"),
        }
    }
    all
}

impl Packed {
    /// Its numbers `[N, K]`, by the definition of its storage.
    fn numbers(&self, levels: &[f32]) -> Vec<f32> {
        let Packed { weight, bytes, scales } = self;
        let tile_bytes = weight.storage.bytes_of(weight.k) as usize * weight.tile;
        let number = |row: usize, k: usize| {
            let (tile, column) = (&bytes[row / weight.tile * tile_bytes..], row % weight.tile);
            let code = || tile[k * weight.tile + column];
            let word = |at: usize| {
                let at = 4 * (at * weight.tile + column);
                u32::from_le_bytes(tile[at..at + 4].try_into().unwrap())
            };
            let block = k / 64 * 9;
            match weight.storage {
                Storage::F32 => f32::from_bits(word(k)),
                Storage::F8E4M3 => f8_e4m3_number(code()),
                Storage::F8E5M2 => half::f16::from_le_bytes([0, code()]).to_f32(),
                Storage::Nf4 => {
                    let code = word(block + 1 + k % 64 / 8) >> (k % 8 * 4) & 15;
                    levels[code as usize] * f32::from_bits(word(block))
                }
                other => panic!("{other:?}"),
            }
        };
        let rows = (0..weight.n).zip(scales);
        rows.flat_map(|(row, scale)| (0..weight.k).map(move |k| number(row, k) * scale)).collect()
    }
}

/// Scales that are quantised stay so on the GPU, in rows of whole blocks: 1.03 times the file's bytes.
#[test]
fn nf4_with_quantised_scales_keeps_them() {
    let (file, known) = nf4("NF4_double");
    let state = String::from_utf8(file.tensors[STATE].2.clone()).unwrap();
    let shaped = |shape: &str| {
        let file = file.clone().json(STATE, &state.replace("[8, 4160]", shape));
        let (rows, k) = shape.trim_matches(['[', ']']).split_once(", ").unwrap();
        let (rows, k): (usize, usize) = (rows.parse().unwrap(), k.parse().unwrap());
        let weights = file.open().unwrap();
        let found = packed(&weights, |loader| drop(loader.linear_no_bias("layer", rows, k)));
        let Ok([found]) = <[Packed; 1]>::try_from(found) else { panic!("several") };
        found
    };
    assert!(state.contains("[8, 4160]"), "{state}");
    let found = shaped("[65, 512]");
    let levels = floats(&file.tensors["layer.weight.quant_map"].2);
    assert_eq!(found.weight.storage, Storage::Nf4Double);
    // By the table of the file: its codes, scales and offset are on the GPU.
    let factors = floats(&file.tensors["layer.weight.nested_quant_map"].2);
    let Packed { weight, bytes, .. } = &found;
    let word = |row: usize, at: usize| {
        let tile = row / 64 * 64 * 68 * 4;
        let at = tile + 4 * (at * 64 + row % 64);
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    };
    let mut found = Vec::new();
    for (row, k) in (0..65).flat_map(|row| (0..512).map(move |k| (row, k))) {
        let factor = word(row, 2 + k / 256) >> (k / 64 % 4 * 8) & 255;
        let [scale, offset] = [0, 1].map(|at| f32::from_bits(word(row, at)));
        let code = word(row, 4 + k / 8) >> (k % 8 * 4) & 15;
        found.push(levels[code as usize] * (factors[factor as usize] * scale + offset));
    }
    assert!(found == known);
    // All of the file's tensors but the tables, which all weights share. Outputs are padded to tiles alone.
    let in_file: usize = ["", ".absmax", ".nested_absmax"]
        .iter()
        .map(|part| file.tensors[&format!("layer.weight{part}")].2.len())
        .sum();
    let on_gpu = weight.storage.bytes_of(512) as usize * 65;
    assert!(100 * on_gpu <= 105 * in_file, "{on_gpu} for {in_file} bytes");
    // Rows that are no whole blocks, and factors that no kernel has: one scale for each 64 numbers.
    assert_eq!(shaped("[8, 4160]").weight.storage, Storage::Nf4);
    let mut others = factors;
    others[200] *= 1.001;
    let file = file.clone().json(STATE, &state.replace("[8, 4160]", "[65, 512]")).floats(
        "layer.weight.nested_quant_map",
        &[256],
        &others,
    );
    let weights = file.open().unwrap();
    let found = packed(&weights, |loader| drop(loader.linear_no_bias("layer", 65, 512)));
    assert_eq!(found[0].weight.storage, Storage::Nf4);
    let info = weights.info("layer.weight").unwrap();
    assert!(found[0].numbers(&levels) == weights.tensor_f32(info).unwrap());
}

/// The GPU gets codes and scales, which are the numbers together: of rows of several tensors, and in another order.
#[test]
fn packed_weights_keep_their_codes_and_scales() {
    let (nf4, known) = nf4("NF4");
    let levels = floats(&nf4.tensors["layer.weight.quant_map"].2);
    let bytes = codes().repeat(65);
    let file = nf4
        .with("a.weight", Dtype::F8_E4M3, &[4, 4160], &bytes)
        .floats("a.weight_scale", &[], &[0.3])
        .with("plain.weight", Dtype::F8_E4M3, &[4, 4160], &bytes)
        .with("b.weight", Dtype::F8_E5M2, &[4, 4160], &vec![0x3d; 4 * 4160])
        .floats("b.weight_scale", &[4, 1], &[0.1, 0.2, 3.0, 4.0]);
    let weights = file.open().unwrap();
    let found = packed(&weights, |loader| {
        let parts = [("layer", 8), ("a", 4), ("plain", 4), ("b", 4)];
        loader.linear_group_no_bias(&parts, 4160);
        loader.linear_no_bias_with_rows("b", 4, 4160, |row| 3 - row);
    });
    let numbers = |name| weights.tensor_f32(weights.info(name).unwrap()).unwrap();
    let reversed: Vec<f32> =
        numbers("b.weight").chunks_exact(4160).rev().flatten().copied().collect();
    let expected = [
        (Storage::Nf4, known),
        (Storage::F8E4M3, [numbers("a.weight"), numbers("plain.weight")].concat()),
        (Storage::F8E5M2, numbers("b.weight")),
        (Storage::F8E5M2, reversed),
    ];
    assert_eq!(found.len(), expected.len());
    for (found, (storage, expected)) in found.iter().zip(expected) {
        assert_eq!(found.weight.storage, storage);
        assert!(found.numbers(&levels) == expected, "{}", found.weight.label);
        // All that there is, but for padding to a tile.
        let bytes = found.weight.shard_bytes().sum::<u64>() / found.weight.tile as u64;
        assert_eq!(bytes, storage.bytes_of(4160));
    }

    // Kernels know the usual levels alone; numbers of others are widened.
    let others: Vec<f32> = levels.iter().map(|level| 2.0 * level).collect();
    let weights = file.floats("layer.weight.quant_map", &[16], &others).open().unwrap();
    let found = packed(&weights, |loader| drop(loader.linear_no_bias("layer", 8, 4160)));
    assert_eq!(found[0].weight.storage, Storage::F32);
    let info = weights.info("layer.weight").unwrap();
    assert!(found[0].numbers(&others) == weights.tensor_f32(info).unwrap());
}
