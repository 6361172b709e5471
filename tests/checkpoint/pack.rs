//! Packing of weights, against the definition of the packed order.

use std::collections::BTreeMap;
use std::fmt;

use half::{bf16, f16};
use ralu::advice::Advice;
use ralu::checkpoint::dtype::{DTYPES, DType};
use ralu::checkpoint::pack::Packer;
use ralu::checkpoint::source::Memory;
use ralu::checkpoint::weights::{Manifest, Weights};
use ralu::models::layers::{LoadContext, Loader, Precision, Upload};
use ralu::tensor::{ResidentIds, Storage};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::common::{Random, f8_e4m3, f8_e4m3_number, pack};

/// How a checkpoint stores its numbers.
#[derive(Clone, Copy)]
struct Stored {
    dtype: Dtype,
    bytes: fn(f32) -> Vec<u8>,
    /// The largest number that is finite.
    largest: f32,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dtype)
    }
}

const F32: Stored =
    Stored { dtype: Dtype::F32, bytes: |v| v.to_le_bytes().into(), largest: f32::MAX };

const STORED: [Stored; 6] = [
    F32,
    Stored {
        dtype: Dtype::F16,
        bytes: |v| f16::from_f32(v).to_le_bytes().into(),
        largest: 65504.0,
    },
    Stored {
        dtype: Dtype::BF16,
        bytes: |v| bf16::from_f32(v).to_le_bytes().into(),
        largest: 3.3895314e38,
    },
    Stored { dtype: Dtype::F64, bytes: |v| f64::from(v).to_le_bytes().into(), largest: f32::MAX },
    Stored { dtype: Dtype::F8_E4M3, bytes: |v| vec![f8_e4m3(v)], largest: 448.0 },
    Stored {
        dtype: Dtype::F8_E5M2,
        bytes: |v| vec![f16::from_f32(v).to_le_bytes()[1]],
        largest: 57344.0,
    },
];

#[test]
fn every_type_is_tested() {
    let names: Vec<_> = STORED.iter().map(|stored| format!("{stored:?}")).collect();
    let of_safetensors = DTYPES.iter().filter(|row| row.in_safetensors);
    assert_eq!(names, of_safetensors.map(|row| row.name).collect::<Vec<_>>());
}

/// Numbers that every type holds: three significant bits, from 1/8 to 2.
fn numbers(label: &str, n: usize) -> Vec<f32> {
    let mut random = Random::named(label);
    let mut number = || {
        let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
        sign * (4 + random.below(4)) as f32 * [1.0, 0.5, 0.25, 0.125][random.below(4)] / 4.0
    };
    (0..n).map(|_| number()).collect()
}

fn bytes(values: &[f32], stored: Stored) -> Vec<u8> {
    values.iter().flat_map(|v| (stored.bytes)(*v)).collect()
}

fn checkpoint(values: &[f32], shape: &[usize], stored: Stored) -> Weights {
    let dtype = stored.dtype;
    let bytes = bytes(values, stored);
    let bias = vec![0; shape[0] * 4];
    let views = BTreeMap::from([
        ("a.weight", TensorView::new(dtype, shape.to_vec(), &bytes).unwrap()),
        ("a.bias", TensorView::new(Dtype::F32, vec![shape[0]], &bias).unwrap()),
    ]);
    let file = serialize(views, None).unwrap();
    Weights::open_file(&Memory::new("test").with("a.safetensors", file), "a.safetensors").unwrap()
}

