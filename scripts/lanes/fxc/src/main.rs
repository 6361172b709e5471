//! Compiles HLSL as wgpu does on DX12 with FXC, and says how much of a processor's time each kernel takes.

#[cfg(windows)]
mod fxc;
#[cfg(windows)]
mod kernels;

#[cfg(windows)]
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[cfg(windows)]
fn main() -> std::process::ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        [folder, most, limit] => kernels::run(folder.as_ref(), most, limit),
        _ => Err("fxc FOLDER MOST SECONDS    compiles `all`, or so many of each kernel".into()),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fxc: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(windows))]
fn main() {
    eprintln!("fxc: FXC is a library of Windows; this is to be built for x86_64-pc-windows-gnu");
    std::process::exit(1);
}
