//! One name for what each driver calls otherwise.

use serde::{Deserialize, Serialize};

use crate::blocks::{self, Block};
use crate::driver::Compiled;

/// What a compiler made of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Lanes of a subgroup.
    pub subgroup: u32,
    /// Registers of a lane: VGPRs, GPRs, most live ones (Intel); Apple's are of 16 bits.
    pub registers: u32,
    /// Instructions that store registers to memory for want of registers.
    pub spills: u32,
    /// And that load them again.
    pub fills: u32,
    /// Bytes of private memory of a lane.
    pub scratch: u32,
    /// Bytes of workgroup memory, where the driver tells.
    pub workgroup: u32,
    /// Subgroups of a SIMD (AMD), an SM (NVIDIA), a core (Adreno); lanes of a core (Apple). 0 if the driver does not tell.
    pub occupancy: u32,
    pub instructions: u32,
    /// The compiler's model of a kernel's time, which guesses how often loops turn.
    pub cycles: f64,
    /// The hottest block.
    pub block: Block,
}

/// A number, and what drivers call it.
type Name = (&'static [&'static str], fn(&mut Numbers) -> &mut u32);

const NAMES: [Name; 7] = [
    (&["VGPRs", "Number of GPRs", "Max live registers", "GPRs", "Registers used"], |n| {
        &mut n.registers
    }),
    (&["Spilled VGPRs", "Spill Count", "Spills", "Spills to memory", "STP Count"], |n| {
        &mut n.spills
    }),
    (&["Fill Count", "Fills", "Fills from memory", "LDP Count"], |n| &mut n.fills),
    (&["Scratch size", "Scratch Memory Size", "SLM size", "SLM Size", "Scratch"], |n| {
        &mut n.scratch
    }),
    (&["LDS size", "Workgroup Memory Size"], |n| &mut n.workgroup),
    (&["Subgroups per SIMD", "Max warps/SM", "Threads", "Max Waves Per Core"], |n| {
        &mut n.occupancy
    }),
    (&["Instructions", "Instruction Count", "Instruction count"], |n| &mut n.instructions),
];

/// The compilers' models of time: AMD's inverse throughput, Apple's cycles of the arithmetic unit, the others' cycles.
const CYCLES: [&str; 5] =
    ["Inverse Throughput", "Static cycle count", "Cycle Count", "Cycles", "ALU"];

impl Numbers {
    /// Of a kernel on a chip of `vendor`.
    pub fn of(compiled: &Compiled, vendor: Vendor) -> Numbers {
        let mut numbers = Numbers { subgroup: compiled.subgroup, ..Numbers::default() };
        let found = |name: &str| compiled.statistics.get(name).copied();
        for (names, field) in NAMES {
            if let Some(value) = names.iter().find_map(|name| found(name)) {
                *field(&mut numbers) = value as u32;
            }
        }
        numbers.cycles = CYCLES.iter().find_map(|name| found(name)).unwrap_or(0.0);
        // AMD's is of a whole subgroup.
        if vendor == Vendor::Amd {
            numbers.scratch /= compiled.subgroup.max(1);
        }
        if let Some(code) = vendor.machine_code(compiled) {
            numbers.block = blocks::hottest(code, vendor, compiled.subgroup);
        }
        numbers
    }
}

/// Whose compiler it is: what its machine code looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    Amd,
    Nvidia,
    Intel,
    Apple,
    Adreno,
}

impl Vendor {
    /// Of a chip as `scripts/lanes/kernel-isa` calls it.
    pub fn of(chip: &str) -> crate::Result<Vendor> {
        let (before, _) = chip.split_once('-').unwrap_or((chip, ""));
        match before {
            "amd" | "amd26" => Ok(Vendor::Amd),
            "nvidia" => Ok(Vendor::Nvidia),
            "intel" => Ok(Vendor::Intel),
            "apple" => Ok(Vendor::Apple),
            "adreno" => Ok(Vendor::Adreno),
            _ => {
                Err(format!("{chip}: amd, amd26, nvidia, intel, apple or adreno and a chip").into())
            }
        }
    }

    /// The disassembly among the texts that a compiler gives.
    fn machine_code(self, compiled: &Compiled) -> Option<&str> {
        let name = match self {
            Vendor::Amd => "Assembly",
            Vendor::Nvidia => "NAK assembly",
            Vendor::Intel => "GEN Assembly",
            Vendor::Apple => "AGX assembly",
            Vendor::Adreno => "IR3 Assembly",
        };
        let found = compiled.texts.iter().find(|(found, _)| found == name);
        found.map(|(_, text)| text.as_str())
    }
}
