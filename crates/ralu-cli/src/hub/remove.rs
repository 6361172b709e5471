//! `ralu rm`: removes a model from the cache.

use ralu::escape::Escaped;
use ralu::gpu::human_bytes;

use super::{ask, hub, named};
use crate::args::RmArgs;
use crate::error::{Error, Result};
use crate::output;

/// Asks, and removes what no other snapshot needs.
pub fn run(args: &RmArgs, quiet: bool) -> Result<()> {
    let name = named(&args.name)?;
    // The other parts belong to the model in any format.
    let name = name.denoiser().unwrap_or(name);
    let hub = hub();
    let Some(removal) = hub.removal(&name) else {
        return Err(Error::failed(format!(
            "{}: not in the cache ({}); `ralu list` shows what is",
            Escaped(&args.name),
            Escaped(&hub.settings().cache.to_string_lossy())
        )));
    };
    let what = format!("{} of {}", human_bytes(removal.bytes), Escaped(&args.name));
    if !args.yes {
        match ask(&format!("Remove {what} from the cache?")) {
            Some(true) => {}
            Some(false) => return Err(Error::Cancelled),
            None => {
                return Err(Error::failed(format!(
                    "{what} would be removed; nobody is there to confirm it: give --yes"
                )));
            }
        }
    }
    hub.remove(&removal)?;
    if !quiet {
        output::diagnostic(&format!("removed {what}"));
    }
    Ok(())
}
