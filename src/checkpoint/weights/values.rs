//! The values of tensors: as f32, and whether they are finite.

use std::ops::Range;

use half::{bf16, f16};

use super::{Result, StoredDType, TensorInfo, WeightError, Weights, out_of_range, unsupported};

impl Weights {
    /// Appends elements `range` of a tensor (row-major) to `out`, as f32.
    ///
    /// Fails with [`WeightError::NotFinite`] at the first NaN or infinity (also a f64 too large for f32).
    pub fn read_f32(&self, info: &TensorInfo, range: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        let Some(size) = info.dtype.bytes() else {
            return Err(unsupported(info));
        };
        if range.start > range.end || range.end > info.n_elements() {
            return Err(out_of_range(info, &range, info.n_elements(), "elements"));
        }
        let bytes = self.bytes(info, range.start * size as u64..range.end * size as u64)?;
        let first = out.len();
        append_f32(&info.dtype, &bytes, out);
        match out[first..].iter().position(|x| !x.is_finite()) {
            None => Ok(()),
            Some(at) => Err(WeightError::NotFinite {
                name: info.name.to_string(),
                index: range.start + at as u64,
                value: out[first + at],
                file: info.file.to_string(),
            }),
        }
    }

    /// Rows `rows` of a tensor of rank 1 or more, as f32: `[rows.len(), the other dimensions]`.
    ///
    /// Meant for embedding tables, of which a prompt needs a few rows.
    pub fn rows_f32(&self, info: &TensorInfo, rows: Range<usize>) -> Result<Vec<f32>> {
        let n_rows = info.shape.first().copied().unwrap_or(0) as u64;
        let asked = rows.start as u64..rows.end as u64;
        if asked.start > asked.end || asked.end > n_rows {
            return Err(out_of_range(info, &asked, n_rows, "rows"));
        }
        let width = info.n_elements().checked_div(n_rows).unwrap_or(0);
        let mut out = Vec::new();
        self.read_f32(info, asked.start * width..asked.end * width, &mut out)?;
        Ok(out)
    }

    /// The whole tensor as f32.
    pub fn tensor_f32(&self, info: &TensorInfo) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        self.read_f32(info, 0..info.n_elements(), &mut out)?;
        Ok(out)
    }

    /// Checks bytes of a tensor that start at byte `offset` of it for NaN and infinity, without converting them.
    pub fn check_finite(&self, info: &TensorInfo, offset: u64, bytes: &[u8]) -> Result<()> {
        let (Some(at), Some(size)) = (first_not_finite(&info.dtype, bytes), info.dtype.bytes())
        else {
            return Ok(());
        };
        let mut value = Vec::new();
        append_f32(&info.dtype, &bytes[at * size..][..size], &mut value);
        Err(WeightError::NotFinite {
            name: info.name.to_string(),
            index: offset / size as u64 + at as u64,
            value: value.first().copied().unwrap_or(f32::NAN),
            file: info.file.to_string(),
        })
    }
}

/// Appends little-endian numbers to `out` as f32. Bytes that do not fill a number are left; types we do not read
/// append nothing.
pub fn append_f32(dtype: &StoredDType, bytes: &[u8], out: &mut Vec<f32>) {
    match dtype {
        StoredDType::F32 => out.extend(bytes.as_chunks_ref::<4>().map(f32::from_le_bytes)),
        StoredDType::F16 => {
            out.extend(bytes.as_chunks_ref::<2>().map(|b| f16::from_le_bytes(b).to_f32()))
        }
        StoredDType::BF16 => {
            out.extend(bytes.as_chunks_ref::<2>().map(|b| bf16::from_le_bytes(b).to_f32()))
        }
        StoredDType::F64 => {
            out.extend(bytes.as_chunks_ref::<8>().map(|b| f64::from_le_bytes(b) as f32))
        }
        StoredDType::Other(_) => {}
    }
}

/// Index of the first NaN or infinity among little-endian numbers.
///
/// Looks at exponents only, and at whole blocks before it looks for a single number, so that compilers can take many
/// numbers at a time: it runs over whole checkpoints while they are uploaded.
pub fn first_not_finite(dtype: &StoredDType, bytes: &[u8]) -> Option<usize> {
    match dtype {
        StoredDType::F32 => first(bytes, |b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
        StoredDType::F16 => first(bytes, |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
        StoredDType::BF16 => first(bytes, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
        StoredDType::F64 => first(bytes, |b| !(f64::from_le_bytes(b) as f32).is_finite()),
        StoredDType::Other(_) => None,
    }
}

/// Index of the first number of `N` bytes that is bad.
fn first<const N: usize>(bytes: &[u8], is_bad: impl Fn([u8; N]) -> bool) -> Option<usize> {
    const BLOCK: usize = 1024;
    let blocks = bytes.chunks(BLOCK * N);
    let has_bad = |block: &[u8]| block.as_chunks_ref::<N>().fold(false, |bad, b| bad | is_bad(b));
    let at = blocks.clone().position(has_bad)?;
    let within = bytes[at * BLOCK * N..].as_chunks_ref::<N>().position(is_bad)?;
    Some(at * BLOCK + within)
}

/// `slice::as_chunks`, which is younger than our oldest supported compiler.
trait Chunks {
    fn as_chunks_ref<const N: usize>(&self) -> impl Iterator<Item = [u8; N]>;
}

impl Chunks for [u8] {
    fn as_chunks_ref<const N: usize>(&self) -> impl Iterator<Item = [u8; N]> {
        self.chunks_exact(N).map(|chunk| {
            let mut out = [0; N];
            out.copy_from_slice(chunk);
            out
        })
    }
}
