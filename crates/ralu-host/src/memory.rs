//! What a run can have of memory, where the host knows more of that than the library. A software adapter's is the machine's, and
//! the system would end a program that takes too much without a word.

use std::fmt;

use ralu::checkpoint::quantise::QuantFormat;
use ralu::checkpoint::source::Source;
use ralu::gpu::{AdapterKind, Gpu, human_bytes};
use ralu::models::config::ModelConfig;
use ralu::models::quantise::{Quantise, QuantiseChoice, QuantisedParts};
use ralu::pipeline::plan::plan;
use ralu::pipeline::{Error, MemoryBudget, Options, Plan, Settings, usable_memory};
use ralu::tensor::Caps;

/// More memory than there is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortage {
    /// Bytes that a run is planned to need.
    pub need: u64,
    /// Bytes that the machine has free.
    pub free: u64,
    /// What it would need if the denoiser were quantised while it is loaded, where that is possible and less.
    pub quantised: Vec<(QuantFormat, u64)>,
}

/// What was found, in a clause.
impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { need, free, quantised } = self;
        let (need, free) = (human_bytes(*need), human_bytes(*free));
        write!(f, "this run needs {need} of memory, the machine has {free} free")?;
        for (i, (format, need)) in quantised.iter().enumerate() {
            let start = if i == 0 { "; with a denoiser quantised to " } else { ", to " };
            let (name, need) = (format.name(), human_bytes(*need));
            write!(f, "{start}{name} it needs {need}")?;
        }
        Ok(())
    }
}

/// Formats that a denoiser is quantised to where memory is short, the best one first: each is about a quarter smaller than the
/// one before.
const FORMATS: [QuantFormat; 3] = [QuantFormat::Q8_0, QuantFormat::Q6K, QuantFormat::Q4K];

/// What [`QuantiseChoice::Auto`] comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fitting {
    /// Weights stay as they are: the adapter does not say what memory it has.
    Unknown,
    /// Weights stay as they are: the run fits.
    AsStored {
        /// Bytes that it is planned to need.
        need: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The run fits if this is done.
    Quantised {
        /// What is quantised.
        quantise: Quantise,
        /// Bytes that it is planned to need then.
        need: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Weights stay as they are: no format makes it fit, or nothing can be quantised.
    Hopeless,
}

impl Fitting {
    /// What is to be quantised.
    pub fn quantise(&self) -> Option<Quantise> {
        match self {
            Fitting::Quantised { quantise, .. } => Some(*quantise),
            _ => None,
        }
    }
}

/// In a sentence.
impl fmt::Display for Fitting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fitting::Unknown => f.write_str(
                "weights stay as they are stored: this adapter does not say what memory it has",
            ),
            Fitting::AsStored { need, free } => {
                let (need, free) = (human_bytes(*need), human_bytes(*free));
                write!(
                    f,
                    "weights stay as they are stored: this run needs {need} of memory, of {free}"
                )
            }
            Fitting::Quantised { quantise, need, free } => {
                let (need, free) = (human_bytes(*need), human_bytes(*free));
                write!(
                    f,
                    "weights are quantised to {quantise}: this run then needs {need} of memory, of {free}"
                )
            }
            Fitting::Hopeless => {
                f.write_str("weights stay as they are stored: no format makes this run fit")
            }
        }
    }
}

/// What `choice` comes to for a run, and what is to be said of it. Asks nothing of memory where it is not
/// [`QuantiseChoice::Auto`].
///
/// # Errors
///
/// If the run cannot be planned.
pub fn choose(
    choice: QuantiseChoice,
    gpu: &Gpu,
    config: &ModelConfig,
    source: &dyn Source,
    settings: &Settings,
    options: Options,
) -> Result<(Option<Quantise>, Option<Fitting>), Error> {
    match choice {
        QuantiseChoice::Off => Ok((None, None)),
        QuantiseChoice::To(quantise) => Ok((Some(quantise), None)),
        QuantiseChoice::Auto(parts) => {
            // A graphics chip's driver knows of other programs.
            let told = || Some(usable_memory(gpu.free_memory()? + gpu.held_memory()));
            let free = free_bytes(gpu).or_else(told);
            let run = (gpu.caps(), config, Some(source), settings);
            let fitting = fitting(free, run, options, parts)?;
            Ok((fitting.quantise(), Some(fitting)))
        }
    }
}

/// A run that is planned: on what adapter, of what model, with what settings.
pub(crate) type Planned<'a> = (Caps, &'a ModelConfig, Option<&'a dyn Source>, &'a Settings);

