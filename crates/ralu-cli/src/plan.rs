//! `ralu plan`: what a run would do.

use ralu::checkpoint::source::Source;
use ralu::escape::Escaped;
use ralu::pipeline::plan::{Caps, plan};
use ralu::pipeline::{Settings, check_model};

use super::args::PlanArgs;
use super::error::Result;
use super::{model, output, request};

/// What PCIe 3.0 x16 carries in practice.
const BUS_BYTES_PER_SECOND: f64 = 12e9;

/// Runs the command. Opens no GPU: memory is planned for what WebGPU guarantees everywhere.
pub fn run(args: &PlanArgs) -> Result<()> {
    let asked = request::from_args(&args.generate, false)?;
    let planned = model::planned(&asked.model)?;
    let settings = Settings::resolve(&asked.request, &planned.config)?;
    let source = planned.files.as_ref().map(|files| files as &dyn Source);
    let options = asked.weights.options()?;
    let plan = plan(&planned.config, source, &settings, Caps::default(), options)?;
    let unused = request::without_effect(&args.generate, &asked.request, &settings);
    for warning in
        asked.warnings.iter().chain(&unused).chain(&settings.warnings).chain(&plan.not_quantised)
    {
        output::diagnostic(&format!("warning: {warning}"));
    }
    // A plan needs no weights and no tokenizers, a run does.
    if let Some(error) = source.and_then(|source| check_model(source).err()) {
        output::diagnostic(&format!("warning: this model cannot be run as it is: {error}"));
    }
    if args.json {
        return output::json(&plan);
    }
    output::line(format!("{}: {plan}", Escaped(&planned.name)))?;
    match plan.memory.streaming {
        Some(streaming) if streaming.denoiser.streamed_bytes > 0 => {
            let seconds = streaming.denoiser.streamed_bytes as f64 / BUS_BYTES_PER_SECOND;
            output::line(format!(
                "A step takes at least {seconds:.2} s where the bus carries 12 GB/s, as PCIe 3.0 x16 does (assumed); `ralu bench \
                 step` with the same options measures it"
            ))
        }
        _ => Ok(()),
    }
}