/// Packs `a.weight`, loaded as `load` says, tile by tile.
fn packed(
    weights: &Weights,
    precision: Precision,
    load: impl FnOnce(&Loader<'_>),
) -> Vec<(ralu::tensor::PackedWeight, Vec<u8>)> {
    let ids = ResidentIds::default();
    let context = LoadContext::new(&ids, precision, u64::MAX);
    let manifest = Manifest::new(weights);
    load(&Loader::new(manifest.root(), &context));
    manifest.finish(&[]).unwrap();
    // One for all, as it keeps memory from tile to tile.
    let mut packer = Packer::default();
    let mut all = Vec::new();
    for upload in context.uploads.borrow().iter() {
        let Upload::Packed { weight, sources } = upload else { continue };
        let mut bytes = Vec::new();
        for first in (0..weight.shards.iter().map(|s| s.rows).sum()).step_by(weight.tile) {
            bytes.extend(packer.tile(weights, sources, weight, first).unwrap());
        }
        all.push((weight.clone(), bytes));
    }
    all
}

const SHAPES: [(usize, usize); 9] =
    [(64, 64), (64, 3072), (100, 36), (3, 8), (1, 4), (130, 200), (7, 132), (65, 4), (16, 260)];

#[test]
fn matrices_are_packed_as_defined() {
    for stored in STORED {
        for precision in [Precision::Auto, Precision::F16] {
            for (n, k) in SHAPES {
                let label = format!("{stored:?} {precision:?} [{n}, {k}]");
                let values = numbers(&label, n * k);
                let weights = checkpoint(&values, &[n, k], stored);
                let found = packed(&weights, precision, |loader| {
                    loader.linear("a", n, k);
                });
                let (weight, bytes) = &found[0];
                assert!(*bytes == pack(weight, &values).concat(), "{label}");
                let reversed: Vec<f32> = values.chunks_exact(k).rev().flatten().copied().collect();
                let found = packed(&weights, precision, |loader| {
                    loader.linear_with_rows("a", n, k, |row| n - 1 - row);
                });
                let (weight, bytes) = &found[0];
                assert!(*bytes == pack(weight, &reversed).concat(), "{label}, reversed rows");
            }
        }
    }
}

/// Layers of one input are packed as one, wherever in a tile each begins; but for those that are kept in another type.
#[test]
fn groups_are_packed_one_after_the_other() {
    let k = 36;
    let parts = [("a", 20, F32), ("b", 68, F32), ("c", 4, F32), ("d", 100, STORED[1])];
    let (mut tensors, mut all) = (Vec::new(), Vec::new());
    for (name, n, stored) in parts {
        let values = numbers(name, n * k);
        tensors.push((format!("{name}.weight"), stored, vec![n, k], bytes(&values, stored)));
        let bias = numbers(&format!("{name}'s bias"), n);
        tensors.push((format!("{name}.bias"), F32, vec![n], bytes(&bias, F32)));
        all.extend(values);
    }
    let views: BTreeMap<&str, TensorView<'_>> = (tensors.iter())
        .map(|(name, stored, shape, bytes)| {
            (&**name, TensorView::new(stored.dtype, shape.clone(), bytes).unwrap())
        })
        .collect();
    let file = serialize(views, None).unwrap();
    let source = Memory::new("test").with("a.safetensors", file);
    let weights = Weights::open_file(&source, "a.safetensors").unwrap();
    let found = packed(&weights, Precision::Auto, |loader| {
        let group = loader.linear_group(&parts.map(|(name, n, _)| (name, n)), k);
        assert_eq!(group.n(), 192);
    });
    // The first three and the last one.
    let (together, alone) = all.split_at(92 * k);
    assert_eq!(found.len(), 2);
    for ((weight, bytes), values) in found.iter().zip([together, alone]) {
        assert!(*bytes == pack(weight, values).concat(), "{}", weight.label);
    }
    let found = packed(&weights, Precision::F16, |loader| {
        loader.linear_group(&parts.map(|(name, n, _)| (name, n)), k);
    });
    assert_eq!(found.len(), 1, "all in f16");
    assert!(found[0].1 == pack(&found[0].0, &all).concat());
}

#[test]
fn kernels_have_their_taps_in_front() {
    for stored in STORED {
        for (n, c) in [(8, 4), (70, 12), (3, 128)] {
            let label = format!("{stored:?} [{n}, {c}, 3, 3]");
            let values = numbers(&label, n * c * 9);
            let weights = checkpoint(&values, &[n, c, 3, 3], stored);
            let found = packed(&weights, Precision::Auto, |loader| {
                loader.conv3x3("a", n, c);
            });
            let mut wanted = Vec::new();
            for row in values.chunks_exact(9 * c) {
                wanted.extend((0..9 * c).map(|i| row[i % c * 9 + i / c]));
            }
            let (weight, bytes) = &found[0];
            assert!(*bytes == pack(weight, &wanted).concat(), "{label}");
        }
    }
}

/// f16 has nothing between 65504 and infinity.
#[test]
fn numbers_beyond_f16_are_refused() {
    let pack_first = |values: &[f32]| {
        let weights = checkpoint(values, &[1, 4], F32);
        let ids = ResidentIds::default();
        let context = LoadContext::new(&ids, Precision::F16, u64::MAX);
        Loader::new(Manifest::new(&weights).root(), &context).linear("a", 1, 4);
        let uploads = context.uploads.borrow();
        let Upload::Packed { weight, sources } = &uploads[0] else { panic!("a vector") };
        assert_eq!(weight.storage, Storage::F16);
        Packer::default().tile(&weights, sources, weight, 0).map(<[u8]>::to_vec)
    };
    pack_first(&[65504.0, -65504.0, 0.0, 1.0]).unwrap();
    for beyond in [65505.0, -1e9] {
        let error = pack_first(&[1.0, beyond, 0.0, 1.0]).unwrap_err();
        assert!(error.to_string().contains(&format!("a.weight holds {beyond}")), "{error}");
        assert_eq!(error.advice(), Some(Advice::WeightsAsStored));
    }
}

/// Wherever it stands, in a block or at its end.
#[test]
fn numbers_that_are_not_finite_are_found() {
    let n = 2500;
    for stored in STORED {
        let weights = checkpoint(&vec![1.0; n], &[1, n], stored);
        let info = weights.info("a.weight").unwrap();
        let dtype = info.dtype.known().unwrap();
        assert_eq!(dtype.first_not_finite(&bytes(&vec![-stored.largest; n], stored)), None);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 1, 1023, 1024, 2047, 2048, n - 1] {
                let mut values = vec![1.0; n];
                values[at] = bad;
                values[n - 1] = bad;
                let found = dtype.first_not_finite(&bytes(&values, stored));
                assert_eq!(found, Some(at), "{stored:?} {bad}");
                let weights = checkpoint(&values, &[1, n], stored);
                let ids = ResidentIds::default();
                let context = LoadContext::new(&ids, Precision::Auto, u64::MAX);
                let manifest = Manifest::new(&weights);
                Loader::new(manifest.root(), &context).linear("a", 1, n);
                let uploads = context.uploads.borrow();
                let Upload::Packed { weight, sources } = &uploads[0] else { panic!("a vector") };
                let packed = Packer::default().tile(&weights, sources, weight, 0).map(drop);
                let message = packed.unwrap_err().to_string();
                assert!(message.contains(&format!("element {at}")), "{message}");
            }
        }
    }
}

