//! What was asked for and changes nothing that a bench measures.

use ralu::pipeline::Settings;

use crate::args::{BenchArg, BenchArgs, RequestArgs};
use crate::output;

/// Says which options have no effect on what is measured.
pub fn warn_of_unused(args: &BenchArgs) {
    let unused = unused(args.what, &args.request);
    if !unused.is_empty() {
        let (names, bench) = (unused.join(", "), name(args.what));
        let have = if unused.len() == 1 { "has" } else { "have" };
        output::diagnostic(&format!("warning: {names} {have} no effect on `ralu bench {bench}`"));
    }
}

/// Says what the library warns of, each thing once.
pub fn warn_of(settings: &[&Settings]) {
    let mut told: Vec<&str> = vec![];
    for warning in settings.iter().flat_map(|settings| &settings.warnings) {
        if !told.contains(&warning.as_str()) {
            output::diagnostic(&format!("warning: {warning}"));
            told.push(warning);
        }
    }
}

fn unused(bench: BenchArg, args: &RequestArgs) -> Vec<&'static str> {
    // All of them, so that a new one has to be thought of.
    let RequestArgs {
        model: _,
        width,
        height,
        size,
        steps,
        guidance,
        negative_prompt,
        true_cfg,
        max_sequence_length,
        seed,
        count,
        rng,
        ralu,
        stage_steps,
        stage_ends,
        up_ratio,
        stage_shifts,
        stage_z,
        ralu_variant,
        upsample,
        rope_mode,
        region_score,
        jump_noise,
        z_policy,
        cache,
        regions,
        regions_add,
        precision: _,
        memory_budget,
        host_memory,
        quantize: _,
    } = args;
    let how_it_is_drawn = [
        ("--guidance", guidance.is_some()),
        ("--negative-prompt", negative_prompt.is_some()),
        ("--true-cfg", true_cfg.is_some()),
        ("--seed", seed.is_some()),
        ("--count", count.is_some()),
        ("--rng", rng.is_some()),
        ("--ralu-variant", ralu_variant.is_some()),
        ("--upsample", upsample.is_some()),
        ("--rope-mode", rope_mode.is_some()),
        ("--region-score", region_score.is_some()),
        ("--jump-noise", jump_noise.is_some()),
        ("--z-policy", z_policy.is_some()),
        ("--cache", cache.is_some()),
        ("--regions", regions.is_some()),
        ("--regions-add", *regions_add),
        ("--memory-budget", memory_budget.is_some()),
        ("--host-memory", host_memory.is_some()),
    ];
    // These have a say in the shapes of ops: RALU rounds sizes up, and a custom schedule needs all of its options.
    let how_large_it_is = [
        ("--width", width.is_some()),
        ("--height", height.is_some()),
        ("--size", size.is_some()),
        ("--steps", steps.is_some()),
        ("--max-sequence-length", max_sequence_length.is_some()),
        ("--ralu", ralu.is_some()),
        ("--stage-steps", stage_steps.is_some()),
        ("--stage-ends", stage_ends.is_some()),
        ("--up-ratio", up_ratio.is_some()),
        ("--stage-shifts", stage_shifts.is_some()),
        ("--stage-z", stage_z.is_some()),
    ];
    let options: Vec<(&str, bool)> = match bench {
        BenchArg::Load => how_large_it_is.into_iter().chain(how_it_is_drawn).collect(),
        BenchArg::Ops => how_it_is_drawn.into(),
        BenchArg::Step | BenchArg::Run | BenchArg::Quality => vec![],
    };
    options.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
}

fn name(bench: BenchArg) -> &'static str {
    match bench {
        BenchArg::Ops => "ops",
        BenchArg::Step => "step",
        BenchArg::Run => "run",
        BenchArg::Load => "load",
        BenchArg::Quality => "quality",
    }
}
