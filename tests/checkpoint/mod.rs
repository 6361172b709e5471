//! Files of models: where their bytes come from, weights and how they are packed.

mod changed_files;
mod changes;
mod export;
mod formats;
mod gguf;
mod given;
mod pack;
mod quantise;
mod quantised;
mod remote;
mod scaling;
mod source;
mod weights;
