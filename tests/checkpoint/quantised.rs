//! Weights that are quantised while they are loaded: the same bits as those of a file that was quantised before, and what
//! stays as it is.

use ralu::checkpoint::export::{Container, Export, OutTensor};
use ralu::checkpoint::pack::Packer;
use ralu::checkpoint::quantise::QuantFormat;
use ralu::checkpoint::source::{Folder, Memory, Source};
use ralu::checkpoint::weights::{Manifest, WeightError, Weights};
use ralu::models::config::{ModelConfig, folder, stem};
use ralu::models::files::{Contents, Role};
use ralu::models::layers::{LoadContext, Loader, Precision, Upload};
use ralu::models::quantise::{Quantise, QuantiseChoice, Quantising, Tally};
use ralu::tensor::{ResidentIds, Storage};
use safetensors::tensor::{Dtype, TensorView};

use crate::common::Random;
use crate::folders::{assert_mentions, repository};

/// A weight on its way: how it is kept, its tiles, and what its outputs are multiplied by.
#[derive(Clone, PartialEq)]
struct Packed {
    label: String,
    storage: Storage,
    bytes: Vec<u8>,
    scales: Vec<f32>,
}

/// All matrices that a loader asks for, in order, those of modulations last; and what became of them.
fn packed(
    weights: &Weights,
    quantising: Option<Quantising>,
    load: impl FnOnce(&Loader<'_>),
) -> Result<(Vec<Packed>, Tally), WeightError> {
    let manifest = Manifest::new(weights);
    let ids = ResidentIds::default();
    let context = LoadContext::new(&ids, Precision::Auto, u64::MAX);
    load(&Loader::new(manifest.root(), &context).quantising(quantising));
    manifest.finish(&[]).unwrap();
    let (mut packer, mut scales, mut all) = (Packer::default(), vec![], vec![]);
    let uploads = context.uploads.take().into_iter().chain(context.modulation_uploads.take());
    for upload in uploads {
        match upload {
            Upload::Scales { sources, .. } => {
                packer.begin(&sources);
                let mut step = 0;
                while packer.measure(weights, &sources, step)? {
                    step += 1;
                }
                packer.end(&sources);
                scales = packer.scales(weights, &sources)?;
            }
            Upload::Packed { weight, sources } => {
                let mut bytes = Vec::new();
                for first in (0..weight.n).step_by(weight.tile) {
                    bytes.extend(packer.tile(weights, &sources, &weight, first)?);
                }
                let scales = std::mem::take(&mut scales);
                assert_eq!(weight.scale.is_some(), !scales.is_empty(), "{}", weight.label);
                let (label, storage) = (weight.label.to_string(), weight.storage);
                all.push(Packed { label, storage, bytes, scales });
            }
            _ => {}
        }
    }
    Ok((all, context.tally.take()))
}

/// What `ralu convert` writes of a denoiser, read again.
fn converted(weights: &Weights, format: QuantFormat) -> Weights {
    let container = match format {
        QuantFormat::Fp8 | QuantFormat::Nf4 => Container::Safetensors,
        _ => Container::Gguf,
    };
    let contents = Contents::of(weights, None).unwrap();
    let (_, file) = contents.parts[&Role::Denoiser].denoiser.unwrap();
    let originals = (file.originals)(&(file.views)(weights).unwrap()).unwrap();
    let tensors = originals
        .into_iter()
        .map(|(name, sources)| OutTensor::new(name, sources, container, Some(format)));
    let export = Export::new(container, None, tensors.collect()).unwrap();
    let mut bytes = Vec::new();
    export.write(weights, &mut bytes, &mut |_| Ok(())).unwrap();
    let file = Weights::open_file(&Memory::new("m").with("f", bytes), "f").unwrap();
    let contents = Contents::of(&file, None).unwrap();
    let found = &contents.parts[&Role::Denoiser];
    (found.denoiser.unwrap().1.views)(&found.tensors).unwrap()
}

#[test]
fn bits_are_those_of_a_converted_file() {
    for (model, formats) in [
        // Rows of 128, 512 and 640 numbers.
        ("flux-b", &QuantFormat::ALL[..]),
        // Fused layers of other names, and halves in each other's place.
        ("sd35m-b", &[QuantFormat::Q8_0, QuantFormat::Nf4]),
    ] {
        let source = Folder::open(repository("tests/fixtures").join(model).join("model")).unwrap();
        let config = ModelConfig::load(&source as &dyn Source).unwrap();
        let weights = Weights::open(&source, folder::TRANSFORMER, stem::DIFFUSERS).unwrap();
        let load = |loader: &Loader<'_>| drop(config.transformer.load(loader));
        let (plain, _) = packed(&weights, None, load).unwrap();
        for &format in formats {
            let quantising = Some(Quantising { format, is_fused: true });
            let (found, tally) = packed(&weights, quantising, load).unwrap();
            let (expected, _) = packed(&converted(&weights, format), None, load).unwrap();
            assert_eq!(found.len(), expected.len(), "{model} {format:?}");
            let mut quantised = 0;
            for ((found, expected), plain) in found.iter().zip(&expected).zip(&plain) {
                let name = format!("{model}, {format:?}: {}", found.label);
                assert_eq!(found.storage, expected.storage, "{name}");
                assert!(
                    found == &Packed { label: found.label.clone(), ..expected.clone() },
                    "{name}"
                );
                quantised += usize::from(found.storage != plain.storage);
                assert!(found.storage != plain.storage || found == plain, "{name}");
            }
            assert!(quantised > 20 && tally.quantised >= quantised, "{model}: {tally:?}");
            assert_eq!((tally.packed, tally.narrow), (0, 0), "{model}: {tally:?}");
            // What is quantised already stays as it is.
            let (again, tally) = packed(&converted(&weights, format), quantising, load).unwrap();
            assert!(again == expected, "{model} {format:?}");
            assert_eq!(tally.quantised, 0, "{model} {format:?}");
            assert!(tally.packed >= quantised, "{model} {format:?}: {tally:?}");
        }
    }
}

/// A file of matrices of a block.
fn file(tensors: &[(&str, [usize; 2], f32)]) -> Weights {
    let mut random = Random::new(21);
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, [n, k], size)| {
            let values = random.numbers(n * k, 1.0);
            values.iter().flat_map(|value| (value * size).to_le_bytes()).collect()
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    Weights::open_file(&Memory::new("m").with("f", bytes), "f").unwrap()
}

#[test]
fn rows_that_are_no_whole_blocks_stay_as_they_are() {
    let weights = file(&[
        ("blocks.0.a.weight", [64, 512], 1.0),
        ("blocks.0.b.weight", [64, 192], 1.0),
        ("blocks.0.c.weight", [64, 96], 1.0),
        ("blocks.0.d.weight", [32, 512], 1.0),
        ("head.weight", [64, 512], 1.0),
    ]);
    let sizes = [("blocks.0.a", 64, 512), ("blocks.0.b", 64, 192), ("blocks.0.c", 64, 96)];
    let rest = [("blocks.0.d", 32, 512), ("head", 64, 512)];
    let load = |loader: &Loader<'_>| {
        for (name, n, k) in sizes.iter().chain(&rest) {
            loader.linear_no_bias(name, *n, *k);
        }
    };
    for (format, storages) in [
        (QuantFormat::Q4K, [Storage::Q4K, Storage::Q4_0]),
        (QuantFormat::Q6K, [Storage::Q6K, Storage::Q8_0]),
        (QuantFormat::Q5K, [Storage::Q5K, Storage::Q5_0]),
        (QuantFormat::Nf4, [Storage::Nf4, Storage::Nf4]),
        (QuantFormat::Q8_0, [Storage::Q8_0, Storage::Q8_0]),
    ] {
        let quantising = Some(Quantising { format, is_fused: false });
        let (found, tally) = packed(&weights, quantising, load).unwrap();
        let found: Vec<Storage> = found.iter().map(|packed| packed.storage).collect();
        assert_eq!(found[..2], storages, "{format:?}");
        // Rows of 96; a small matrix; one that is of no block.
        assert_eq!(found[2..], [Storage::F32; 3], "{format:?}");
        assert_eq!((tally.quantised, tally.narrow, tally.narrow_rows), (2, 1, 96), "{format:?}");
    }
}

