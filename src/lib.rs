//! FLUX text-to-image with RALU on any GPU.
pub mod gpu;
pub mod ops;
pub mod tensor;
