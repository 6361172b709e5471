//! From a model's files to packed weights. Nothing here knows a model.
//!
//! - [`source`]: where the bytes are. A folder on disk, memory, or a server.
//! - [`weights`]: which tensors a checkpoint holds, and what a model asks of them.
//! - [`gguf`]: the headers of GGUF files.
//! - [`dtype`]: the table of the number types that checkpoints have.
//! - [`quantise`]: from f32 to the blocks of a number format.
//! - [`pack`]: from a checkpoint's rows to the order that kernels read.
//! - [`export`]: writing checkpoints, quantised on the way.

pub mod changes;
pub mod dtype;
pub mod export;
pub mod gguf;
pub(crate) mod json;
pub mod pack;
pub mod quantise;
pub mod source;
pub mod weights;
