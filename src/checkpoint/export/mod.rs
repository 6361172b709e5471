//! Writing checkpoints, quantised on the way: GGUF files and safetensors files, as other programs read them.
//!
//! An [`Export`] is decided from names, types and shapes alone, so its header is known before any number is read. Numbers
//! then pass through a few megabytes at a time, whatever the size of the model.
//!
//! What it does not do: names. Who makes an export says which rows of which tensors become which tensor.

mod gguf_file;
mod numbers;
mod safetensors_file;

use std::io::Write;

use super::dtype::{DTYPES, DType};
use super::quantise::QuantFormat;
use super::weights::{TensorInfo, WeightError, Weights};
use crate::escape::Escaped;
use numbers::Rows;

/// Why a checkpoint cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum ExportError {
    /// The weights cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The file cannot be written.
    #[error("cannot write: {0}")]
    Io(#[from] std::io::Error),
    /// The format does not exist in files of this kind.
    #[error(
        "{format} is not written to {container} files; {container} files have {}",
        .has.join(", ")
    )]
    Format { format: &'static str, container: &'static str, has: Vec<&'static str> },
    /// A number is too large for the type it is to be stored in.
    #[error(
        "the tensor {} holds numbers that {dtype} cannot hold; choose another format",
        Escaped(.name)
    )]
    Beyond { name: String, dtype: &'static str },
    /// GGUF has no tensor like this.
    #[error(
        "the tensor {} has shape {shape:?}; GGUF files have tensors of at most four dimensions; write a safetensors file",
        Escaped(.name)
    )]
    Dimensions { name: String, shape: Vec<usize> },
}

type Result<T> = std::result::Result<T, ExportError>;

/// The kinds of files that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// GGML's format, for its block formats.
    Gguf,
    /// Hugging Face's format, for fp8 and NF4.
    Safetensors,
}

impl Container {
    const fn name(self) -> &'static str {
        match self {
            Container::Gguf => "GGUF",
            Container::Safetensors => "safetensors",
        }
    }

    /// Whether files of this kind have weights of that format.
    pub fn has(self, format: QuantFormat) -> bool {
        let is_ggmls = !matches!(format, QuantFormat::Fp8 | QuantFormat::Nf4);
        is_ggmls == (self == Container::Gguf)
    }
}

/// A tensor that is to be written: the rows of `sources`, one after the other.
#[derive(Clone, Debug)]
pub struct OutTensor {
    /// Its name in the file.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where its numbers are, in order.
    pub sources: Vec<TensorInfo>,
    /// How they are stored.
    pub stored: Stored,
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In a plain type or, if the sources have it, in any type: then byte for byte.
    As(&'static DType),
    /// Quantised.
    Quantised(QuantFormat),
}

/// Fewer numbers than this are not worth quantising: files of other programs have them in f32.
const LEAST_NUMBERS: u64 = 1024;
/// Matrices with a shorter side are tables, such as T5's `[32, heads]` of positions.
const SHORTEST_SIDE: usize = 64;

impl OutTensor {
    /// Decides how a tensor is stored. Matrices of blocks, which have a number in their names, are quantised; those that
    /// come before and after all blocks are few, and pictures suffer most from errors there.
    pub fn new(
        name: String,
        sources: Vec<TensorInfo>,
        container: Container,
        format: Option<QuantFormat>,
    ) -> Self {
        let mut shape = sources.first().map_or(vec![], |info| info.shape.clone());
        if let Some(rows) = shape.first_mut() {
            *rows = sources.iter().map(|info| info.shape.first().copied().unwrap_or(0)).sum();
        }
        let format = format.filter(|_| is_quantised(&name, &shape, &sources)).and_then(|format| {
            let fits = |format: &QuantFormat| {
                shape.last().is_some_and(|width| width.is_multiple_of(format.block_numbers()))
            };
            [format, format.in_small_blocks()]
                .into_iter()
                .filter(|format| container.has(*format))
                .find(fits)
        });
        let stored = match format {
            Some(format) => Stored::Quantised(format),
            None => Stored::As(plain(&shape, &sources, container)),
        };
        OutTensor { name, shape, sources, stored }
    }

    /// What its format is called.
    pub fn format_name(&self) -> &'static str {
        match self.stored {
            Stored::As(dtype) => dtype.name,
            Stored::Quantised(format) => format.name(),
        }
    }

    fn n_elements(&self) -> u64 {
        self.shape.iter().map(|side| *side as u64).product()
    }

    /// Whether all its numbers share a scale.
    fn has_one_scale(&self) -> bool {
        self.stored == Stored::Quantised(QuantFormat::Fp8)
    }

