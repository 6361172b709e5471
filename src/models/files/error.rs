//! What can be wrong with a model that is put together from files.

use super::Role;
use crate::advice::Advice;
use crate::checkpoint::source::SourceError;
use crate::checkpoint::weights::WeightError;
use crate::escape::Escaped;
use crate::models::adapters::AdapterError;
use crate::models::config::ConfigError;

/// Why files are no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum FilesError {
    /// The bytes could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file cannot be read, or its tensors are not as they should be.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The configuration of a folder among them.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of changes to the model.
    #[error(transparent)]
    Adapter(Box<AdapterError>),
    /// A model or a part that is known and not supported.
    #[error("{}: this is {}", Escaped(.file), Escaped(.what))]
    Refused {
        file: String,
        /// What it is, that it is not supported, and what to do.
        what: String,
    },
    /// Nothing in a file is known.
    #[error(
        "{}: no part of a supported model: neither a denoiser nor a text encoder nor a VAE by its {n} tensors (the first: {}); \
         give a model file of {}",
        Escaped(.file), Escaped(.first), super::supported()
    )]
    Unknown { file: String, n: usize, first: String },
    /// A file has another part than it was given as.
    #[error("{}: expected a {expected}, found {}; give it as what it is", Escaped(.file), Escaped(.found))]
    OtherPart { file: String, expected: Role, found: String },
    /// A part is nowhere.
    #[error(
        "the {role} is missing: {} does not hold it, and none was found in {}; its file is usually called {}",
        Escaped(.model), Escaped(.looked_in), role.usual_names()
    )]
    MissingPart { role: Role, model: String, looked_in: String },
    /// Of a list of files, none is a denoiser.
    #[error(
        "no denoiser among these files ({}); its file is usually called {}",
        Escaped(.found), Role::Denoiser.usual_names()
    )]
    NoDenoiser {
        /// What each of them is.
        found: String,
    },
    /// A list of files lacks parts of the model.
    #[error(
        "{}: this model is not complete without {}; give {} as well",
        Escaped(.model), missing(.roles), if .roles.len() == 1 { "that file" } else { "these files" }
    )]
    MissingParts { model: String, roles: Vec<Role> },
    /// Two files are equally good.
    #[error("the {role} may be in {} or in {}; say which", Escaped(.first), Escaped(.second))]
    Ambiguous { role: Role, first: String, second: String },
    /// Of a list of files, two have the same part.
    #[error("{} and {} both hold a {what}; give one of them", Escaped(.first), Escaped(.second))]
    Twice {
        /// A part, or a tokenizer.
        what: String,
        first: String,
        second: String,
    },
    /// A part was left out that the model cannot be without.
    #[error("{}: a model of this kind cannot be without its {role}", Escaped(.model))]
    Needed { role: Role, model: String },
    /// A folder with several models.
    #[error("{}: a folder with {n} models: {}; give one of these files", Escaped(.folder), Escaped(.files))]
    Several { folder: String, n: usize, files: String },
    /// The denoiser is not of the folder's family.
    #[error(
        "{}: a denoiser of {found}, but {} is a model of {expected}; give parts of one model",
        Escaped(.file), Escaped(.folder)
    )]
    OtherFamily { file: String, found: &'static str, folder: String, expected: &'static str },
    /// Parts of a folder whose family's parts are not read from files.
    #[error("{}: the parts of such a model are not read from files of their own; get the whole folder", Escaped(.folder))]
    FolderOnly { folder: String },
}

impl From<AdapterError> for FilesError {
    fn from(error: AdapterError) -> Self {
        match error {
            // What has to be fetched first.
            AdapterError::Source(error) => FilesError::Source(error),
            AdapterError::Weights(error) => FilesError::Weights(error),
            error => FilesError::Adapter(Box::new(error)),
        }
    }
}

/// Parts, and what their files are called.
fn missing(roles: &[Role]) -> String {
    let named = |role: &Role| format!("a {role} (usually {})", role.usual_names());
    roles.iter().map(named).collect::<Vec<_>>().join(", ")
}

impl FilesError {
    /// What may help, where the message does not say it.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::MissingPart { role, .. } | Self::Ambiguous { role, .. } => Some(match role {
                Role::Denoiser => Advice::GiveDenoiser,
                Role::ClipL => Advice::GiveClipL,
                Role::ClipG => Advice::GiveClipG,
                Role::T5 => Advice::GiveT5,
                Role::Vae => Advice::GiveVae,
            }),
            Self::Weights(error) => error.advice(),
            _ => None,
        }
    }
}
