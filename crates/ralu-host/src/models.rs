//! Where models lie, and how they are opened.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use etcetera::BaseStrategy;
use ralu::checkpoint::source::Folder;
use ralu::checkpoint::weights::Weights;
use ralu::models::files::{FilesError, ModelFiles, ModelPaths, is_lora};

use crate::loras;

/// The bundled model's folder in the repository.
pub const BUNDLED: &str = "models/tiny-flux";

/// The bundled model's folder: looked for in each of `places` and all folders above it, in this order.
pub fn find_bundled<'a>(places: impl IntoIterator<Item = &'a Path>) -> Option<PathBuf> {
    places
        .into_iter()
        .flat_map(Path::ancestors)
        .map(|folder| folder.join(BUNDLED))
        .find(|folder| folder.join("model_index.json").is_file())
}

/// The user's folder for ralu's data, which may hold a copy of its sources with the bundled model: `~/.local/share/ralu`,
/// `~/Library/Application Support/ralu` or `%APPDATA%\ralu`. `None` if the system knows of no such folder.
pub fn data_folder() -> Option<PathBuf> {
    Some(etcetera::base_strategy::choose_native_strategy().ok()?.data_dir().join("ralu"))
}

/// Opens the files of a model by the system's paths, and finds out what they are. A folder of a diffusers model is not
/// looked into.
pub fn open(paths: &ModelPaths) -> Result<ModelFiles, FilesError> {
    let path = Path::new(&paths.model);
    // A single configuration is no model: the error says which folder is meant.
    let is_config =
        path.extension().is_some_and(|end| end == "json") && !paths.model.ends_with(".index.json");
    if is_config || paths.is_model_alone() && !path.is_file() {
        let folder = Folder::open(path)?;
        return ModelFiles::open(Arc::new(folder), &ModelPaths::default());
    }
    if !path.exists() {
        // As an error of the folder that is not there.
        Folder::open(path)?;
    }
    let paths = loras::hashed(paths)?;
    let paths = match cfg!(windows) {
        true => paths.with_slashes(),
        false => paths,
    };
    ModelFiles::open(Arc::new(Folder::anywhere()), &paths)
}

/// Whether a file is one of a model, by its first bytes, or the index of several.
pub fn is_model_file(path: &Path) -> bool {
    if path.to_string_lossy().ends_with(".safetensors.index.json") {
        return path.is_file();
    }
    let mut start = [0; 9];
    let read =
        path.is_file() && File::open(path).is_ok_and(|mut f| f.read_exact(&mut start).is_ok());
    // safetensors: the length of a header in JSON.
    let is_header = start[5..8] == [0; 3] && start[8] == b'{';
    read && (start.starts_with(b"GGUF") || is_header)
}

/// Whether a file is a LoRA or one of its relatives.
pub fn is_lora_file(path: &Path) -> bool {
    let open = || Weights::open_file(&Folder::anywhere(), &path.to_string_lossy());
    is_model_file(path) && open().is_ok_and(|weights| is_lora(&weights))
}

/// What a model is called: the last part of its folder's path, with links followed.
pub fn name_of(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
