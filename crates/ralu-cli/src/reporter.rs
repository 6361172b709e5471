//! What a run tells on stdout: names of pictures, or events as JSON lines.

use std::path::Path;

use ralu_host::events;
use serde_json::Value;

use super::error::{Error, Result};
use super::output;

/// Writes to stdout. The results of a run are its files: that stdout cannot be written does not stop it.
pub struct Reporter {
    json: bool,
    closed: bool,
    failed: Option<Error>,
}

impl Reporter {
    /// With `json`, events are written, and else names.
    pub fn new(json: bool) -> Self {
        Reporter { json, closed: false, failed: None }
    }

    /// Writes an event, if that is asked for.
    pub fn emit(&mut self, event: &Value) {
        if self.json {
            self.write(|| output::json_line(&events::line(event)));
        }
    }

    /// Writes the name of a picture, unless events tell it.
    pub fn picture(&mut self, path: &Path) {
        if !self.json {
            self.write(|| output::line(output::shown(path)));
        }
    }

    /// Fails if something could not be written, though somebody was there to read it.
    pub fn end(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn write(&mut self, line: impl FnOnce() -> Result<()>) {
        if self.closed || self.failed.is_some() {
            return;
        }
        match line() {
            Ok(()) => {}
            // Who reads may stop reading; the pictures are still wanted.
            Err(Error::OutputClosed) => self.closed = true,
            Err(error) => self.failed = Some(error),
        }
    }
}
