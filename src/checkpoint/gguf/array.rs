//! Arrays of a GGUF file's metadata, which are read when they are asked for.

use std::borrow::Cow;

use super::GgufError;
use super::metadata::{Metadata, Value};
use crate::checkpoint::source::Blob;
use crate::checkpoint::weights::WeightError;

/// A larger array is no vocabulary: T5's texts have 400 KB, those of the largest language models 4 MB.
const MAX_BYTES: u64 = 64 << 20;
/// GGUF's number of texts.
const TEXT: u32 = 8;

/// An array, or a long text, in the metadata of a GGUF file.
pub struct Array<'f> {
    name: String,
    file: String,
    item: u32,
    count: u64,
    bytes: Cow<'f, [u8]>,
}

impl<'f> Array<'f> {
    /// The array `name`; `None` if there is none.
    pub(crate) fn read(
        metadata: &Metadata,
        name: &str,
        blob: &'f dyn Blob,
        file: &str,
    ) -> Result<Option<Self>, WeightError> {
        let Some(Value::Array { item, count, range }) = metadata.get(name) else { return Ok(None) };
        let (name, file) = (name.to_owned(), file.to_owned());
        let array = Array { name, file, item: *item, count: *count, bytes: Cow::Borrowed(&[]) };
        if range.end - range.start > MAX_BYTES {
            let found = range.end - range.start;
            return Err(array.damaged(format!("has {found} bytes, expected at most {MAX_BYTES}")));
        }
        let bytes = blob.bytes(range.clone())?;
        Ok(Some(Array { bytes, ..array }))
    }

    fn damaged(&self, reason: String) -> WeightError {
        let reason = format!("the metadata entry {} {reason}", self.name);
        GgufError::Damaged { file: self.file.clone(), reason }.into()
    }

    /// Its texts.
    pub fn texts(&self) -> Result<Vec<String>, WeightError> {
        if self.item != TEXT {
            return Err(self.damaged("is no array of texts".into()));
        }
        let mut rest = &self.bytes[..];
        let mut texts = Vec::new();
        for _ in 0..self.count {
            let Some((length, after)) = rest.split_first_chunk::<8>() else { break };
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let Some((text, after)) = after.split_at_checked(length) else { break };
            texts.push(String::from_utf8_lossy(text).into_owned());
            rest = after;
        }
        if texts.len() as u64 != self.count {
            return Err(self.damaged(format!(
                "ends after {} of {} texts",
                texts.len(),
                self.count
            )));
        }
        Ok(texts)
    }

    /// Its numbers of 32 bits, of GGUF's type `item`: 5 for `i32`, 6 for `f32`.
    fn words(&self, item: u32) -> Result<impl Iterator<Item = [u8; 4]> + '_, WeightError> {
        if self.item != item || self.bytes.len() as u64 != self.count.saturating_mul(4) {
            return Err(self.damaged(format!("has items of type {}, expected {item}", self.item)));
        }
        Ok(self.bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]))
    }

    /// Its 32-bit floats.
    pub fn floats(&self) -> Result<Vec<f32>, WeightError> {
        Ok(self.words(6)?.map(f32::from_le_bytes).collect())
    }

    /// Its signed 32-bit numbers.
    pub fn integers(&self) -> Result<Vec<i32>, WeightError> {
        Ok(self.words(5)?.map(i32::from_le_bytes).collect())
    }

    /// Its bytes.
    pub fn bytes(&self) -> Result<Vec<u8>, WeightError> {
        if self.item > 1 {
            return Err(self.damaged(format!("has items of type {}, expected bytes", self.item)));
        }
        Ok(self.bytes.to_vec())
    }
}
