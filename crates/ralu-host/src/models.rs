//! Where models lie.

use std::path::{Path, PathBuf};

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

/// What a model is called: the last part of its folder's path, with links followed.
pub fn name_of(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
