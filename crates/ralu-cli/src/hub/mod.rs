//! Models by name: `pull`, `list`, `rm`, and what `--model NAME` means.

mod list;
mod pull;
mod remove;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use ralu::escape::Escaped;
use ralu_host::loras::LoraDir;
use ralu_hub::{Hub, HubError, Name, Settings, Snapshot};

use super::error::{Error, Result};

pub use list::run as list;
pub use pull::run as pull;
pub use remove::run as remove;

/// The hub as the environment describes it.
fn hub() -> Hub {
    Hub::new(Settings::from_variables(|name| std::env::var_os(name)))
}

fn named(text: &str) -> Result<Name> {
    Name::parse(text).ok_or_else(|| HubError::Name { name: text.to_owned() }.into())
}

/// Where a model lies.
pub struct Place {
    /// Its folder or file.
    pub model: PathBuf,
    /// The file that its denoiser is taken from, if that is not the model's own.
    pub denoiser: Option<PathBuf>,
}

impl From<PathBuf> for Place {
    fn from(model: PathBuf) -> Self {
        Place { model, denoiser: None }
    }
}

/// Where the model that is called `text` lies in the cache: its folder, or the one file that is meant. `None` if it is
/// not there.
pub fn cached(text: &str) -> Option<Place> {
    let (name, hub) = (Name::parse(text)?, hub());
    let find = |name: &Name| Some(place(&hub.cached(name)?, name));
    let denoiser = match name.denoiser() {
        Some(denoiser) => Some(find(&denoiser)?),
        None => None,
    };
    Some(Place { model: find(&name)?, denoiser })
}

fn place(snapshot: &Snapshot, name: &Name) -> PathBuf {
    match &name.file {
        Some(file) => snapshot.folder.join(file),
        None => snapshot.folder.clone(),
    }
}

/// Why a name cannot be used for a run, if it is one that is not in the cache.
pub fn how_to_get(text: &str) -> Option<String> {
    let name = Name::parse(text)?;
    let text = Escaped(text);
    if let (Some(known), Some(format)) = (name.known, name.file.as_deref())
        && !format.contains('.')
    {
        let quantised = known.quantised.iter().flat_map(|files| files.formats);
        let formats: Vec<&str> = quantised.map(|(format, _)| *format).collect();
        return Some(match formats.as_slice() {
            [] => format!("{} is known in its own format only: `ralu pull {0}`", known.name),
            _ => format!(
                "{} is not known in the format {}; expected one of {}",
                known.name,
                Escaped(format),
                formats.join(", ")
            ),
        });
    }
    Some(match name.known {
        Some(known) => format!(
            "{text} is not in the cache of models ({}); `ralu pull {text}` downloads it (licence: {})",
            Escaped(&hub().settings().cache.to_string_lossy()),
            known.licence
        ),
        None => format!(
            "if it is meant as a repository of the Hugging Face hub, `ralu pull {text}` downloads it"
        ),
    })
}

/// The variable that names the folder of LoRAs.
const LORA_DIR: &str = "RALU_LORA_DIR";

/// The folder of LoRAs that are given by name.
pub fn loras() -> Option<LoraDir> {
    let given = std::env::var_os(LORA_DIR).filter(|value| !value.is_empty()).map(PathBuf::from);
    LoraDir::find(given.as_deref())
}

/// What a LoRA may be given as, one that is not there.
pub fn how_to_get_lora(text: &str) -> String {
    let pull = match Name::parse(text) {
        Some(Name { file: Some(_), known: None, .. }) => {
            format!("`ralu pull {}` downloads it; else ", Escaped(text))
        }
        _ => String::new(),
    };
    let folder = match loras() {
        Some(loras) => Escaped(&loras.folder().to_string_lossy()).to_string(),
        None => LORA_DIR.to_owned(),
    };
    format!(
        "{pull}a LoRA is a path, the name of a file in {folder}, or owner/repo:file in the cache of models"
    )
}

/// Asks a question whose answer is yes or no. `None` if nobody is there to answer.
fn ask(question: &str) -> Option<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return None;
    }
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{} [y/N] ", super::output::visible(question));
    let _ = stderr.flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

impl From<HubError> for Error {
    fn from(error: HubError) -> Error {
        Error::failed(error)
    }
}
