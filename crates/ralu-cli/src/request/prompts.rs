//! `--prompts`: a file of requests, one a line.

use std::fs::File;
use std::path::Path;

use ralu::escape::Escaped;
use ralu::pipeline::{RaluChoice, Request};
use serde_json::{Map, Value};

use super::{MAX_STDIN_BYTES, no_text};
use crate::error::{Error, Result};
use crate::files;
use crate::output::shown;

/// The request of a line.
pub struct Line {
    /// Which one it is, as messages say it.
    pub place: String,
    /// Without what is the same for all lines and large: regions, unless they are the line's own, and given tensors.
    pub request: Request,
}

/// The requests in `text`, which is that of the file. Each line that is not empty is a prompt, or an object of JSON with any
/// fields of a request; what it does not say is as in `base`. Picture number i of the file has seed `base.seed + i`, unless
/// its line has another one. `repeats` says that `base` is that of a picture, with its prompt.
pub fn parse(path: &Path, text: &str, base: &Request, repeats: bool) -> Result<Vec<Line>> {
    let name = name_of(path);
    let own = Own::of(base)?;
    let mut lines = Vec::new();
    let mut seed = base.seed;
    for (number, text) in text.lines().enumerate() {
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let place = format!("{name}, line {}", number + 1);
        let request = match text.strip_prefix('{') {
            None => own.with_prompt(text, seed),
            Some(_) => own.with_fields(text, seed, repeats),
        };
        let request = request.map_err(|error| Error::failed(format!("{place}: {error}")))?;
        seed = seed.wrapping_add(request.count.unwrap_or(1) as u64);
        lines.push(Line { place, request });
    }
    if lines.is_empty() {
        return Err(Error::failed(format!(
            "{name}: holds no prompt; expected one a line, or requests as JSON, as in {{\"prompt\": \"a fox\", \"seed\": 7}}"
        )));
    }
    Ok(lines)
}

/// Whether the prompts come through stdin.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn name_of(path: &Path) -> String {
    if is_stdin(path) { "stdin".to_owned() } else { shown(path) }
}

/// Reads the file, or stdin.
pub fn read(path: &Path) -> Result<String> {
    let name = &name_of(path);
    let read = match is_stdin(path) {
        true => files::read_all(std::io::stdin().lock(), MAX_STDIN_BYTES),
        false => File::open(path).and_then(|file| files::read_all(file, MAX_STDIN_BYTES)),
    };
    let text = String::from_utf8(read.map_err(|error| no_text(&error, "prompts", name))?);
    let text = text.map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::failed(format!("{name}, line {line}: this is not UTF-8; convert the file first"))
    })?;
    // Editors on Windows begin files with it.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// What lines are laid over.
struct Own {
    request: Request,
    fields: Map<String, Value>,
}

impl Own {
    fn of(base: &Request) -> Result<Own> {
        let mut request = base.clone();
        (request.mask, request.given) = Default::default();
        match serde_json::to_value(&request)? {
            Value::Object(fields) => Ok(Own { request, fields }),
            _ => Err(Error::failed("a request is no object")),
        }
    }

    fn with_prompt(&self, text: &str, seed: u64) -> std::result::Result<Request, String> {
        let mut request = self.request.clone();
        (request.prompt, request.seed) = (text.to_owned(), seed);
        Ok(request)
    }

    fn with_fields(
        &self,
        text: &str,
        seed: u64,
        repeats: bool,
    ) -> std::result::Result<Request, String> {
        let said = serde_json::from_str::<Map<String, Value>>(text).map_err(|error| {
            let error = error.to_string();
            // Each line is a document of its own to serde.
            let error = error.replace(" at line 1 column ", " at column ");
            format!(
                "this is no JSON ({}); expected an object such as {{\"prompt\": \"a fox\", \"seed\": 7}}",
                Escaped(&error)
            )
        })?;
        if !repeats && !said.contains_key("prompt") {
            return Err("the field `prompt` is missing; expected {\"prompt\": \"a fox\", …}".into());
        }
        // Steps are steps of plain sampling, as they are for options.
        let is_plain = repeats && said.contains_key("steps") && !said.contains_key("ralu");
        let mut fields = self.fields.clone();
        fields.insert("seed".into(), seed.into());
        fields.extend(said);
        let mut request: Request = serde_json::from_value(fields.into())
            .map_err(|error| Escaped(&error.to_string()).to_string())?;
        if is_plain {
            request.ralu = RaluChoice::Off;
        }
        request.profile = self.request.profile;
        Ok(request)
    }
}
