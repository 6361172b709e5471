//! The command line; everything it does is in [`cli`].

#[cfg(not(target_arch = "wasm32"))]
mod cli;

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    cli::main()
}

/// Browsers have no command line: `examples/web` is their face.
#[cfg(target_arch = "wasm32")]
fn main() {}
