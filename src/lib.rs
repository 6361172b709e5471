//! FLUX text-to-image with RALU on any GPU.
pub mod gpu;
pub mod models;
pub mod ops;
pub mod pipeline;
pub mod sampling;
pub mod tensor;
