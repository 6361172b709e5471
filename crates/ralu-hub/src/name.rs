//! What a user may call a model.

use ralu::models::builtin;
use ralu::models::family::KnownModel;

use crate::{HubError, Result};

/// A model's name, understood.
#[derive(Clone)]
pub struct Name {
    /// `owner/repo` on the hub.
    pub repository: String,
    /// The one file that is meant, if not the whole model.
    pub file: Option<String>,
    /// What is known of it without asking the hub.
    pub known: Option<&'static KnownModel>,
    /// Where its denoiser is to be taken from: `owner/repo` and a file. The model's own is not fetched then.
    pub denoiser: Option<(String, String)>,
}

impl Name {
    /// A known name, a known name with the number format of its denoiser (`sd3.5-large:q8_0`), `owner/repo`, or
    /// `owner/repo:file`. `None` if `text` is none of these, but maybe a path.
    pub fn parse(text: &str) -> Option<Self> {
        let (model, file) = match text.split_once(':') {
            Some((model, file)) => (model, Some(file)),
            None => (text, None),
        };
        if file.is_some_and(|file| check_file(file).is_err()) {
            return None;
        }
        let known = builtin::find(model);
        let denoiser = known.zip(file).and_then(|(known, format)| quantised(known, format));
        let file = file.filter(|_| denoiser.is_none()).map(str::to_owned);
        let repository = match known {
            // Either of its repositories may be asked for.
            Some(known) => known
                .repositories
                .iter()
                .find(|repository| repository.eq_ignore_ascii_case(model))
                .or(known.repositories.first())?
                .to_string(),
            None => {
                check_repository(model).ok()?;
                model.to_owned()
            }
        };
        Some(Name { repository, file, known, denoiser })
    }

    /// The file that the denoiser is to be taken from, as a name of its own.
    pub fn denoiser(&self) -> Option<Name> {
        let (repository, file) = self.denoiser.clone()?;
        Some(Name { repository, file: Some(file), known: None, denoiser: None })
    }
}

/// The repository and the file of a known model's denoiser in a number format.
fn quantised(known: &KnownModel, format: &str) -> Option<(String, String)> {
    let files = known.quantised.as_ref()?;
    let (_, in_name) = files.formats.iter().find(|(name, in_name)| {
        name.eq_ignore_ascii_case(format) || in_name.eq_ignore_ascii_case(format)
    })?;
    Some((files.repository.to_owned(), files.file.replace("{}", in_name)))
}

/// Whether it is `owner/repo` in characters that the hub allows.
pub(crate) fn check_repository(text: &str) -> Result<()> {
    let fine = |part: &str| {
        let letters = part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
        let ends = !part.starts_with(['-', '.']) && !part.ends_with(['-', '.']);
        (1..=96).contains(&part.len())
            && letters
            && ends
            && !part.contains("--")
            && !part.contains("..")
    };
    match text.split_once('/') {
        Some((owner, repo)) if fine(owner) && fine(repo) => Ok(()),
        _ => Err(HubError::Name { name: text.to_owned() }),
    }
}

/// Whether a file's name stays inside of its repository, on any system.
pub(crate) fn check_file(path: &str) -> Result<()> {
    let fine = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.contains(|c: char| c.is_control() || "\\:?*\"<>|".contains(c))
    };
    match path.len() <= 1024 && path.split('/').all(fine) {
        true => Ok(()),
        false => Err(HubError::FileName { name: path.to_owned() }),
    }
}
