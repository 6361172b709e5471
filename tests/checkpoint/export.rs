//! Files that are written, read again: names, shapes, and numbers that are what the quantiser makes of the model's.

use std::collections::BTreeMap;

use ralu::checkpoint::export::{Container, Export, ExportError, OutTensor, Stored};
use ralu::checkpoint::quantise::QuantFormat;
use ralu::checkpoint::source::Memory;
use ralu::checkpoint::weights::Weights;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use crate::common::Random;
use crate::folders::assert_mentions;

fn open(name: &str, bytes: Vec<u8>) -> Weights {
    Weights::open_file(&Memory::new("m").with(name, bytes), name).unwrap()
}

/// A model of three sizes of rows, in bf16 and f32.
fn model() -> Weights {
    let mut random = Random::new(11);
    let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize], dtype: Dtype| {
        let values = random.numbers(shape.iter().product(), 0.1);
        let bytes = values.iter().flat_map(|value| match dtype {
            Dtype::BF16 => half::bf16::from_f32(*value).to_le_bytes().to_vec(),
            _ => value.to_le_bytes().to_vec(),
        });
        tensors.insert(name.into(), (dtype, shape.to_vec(), bytes.collect()));
    };
    add("img_in.weight", &[64, 256], Dtype::BF16);
    add("blocks.0.a.weight", &[96, 256], Dtype::BF16);
    add("blocks.0.b.weight", &[64, 320], Dtype::F32);
    add("blocks.0.c.weight", &[64, 72], Dtype::BF16);
    add("blocks.0.table.weight", &[32, 64], Dtype::BF16);
    add("final_layer.1.weight", &[64, 256], Dtype::BF16);
    add("blocks.0.a.bias", &[96], Dtype::BF16);
    add("blocks.0.norm.weight", &[96], Dtype::F32);
    add("conv.0.weight", &[8, 4, 3, 3], Dtype::BF16);
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    open("model.safetensors", serialize(views, None).unwrap())
}

fn export(weights: &Weights, container: Container, format: QuantFormat) -> Export {
    let tensors = weights.iter().map(|info| {
        OutTensor::new(info.name.to_string(), vec![info.clone()], container, Some(format))
    });
    Export::new(container, Some("flux".into()), tensors.collect()).unwrap()
}

fn written(export: &Export, weights: &Weights) -> Vec<u8> {
    let (mut out, mut told) = (Vec::new(), 0);
    let mut progress = |bytes| {
        told += bytes;
        Ok(())
    };
    export.write(weights, &mut out, &mut progress).unwrap();
    assert_eq!(told, export.n_bytes());
    out
}

/// What the format leaves of numbers, row by row.
fn expected(format: QuantFormat, values: &[f32]) -> Vec<f32> {
    let scale = values.iter().fold(0.0f32, |most, value| value.abs().max(most)) / 448.0;
    let (mut codes, mut scales, mut out) = (vec![], vec![], vec![]);
    format.quantise(values, scale, &mut codes, &mut scales);
    format.dtype().widen(&codes, &mut out);
    match format {
        QuantFormat::Fp8 => out.iter_mut().for_each(|value| *value *= scale),
        QuantFormat::Nf4 => {
            let blocks = out.chunks_exact_mut(64).zip(&scales);
            blocks.for_each(|(block, scale)| block.iter_mut().for_each(|value| *value *= scale));
        }
        _ => {}
    }
    out
}

fn how(export: &Export) -> BTreeMap<&str, &'static str> {
    export.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.format_name())).collect()
}

