//! A model in which one JSON file is the input.

use super::check::keeps_its_word;
use super::limits::bounded;
use super::model::{MEMORY, fixtures};

/// The first byte says which file of which model, the rest is the file.
pub fn check(input: &[u8]) {
    let Some((which, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let all: Vec<_> = fixtures()
        .iter()
        .flat_map(|model| model.json_files().into_iter().map(move |file| (model, file)))
        .collect();
    let (model, file) = all[usize::from(*which) % all.len()];
    let model = model.clone().with(file, text);
    bounded(MEMORY, model.length(), || keeps_its_word(&model));
}