    fn dtype(&self) -> &'static DType {
        match self.stored {
            Stored::As(dtype) => dtype,
            Stored::Quantised(format) => format.dtype(),
        }
    }

    /// Bytes of its codes or numbers.
    fn n_bytes(&self) -> u64 {
        self.dtype().block.bytes_of(self.n_elements()).unwrap_or(0)
    }
}

/// Whether a tensor is a matrix of a block of the network, in 16 or 32 bits.
fn is_quantised(name: &str, shape: &[usize], sources: &[TensorInfo]) -> bool {
    is_large_matrix_of_block(name, shape) && sources.iter().all(is_wide)
}

/// Whether a tensor is stored in 16 bits or more, without scales.
pub(crate) fn is_wide(info: &TensorInfo) -> bool {
    info.scaling.is_none() && matches!(info.dtype.name(), "F64" | "F32" | "F16" | "BF16")
}

/// Whether a tensor is a matrix of a block of the network that is worth quantising.
pub(crate) fn is_large_matrix_of_block(name: &str, shape: &[usize]) -> bool {
    // The number of a block, and not of a layer: `final_layer.adaLN_modulation.1.weight` has only that.
    let (block, _) =
        name.strip_suffix(".weight").unwrap_or("").rsplit_once('.').unwrap_or_default();
    let is_numbered = block.split('.').any(|part| part.parse::<u32>().is_ok());
    let is_large = shape.len() == 2
        && shape.iter().all(|side| *side >= SHORTEST_SIDE)
        && shape.iter().map(|side| *side as u64).product::<u64>() > LEAST_NUMBERS;
    is_numbered && is_large
}

/// The type of a tensor that is not quantised: that of its sources if the file can have it, else one that holds its numbers.
/// Vectors are f32 in GGUF files, as other programs expect.
fn plain(shape: &[usize], sources: &[TensorInfo], container: Container) -> &'static DType {
    let f32 = &DTYPES[0];
    let Some(dtype) = sources.first().and_then(|info| info.dtype.known()) else { return f32 };
    let same = sources.iter().all(|info| info.scaling.is_none() && info.dtype == sources[0].dtype);
    let container_has = match container {
        Container::Gguf => dtype.ggml.is_some(),
        Container::Safetensors => dtype.in_safetensors,
    };
    let is_vector = shape.len() < 2 && container == Container::Gguf;
    let half = DTYPES.iter().find(|row| row.name == "F16");
    match half {
        _ if same && container_has && !is_vector => dtype,
        // Holds all numbers of both 8-bit floats.
        Some(half) if same && !is_vector && matches!(dtype.name, "F8_E4M3" | "F8_E5M2") => half,
        _ => f32,
    }
}

/// A file that is to be written.
#[derive(Debug)]
pub struct Export {
    container: Container,
    /// `general.architecture` of a GGUF file, if it has one.
    architecture: Option<String>,
    tensors: Vec<OutTensor>,
}

impl Export {
    /// A file of these tensors, which are written in this order, but wide ones before quantised ones.
    pub fn new(
        container: Container,
        architecture: Option<String>,
        mut tensors: Vec<OutTensor>,
    ) -> Result<Self> {
        for tensor in &tensors {
            if let Stored::Quantised(format) = tensor.stored
                && !container.has(format)
            {
                return Err(not_had(container, format));
            }
            if container == Container::Gguf && tensor.shape.len() > 4 {
                let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
                return Err(ExportError::Dimensions { name, shape });
            }
        }
        // So that all begin at multiples of their numbers' size.
        tensors.sort_by_key(|tensor| match tensor.stored {
            Stored::As(dtype) if dtype.block.numbers == 1 => usize::MAX - dtype.block.bytes,
            _ => usize::MAX,
        });
        Ok(Export { container, architecture, tensors })
    }

    /// The tensors, in the order in which they are written.
    pub fn tensors(&self) -> &[OutTensor] {
        &self.tensors
    }

    /// Bytes of all numbers, without the header and what lies between tensors.
    pub fn n_bytes(&self) -> u64 {
        self.tensors.iter().map(OutTensor::n_bytes).sum()
    }

    /// Writes the file. `progress` is told of every piece how many bytes of numbers were written with it; its error ends
    /// the work.
    pub fn write(
        &self,
        weights: &Weights,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64) -> std::io::Result<()>,
    ) -> Result<()> {
        match self.container {
            Container::Gguf => gguf_file::write(self, weights, out, progress),
            Container::Safetensors => safetensors_file::write(self, weights, out, progress),
        }
    }
}

/// The error that files of a kind do not have a format.
pub fn not_had(container: Container, format: QuantFormat) -> ExportError {
    let has = QuantFormat::ALL.into_iter().filter(|format| container.has(*format));
    let has = has.map(QuantFormat::name).collect();
    ExportError::Format { format: format.name(), container: container.name(), has }
}
