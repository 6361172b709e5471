//! The engine as a module for pages: what `package/ralu.js` is made of. `scripts/web` builds it.
//!
//! Everything here turns Rust's types into JavaScript's: requests in ([`request`]), events out ([`event`]), bytes from
//! wherever the page has them ([`origin`]). The engine is the library, as it is.
#![cfg(target_arch = "wasm32")]

mod about;
mod engine;
mod error;
mod event;
mod generation;
mod inspect;
mod load_settings;
mod model;
mod object;
mod origin;
mod request;
