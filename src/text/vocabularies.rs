//! The vocabularies that the published CLIP and T5 encoders have in common, for models that come without a tokenizer.
//!
//! The files in `vocabularies/`, which `scripts/vocabularies.py` writes, are zlib streams. CLIP's holds the lines of
//! `merges.txt`. T5's holds four little-endian `u32`: the number of pieces, the bytes of their texts, of the trie and of
//! the replacements. The texts follow, each ended by a line feed; the pieces' scores as `f32`; the trie's `u32`; and the
//! replacements (see `character_map.rs` for the last two). Scores and trie are stored as four planes of bytes, first
//! the lowest byte of every word, because these compress better.

use std::sync::Arc;

use fdeflate::{BoundedDecompressionError, decompress_to_vec_bounded};

use super::files::Packed;
use super::{Result, TokenError, Tokenizer, TokenizerFiles, TokenizerKind};
#[cfg(feature = "vocabularies")]
use crate::checkpoint::source::Memory;
use crate::checkpoint::source::{Padding, Source, SourceError};
use crate::turns::{Turns, complete_at_once};

/// More unpacked bytes than this are a damaged file: the largest has 664,636.
const MAX_UNPACKED: usize = 4 << 20;

/// Ready-made vocabularies of CLIP and T5: those in the library (feature `vocabularies`), or a folder with the same files,
/// from which a page fetches one when it needs it.
#[derive(Clone)]
pub struct Vocabularies(Arc<dyn Source>);

impl Vocabularies {
    /// The file with CLIP's merges, 199 KB.
    pub const CLIP: &str = "clip.zlib";
    /// The file with T5's pieces, 261 KB.
    pub const T5: &str = "t5.zlib";

    /// Those in the library.
    #[cfg(feature = "vocabularies")]
    pub fn built_in() -> Self {
        let files = Memory::new("built-in vocabularies")
            .with(Self::CLIP, include_bytes!("vocabularies/clip.zlib"))
            .with(Self::T5, include_bytes!("vocabularies/t5.zlib"));
        Self(Arc::new(files))
    }

    /// Those in a folder that has the files [`Vocabularies::CLIP`] and [`Vocabularies::T5`].
    pub fn from_source(source: Arc<dyn Source>) -> Self {
        Self(source)
    }

    /// Where the files are, for [`read`](crate::checkpoint::source::read).
    pub fn source(&self) -> &dyn Source {
        &*self.0
    }

    /// The tokenizer of an encoder that has `rows` embeddings. `pad` is the token that texts are padded with, if it is not
    /// the vocabulary's own: CLIP-G's are padded with 0.
    pub fn load(
        &self,
        kind: TokenizerKind,
        rows: usize,
        pad: Option<u32>,
    ) -> Result<Box<dyn Tokenizer>> {
        let files = read(self.source(), kind, rows)?;
        let files = files.padded_with(pad.map(Padding::Id));
        complete_at_once(kind.parse(&files, &Turns::none()))
    }
}

/// The ready-made vocabulary of an encoder of the model in `source`: the one that comes with the source, else the
/// built-in one. The encoder has `rows` embeddings.
pub(super) fn ready_made(
    source: &dyn Source,
    kind: TokenizerKind,
    rows: usize,
) -> Result<TokenizerFiles> {
    if let Some(files) = source.vocabularies() {
        return read(files, kind, rows);
    }
    #[cfg(feature = "vocabularies")]
    return read(Vocabularies::built_in().source(), kind, rows);
    #[cfg(not(feature = "vocabularies"))]
    return Err(TokenError::NotBuiltIn { kind, rows, expected: None });
}

/// The vocabulary, among the files of [`Vocabularies`], of an encoder that has `rows` embeddings. Only the encoders that
/// were trained with it have that many; for others this is an error.
fn read(files: &dyn Source, kind: TokenizerKind, rows: usize) -> Result<TokenizerFiles> {
    check_rows(kind, rows)?;
    let name = if kind == TokenizerKind::T5 { Vocabularies::T5 } else { Vocabularies::CLIP };
    match Packed::read(files, name)? {
        Some(packed) => Ok(TokenizerFiles::packed(packed)),
        None => Err(SourceError::MissingFile { path: super::shown(files, name) }.into()),
    }
}