/// The least that lets a run fit into `free` bytes: nothing, or the best format.
fn fitting(
    free: Option<u64>,
    run: Planned<'_>,
    options: Options,
    parts: QuantisedParts,
) -> Result<Fitting, Error> {
    let Some(free) = free else { return Ok(Fitting::Unknown) };
    let options = options.with(|options| options.quantise = None);
    let (caps, config, source, settings) = run;
    let need = plan(config, source, settings, caps, options)?.memory.peak_bytes;
    if need <= free {
        return Ok(Fitting::AsStored { need, free });
    }
    for (format, need) in needs(run, options, parts) {
        if need <= free {
            let quantise = Quantise { format, parts };
            return Ok(Fitting::Quantised { quantise, need, free });
        }
    }
    Ok(Fitting::Hopeless)
}

/// What a run needs with `parts` in each of [`FORMATS`]. Parts that are quantised already cannot be.
pub(crate) fn needs(
    (caps, config, source, settings): Planned<'_>,
    options: Options,
    parts: QuantisedParts,
) -> Vec<(QuantFormat, u64)> {
    let need = |format| {
        let quantise = Some(Quantise { format, parts });
        let options = options.with(|options| options.quantise = quantise);
        let plan = plan(config, source, settings, caps, options).ok()?;
        Some((format, plan.memory.peak_bytes))
    };
    FORMATS.into_iter().filter_map(need).collect()
}

/// Tells a device that computes on the processor what the machine has free, for [`MemoryBudget::Auto`]. To be done before every
/// run: other programs come and go.
pub fn tell(gpu: &Gpu) {
    if let Some(bytes) = free_bytes(gpu) {
        gpu.assume_memory(bytes);
    }
}

/// The plan of a run as it will be drawn: where less memory is free than it would take and nothing else was asked for, within
/// that.
///
/// # Errors
///
/// If the run cannot be planned.
pub fn planned(
    gpu: &Gpu,
    config: &ModelConfig,
    source: &dyn Source,
    settings: &Settings,
    options: Options,
) -> Result<Plan, Error> {
    let planned = |options| plan(config, Some(source), settings, gpu.caps(), options);
    let whole = planned(options)?;
    let free = gpu.free_memory().filter(|_| options.memory_budget == MemoryBudget::Auto);
    let usable = free.map(|free| usable_memory(free + gpu.held_memory()));
    let Some(usable) = usable.filter(|usable| whole.memory.peak_bytes > *usable) else {
        return Ok(whole);
    };
    let budget = MemoryBudget::Bytes(usable);
    Ok(planned(options.with(|options| options.memory_budget = budget)).unwrap_or(whole))
}

/// Compares what a run is planned to need with what the machine has free; `None` if it fits, by weights that come and go where
/// they may. Graphics chips report for themselves when they are full, and so do machines that do not say what they have free.
///
/// # Errors
///
/// If the run cannot be planned.
pub fn shortage(
    gpu: &Gpu,
    config: &ModelConfig,
    source: &dyn Source,
    settings: &Settings,
    options: Options,
) -> Result<Option<Shortage>, Error> {
    if gpu.report().kind != AdapterKind::Cpu {
        return Ok(None);
    }
    let plan = plan(config, Some(source), settings, gpu.caps(), options)?;
    Ok(of_plan(gpu, config, source, settings, options, &plan))
}

/// The same for a run that is planned. What the device holds already counts as free: the run uses it again.
pub(crate) fn of_plan(
    gpu: &Gpu,
    config: &ModelConfig,
    source: &dyn Source,
    settings: &Settings,
    options: Options,
    plan: &Plan,
) -> Option<Shortage> {
    let run = (gpu.caps(), config, Some(source), settings);
    shortage_of(free_bytes(gpu)?, run, options, plan.memory.peak_bytes)
}

fn shortage_of(free: u64, run: Planned<'_>, options: Options, need: u64) -> Option<Shortage> {
    let need = match options.memory_budget {
        MemoryBudget::Auto if need > free => least(run, options).unwrap_or(need),
        _ => need,
    };
    if need <= free {
        return None;
    }
    let mut quantised = match options.quantise {
        Some(_) => vec![],
        None => needs(run, options, QuantisedParts::default()),
    };
    quantised.retain(|(_, less)| *less < need);
    Some(Shortage { need, free, quantised })
}

