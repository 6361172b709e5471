//! Text files: how large they may be, and what is no text though it lies where one should be.

use super::SourceError;

/// Larger configurations than this are a mistake: real ones have a few KiB.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Larger tokenizers and indices than this are a mistake: the largest real ones have about 30 MiB.
const MAX_TABLE_BYTES: u64 = 64 << 20;

/// Bytes that the text file `path` may have, by its name.
pub(super) fn max_text_bytes(path: &str) -> u64 {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_table = ["tokenizer.json", "vocab.json", "added_tokens.json"].contains(&name)
        || name.ends_with(".txt")
        || name.contains(".index.");
    if is_table { MAX_TABLE_BYTES } else { MAX_CONFIG_BYTES }
}

/// The text of a file, or what it is instead.
pub(super) fn to_text(path: &str, bytes: Vec<u8>) -> Result<String, SourceError> {
    if bytes.is_empty() {
        return Err(SourceError::Empty { path: path.to_string() });
    }
    if let Some(reason) = stands_in(&bytes) {
        return Err(SourceError::OtherText { path: path.to_string(), reason });
    }
    String::from_utf8(bytes).map_err(|error| SourceError::NotText {
        path: path.to_string(),
        offset: error.utf8_error().valid_up_to(),
    })
}

/// What a file that should be UTF-8 text is instead, judged by its beginning.
fn stands_in(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(64)];
    let low: String = start.iter().map(|b| b.to_ascii_lowercase() as char).collect();
    let page = low.trim_start();
    match start {
        [0xef, 0xbb, 0xbf, ..] => Some(
            "begins with a byte order mark (BOM), as some Windows editors write it; save it as UTF-8 without BOM",
        ),
        _ if start.iter().all(|b| *b == 0) => {
            Some("is an unfinished download, which begins with zeros; download the file again")
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => Some(
            "is not UTF-8 but, by its first bytes, UTF-16 or UTF-32 text (with a byte order mark, BOM, or without), as \
             some Windows editors write it; save it as UTF-8 without BOM",
        ),
        _ if low.starts_with("version https://git-lfs") => Some(
            "is a Git LFS pointer, not the file itself; run `git lfs pull` in the model folder to get it",
        ),
        _ if page.starts_with("<!doctype") || page.starts_with("<html") => Some(
            "is a web page, not the file itself: the server had answered with a page (to log in, or an error); download \
             the file again",
        ),
        _ => None,
    }
}
