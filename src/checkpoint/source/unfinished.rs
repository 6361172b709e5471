//! Downloads that were interrupted.

use super::Source;

/// Endings of files that a download has not finished.
const UNFINISHED: [&str; 8] =
    [".incomplete", ".part", ".partial", ".crdownload", ".download", ".aria2", ".tmp", ".!qB"];

/// The name of an unfinished download among the files of `dir`, or among those that the Hugging Face tools keep for it.
pub(crate) fn unfinished_download(source: &dyn Source, dir: &str) -> Option<String> {
    [dir.to_owned(), format!(".cache/huggingface/download/{dir}")].into_iter().find_map(|dir| {
        let files = source.list(&dir).unwrap_or_default();
        files.into_iter().find(|file| UNFINISHED.iter().any(|end| file.ends_with(end)))
    })
}
