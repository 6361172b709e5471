//! How a model's weights are kept: `--precision`, `--quantize` and `--memory-budget`.

use ralu::checkpoint::quantise::QuantFormat;
use ralu::checkpoint::source::Source;
use ralu::gpu::Gpu;
use ralu::models::config::ModelConfig;
use ralu::models::layers::Precision;
use ralu::models::quantise::{Quantise, QuantiseChoice};
use ralu::pipeline::{MemoryBudget, Options, Settings};
use ralu_host::memory;

use super::args::RequestArgs;
use super::error::{Error, Result};

/// What the options ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weights {
    /// How weights are kept, and whether products may round to f16.
    pub precision: Precision,
    /// What is quantised while the model is loaded.
    pub quantise: QuantiseChoice,
    /// How much of the GPU's memory it may take.
    pub memory_budget: MemoryBudget,
    /// How much of the host's memory copies of streamed weights may take; `None` decides by the adapter.
    pub host_memory: Option<u64>,
}

impl Weights {
    /// What the arguments say.
    pub fn of(args: &RequestArgs) -> Self {
        Weights {
            precision: args.precision.unwrap_or_default(),
            quantise: args.quantize.unwrap_or_default(),
            memory_budget: args.memory_budget.unwrap_or_default(),
            host_memory: args.host_memory,
        }
    }

    /// How the model is opened, whatever the adapter.
    pub fn options(self) -> Result<Options> {
        let quantise = match self.quantise {
            QuantiseChoice::Off => None,
            QuantiseChoice::To(quantise) => Some(quantise),
            QuantiseChoice::Auto(_) => {
                return Err(Error::usage(format!(
                    "--quantize auto goes by an adapter's memory, for one picture: only `ralu generate` and `ralu view` \
                     have it; expected a format: {}",
                    QuantFormat::NAMES.join(", ")
                )));
            }
        };
        Ok(self.with(quantise))
    }

    /// How the model is opened for a run on an adapter, and what is to be said of that.
    pub fn options_on(
        self,
        gpu: &Gpu,
        config: &ModelConfig,
        source: &dyn Source,
        settings: &Settings,
    ) -> Result<(Options, Option<String>)> {
        let options = self.with(None);
        let (quantise, fitting) =
            memory::choose(self.quantise, gpu, config, source, settings, options)?;
        Ok((self.with(quantise), fitting.map(|fitting| fitting.to_string())))
    }

    fn with(self, quantise: Option<Quantise>) -> Options {
        Options::default().with(|options| {
            options.precision = self.precision;
            options.quantise = quantise;
            options.memory_budget = self.memory_budget;
            options.host_memory = self.host_memory.unwrap_or(0);
        })
    }
}
