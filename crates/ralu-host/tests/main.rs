//! Tests of the host kit, in one program.

mod common;
mod engine;
mod pictures;
mod session;
