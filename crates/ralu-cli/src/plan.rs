//! `ralu plan`: what a run would do.

use ralu::checkpoint::source::Source;
use ralu::escape::Escaped;
use ralu::pipeline::plan::{Caps, plan};
use ralu::pipeline::{Plan, Settings, check_model};
use serde::Serialize;

use super::args::PlanArgs;
use super::error::{Error, Result};
use super::prediction::Prediction;
use super::{model, output, request, speeds};

/// As it is printed with `--json`.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    /// Where weights come and go.
    #[serde(skip_serializing_if = "Option::is_none")]
    prediction: Option<Prediction>,
}

/// Runs the command. Opens no GPU: memory is planned for what WebGPU guarantees everywhere.
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
    let of_files = source.map(|source| source.warnings()).unwrap_or_default();
    for warning in asked
        .warnings
        .iter()
        .chain(&of_files)
        .chain(&unused)
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
    let speed = speeds::known(cache_dir, args.generate.adapter.adapter.as_deref());
    let prediction = Prediction::new(&plan, speed, args.generate.request.host_memory);
    if args.json {
        return output::json(&Report { plan: &plan, prediction });
    }
    output::line(format!("{}: {plan}", Escaped(&planned.name)))?;
    match prediction {
        Some(prediction) => output::line(prediction),
        None => Ok(()),
    }
}
