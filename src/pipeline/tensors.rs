//! Tensors by name, as they go into a run and come out of it, in safetensors files.

use std::collections::BTreeMap;
use std::fmt::Display;

use safetensors::tensor::{Dtype, TensorView};

use super::Error;
use crate::checkpoint::source::{Blob, Memory, Source};
use crate::checkpoint::weights::{WeightError, Weights};

/// What the bytes of a file are called while they are read.
const FILE: &str = "tensors";

/// More than this are not the tensors of a run: the noise of 4096 x 4096 pixels has 16 MiB.
const MAX_TENSOR_BYTES: u64 = 1 << 30;

/// How the numbers of a type are read: bytes of one, and its value.
enum Read {
    Floats(usize, fn(&[u8]) -> f32),
    Wholes(usize, fn(&[u8]) -> i64),
}

/// A small tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub enum NamedTensor {
    /// Numbers.
    F32 {
        /// Shape.
        shape: Vec<usize>,
        /// Row-major.
        data: Vec<f32>,
    },
    /// Indices.
    I64 {
        /// Shape.
        shape: Vec<usize>,
        /// Row-major.
        data: Vec<i64>,
    },
}

impl NamedTensor {
    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            NamedTensor::F32 { shape, .. } | NamedTensor::I64 { shape, .. } => shape,
        }
    }
}

/// Tensors by name. The names are those of the command line's `--given` and `--save-tensors`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedTensors(pub BTreeMap<String, NamedTensor>);

impl NamedTensors {
    /// The tensors that a run can take instead of drawing or computing them.
    pub const GIVEN: [&'static str; 8] = [
        "initial_noise",
        "ralu_noise_stage2",
        "ralu_noise_stage3",
        "prompt_embeds",
        "pooled_prompt_embeds",
        "negative_prompt_embeds",
        "negative_pooled_prompt_embeds",
        "ralu_selected",
    ];

