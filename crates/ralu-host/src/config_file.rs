//! Where the user's configuration lies.

use std::path::PathBuf;

use etcetera::BaseStrategy;

/// `ralu/config.toml` in the user's folder of configurations: `~/.config`, or what `XDG_CONFIG_HOME` names,
/// `~/Library/Preferences` or `%APPDATA%`. `None` if the system knows of no such folder. The file need not be there.
pub fn config_file() -> Option<PathBuf> {
    let folders = etcetera::base_strategy::choose_native_strategy().ok()?;
    Some(folders.config_dir().join("ralu").join("config.toml"))
}