/// Of all 256 codes, against known answers: bit for bit, and the even one of two numbers that are as near.
#[test]
fn f8_codes_are_their_numbers() {
    let file = include_bytes!("../fixtures/formats/f8_e4m3.safetensors");
    let known = SafeTensors::deserialize(file).unwrap();
    let codes = known.tensor("F8_E4M3.raw").unwrap().data();
    assert!(codes.iter().copied().eq(0..=255));
    let numbers = known.tensor("F8_E4M3.f32").unwrap().data().chunks_exact(4);
    let numbers: Vec<f32> = numbers.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let dtype = DType::named("F8_E4M3").unwrap();
    let mut widened = Vec::new();
    dtype.widen(codes, &mut widened);
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    for (code, number) in (0..=255).zip(&numbers) {
        assert!(same(widened[code as usize], *number), "{code:#x}: {}", widened[code as usize]);
        assert!(same(f8_e4m3_number(code), *number), "{code:#x}: {}", f8_e4m3_number(code));
        if !number.is_nan() {
            assert_eq!(f8_e4m3(*number), code, "{number}");
            assert_eq!(dtype.first_not_finite(&[code]), None, "{code:#x}");
        } else {
            assert_eq!(dtype.first_not_finite(&[0, code]), Some(1), "{code:#x}");
        }
    }
    for (code, pair) in (0..).zip(numbers[..127].windows(2)) {
        let middle = (pair[0] + pair[1]) / 2.0;
        let even = code + code % 2;
        assert_eq!((f8_e4m3(middle), f8_e4m3(-middle)), (even, even | 0x80), "{middle}");
    }
}