    /// Those of [`NamedTensors::GIVEN`] that are noises.
    pub const NOISES: [&'static str; 3] =
        ["initial_noise", "ralu_noise_stage2", "ralu_noise_stage3"];

    /// Reads the tensors called `names` from the bytes of a safetensors file; others are ignored, absent ones
    /// too.
    ///
    /// The file's header is read as a checkpoint's is, which takes little more memory than its text.
    pub fn read(bytes: &[u8], names: &[&str]) -> Result<Self, Error> {
        let invalid = |reason: &dyn Display| {
            Error::GivenFile(format!("it is not a valid safetensors file ({reason})"))
        };
        if bytes.is_empty() {
            return Err(invalid(&"it is empty"));
        }
        let source = Memory::new("").with(FILE, bytes);
        Self::read_blob(source.blob(FILE).map_err(|error| invalid(&error))?, names)
    }

    /// The same from an open file: its header and the wanted tensors are read, and nothing else.
    ///
    /// Refuses tensors with NaN or infinity in them, and such of more than 1 GiB.
    pub fn read_blob(blob: Box<dyn Blob>, names: &[&str]) -> Result<Self, Error> {
        let invalid = |reason: &dyn Display| {
            Error::GivenFile(format!("it is not a valid safetensors file ({reason})"))
        };
        if blob.is_empty() {
            return Err(invalid(&"it is empty"));
        }
        let file = Weights::open_blob(blob, FILE).map_err(|error| match error {
            WeightError::Header { reason, .. } => invalid(&reason),
            WeightError::Source(error) => Error::GivenFile(error.to_string()),
            other => invalid(&other),
        })?;
        let mut tensors = BTreeMap::new();
        for &name in names {
            let Some(info) = file.info(name) else { continue };
            let read = match info.dtype.name() {
                "F32" => Read::Floats(4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
                "F16" => Read::Floats(2, |b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()),
                "BF16" => Read::Floats(2, |b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()),
                "I64" => Read::Wholes(8, |b| i64::from_le_bytes(b.try_into().unwrap_or_default())),
                "I32" => Read::Wholes(4, |b| {
                    i64::from(i32::from_le_bytes(b.try_into().unwrap_or_default()))
                }),
                other => {
                    return Err(Error::GivenFile(format!(
                        "{name} has type {other}; F32, F16, BF16, I64 and I32 are supported"
                    )));
                }
            };
            let (Read::Floats(width, _) | Read::Wholes(width, _)) = read;
            // Of types that no weights have the file's reader does not know the width.
            if info.n_elements().checked_mul(width as u64) != Some(info.n_bytes()) {
                let reason = format!(
                    "{name}: shape {:?} of {} does not make {} bytes",
                    info.shape,
                    info.dtype,
                    info.n_bytes()
                );
                return Err(invalid(&reason));
            }
            if info.n_bytes() > MAX_TENSOR_BYTES {
                return Err(Error::GivenFile(format!(
                    "{name} has {} bytes (shape {:?}); no run takes more than {} MiB",
                    info.n_bytes(),
                    info.shape,
                    MAX_TENSOR_BYTES >> 20
                )));
            }
            let data = file
                .bytes(info, 0..info.n_bytes())
                .map_err(|error| Error::GivenFile(error.to_string()))?;
            let shape = info.shape.clone();
            let tensor = match read {
                Read::Floats(width, value) => {
                    NamedTensor::F32 { shape, data: data.chunks_exact(width).map(value).collect() }
                }
                Read::Wholes(width, value) => {
                    NamedTensor::I64 { shape, data: data.chunks_exact(width).map(value).collect() }
                }
            };
            tensors.insert(name.to_owned(), tensor);
        }
        let tensors = NamedTensors(tensors);
        tensors.check_finite()?;
        Ok(tensors)
    }

    /// Fails at the first number that is NaN or infinite: no picture comes of it.
    pub fn check_finite(&self) -> Result<(), Error> {
        for (name, tensor) in &self.0 {
            let NamedTensor::F32 { data, .. } = tensor else { continue };
            if let Some(place) = data.iter().position(|number| !number.is_finite()) {
                return Err(Error::NotFiniteGiven {
                    name: name.clone(),
                    number: data[place],
                    place,
                });
            }
        }
        Ok(())
    }

    /// The bytes of a safetensors file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let bytes: BTreeMap<&String, (Dtype, &[usize], Vec<u8>)> = self
            .0
            .iter()
            .map(|(name, tensor)| {
                let (dtype, bytes) = match tensor {
                    NamedTensor::F32 { data, .. } => {
                        (Dtype::F32, data.iter().flat_map(|v| v.to_le_bytes()).collect())
                    }
                    NamedTensor::I64 { data, .. } => {
                        (Dtype::I64, data.iter().flat_map(|v| v.to_le_bytes()).collect())
                    }
                };
                (name, (dtype, tensor.shape(), bytes))
            })
            .collect();
        let failed = |error: safetensors::SafeTensorError| Error::GivenFile(error.to_string());
        let views = bytes
            .iter()
            .map(|(name, (dtype, shape, bytes))| {
                Ok((*name, TensorView::new(*dtype, shape.to_vec(), bytes).map_err(failed)?))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        safetensors::serialize(views, None).map_err(failed)
    }

    /// Adds numbers.
    pub fn insert(&mut self, name: &str, shape: &[usize], data: Vec<f32>) {
        self.0.insert(name.to_owned(), NamedTensor::F32 { shape: shape.to_vec(), data });
    }

    /// Adds indices.
    pub fn insert_indices(&mut self, name: &str, shape: &[usize], data: Vec<i64>) {
        self.0.insert(name.to_owned(), NamedTensor::I64 { shape: shape.to_vec(), data });
    }

    /// The numbers called `name`, which must have `shape`; `None` if they are not there.
    pub fn numbers(&self, name: &str, shape: &[usize]) -> Result<Option<&[f32]>, Error> {
        match self.0.get(name) {
            None => Ok(None),
            Some(NamedTensor::F32 { shape: found, data }) if found == shape => Ok(Some(data)),
            Some(other) => Err(Error::Given {
                name: name.to_owned(),
                found: format!("{:?}", other.shape()),
                expected: format!("{shape:?} of floats for this prompt, size and schedule"),
            }),
        }
    }

    /// The indices called `name`; `None` if they are not there.
    pub fn indices(&self, name: &str) -> Result<Option<&[i64]>, Error> {
        match self.0.get(name) {
            None => Ok(None),
            Some(NamedTensor::I64 { data, .. }) => Ok(Some(data)),
            Some(NamedTensor::F32 { shape, .. }) => Err(Error::Given {
                name: name.to_owned(),
                found: format!("{shape:?} of floats"),
                expected: "integers".into(),
            }),
        }
    }
}
