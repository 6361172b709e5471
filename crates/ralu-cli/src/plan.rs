//! `ralu plan`: what a run would do.

use ralu::checkpoint::source::Source;
use ralu::escape::Escaped;
use ralu::pipeline::plan::{Caps, plan};
use ralu::pipeline::{Options, Settings, check_model};

use super::args::PlanArgs;
use super::error::Result;
use super::{model, output, request};

/// Runs the command. Opens no GPU: memory is planned for what WebGPU guarantees everywhere.
pub fn run(args: &PlanArgs) -> Result<()> {
    let asked = request::from_args(&args.generate, false)?;
    let planned = model::planned(asked.model.as_deref())?;
    let settings = Settings::resolve(&asked.request, &planned.config)?;
    let source = planned.folder.as_ref().map(|folder| folder as &dyn Source);
    let options = Options::default().with(|options| options.precision = asked.precision);
    let plan = plan(&planned.config, source, &settings, Caps::default(), options)?;
    let unused = request::without_effect(&args.generate, &asked.request, &settings);
    for warning in asked.warnings.iter().chain(&unused).chain(&settings.warnings) {
        output::diagnostic(&format!("warning: {warning}"));
    }
    // A plan needs no weights and no tokenizers, a run does.
    if let Some(error) = source.and_then(|source| check_model(source).err()) {
        output::diagnostic(&format!("warning: this model cannot be run as it is: {error}"));
    }
    if args.json {
        return output::json(&plan);
    }
    output::line(format!("{}: {plan}", Escaped(&planned.name)))
}
