//! The hub crate against a server that plays the hub, in one program.

mod cache;
mod download;
mod names;
mod server;
