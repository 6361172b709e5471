//! How a step is cut into dispatches on GPUs that this machine does not have.

use ralu::models::builtin;
use ralu::pipeline::rehearsal::Rehearsal;
use ralu::pipeline::{RaluChoice, Request, Settings};
use ralu::tensor::{Caps, Command, dispatch_flops};

/// An M3 Max with 40 cores, and Chrome on a discrete card: both call themselves anything but discrete.
fn adapters() -> [(&'static str, Caps); 2] {
    let m3_max = Caps {
        max_binding_bytes: 4 << 30,
        max_dispatch_flops: dispatch_flops(6e12),
        max_workgroup_bytes: 32 << 10,
        max_workgroup_invocations: 1024,
        subgroup_sizes: Some((32, 32)),
        ..Caps::default()
    };
    let chrome = Caps {
        max_binding_bytes: 2 << 30,
        max_dispatch_flops: dispatch_flops(7e12),
        max_workgroup_bytes: 32 << 10,
        ..Caps::default()
    };
    [("M3 Max", m3_max), ("Chrome", chrome)]
}

/// Each dispatch costs its start and a barrier, and one with fewer workgroups than the chip holds leaves it idle. An op that
/// is small as a whole is one dispatch.
#[test]
fn a_step_is_few_dispatches_and_each_fills_the_chip() {
    let config = builtin::get("flux.1-dev").unwrap();
    let request = Request::new("").ralu(RaluChoice::Off).size(1024, 1024);
    let settings = Settings::resolve(&request, &config).unwrap();
    for (name, caps) in adapters() {
        let rehearsal = Rehearsal::new(&config, &settings, caps).unwrap();
        let step = &rehearsal.steps[0];
        let mut dispatches = 0;
        // Of one op, which follow each other.
        let mut pieces: Vec<(&str, Vec<u32>)> = vec![];
        for command in &step.commands {
            let Command::Dispatch(dispatch) = command else { continue };
            dispatches += 1;
            assert!(dispatch.flops <= caps.max_dispatch_flops, "{name}: {}", dispatch.label);
            let groups = dispatch.groups.iter().product();
            match pieces.last_mut() {
                Some((label, op)) if *label == dispatch.label => op.push(groups),
                _ => pieces.push((&dispatch.label, vec![groups])),
            }
        }
        assert!(dispatches <= 1000, "{name}: {dispatches} dispatches");
        for (label, groups) in pieces {
            let is_cut = groups.len() > 1;
            assert!(!is_cut || groups.iter().all(|n| *n >= 512), "{name}: {label}: {groups:?}");
        }
    }
}

/// A LoRA on all layers adds no dispatch for its wide products, and for its narrow ones none where a norm is in front of the
/// layer. (With bindings of 128 MiB, the least there is, the widest inputs lie in two or three bands, each with its own: 211.)
#[test]
fn a_lora_adds_few_dispatches_to_a_step() {
    let config = builtin::get("flux.1-dev").unwrap();
    let request = Request::new("").ralu(RaluChoice::Off).size(1024, 1024);
    let settings = Settings::resolve(&request, &config).unwrap();
    let count = |rehearsal: &Rehearsal| {
        let commands = rehearsal.steps[0].commands.iter();
        commands.filter(|command| matches!(command, Command::Dispatch(_))).count()
    };
    let processor = Caps {
        is_cpu: true,
        subgroup_sizes: Some((8, 8)),
        max_binding_bytes: 1 << 30,
        ..Caps::default()
    };
    // Cooperative matrices.
    let h200 = Caps {
        f16: true,
        cooperative_matrix: Some(16),
        max_workgroup_bytes: 48 << 10,
        max_workgroup_invocations: 1024,
        subgroup_sizes: Some((32, 32)),
        max_binding_bytes: 2 << 30,
        max_dispatch_flops: dispatch_flops(3e14),
        ..Caps::default()
    };
    for (name, caps) in adapters().into_iter().chain([("processor", processor), ("H200", h200)]) {
        let plain = count(&Rehearsal::new(&config, &settings, caps).unwrap());
        let changed = count(&Rehearsal::with_lora(16, &config, &settings, caps).unwrap());
        println!("{name}: {plain} dispatches, {} more with a LoRA", changed - plain);
        assert!(changed > plain, "{name}: the LoRA is not in the recording");
        // Attention's and the MLP's second layers of 19 + 38 blocks, and two embedders.
        assert!(changed - plain <= 4 * 19 + 38 + 2, "{name}: {plain} and {changed} dispatches");
    }
}
