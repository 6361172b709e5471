//! Whether a run fits into an adapter's memory, and what would make it fit, for plans.

use ralu::checkpoint::quantise::QuantFormat;
use ralu::checkpoint::source::Source;
use ralu::gpu::Gpu;
use ralu::models::config::ModelConfig;
use ralu::models::quantise::QuantisedParts;
use ralu::pipeline::{MemoryBudget, Options, Settings, usable_memory};
use ralu::tensor::Caps;

use crate::memory::{free_bytes, least, needs};

/// What a run needs next to what an adapter has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fit {
    /// Bytes that the run needs.
    pub need: u64,
    /// Bytes that it can take; `None` if nothing tells.
    pub free: Option<u64>,
    /// Bytes that it can keep within, by weights that come and go. `None` if it fits as it is.
    pub least: Option<u64>,
    /// What it needs with a denoiser that is quantised while it is loaded, where it does not fit as it is and that is less.
    pub quantised: Vec<(QuantFormat, u64)>,
    /// Whether weights may come and go without being asked to.
    pub may_stream: bool,
}

impl Fit {
    /// Of a run that is planned to need `need` bytes, on a device or on any.
    pub fn new(
        gpu: Option<&Gpu>,
        config: &ModelConfig,
        source: Option<&dyn Source>,
        settings: &Settings,
        options: Options,
        need: u64,
    ) -> Fit {
        let told = |gpu: &Gpu| Some(usable_memory(gpu.free_memory()? + gpu.held_memory()));
        let free = gpu.and_then(|gpu| free_bytes(gpu).or_else(|| told(gpu)));
        let run = (gpu.map_or_else(Caps::default, Gpu::caps), config, source, settings);
        let is_short = free.is_none_or(|free| need > free);
        let mut quantised = match options.quantise {
            None if is_short => needs(run, options, QuantisedParts::default()),
            _ => vec![],
        };
        quantised.retain(|(_, less)| *less < need);
        let least = if is_short { least(run, options) } else { None };
        let may_stream = options.memory_budget == MemoryBudget::Auto;
        Fit { need, free, least, quantised, may_stream }
    }

    /// Whether it fits as it is; `None` if that is not known.
    pub fn fits_whole(&self) -> Option<bool> {
        self.free.map(|free| self.need <= free)
    }

    /// Whether it can be drawn, also by weights that come and go where they may; `None` if that is not known.
    pub fn fits(&self) -> Option<bool> {
        let within = |free| self.may_stream && self.least.is_some_and(|least| least <= free);
        self.free.map(|free| self.need <= free || within(free))
    }

    /// The best format with which it would fit as it is.
    pub fn best_quantised(&self) -> Option<(QuantFormat, u64)> {
        let free = self.free?;
        self.quantised.iter().copied().find(|(_, need)| *need <= free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_fits_whole_or_by_weights_that_come_and_go() {
        let quantised = vec![(QuantFormat::Q8_0, 60), (QuantFormat::Q4K, 45)];
        let fit = Fit { need: 100, free: Some(50), least: Some(40), quantised, may_stream: true };
        assert_eq!((fit.fits_whole(), fit.fits()), (Some(false), Some(true)));
        assert_eq!(fit.best_quantised(), Some((QuantFormat::Q4K, 45)));
        let whole = Fit { may_stream: false, ..fit.clone() };
        assert_eq!(whole.fits(), Some(false));
        let less = Fit { free: Some(30), ..fit.clone() };
        assert_eq!((less.fits(), less.best_quantised()), (Some(false), None));
        let enough = Fit { free: Some(100), ..whole };
        assert_eq!((enough.fits_whole(), enough.fits()), (Some(true), Some(true)));
        let unknown = Fit { free: None, ..fit };
        assert_eq!((unknown.fits_whole(), unknown.fits()), (None, None));
    }
}
