//! Where something was measured. A number without it is not a result.

use std::fmt;

use ralu::escape::Escaped;
use ralu::gpu::AdapterReport;
use ralu::pipeline::Settings;
use serde::{Deserialize, Serialize};

/// An adapter, a model and a size.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Of this program.
    pub version: String,
    pub adapter: String,
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    pub adapter_type: String,
    pub model: String,
    pub width: usize,
    pub height: usize,
}

impl Default for Environment {
    /// What a report that does not say it is taken to have.
    fn default() -> Self {
        let unknown = || "unknown".to_owned();
        Environment {
            version: unknown(),
            adapter: unknown(),
            backend: unknown(),
            driver: unknown(),
            adapter_type: unknown(),
            model: unknown(),
            width: 0,
            height: 0,
        }
    }
}

impl Environment {
    pub fn new(adapter: &AdapterReport, model: &str, settings: &Settings) -> Self {
        Environment {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            adapter: adapter.name.clone(),
            backend: adapter.backend.to_owned(),
            driver: adapter.driver.clone(),
            adapter_type: adapter.kind.to_string(),
            model: model.to_owned(),
            width: settings.width,
            height: settings.height,
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}, {}, driver {}), {}, {} x {}, ralu {}",
            // A report that a file holds may say anything.
            Escaped(&self.adapter),
            Escaped(&self.backend),
            Escaped(&self.adapter_type),
            Escaped(&self.driver),
            Escaped(&self.model),
            self.width,
            self.height,
            Escaped(&self.version)
        )
    }
}