#[test]
fn numbers_beyond_a_format_are_refused() {
    // The scale of a block, an f16, would be infinite.
    let weights = file(&[("blocks.0.a.weight", [64, 512], 1e9)]);
    for (format, is_beyond) in
        [(QuantFormat::Q8_0, true), (QuantFormat::Q4K, true), (QuantFormat::Nf4, false)]
    {
        let quantising = Some(Quantising { format, is_fused: false });
        let load = |loader: &Loader<'_>| drop(loader.linear_no_bias("blocks.0.a", 64, 512));
        match packed(&weights, quantising, load) {
            Ok(_) => assert!(!is_beyond, "{format:?}"),
            Err(error) => {
                assert!(is_beyond, "{format:?}: {error}");
                assert_mentions(
                    &error.to_string(),
                    &["blocks.0.a.weight", format.name(), "another"],
                );
            }
        }
    }
}

#[test]
fn choices_are_read_and_written() {
    for (text, written) in [
        ("q8_0", "q8_0"),
        ("Q4_K:denoiser", "q4_k"),
        ("nf4:transformer", "nf4"),
        ("fp8:t5", "fp8:t5"),
        ("q6_k: t5 , denoiser", "q6_k:denoiser,t5"),
        ("q2_k:clip,t5,qwen3", "q2_k:text-encoders"),
        ("q3_k:all", "q3_k:all"),
        ("q5_k:text-encoders,denoiser", "q5_k:all"),
    ] {
        let quantise: Quantise = text.parse().unwrap();
        assert_eq!(quantise.to_string(), written);
        assert_eq!(text.parse(), Ok(QuantiseChoice::To(quantise)));
        let json = serde_json::to_string(&quantise).unwrap();
        assert_eq!(json, format!("{written:?}"));
        assert_eq!(serde_json::from_str::<Quantise>(&json).unwrap(), quantise);
    }
    for (text, written) in [("off", "off"), ("AUTO", "auto"), ("auto:all", "auto:all")] {
        assert_eq!(text.parse::<QuantiseChoice>().unwrap().to_string(), written);
    }
    let t5: Quantise = "q8_0:t5".parse().unwrap();
    assert!(t5.parts.has_encoder("T5") && t5.parts.has_text_encoders());
    assert!(!t5.parts.has_denoiser() && !t5.parts.has_encoder("CLIP"));
    let error = |text: &str| text.parse::<QuantiseChoice>().unwrap_err().to_string();
    assert_mentions(&error("q9"), &["q9", "number format", "q8_0", "q2_k", "nf4", "auto", "off"]);
    assert_mentions(&error("q8_0:vae"), &["vae", "part", "denoiser", "t5", "text-encoders", "all"]);
    assert_mentions(&error("q8_0:t5,"), &["part", "''"]);
}
