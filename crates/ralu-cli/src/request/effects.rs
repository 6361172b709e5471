//! What was asked for and changes nothing, as far as the library does not warn of it itself.

use ralu::pipeline::{NamedTensors, Request, Settings};
use ralu::sampling::Variant;

use super::GenerateArgs;

/// How far apart the proportions of a mask and its picture may be: sides are rounded.
const SAME_PROPORTIONS: f64 = 0.05;

/// Warnings for what has another effect than may be expected, or none.
pub fn without_effect(args: &GenerateArgs, request: &Request, settings: &Settings) -> Vec<String> {
    let mut warnings = vec![];
    let is_given = |name: &str| request.given.0.contains_key(name);
    if args.request.regions.is_some()
        && let (Some(mask), Some(_)) = (&request.mask, &settings.ralu)
    {
        let proportions = |width: usize, height: usize| width as f64 / height as f64;
        let stretched =
            proportions(mask.width, mask.height) / proportions(settings.width, settings.height);
        if (stretched - 1.0).abs() > SAME_PROPORTIONS {
            warnings.push(format!(
                "the mask of --regions has {} x {} pixels and the picture {} x {}: it is stretched to cover it",
                mask.width, mask.height, settings.width, settings.height
            ));
        }
        if is_given("ralu_selected") {
            warnings
                .push("--regions has no effect: the given ralu_selected says the regions".into());
        }
    }
    if settings.ralu.is_none()
        && args.request.ralu_variant.is_some_and(|variant| variant != Variant::default())
    {
        warnings.push("--ralu-variant has no effect without RALU".into());
    }
    // Without --given-names a file of one run is taken for another as far as it goes.
    if args.given_names.is_some() {
        let unused = |names: &[&str]| -> String {
            let names = names.iter().filter(|name| is_given(name)).copied();
            names.collect::<Vec<_>>().join(", ")
        };
        let of_ralu = ["ralu_noise_stage2", "ralu_noise_stage3", "ralu_selected"];
        let of_guidance = ["negative_prompt_embeds", "negative_pooled_prompt_embeds"];
        debug_assert!(of_ralu.iter().chain(&of_guidance).all(|n| NamedTensors::GIVEN.contains(n)));
        for (names, without, has_effect) in [
            (unused(&of_ralu), "RALU", settings.ralu.is_some()),
            (unused(&of_guidance), "true guidance", settings.negative_prompt.is_some()),
        ] {
            if !names.is_empty() && !has_effect {
                warnings.push(format!("the given {names} has no effect without {without}"));
            }
        }
    }
    if settings.count > 1 && is_given("initial_noise") {
        warnings.push(format!(
            "all {} pictures start from the given initial_noise, whatever their seeds",
            settings.count
        ));
    }
    warnings
}
