//! The numbers of a tensor that is written, a few megabytes at a time.

use std::io::Write;

use half::{bf16, f16};

use super::{ExportError, OutTensor, Result, Stored};
use crate::checkpoint::quantise::{fp8_scale, largest};
use crate::checkpoint::weights::{TensorInfo, Weights};

/// Numbers that are in memory at once: 8 MiB as f32.
const NUMBERS_AT_ONCE: u64 = 2 << 20;

/// What a tensor's numbers come from and go to.
pub(super) struct Rows<'e> {
    pub weights: &'e Weights,
    pub out: &'e mut dyn Write,
    pub progress: &'e mut dyn FnMut(u64) -> std::io::Result<()>,
}

impl Rows<'_> {
    /// Calls `each` with the tensor's numbers as f32, whole rows in order.
    fn for_each(
        &mut self,
        tensor: &OutTensor,
        mut each: impl FnMut(&mut Self, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let mut values = Vec::new();
        for source in &tensor.sources {
            let n_rows = source.shape.first().copied().unwrap_or(1).max(1) as u64;
            let width = source.n_elements() / n_rows;
            let step = (NUMBERS_AT_ONCE / width.max(1)).max(1) * width.max(1);
            let mut start = 0;
            while start < source.n_elements() {
                let end = source.n_elements().min(start + step);
                values.clear();
                self.weights.read_f32(source, start..end, &mut values)?;
                each(self, &values)?;
                start = end;
            }
        }
        Ok(())
    }

    /// Writes the numbers or codes. Gives the scales that are not among the codes: those of NF4's blocks, or fp8's one.
    pub fn write(&mut self, tensor: &OutTensor) -> Result<Vec<f32>> {
        let mut scales = Vec::new();
        let format = match tensor.stored {
            Stored::Quantised(format) => format,
            Stored::As(dtype) => {
                for source in &tensor.sources {
                    match source.scaling.is_none() && source.dtype.known() == Some(dtype) {
                        true => self.copy(source)?,
                        false => self.cast(tensor, source)?,
                    }
                }
                return Ok(scales);
            }
        };
        let mut scale = 1.0;
        if tensor.has_one_scale() {
            let mut most = 0.0f32;
            self.for_each(tensor, |_, values| {
                most = most.max(largest(values));
                Ok(())
            })?;
            scale = fp8_scale(most);
            scales.push(scale);
        }
        let dtype = format.dtype();
        let mut codes = Vec::new();
        self.for_each(tensor, |rows, values| {
            codes.clear();
            format.quantise(values, scale, &mut codes, &mut scales);
            if dtype.first_not_finite(&codes).is_some() {
                return Err(ExportError::Beyond { name: tensor.name.clone(), dtype: dtype.name });
            }
            rows.put(&codes)
        })?;
        Ok(scales)
    }

    /// Bytes as they are stored.
    fn copy(&mut self, source: &TensorInfo) -> Result<()> {
        let block = source.dtype.known().map_or(1, |dtype| dtype.block.bytes) as u64;
        let step = NUMBERS_AT_ONCE / block * block;
        let mut start = 0;
        while start < source.n_bytes() {
            let end = source.n_bytes().min(start + step);
            let bytes = self.weights.bytes(source, start..end)?;
            self.weights.check_finite(source, start, &bytes)?;
            self.put(&bytes)?;
            start = end;
        }
        Ok(())
    }

    /// Numbers in another plain type.
    fn cast(&mut self, tensor: &OutTensor, source: &TensorInfo) -> Result<()> {
        let dtype = tensor.dtype();
        let only = OutTensor { sources: vec![source.clone()], ..tensor.clone() };
        self.for_each(&only, |rows, values| {
            let bytes: Vec<u8> = match dtype.name {
                "F16" => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
                "BF16" => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
                "F64" => values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect(),
                _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            };
            if dtype.first_not_finite(&bytes).is_some() {
                return Err(ExportError::Beyond { name: tensor.name.clone(), dtype: dtype.name });
            }
            rows.put(&bytes)
        })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        (self.progress)(bytes.len() as u64)?;
        Ok(())
    }
}