/// The smallest budget that a run can keep within.
pub(crate) fn least(
    (caps, config, source, settings): Planned<'_>,
    options: Options,
) -> Option<u64> {
    let options = options.with(|options| options.memory_budget = MemoryBudget::Bytes(1));
    match plan(config, source, settings, caps, options) {
        Err(Error::MemoryBudget { least, .. }) => Some(least),
        _ => None,
    }
}

/// Bytes that runs on a software adapter can take, with what they hold already; `None` for graphics chips, and where the
/// system does not say it.
pub fn free_bytes(gpu: &Gpu) -> Option<u64> {
    if gpu.report().kind != AdapterKind::Cpu {
        return None;
    }
    Some(available_bytes()? + gpu.counters().bytes_alive)
}

/// Bytes that copies of streamed weights may take: half of the free memory next to a graphics chip, none where the adapter is
/// a processor, whose memory that is.
pub fn host_memory(gpu: &Gpu) -> u64 {
    host_memory_beside(gpu.report().kind == AdapterKind::Cpu)
}

/// The same for an adapter of which no more is known than whether it is a processor.
pub fn host_memory_beside(is_cpu: bool) -> u64 {
    match is_cpu {
        true => 0,
        false => available_bytes().unwrap_or(0) / 2,
    }
}

/// Memory that can be had without swapping, where the system says so.
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use ralu::checkpoint::source::Folder;
    use ralu::pipeline::Request;

    use super::*;

    #[test]
    fn the_best_format_that_fits_is_chosen() {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/flux-b/model");
        let folder = Folder::open(model).expect("a model");
        let source: &dyn Source = &folder;
        let config = ModelConfig::load(source).expect("a configuration");
        let settings = Settings::resolve(&Request::new("").size(64, 64), &config);
        let settings = settings.expect("settings");
        let run: Planned<'_> = (Caps::default(), &config, Some(source), &settings);
        let options = Options::default();
        let parts = QuantisedParts::default();
        let fit = |free| fitting(free, run, options, parts).expect("a plan");
        let caps = Caps::default();
        let whole = plan(&config, Some(source), &settings, caps, options).expect("a plan");
        let whole = whole.memory.peak_bytes;
        let needs = needs(run, options, parts);
        let formats: Vec<&str> = needs.iter().map(|(format, _)| format.name()).collect();
        assert_eq!(formats, ["q8_0", "q6_k", "q4_k"]);
        let needs: Vec<u64> = needs.into_iter().map(|(_, need)| need).collect();
        assert!(whole > needs[0] && needs.is_sorted_by(|a, b| a > b), "{whole}, {needs:?}");

        assert_eq!(fit(None), Fitting::Unknown);
        assert_eq!(fit(Some(whole)), Fitting::AsStored { need: whole, free: whole });
        for (free, format, need) in [
            (whole - 1, QuantFormat::Q8_0, needs[0]),
            (needs[0], QuantFormat::Q8_0, needs[0]),
            (needs[0] - 1, QuantFormat::Q6K, needs[1]),
            (needs[2], QuantFormat::Q4K, needs[2]),
        ] {
            let quantise = Quantise { format, parts };
            assert_eq!(fit(Some(free)), Fitting::Quantised { quantise, need, free });
            let said = fit(Some(free)).to_string();
            assert!(said.contains(format.name()) && said.contains(&human_bytes(need)), "{said}");
        }
        assert_eq!(fit(Some(needs[2] - 1)), Fitting::Hopeless);

        // By weights that come and go it needs less.
        let least = least(run, options).expect("more than a byte");
        assert!(least < whole);
        assert_eq!(shortage_of(least, run, options, whole), None);
        assert_eq!(shortage_of(least - 1, run, options, whole).expect("too little").need, least);

        // What is short says what would help, unless that is done already.
        let options = options.with(|options| options.memory_budget = MemoryBudget::Off);
        let short = shortage_of(1000, run, options, whole).expect("too little").to_string();
        for need in [whole, needs[0], needs[1], needs[2]] {
            assert!(short.contains(&human_bytes(need)), "{short}");
        }
        assert!(short.contains("q8_0") && short.contains("q4_k"), "{short}");
        let quantise = Some(Quantise { format: QuantFormat::Q4K, parts });
        let options = options.with(|options| options.quantise = quantise);
        let short = shortage_of(1000, run, options, needs[2]).expect("too little");
        assert_eq!(short.quantised, vec![]);
        assert_eq!(shortage_of(whole, run, options, whole), None);
    }
}
