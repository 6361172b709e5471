//! GGUF files, version 2 and 3: metadata and tensors, read from the header alone.
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>
//!
//! The reader is our own: crates for GGUF read whole files or map them, which a page cannot, and trust lengths that a file
//! states. Here every length is compared with the file's before anything is allocated.

mod array;
mod cursor;
mod metadata;
mod tensors;

pub use array::Array;
pub use metadata::{Metadata, Value};

use std::sync::Arc;

use super::source::Blob;
use super::weights::{TensorInfo, WeightError};
use crate::escape::Escaped;
use cursor::Cursor;

/// The first bytes of every GGUF file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";

/// What is wrong with a GGUF file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum GgufError {
    /// A version that is not read.
    #[error("{}: a GGUF file of version {version}; versions 2 and 3 are read: get a newer file of this model", Escaped(.file))]
    Version { file: String, version: u32 },
    /// Numbers are stored with the high byte first.
    #[error(
        "{}: a big-endian GGUF file, which is not read; get the ordinary, little-endian one",
        Escaped(.file)
    )]
    BigEndian { file: String },
    /// One file of several.
    #[error(
        "{}: one of {parts} files of a split model, which are not read; join them with llama-gguf-split, which comes with llama.cpp",
        Escaped(.file)
    )]
    Split { file: String, parts: u64 },
    /// The file ends in the middle of its header, or of a tensor.
    #[error(
        "{}: {} needs {needed} bytes from byte {at} on, but the file ends after {len}: the download is incomplete or \
         damaged; download the file again",
        Escaped(.file), Escaped(.what)
    )]
    Truncated { file: String, what: String, at: u64, needed: u64, len: u64 },
    /// Anything else that cannot be.
    #[error("{}: not a valid GGUF file: {}; download the file again", Escaped(.file), Escaped(.reason))]
    Damaged { file: String, reason: String },
}

/// Reads the header of one GGUF file.
///
/// `file` is its path for messages, `shard` the number that its tensors get.
pub(crate) fn read(
    blob: &dyn Blob,
    file: &Arc<str>,
    shard: usize,
) -> Result<(Metadata, Vec<TensorInfo>), WeightError> {
    let mut cursor = Cursor::new(blob, file);
    cursor.skip(MAGIC.len() as u64, "its header")?;
    let version = cursor.u32("the version")?;
    let name = || file.to_string();
    match version {
        2 | 3 => {}
        version if version.swap_bytes() == 2 || version.swap_bytes() == 3 || version >= 1 << 16 => {
            return Err(GgufError::BigEndian { file: name() }.into());
        }
        version => return Err(GgufError::Version { file: name(), version }.into()),
    }
    let n_tensors = cursor.u64("the number of tensors")?;
    let n_entries = cursor.u64("the number of metadata entries")?;
    let metadata = Metadata::read(&mut cursor, n_entries)?;
    if let Some(parts) = metadata.count("split.count").filter(|parts| *parts > 1) {
        return Err(GgufError::Split { file: name(), parts }.into());
    }
    let tensors = tensors::read(&mut cursor, &metadata, n_tensors, shard)?;
    Ok((metadata, tensors))
}
