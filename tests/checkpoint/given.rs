//! Given tensors as they are read from safetensors files.

use half::{bf16, f16};
use ralu::pipeline::{NamedTensor, NamedTensors};

/// The bytes of a file of one tensor called `initial_noise`.
fn file(dtype: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let end = data.len();
    let header = format!(
        r#"{{"initial_noise":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[0,{end}]}}}}"#
    );
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn read(file: &[u8]) -> Result<Option<NamedTensor>, String> {
    let tensors = NamedTensors::read(file, &["initial_noise", "absent"]);
    tensors.map(|mut tensors| tensors.0.remove("initial_noise")).map_err(|e| e.to_string())
}

#[test]
fn every_type_is_read() {
    let floats = [1.5f32, -2.0];
    let f32s = floats.map(f32::to_le_bytes).concat();
    let f16s = floats.map(|x| f16::from_f32(x).to_le_bytes()).concat();
    let bf16s = floats.map(|x| bf16::from_f32(x).to_le_bytes()).concat();
    for (dtype, data) in [("F32", f32s), ("F16", f16s), ("BF16", bf16s)] {
        let expected = NamedTensor::F32 { shape: vec![1, 2], data: floats.to_vec() };
        assert_eq!(read(&file(dtype, &[1, 2], &data)), Ok(Some(expected)), "{dtype}");
    }
    let i64s = [7i64, -1].map(i64::to_le_bytes).concat();
    let i32s = [7i32, -1].map(i32::to_le_bytes).concat();
    for (dtype, data) in [("I64", i64s), ("I32", i32s)] {
        let expected = NamedTensor::I64 { shape: vec![2], data: vec![7, -1] };
        assert_eq!(read(&file(dtype, &[2], &data)), Ok(Some(expected)), "{dtype}");
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    let whole = file("I64", &[2], &[0; 16]);
    for (file, expected) in [
        (vec![], "it is empty"),
        (b"nonsense".to_vec(), "safetensors"),
        (whole[..whole.len() - 1].to_vec(), "truncated"),
        (file("I64", &[3], &[0; 16]), "shape [3] of I64 does not make 16 bytes"),
        (file("F16", &[3], &[0; 16]), "shape [3] of F16 does not make 16 bytes"),
        (file("F64", &[2], &[0; 16]), "initial_noise has type F64"),
        (file("U8", &[16], &[0; 16]), "initial_noise has type U8"),
    ] {
        let error = read(&file).unwrap_err();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
    // Types of tensors that nobody asked for do not matter.
    assert!(NamedTensors::read(&file("U8", &[16], &[0; 16]), &["absent"]).unwrap().0.is_empty());
}

#[test]
fn numbers_that_are_none_are_found_where_they_come_from() {
    let with = |bad: f32| [1.0, bad, 2.0].map(f32::to_le_bytes).concat();
    for (bad, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let error = read(&file("F32", &[3], &with(bad))).unwrap_err();
        let expected = format!("the given tensor initial_noise holds {shown} at number 1 (from 0)");
        assert!(error.contains(&expected), "{error}");
    }
    let half = f16::INFINITY.to_le_bytes();
    assert!(read(&file("F16", &[1], &half)).unwrap_err().contains("initial_noise holds inf"));
    // What nobody asked for does not matter.
    assert!(NamedTensors::read(&file("F32", &[3], &with(f32::NAN)), &["absent"]).is_ok());
    // Nor does a run take any that were made otherwise.
    let mut made = NamedTensors::default();
    made.insert("prompt_embeds", &[2], vec![0.5, f32::NAN]);
    let error = made.check_finite().unwrap_err().to_string();
    assert!(error.contains("prompt_embeds holds NaN at number 1"), "{error}");
}
