//! Files of models: where their bytes come from, weights and how they are packed.

mod changed_files;
mod given;
mod pack;
mod remote;
mod source;
mod weights;
