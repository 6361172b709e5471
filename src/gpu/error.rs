//! Everything that can go wrong between the library and a graphics adapter.

/// An error of the device or of the choice of a device. Each says what was found and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter at all.
    #[error(
        "no graphics adapter was found (looked for {backends}). Install a Vulkan driver for your GPU; \
         without a GPU, Mesa's software driver does: `apt-get install mesa-vulkan-drivers libvulkan1` on \
         Debian and Ubuntu, `dnf install mesa-vulkan-drivers` on Fedora. `ralu devices` lists what is found"
    )]
    NoAdapter {
        /// The backends that were searched.
        backends: String,
    },
    /// Adapters exist, but not the one asked for.
    #[error(
        "no adapter matches {wanted:?}. Found: {found}. `ralu devices` lists them with their numbers"
    )]
    NoSuchAdapter {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// The adapter lacks something without which nothing works.
    #[error("{adapter} cannot be used: {reason}. Choose another one: `ralu devices` lists them")]
    Unusable {
        /// Its name.
        adapter: String,
        /// What it lacks.
        reason: String,
    },
    /// The driver refused to open the device.
    #[error(
        "{adapter} could not be opened: {reason}. Another adapter may work: `ralu devices` lists them"
    )]
    Open {
        /// Its name.
        adapter: String,
        /// The driver's words.
        reason: String,
    },
    /// A limit of the adapter is too small for what was asked.
    #[error("{what}: needs {need}, this adapter offers {have}. {advice}")]
    Limit {
        /// What did not fit.
        what: String,
        /// How much it needs.
        need: String,
        /// How much there is.
        have: String,
        /// What to change.
        advice: &'static str,
    },
    /// The adapter's memory is full.
    #[error(
        "out of GPU memory at {what}, with {allocated} already held. Make the picture smaller \
         (--width, --height), store the weights in 16 bits (--precision f16), or use an adapter with more memory"
    )]
    OutOfMemory {
        /// What was being allocated or run.
        what: String,
        /// How much this program holds.
        allocated: String,
    },
    /// The device went away.
    #[error(
        "the GPU was lost: {reason}. A driver update, a sleep, or a driver's time-out causes this; if it comes back, \
         choose a smaller picture or another adapter (`ralu devices`)"
    )]
    Lost {
        /// The driver's words.
        reason: String,
    },
    /// The driver rejected something we did: a bug of ours or of the driver.
    #[error(
        "the GPU rejected {what}: {message}. This is a bug; please report it with the output of `ralu devices`"
    )]
    Rejected {
        /// Which kernel or command.
        what: String,
        /// The driver's words.
        message: String,
    },
    /// The driver cannot compile a kernel.
    #[error(
        "this driver cannot compile {what}: {message}. A newer driver may; please report it with the output of \
         `ralu devices`"
    )]
    Kernel {
        /// The stem of its file in `shaders/`.
        shader: &'static str,
        /// Its name.
        what: String,
        /// The driver's words.
        message: String,
    },
    /// Kernels cannot be timed.
    #[error(
        "{adapter} cannot time kernels: its device has no timestamp queries. Leave profiling out, or use an adapter \
         that has `timestamp-query` among its features (`ralu devices --json`)"
    )]
    NoTimestamps {
        /// The adapter's name.
        adapter: String,
    },
    /// Reading results back failed.
    #[error("reading {what} back from the GPU failed: {message}")]
    Read {
        /// What was read.
        what: String,
        /// The driver's words.
        message: String,
    },
}

/// `1.5 GiB`, `12.0 MiB`, `40 B`.
pub fn human_bytes(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", value / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", value / 1_048_576.0),
        _ => format!("{:.2} GiB", value / 1_073_741_824.0),
    }
}
