//! The library's tests in one program, which is linked once: folders are named after the library's modules.
//!
//! Separate programs are `ops` (the tables of ops, which are all that a change to a kernel has to compile), and
//! `json_memory` and `fuzz_corpus`, which have allocators of their own.
#![cfg(not(target_arch = "wasm32"))]

mod checkpoint;
mod common;
mod folders;
mod gpu;
mod house;
mod models;
mod pipeline;
mod sampling;
mod text;
