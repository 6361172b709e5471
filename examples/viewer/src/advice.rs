//! What to do about an error, in a window.

use ralu::advice::Advice;
use ralu_host::Error;

/// What happened, and what to do if anything is known to help.
pub fn with_advice(error: &Error) -> String {
    if let Error::NoModel = error {
        return format!("{error}; give or drop a diffusers model folder");
    }
    match error.advice().and_then(worded) {
        Some(advice) => format!("{error}. {advice}"),
        None => error.to_string(),
    }
}

fn worded(advice: Advice) -> Option<&'static str> {
    Some(match advice {
        Advice::SmallerPicture => "Make the picture smaller, or start with another adapter",
        Advice::LessMemory => {
            "Make the picture smaller, close other programs that use the GPU, or start with another adapter"
        }
        Advice::TryAgain => "If it comes back, make the picture smaller",
        Advice::Report => "This is a bug; please report it with the output of `ralu devices`",
        Advice::NewerDriver => {
            "A newer driver may; please report it with the output of `ralu devices`"
        }
        Advice::WiderWeights => "Fetch the model again, or start with another adapter",
        Advice::GiveClipTokenizer | Advice::GiveT5Tokenizer => {
            "Get the model with its tokenizers: as a diffusers folder"
        }
        // An adapter was found and opened before there was a window, weights are kept as they are stored, and nothing is
        // profiled.
        _ => return None,
    })
}
