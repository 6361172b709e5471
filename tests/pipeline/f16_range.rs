//! Activations beyond f16: the picture is that of f32, with and without products that round to f16, at each of the fallbacks.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use ralu::checkpoint::source::Folder;
use ralu::gpu::{Gpu, block_on_while};
use ralu::models::layers::Precision;
use ralu::pipeline::{
    Error, Event, ImageReport, Options, Picture, Pipeline, Products, RaluChoice, Request,
};
use ralu::sampling::Preset;
use ralu::tensor::{AttentionKernel, MatmulKernel};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

fn bundled() -> PathBuf {
    // Not by the path that it was built in: `scripts/gpu-check` runs it elsewhere.
    PathBuf::from("models/tiny-flux")
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A tensor, what it is multiplied by, and which part of it.
type Factor = (String, f32, Range<usize>);

/// Multiplies parts of tensors, which are stored in f32 then.
fn scale(file: &Path, factors: &[Factor]) {
    let bytes = std::fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut scaled: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        let mut tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        if let Some((_, factor, part)) = factors.iter().find(|(key, ..)| *key == name) {
            assert_eq!(view.dtype(), Dtype::F16, "{name}");
            let halves = view.data().chunks_exact(2);
            let mut values: Vec<f32> =
                halves.map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
            let end = part.end.min(values.len());
            values[part.start..end].iter_mut().for_each(|value| *value *= factor);
            tensor.0 = Dtype::F32;
            tensor.2 = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        }
        scaled.insert(name, tensor);
    }
    for (name, ..) in factors {
        assert!(scaled.contains_key(name), "there is no {name}");
    }
    let views = scaled.iter().map(|(name, (dtype, shape, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    std::fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The bundled model in other units: a block of T5 and one of the transformer compute with larger numbers inside, which
/// later layers make small again. All factors are powers of two, so in f32 it is the same model. `larger` is a factor that
/// the transformer's numbers have besides.
fn large_activations(larger: f32) -> tempfile::TempDir {
    const ALL: Range<usize> = 0..usize::MAX;
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&bundled(), folder.path());
    // T5's gated layer is linear in wi_1: what wo reads is 2^12 times as large.
    let name = |layer| format!("encoder.block.0.layer.1.DenseReluDense.{layer}.weight");
    scale(
        &folder.path().join("text_encoder_2/model.safetensors"),
        &[(name("wi_1"), 4096.0, ALL), (name("wo"), 1.0 / 4096.0, ALL)],
    );
    // Attention's values are 2^15 times as large, and so is what the layer after it reads. That one takes back 2^8 of
    // it, and the gate after it, the third of six vectors, the rest.
    let name = |name: &str| format!("transformer_blocks.0.{name}");
    let d = 320;
    let mut factors = Vec::new();
    for (value, out, norm) in [
        ("attn.to_v", "attn.to_out.0", "norm1"),
        ("attn.add_v_proj", "attn.to_add_out", "norm1_context"),
    ] {
        factors.extend([
            (name(&format!("{value}.weight")), 32768.0 * larger, ALL),
            (name(&format!("{value}.bias")), 32768.0 * larger, ALL),
            (name(&format!("{out}.weight")), 1.0 / 256.0 / larger, ALL),
            (name(&format!("{out}.bias")), 128.0, ALL),
            (name(&format!("{norm}.linear.weight")), 1.0 / 128.0, 2 * d * d..3 * d * d),
            (name(&format!("{norm}.linear.bias")), 1.0 / 128.0, 2 * d..3 * d),
        ]);
    }
    scale(&folder.path().join("transformer/diffusion_pytorch_model.safetensors"), &factors);
    folder
}

/// Three stages of 4 x 4 to 8 x 8 tokens and a short text, ten steps.
fn request() -> Request {
    let request = Request::new("a red apple").size(128, 128).seed(3);
    request.ralu(RaluChoice::Preset(Preset::X7)).with(|r| r.max_sequence_length = Some(16))
}

struct Told {
    picture: Picture,
    report: ImageReport,
    warnings: Vec<String>,
    steps: usize,
}

fn draw(model: &Path, gpu: Gpu, precision: Precision) -> Result<Told, Error> {
    let source = Box::new(Folder::open(model).unwrap());
    let options = Options::default().with(|options| options.precision = precision);
    let pipeline = Pipeline::open(gpu, source, options)?;
    run(&pipeline)
}

fn run(pipeline: &Pipeline) -> Result<Told, Error> {
    let mut run = pipeline.start(request())?;
    let (mut warnings, mut steps) = (vec![], 0);
    loop {
        match block_on_while(pipeline.gpu(), run.next(), || true).unwrap()? {
            Some(Event::Warning(warning)) if warning.contains("is small for RALU") => {}
            Some(Event::Warning(warning)) => warnings.push(warning),
            Some(Event::Step(_)) => steps += 1,
            Some(Event::Image { picture, report, .. }) => {
                return Ok(Told { picture, report, warnings, steps });
            }
            Some(_) => {}
            None => unreachable!("a run ends with its picture"),
        }
    }
}

/// A device whose products round to f16, if it can have such.
pub(super) fn rounding() -> Option<Gpu> {
    let gpu = crate::common::gpu();
    let has_matrices = gpu.caps().cooperative_matrix.is_some();
    has_matrices.then(|| {
        gpu.with_caps(|caps| {
            caps.f16 = true;
            caps.tuning.matmul = [Some(MatmulKernel::Cooperative); 3];
            caps.tuning.attention = Some(AttentionKernel::Matrices);
        })
    })
}

/// Peak signal-to-noise ratio of two pictures.
pub(super) fn psnr(a: &Picture, b: &Picture) -> f64 {
    let squares = a.rgb.iter().zip(&b.rgb).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    10.0 * (255.0 * 255.0 * a.rgb.len() as f64 / squares.sum::<f64>()).log10()
}

#[test]
fn numbers_beyond_f16_are_done_again_smaller() {
    let model = large_activations(1.0);
    let expected = draw(model.path(), crate::common::gpu(), Precision::F32).unwrap();
    // It is the bundled model, in other units: what this test draws is a picture.
    let close = psnr(
        &expected.picture,
        &draw(&bundled(), crate::common::gpu(), Precision::F32).unwrap().picture,
    );
    assert!(close > 40.0, "another model: {close} dB");

    // Everywhere: weights in f16, all else in f32.
    let told = draw(model.path(), crate::common::gpu(), Precision::F16).unwrap();
    let close = psnr(&told.picture, &expected.picture);
    println!("weights in f16: {close:.1} dB");
    assert!(close >= 40.0, "weights in f16: {close} dB");
    assert!(told.warnings.is_empty() && told.report.in_f32.is_empty(), "{:?}", told.warnings);

    let Some(gpu) = rounding() else {
        println!("products that round to f16: this adapter has none");
        return;
    };
    // By themselves they give no picture.
    gpu.faults().f16_flags_unseen.set(true);
    let error = draw(model.path(), gpu, Precision::F16).err().expect("f16 was enough");
    assert!(error.to_string().contains("not finite"), "{error}");

    let source = Box::new(Folder::open(model.path()).unwrap());
    let options = Options::default().with(|options| options.precision = Precision::F16);
    let pipeline = Pipeline::open(rounding().unwrap(), source, options).unwrap();
    let told = run(&pipeline).unwrap();
    let close = psnr(&told.picture, &expected.picture);
    println!("products in f16: {close:.1} dB, {:?}", told.warnings);
    assert!(close >= 40.0, "products in f16: {close} dB");
    // Only the blocks in which it happened.
    assert_eq!(told.report.scaled, ["double.0", "t5.0"]);
    assert!(told.report.in_f32.is_empty(), "{:?}", told.report);
    assert_eq!(told.report.products, Products::F16);
    assert_eq!(told.warnings, ["t5.0", "double.0"].map(|block| warning(block, "divided by 256")));
    assert_eq!(told.steps, 10, "a step that overflowed was reported");
    // The same request gives the same picture, and finds it out anew.
    let again = run(&pipeline).unwrap();
    assert!(again.picture == told.picture, "another picture");
    assert_eq!(again.report.scaled, ["double.0"], "the prompt is still encoded");
}

fn warning(block: &str, how: &str) -> String {
    format!("numbers beyond f16's largest, 65504, in {block}: done again, and from now on {how}")
}

/// Weights and activations that are too large even so.
#[test]
fn numbers_far_beyond_f16_are_done_again_in_f32() {
    let Some(gpu) = rounding() else {
        println!("products that round to f16: this adapter has none");
        return;
    };
    let model = large_activations(256.0);
    let expected = draw(model.path(), crate::common::gpu(), Precision::F32).unwrap();
    assert_eq!(expected.report.products, Products::F32);
    let told = draw(model.path(), gpu, Precision::Auto).unwrap();
    let close = psnr(&told.picture, &expected.picture);
    println!("products in f16: {close:.1} dB, {:?}", told.warnings);
    assert!(close >= 40.0, "products in f16: {close} dB");
    assert_eq!(told.report.scaled, ["t5.0"]);
    assert_eq!(told.report.in_f32, ["double.0"]);
    let expected =
        [("t5.0", "divided by 256"), ("double.0", "divided by 256"), ("double.0", "in f32")];
    assert_eq!(told.warnings, expected.map(|(block, how)| warning(block, how)));
    assert_eq!(told.steps, 10, "a step that overflowed was reported");
}

/// The user asks for f32, and nothing rounds.
#[test]
fn precision_f32_is_the_picture_without_matrices() {
    let Some(gpu) = rounding() else {
        println!("products that round to f16: this adapter has none");
        return;
    };
    let told = draw(&bundled(), gpu, Precision::F32).unwrap();
    let expected =
        draw(&bundled(), crate::common::gpu().with_caps(|caps| caps.f16 = false), Precision::Auto);
    assert!(told.picture == expected.unwrap().picture, "another picture");
    assert_eq!(told.report.products, Products::F32);
}
