//! Two runs of one seed on two drivers: the same regions, and latents that differ by rounding.

use std::collections::BTreeSet;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::Result;

/// Says how far `other` is from `reference`; an error if further than `limit`, or if RALU chose other regions. `limit` is
/// the relative L2 of the latents, or, as `45dB`, the least PSNR of the picture.
pub fn run(reference: &Path, other: &Path, limit: &str) -> Result<()> {
    let limit = match limit.strip_suffix("dB") {
        Some(least) => Limit::Picture(least.parse()?),
        None => Limit::Latents(limit.parse()?),
    };
    let bytes = (std::fs::read(reference)?, std::fs::read(other)?);
    let files = (SafeTensors::deserialize(&bytes.0)?, SafeTensors::deserialize(&bytes.1)?);
    let floats = |name: &str| -> Result<(Vec<f64>, Vec<f64>)> {
        let pair = (f32s(&files.0, name)?, f32s(&files.1, name)?);
        if pair.0.len() != pair.1.len() {
            return Err(format!("{name}: {} and {} numbers", pair.0.len(), pair.1.len()).into());
        }
        Ok(pair)
    };
    let (expected, actual) = floats("latents")?;
    let distance = distance(&expected, &actual);
    let (expected, actual) = floats("image")?;
    let decibels = decibels(&expected, &actual);
    let mut note = format!("{distance:.1e}, ");
    note += &match decibels == f64::INFINITY {
        true => "the same picture".to_owned(),
        false => format!("{decibels:.0} dB"),
    };
    let mut wrong = Vec::new();
    match limit {
        // NaN is no distance.
        Limit::Latents(limit) if distance > limit || distance.is_nan() => {
            wrong.push(format!("latents differ by {distance:.2e}, limit {limit:.0e}"));
        }
        Limit::Picture(least) if decibels < least || decibels.is_nan() => {
            wrong.push(format!("the picture has {decibels:.1} dB, at least {least} are wanted"));
        }
        _ => {}
    }
    if files.0.tensor("selected").is_ok() {
        let (expected, actual) = (indices(&files.0, "selected")?, indices(&files.1, "selected")?);
        let common = expected.intersection(&actual).count();
        note += &format!(", {common} of {} regions", expected.len());
        if expected != actual {
            wrong.push(format!("regions {actual:?}, expected {expected:?}"));
        }
    }
    println!("note: {note}");
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

enum Limit {
    Latents(f64),
    Picture(f64),
}

/// L2 of the difference by L2 of what was expected.
fn distance(expected: &[f64], actual: &[f64]) -> f64 {
    let difference: f64 = expected.iter().zip(actual).map(|(a, b)| (a - b).powi(2)).sum();
    (difference / expected.iter().map(|a| a * a).sum::<f64>()).sqrt()
}

/// Peak signal to noise ratio of pictures in 0..1; infinite for the same one.
fn decibels(expected: &[f64], actual: &[f64]) -> f64 {
    let difference: f64 = expected.iter().zip(actual).map(|(a, b)| (a - b).powi(2)).sum();
    -10.0 * (difference / expected.len() as f64).log10()
}

fn bytes_of<'f>(file: &SafeTensors<'f>, name: &str, dtype: Dtype) -> Result<&'f [u8]> {
    let tensor = file.tensor(name).map_err(|error| format!("{name}: {error}"))?;
    if tensor.dtype() != dtype {
        return Err(format!("{name} is {:?}, expected {dtype:?}", tensor.dtype()).into());
    }
    Ok(tensor.data())
}

fn f32s(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f64>> {
    let (numbers, _) = bytes_of(file, name, Dtype::F32)?.as_chunks();
    Ok(numbers.iter().map(|number| f64::from(f32::from_le_bytes(*number))).collect())
}

fn indices(file: &SafeTensors<'_>, name: &str) -> Result<BTreeSet<i64>> {
    let (numbers, _) = bytes_of(file, name, Dtype::I64)?.as_chunks();
    Ok(numbers.iter().map(|number| i64::from_le_bytes(*number)).collect())
}
