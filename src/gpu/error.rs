//! Everything that can go wrong between the library and a graphics adapter.

use crate::advice::Advice;

/// An error of the device or of the choice of a device. Each says what was found; [`Error::advice`] has what may help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter at all.
    #[error("no graphics adapter was found (looked for {backends})")]
    NoAdapter {
        /// The backends that were searched.
        backends: String,
    },
    /// Adapters exist, but not the one asked for.
    #[error("no adapter matches {wanted:?}. Found: {found}")]
    NoSuchAdapter {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// The adapter lacks something without which nothing works.
    #[error("{adapter} cannot be used: {reason}")]
    Unusable {
        /// Its name.
        adapter: String,
        /// What it lacks.
        reason: String,
    },
    /// The driver refused to open the device.
    #[error("{adapter} could not be opened: {reason}")]
    Open {
        /// Its name.
        adapter: String,
        /// The driver's words.
        reason: String,
    },
    /// A limit of the adapter is too small for what was asked.
    #[error("{what}: needs {need}, this adapter offers {have}")]
    Limit {
        /// What did not fit.
        what: String,
        /// How much it needs.
        need: String,
        /// How much there is.
        have: String,
    },
    /// The adapter's memory is full.
    #[error("out of GPU memory at {what}, with {allocated} already held")]
    OutOfMemory {
        /// What was being allocated or run.
        what: String,
        /// How much this program holds.
        allocated: String,
    },
    /// The device went away.
    #[error("the GPU was lost: {reason}")]
    Lost {
        /// The driver's words.
        reason: String,
    },
    /// The driver rejected something we did: a bug of ours or of the driver.
    #[error("the GPU rejected {what}: {message}")]
    Rejected {
        /// Which kernel or command.
        what: String,
        /// The driver's words.
        message: String,
    },
    /// The driver cannot compile a kernel.
    #[error("this driver cannot compile {what}: {message}")]
    Kernel {
        /// The stem of its file in `shaders/`.
        shader: &'static str,
        /// Its name.
        what: String,
        /// The driver's words.
        message: String,
    },
    /// Kernels cannot be timed.
    #[error("{adapter} cannot time kernels: its device has no timestamp queries")]
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

impl Error {
    /// What may help, if anything is known to.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Error::NoAdapter { .. } => Some(Advice::InstallDriver),
            Error::NoSuchAdapter { .. } => Some(Advice::FoundAdapter),
            Error::Unusable { .. } | Error::Open { .. } => Some(Advice::OtherAdapter),
            Error::Limit { .. } => Some(Advice::SmallerPicture),
            Error::OutOfMemory { .. } => Some(Advice::LessMemory),
            Error::Lost { .. } => Some(Advice::TryAgain),
            Error::Rejected { .. } => Some(Advice::Report),
            Error::Kernel { .. } => Some(Advice::NewerDriver),
            Error::NoTimestamps { .. } => Some(Advice::NoProfiling),
            Error::Read { .. } => None,
        }
    }
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
