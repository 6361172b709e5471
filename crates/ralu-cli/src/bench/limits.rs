//! What a device must have for a measurement, said before any work is done.

use ralu::checkpoint::source::Source;
use ralu::escape::Escaped;
use ralu::gpu::{Gpu, human_bytes};
use ralu::models::builtin;
use ralu::models::config::ModelConfig;
use ralu::pipeline::plan::{PlannedMemory, plan};
use ralu::pipeline::{Options, RaluChoice, Request, Settings};
use ralu_host::memory;

use crate::error::{Error, Result};
use crate::model::Planned;
use crate::output;

/// Larger pictures take seconds to plan, for each model: which one fits is not said for those.
const MOST_PIXELS: usize = 2048 * 2048;

/// Whether kernels can be timed.
pub fn has_clock(gpu: &Gpu) -> bool {
    gpu.report().features.contains(&"timestamp-query")
}

/// Says what runs with `settings` take, and refuses them on a software adapter that cannot hold them.
pub fn check_memory(
    gpu: &Gpu,
    model: &Planned,
    settings: [&Settings; 2],
    options: Options,
    quiet: bool,
) -> Result<()> {
    let Planned { config, files, name } = model;
    let Settings { width, height, .. } = *settings[0];
    let (mut most, mut parts) = (0, String::new());
    for settings in settings {
        let source = files.as_ref().map(|files| files as &dyn Source);
        let memory = plan(config, source, settings, gpu.caps(), options)?.memory;
        let need = match source {
            Some(_) => memory.peak_bytes,
            None => memory.without_encoders_bytes(),
        };
        if need > most {
            (most, parts) = (need, parts_of(&memory));
        }
    }
    let need = human_bytes(most);
    let needs =
        format!("{} at {width} x {height} takes {need} of GPU memory ({parts})", Escaped(name));
    match memory::free_bytes(gpu) {
        Some(free) if most > free => {
            let fit = match width * height > MOST_PIXELS {
                true => vec![],
                false => what_fits(gpu, [width, height], options, free),
            };
            let others = match fit.len() {
                0 => String::new(),
                _ => {
                    format!(" Of the models that are known by name these fit: {}.", fit.join(", "))
                }
            };
            Err(Error::failed(format!(
                "{needs}, which {} takes from this machine's, and {} of that are free.{others} Make the picture smaller \
                 (--width, --height), or use a GPU; `ralu plan` says what needs how much",
                Escaped(&gpu.report().name),
                human_bytes(free)
            )))
        }
        _ => {
            if !quiet {
                output::diagnostic(&needs);
            }
            Ok(())
        }
    }
}

/// As `ralu plan` calls them.
fn parts_of(memory: &PlannedMemory) -> String {
    format!(
        "denoiser weights {}, temporaries {}, states {}; before the first step modulation weights {}",
        human_bytes(memory.denoiser_weights_bytes),
        human_bytes(memory.temporaries_bytes),
        human_bytes(memory.states_bytes),
        human_bytes(memory.modulation_weights_bytes)
    )
}

/// The models known by name, with random weights, that fit into `free` bytes at a picture's size: `sd3-medium (5.12 GiB)`.
fn what_fits(gpu: &Gpu, [width, height]: [usize; 2], options: Options, free: u64) -> Vec<String> {
    let request = Request::new("").size(width, height).ralu(RaluChoice::Off);
    let need = |config: &ModelConfig| {
        // A size that a model refuses is no size at which it fits.
        let settings = Settings::resolve(&request, config).ok()?;
        let plan = plan(config, None, &settings, gpu.caps(), options).ok()?;
        Some(plan.memory.without_encoders_bytes())
    };
    let names = builtin::names().into_iter();
    let needs = names.filter_map(|name| Some((name, need(&builtin::get(name)?)?)));
    needs
        .filter(|(_, need)| *need <= free)
        .map(|(name, need)| format!("{name} ({})", human_bytes(need)))
        .collect()
}
