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
