//! What a picture says about itself: the text chunks that the command line writes into its PNGs.

use ralu::pipeline::saved::Maker;
use ralu::pipeline::{Options, Pipeline, Products, Saved, Settings};

/// What all pictures of a request have in common.
pub struct About {
    settings: Settings,
    model: String,
    model_hash: Option<String>,
    adapter: String,
    has_guidance: bool,
    options: Options,
}

impl About {
    /// `model_hash` stands for the model's files, if it is known.
    pub fn new(
        pipeline: &Pipeline,
        settings: Settings,
        options: Options,
        model_hash: Option<String>,
    ) -> Self {
        let address = pipeline.model_name();
        // The last part of an address is what the folder is called.
        let model = address.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let report = pipeline.gpu().report();
        // Browsers need not say what it is.
        let name = if report.name.is_empty() { report.kind.name() } else { &report.name };
        About {
            settings,
            model,
            model_hash,
            adapter: format!("{name} ({})", report.backend),
            has_guidance: pipeline.config().transformer.has_guidance_input(),
            options,
        }
    }

    /// Keywords and texts of the picture with `seed`, `Software` first. `products` is what its report says.
    pub fn texts(&self, seed: u64, products: Products) -> Vec<(&'static str, String)> {
        let maker = Maker {
            model: &self.model,
            model_hash: self.model_hash.as_deref(),
            model_parts: None,
            adapter: &self.adapter,
            has_guidance: self.has_guidance,
            precision: self.options.precision,
            quantise: self.options.quantise,
            given: Vec::new(),
        };
        let software = ("Software", Saved::SOFTWARE.to_owned());
        // Only painted regions could fail, and those are checked when the request is.
        let saved = Saved::new(&self.settings, seed, &maker, products);
        let saved = saved.ok().and_then(|saved| saved.texts().ok());
        std::iter::once(software).chain(saved.unwrap_or_default()).collect()
    }
}
