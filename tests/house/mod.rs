//! Rules about the sources themselves.

mod layering;
mod suite;
