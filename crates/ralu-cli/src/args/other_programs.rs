//! Options that other programs have and this one does not: each is answered with what there is instead.

use std::convert::Infallible;

use clap::Args;

const FROM_TEXT: &str = "pictures are drawn from text alone so far; --regions MASK.png says where detail matters, and \
                         --from PICTURE.png repeats a picture of this program";
const SAMPLER: &str = "there is one sampler, Euler steps along the model's own schedule; --steps, --ralu and --cache say \
                       how many there are";
const CFG_SCALE: &str = "the scale is --guidance (FLUX.1: of distilled guidance); where a model has both, --true-cfg is \
                         that of classifier-free guidance";

/// What does not exist.
#[derive(Clone, Debug, Default, Args)]
pub struct OtherPrograms {
    /// A picture to begin with.
    #[arg(short = 'i', long, hide = true, aliases = ["init-img", "init-image"], num_args = 0..=1, default_missing_value = "",
        value_parser = |_: &str| instead(FROM_TEXT))]
    image: Option<Infallible>,
    /// How much of it changes.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "", value_parser = |_: &str| instead(FROM_TEXT))]
    strength: Option<Infallible>,
    /// Where it changes.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "", value_parser = |_: &str| instead(FROM_TEXT))]
    mask: Option<Infallible>,
    /// A picture that guides.
    #[arg(long, hide = true, aliases = ["control-image", "controlnet", "reference", "ref-image", "control-net"],
        num_args = 0..=1, default_missing_value = "", value_parser = |_: &str| instead(FROM_TEXT))]
    control: Option<Infallible>,
    /// The sampler.
    #[arg(long, hide = true, aliases = ["sampling-method", "scheduler"], num_args = 0..=1, default_missing_value = "",
        value_parser = |_: &str| instead(SAMPLER))]
    sampler: Option<Infallible>,
    /// Of guidance.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "", value_parser = |_: &str| instead(CFG_SCALE))]
    cfg_scale: Option<Infallible>,
}

fn instead(answer: &str) -> Result<Infallible, String> {
    Err(answer.to_owned())
}
