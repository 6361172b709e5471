//! Temporaries that wait on the host: the same results in less memory.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::common::Random;
use crate::common::recordings::every_op;
use ralu::tensor::{
    Access, Binding, BufferRef, Command, Dispatch, PipelineKey, Recording, TempId, plan_memory,
    spill,
};

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What the memory of a recording would hold, if each command made something of all that it names: what dispatches and
/// copies have seen and left, in their order. A temporary that shares a slot finds there what was left in it, unless
/// `is_clean`, where every temporary begins with the same.
fn outcome(recording: &Recording, is_clean: bool) -> Vec<u64> {
    let plan = plan_memory(recording);
    let mut cells: HashMap<BufferRef, u64> = HashMap::new();
    let mut copies: HashMap<u32, u64> = HashMap::new();
    let mut seen = vec![false; recording.temp_bytes.len()];
    let mut place = |buffer: BufferRef, cells: &mut HashMap<BufferRef, u64>| match buffer {
        BufferRef::Temp(TempId(id)) => {
            let slot = plan.slot_of[id as usize].expect("a slot for what is used");
            let cell = BufferRef::Temp(TempId(slot as u32));
            if !std::mem::replace(&mut seen[id as usize], true) && is_clean {
                cells.insert(cell, 0);
            }
            cell
        }
        BufferRef::Resident(..) => buffer,
    };
    let mut results = vec![];
    for command in &recording.commands {
        match command {
            Command::Save { src, copy, .. } => {
                let from = place(*src, &mut cells);
                copies.insert(*copy, cells[&from]);
            }
            Command::Restore { copy, dst, is_last, .. } => {
                let to = place(*dst, &mut cells);
                let value = copies.remove(copy).expect("it was saved");
                cells.insert(to, value);
                if !is_last {
                    copies.insert(*copy, value);
                }
            }
            Command::Dispatch(_) | Command::Copy { .. } => {
                let named: Vec<_> = command.buffers();
                let places: Vec<_> =
                    named.iter().map(|(buffer, _)| place(*buffer, &mut cells)).collect();
                let values: Vec<u64> =
                    places.iter().map(|at| cells.get(at).copied().unwrap_or(1)).collect();
                let result = hash((&values, results.len()));
                results.push(result);
                for (i, at) in places.into_iter().enumerate().filter(|(i, _)| named[*i].1) {
                    cells.insert(at, hash((result, i)));
                }
            }
        }
    }
    assert!(copies.is_empty(), "{}: the host keeps what nobody asks for", recording.label);
    results
}

/// Bytes of the temporaries that one command needs at once, at most.
fn least(recording: &Recording) -> u64 {
    let of = |command: &Command| -> u64 {
        let mut temps: Vec<usize> = command
            .buffers()
            .into_iter()
            .filter_map(|(buffer, _)| match buffer {
                BufferRef::Temp(TempId(id)) => Some(id as usize),
                BufferRef::Resident(..) => None,
            })
            .collect();
        temps.sort_unstable();
        temps.dedup();
        temps.into_iter().map(|id| recording.temp_bytes[id]).sum()
    };
    recording.commands.iter().map(of).max().unwrap_or(0)
}

fn random_recording(seed: u64) -> Recording {
    let mut random = Random::new(seed);
    let n_temps = 2 + random.below(20);
    // Of one size, as bands are, or of sizes that differ.
    let sizes = 1 + seed as usize % 4;
    let temp_bytes: Vec<u64> =
        (0..n_temps).map(|_| 16 * (8 + random.below(sizes)) as u64).collect();
    let commands = (0..80).map(|_| {
        let mut bindings: Vec<Binding> = vec![];
        for i in 0..1 + random.below(3) {
            let buffer = BufferRef::Temp(TempId(random.below(n_temps) as u32));
            let access = if i == 0 { Access::ReadWrite } else { Access::Read };
            if bindings.iter().all(|other| other.buffer != buffer) {
                bindings.push(Binding { buffer, access });
            }
        }
        let (shader, entry) = ("none", "main");
        Command::Dispatch(Dispatch {
            pipeline: PipelineKey { shader, entry, roles: vec![], overrides: vec![] },
            params: vec![],
            bindings,
            groups: [1; 3],
            flops: 1.0,
            label: String::new(),
        })
    });
    Recording {
        label: format!("random {seed}"),
        commands: commands.collect(),
        temp_labels: (0..n_temps).map(|i| format!("t{i}")).collect(),
        works: vec![],
        temp_bytes,
    }
}

#[test]
fn recordings_in_less_memory_do_the_same() {
    let mut spilled_bytes = 0;
    for seed in 0..400 {
        let recording = random_recording(seed);
        let expected = outcome(&recording, true);
        let (whole, least) = (plan_memory(&recording).total_bytes(), least(&recording));
        for most in [whole, whole * 3 / 4, whole / 2, least + 64, least] {
            let Some(spilled) = spill(&recording, most) else {
                let equal = seed % 4 == 0;
                assert!(!equal || most < least, "{}: not within {most}", recording.label);
                continue;
            };
            let total = plan_memory(&spilled).total_bytes();
            assert!(total <= most, "{}: {total} bytes within {most}", recording.label);
            assert!(outcome(&spilled, true) == expected, "{} within {most}", recording.label);
            assert_eq!(spilled.flops(), recording.flops());
            spilled_bytes += spilled.spilled_bytes();
        }
        assert!(spill(&recording, least - 16).is_none(), "{}", recording.label);
    }
    assert!(spilled_bytes > 0);
}

/// Ops write all that is read later: what lay in a slot before is no matter.
#[test]
fn ops_in_less_memory_do_the_same() {
    for (name, recording) in every_op() {
        let most = plan_memory(&recording).total_bytes() * 2 / 3;
        let Some(spilled) = spill(&recording, most) else { continue };
        assert!(outcome(&spilled, true) == outcome(&recording, true), "{name}");
    }
}
