//! Errors as JavaScript has them: an `Error` with a `code` that programs can ask for.

use ralu::advice::Advice;
use ralu::checkpoint::source::SourceError;
use ralu::checkpoint::weights::WeightError;
use ralu::escape::escape;
use ralu::gpu;
use ralu::models::files::FilesError;
use ralu::pipeline::Error;
use ralu::text::TokenError;
use wasm_bindgen::JsValue;

/// An `Error` called `RaluError`.
pub fn js_error(code: &str, message: &str) -> JsValue {
    let error = js_sys::Error::new(&shown(message));
    error.set_name("RaluError");
    // Setting a field of a new object cannot fail.
    let _ = js_sys::Reflect::set(&error, &"code".into(), &code.into());
    error.into()
}

/// A message that a page may show: whatever names it holds, its lines are shown as they are.
pub fn shown(message: &str) -> String {
    let lines: Vec<_> = message.lines().map(escape).collect();
    lines.join("\n")
}

/// Has the console show what went wrong where the module stops by a fault of its own: else it says `unreachable`.
pub fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        web_sys::console::error_1(&shown(&panic.to_string()).into());
    }));
}

/// What happened. What to do is added by `package/ralu.js`, by the code; here where a code does not say it.
pub fn from_error(error: &Error) -> JsValue {
    let message = match error.advice() {
        Some(Advice::WeightsAsStored) => {
            format!("{error}; load the model without precision: 'f16'")
        }
        _ => error.to_string(),
    };
    js_error(code(error), &message)
}

fn gpu_code(error: &gpu::Error) -> &'static str {
    match error {
        gpu::Error::NoAdapter { .. } | gpu::Error::NoSuchAdapter { .. } => "no-adapter",
        gpu::Error::Unusable { .. } | gpu::Error::Open { .. } => "adapter-unusable",
        gpu::Error::Limit { .. } => "too-large",
        gpu::Error::OutOfMemory { .. } => "out-of-memory",
        gpu::Error::Lost { .. } => "device-lost",
        _ => "gpu",
    }
}

fn source_code(error: &SourceError) -> &'static str {
    match error {
        SourceError::Fetch { .. } => "fetch",
        _ => "bad-model",
    }
}

fn code(error: &Error) -> &'static str {
    match error {
        Error::Gpu(error) => gpu_code(error),
        Error::Source(error)
        | Error::Weights(WeightError::Source(error))
        | Error::Tokens(TokenError::Source(error)) => source_code(error),
        Error::Tokens(TokenError::Weights(WeightError::Source(error))) => source_code(error),
        Error::Files(error) => match &**error {
            FilesError::Source(error) | FilesError::Weights(WeightError::Source(error)) => {
                source_code(error)
            }
            _ => "bad-model",
        },
        Error::Config(_) | Error::Weights(_) => "bad-model",
        Error::Tokens(TokenError::Length { .. } | TokenError::Encode { .. }) => "bad-request",
        Error::Tokens(_) => "bad-model",
        Error::NotFinite { .. } => "not-finite",
        Error::MemoryBudget { .. } | Error::TooLittleMemory { .. } => "out-of-memory",
        _ => "bad-request",
    }
}
