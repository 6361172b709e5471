//! From a model's files to packed weights. Nothing here knows a model.
//!
//! - [`source`]: where the bytes are. A folder on disk, memory, or a server.
//! - [`weights`]: which tensors a safetensors checkpoint holds, and what a model asks of them.
//! - [`dtype`]: the table of the number types that checkpoints have.
//! - [`pack`]: from a checkpoint's rows to the order that kernels read.

pub mod dtype;
pub(crate) mod json;
pub mod pack;
pub mod source;
pub mod weights;
