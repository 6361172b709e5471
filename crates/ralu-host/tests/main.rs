//! Tests of the host kit, in one program.

mod common;
mod engine;
mod kernels;
mod loras;
mod pictures;
mod session;
