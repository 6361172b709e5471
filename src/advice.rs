//! What may help against an error. An error says what happened; the program that shows it says what to do, in the words
//! of that face: options of a command line, fields of a form, names in a program.

/// What may help against an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// Install a driver: no adapter was found.
    InstallDriver,
    /// Choose one of the existing adapters.
    FoundAdapter,
    /// Use another adapter.
    OtherAdapter,
    /// Make the picture smaller, or use another adapter.
    SmallerPicture,
    /// Make the picture smaller, keep the weights in 16 bits, or use an adapter with more memory.
    LessMemory,
    /// Give a larger budget of memory, make the picture smaller, or quantise the weights.
    LargerBudget,
    /// Try again. If the device is lost once more, make the picture smaller or use another adapter.
    TryAgain,
    /// Report it: it is a bug of ours or of the driver.
    Report,
    /// Use a newer driver, and report the one that failed.
    NewerDriver,
    /// Leave profiling out, or use an adapter with timestamps.
    NoProfiling,
    /// Keep the weights as they are stored.
    WeightsAsStored,
    /// Give the denoiser's file.
    GiveDenoiser,
    /// Give the file of the first CLIP text encoder.
    GiveClipL,
    /// Give the file of the second CLIP text encoder.
    GiveClipG,
    /// Give the file of the T5 text encoder.
    GiveT5,
    /// Give the VAE's file.
    GiveVae,
    /// Keep the weights in 32 bits, use another adapter, or fetch the model again.
    WiderWeights,
    /// Give the CLIP tokenizer that belongs to the model.
    GiveClipTokenizer,
    /// Give the T5 tokenizer that belongs to the model.
    GiveT5Tokenizer,
}
