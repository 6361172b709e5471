//! `ralu plan`: what a run would do.

mod answers;
mod prediction;

use ralu::checkpoint::source::Source;
use ralu::escape::Escaped;
use ralu::gpu::Gpu;
use ralu::pipeline::plan::{Caps, plan};
use ralu::pipeline::{Plan, Settings, check_model, unfamiliar};
use ralu_host::fit::Fit;
use serde::Serialize;

use super::args::PlanArgs;
use super::error::{Error, Result};
use super::{model, output, request, speeds};
use answers::{Memory, Time};
use prediction::Prediction;

/// As it is printed with `--json`.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    /// Does it fit?
    fit: Memory,
    /// How long does it take?
    time: Time,
    /// Where weights come and go.
    #[serde(skip_serializing_if = "Option::is_none")]
    prediction: Option<Prediction>,
}

/// Runs the command. Needs no GPU: memory is planned for what WebGPU guarantees everywhere, and next to what the adapter has
/// free if there is one.
pub fn run(args: &PlanArgs) -> Result<()> {
    if args.generate.prompts.is_some() || args.generate.resume {
        return Err(Error::usage(
            "--prompts and --resume are for `ralu generate`; a plan is one of one request: expected its options",
        ));
    }
    let asked = request::from_args(&args.generate, false, None)?;
    let planned = model::planned(&asked.model)?;
    let settings = Settings::resolve(&asked.request, &planned.config)?;
    let source = planned.files.as_ref().map(|files| files as &dyn Source);
    let options = asked.weights.options()?;
    let plan = plan(&planned.config, source, &settings, Caps::default(), options)?;
    let unused = request::without_effect(&args.generate, &asked.request, &settings);
    let unfamiliar = unfamiliar(&asked.request, &settings, &planned.config);
    let of_files = source.map(|source| source.warnings()).unwrap_or_default();
    for warning in asked
        .warnings
        .iter()
        .chain(&of_files)
        .chain(&unused)
        .chain(&unfamiliar)
        .chain(&settings.warnings)
        .chain(&plan.not_quantised)
    {
        output::diagnostic(&format!("warning: {warning}"));
    }
    // A plan needs no weights and no tokenizers, a run does.
    if let Some(error) = source.and_then(|source| check_model(source).err()) {
        output::diagnostic(&format!("warning: this model cannot be run as it is: {error}"));
    }
    let cache_dir = args.generate.tuning.cache.cache_dir.as_deref();
    let gpu = pollster::block_on(Gpu::open(&args.generate.adapter.choice())).ok();
    let report = gpu.as_ref().map(Gpu::report);
    let speed = speeds::of(cache_dir, report, args.generate.adapter.adapter.as_deref());
    let prediction = Prediction::new(&plan, speed.clone(), args.generate.request.host_memory);
    let need = plan.memory.peak_bytes;
    let fit = Fit::new(gpu.as_ref(), &planned.config, source, &settings, options, need);
    let fit = Memory::new(report.map(|report| report.name.clone()), fit);
    let time = Time::new(&plan, speed.as_ref(), prediction.as_ref());
    if args.json {
        return output::json(&Report { plan: &plan, fit, time, prediction });
    }
    output::line(format!("{fit}\n{time}\n\n{}: {plan}", Escaped(&planned.name)))?;
    match prediction {
        Some(prediction) => output::line(prediction),
        None => Ok(()),
    }
}