#[test]
fn what_is_written_is_read_again() {
    let model = model();
    for format in QuantFormat::ALL {
        let container = match format {
            QuantFormat::Fp8 | QuantFormat::Nf4 => Container::Safetensors,
            _ => Container::Gguf,
        };
        let export = export(&model, container, format);
        let how = how(&export);
        let is_gguf = container == Container::Gguf;
        // Whole blocks: 256, and 320 is a multiple of 64 and 32, 72 of neither.
        let narrow = match format {
            QuantFormat::Q6K => "q8_0",
            QuantFormat::Q5K => "q5_0",
            QuantFormat::Q4K | QuantFormat::Q3K | QuantFormat::Q2K => "q4_0",
            other => other.name(),
        };
        assert_eq!(how["blocks.0.a.weight"], format.name());
        assert_eq!(how["blocks.0.b.weight"], narrow, "{format:?}");
        assert_eq!(
            how["blocks.0.c.weight"],
            if format == QuantFormat::Fp8 { "fp8" } else { "BF16" }
        );
        for name in
            ["img_in.weight", "final_layer.1.weight", "blocks.0.table.weight", "conv.0.weight"]
        {
            assert_eq!(how[name], "BF16", "{format:?} {name}");
        }
        assert_eq!(how["blocks.0.a.bias"], if is_gguf { "F32" } else { "BF16" });
        assert_eq!(how["blocks.0.norm.weight"], "F32");

        let bytes = written(&export, &model);
        if container == Container::Safetensors {
            // Also by the reference implementation.
            assert!(SafeTensors::deserialize(&bytes).unwrap().len() > model.len());
        }
        let again = open("f", bytes);
        assert_eq!(again.names().collect::<Vec<_>>(), model.names().collect::<Vec<_>>());
        for tensor in export.tensors() {
            let (info, stored) =
                (again.info(&tensor.name).unwrap(), model.info(&tensor.name).unwrap());
            assert_eq!(info.shape, stored.shape, "{format:?} {}", tensor.name);
            let values = model.tensor_f32(stored).unwrap();
            let values = match tensor.stored {
                Stored::Quantised(format) => expected(format, &values),
                Stored::As(_) => values,
            };
            assert_eq!(again.tensor_f32(info).unwrap(), values, "{format:?} {}", tensor.name);
        }
    }
}

/// Rows of several tensors become one, as fused weights of other programs are.
#[test]
fn tensors_are_joined_by_rows() {
    let model = model();
    let info = |name: &str| model.info(name).unwrap().clone();
    let sources = vec![info("img_in.weight"), info("blocks.0.a.weight")];
    let container = Container::Safetensors;
    let tensor =
        OutTensor::new("blocks.0.qkv.weight".into(), sources, container, Some(QuantFormat::Nf4));
    assert_eq!(tensor.shape, [160, 256]);
    let export = Export::new(container, None, vec![tensor]).unwrap();
    let again = open("f", written(&export, &model));
    let found = again.tensor_f32(again.info("blocks.0.qkv.weight").unwrap()).unwrap();
    let values =
        ["img_in.weight", "blocks.0.a.weight"].map(|name| model.tensor_f32(&info(name)).unwrap());
    assert_eq!(found, expected(QuantFormat::Nf4, &values.concat()));
}

#[test]
fn what_cannot_be_written_is_refused() {
    let model = model();
    let info = model.info("blocks.0.a.weight").unwrap().clone();
    let tensor = |stored| OutTensor {
        name: "a.weight".into(),
        shape: info.shape.clone(),
        sources: vec![info.clone()],
        stored,
    };
    let refused =
        |container, tensor| Export::new(container, None, vec![tensor]).unwrap_err().to_string();
    let fp8 = refused(Container::Gguf, tensor(Stored::Quantised(QuantFormat::Fp8)));
    assert_mentions(&fp8, &["fp8", "GGUF", "q8_0", "q4_k"]);
    let q8 = refused(Container::Safetensors, tensor(Stored::Quantised(QuantFormat::Q8_0)));
    assert_mentions(&q8, &["q8_0", "safetensors", "fp8", "nf4"]);
    let deep = OutTensor { shape: vec![1; 5], ..tensor(Stored::As(QuantFormat::Q8_0.dtype())) };
    assert_mentions(&refused(Container::Gguf, deep), &["a.weight", "[1, 1, 1, 1, 1]", "four"]);
    // A scale beyond f16.
    let values: Vec<u8> = [1e9f32; 64 * 64].iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![64, 64], &values).unwrap();
    let large = open("large.safetensors", serialize([("b.0.x.weight", view)], None).unwrap());
    let export = export(&large, Container::Gguf, QuantFormat::Q8_0);
    let error = export.write(&large, &mut Vec::new(), &mut |_| Ok(())).unwrap_err();
    assert_mentions(&error.to_string(), &["b.0.x.weight", "Q8_0"]);
    // Who is told of the progress can end it.
    let export = self::export(&model, Container::Gguf, QuantFormat::Q8_0);
    let stopped =
        export.write(&model, &mut Vec::new(), &mut |_| Err(std::io::ErrorKind::Interrupted.into()));
    assert!(matches!(stopped, Err(ExportError::Io(_))));
}