/// Whether the vocabulary of that kind belongs to encoders that have `rows` embeddings. T5's tables have 28 rows more than
/// its vocabulary has pieces, some exports fewer.
pub(crate) fn check_rows(kind: TokenizerKind, rows: usize) -> Result<()> {
    let expected = match kind {
        TokenizerKind::Clip => Some(49_408..=49_408),
        TokenizerKind::T5 => Some(32_100..=32_128),
        TokenizerKind::ByteLevel => None,
    };
    match &expected {
        Some(range) if range.contains(&rows) => Ok(()),
        _ => Err(TokenError::NotBuiltIn { kind, rows, expected }),
    }
}

impl Packed {
    /// The file at `path`; `None` if there is none.
    pub(super) fn read(source: &dyn Source, path: &str) -> Result<Option<Self>> {
        if !source.exists(path) {
            return Ok(None);
        }
        let blob = source.blob(path)?;
        let path = super::shown(source, path);
        if blob.len() > MAX_UNPACKED as u64 {
            let reason = format!("it has {} bytes; expected at most {MAX_UNPACKED}", blob.len());
            return Err(TokenError::File { path, reason });
        }
        let bytes = blob.bytes(0..blob.len())?.into_owned();
        Ok(Some(Packed { path, bytes }))
    }

    fn bad(&self, reason: impl Into<String>) -> TokenError {
        TokenError::File { path: self.path.clone(), reason: reason.into() }
    }

    fn unpacked(&self) -> Result<Vec<u8>> {
        use BoundedDecompressionError::{DecompressionError, OutputTooLarge};
        decompress_to_vec_bounded(&self.bytes, MAX_UNPACKED).map_err(|error| match error {
            DecompressionError { inner } => {
                self.bad(format!("it is no intact zlib stream ({inner:?})"))
            }
            OutputTooLarge { .. } => self.bad(format!("it unpacks to over {MAX_UNPACKED} bytes")),
        })
    }

    /// The lines of CLIP's merges.
    pub(super) fn merges(&self) -> Result<String> {
        String::from_utf8(self.unpacked()?).map_err(|_| self.bad("the merges are not UTF-8"))
    }

    /// T5's pieces.
    pub(super) fn pieces(&self) -> Result<PackedPieces> {
        let unpacked = self.unpacked()?;
        let mut rest = &unpacked[..];
        let mut take = |n: usize| {
            let (taken, left) = rest.split_at_checked(n)?;
            rest = left;
            Some(taken)
        };
        let short = || self.bad(format!("it ends too early, after {} bytes", unpacked.len()));
        let [n, texts, trie, replacements] = {
            let head = take(16).ok_or_else(short)?;
            [0, 1, 2, 3].map(|i| words(&head[4 * i..4 * i + 4]).next().unwrap_or(0) as usize)
        };
        let texts = take(texts).ok_or_else(short)?.to_vec();
        let scores = take(n.saturating_mul(4)).ok_or_else(short)?;
        let scores: Vec<f32> = words(&interleaved(scores)).map(f32::from_bits).collect();
        let mut map = (trie as u32).to_le_bytes().to_vec();
        map.extend(interleaved(take(trie).ok_or_else(short)?));
        map.extend(take(replacements).ok_or_else(short)?);
        let texts = String::from_utf8(texts).map_err(|_| self.bad("the pieces are not UTF-8"))?;
        if texts.lines().count() != n {
            let found = texts.lines().count();
            return Err(self.bad(format!("it has {found} pieces and {n} scores")));
        }
        Ok(PackedPieces { texts, scores, character_map: map })
    }
}

/// T5's pieces, as their file has them.
pub(super) struct PackedPieces {
    /// One a line.
    pub texts: String,
    pub scores: Vec<f32>,
    pub character_map: Vec<u8>,
}

/// Little-endian words.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

/// Words whose bytes are given as four planes.
fn interleaved(planes: &[u8]) -> Vec<u8> {
    let n = planes.len() / 4;
    (0..4 * n).map(|i| planes[i % 4 * n + i / 4]).collect()
}
