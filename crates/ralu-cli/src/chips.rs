//! What well-known chips can do at most, by the names that their drivers give them.
//!
//! The figures are those that makers publish, at the clocks that they name for boost. A name that is not here, or is that of
//! a version with other clocks (laptops), is unknown: no share is better than a wrong one.

use std::fmt;

use ralu::pipeline::tune::{is_in_int8, is_on_matrices};
use serde::Serialize;

/// The most that a chip can do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// The words of an adapter's name that stand for it.
    pub chip: &'static str,
    /// TFLOP/s of fused multiply-adds in f32.
    pub f32_tflops: f64,
    /// TFLOP/s of f16 products with f32 sums on matrix units that kernels can reach; the chip has none if absent.
    pub f16_tflops: Option<f64>,
    /// GB/s of its memory.
    pub gb_per_second: f64,
}

const fn chip(chip: &'static str, f32_tflops: f64, f16_tflops: f64, gb_per_second: f64) -> Peak {
    Peak { chip, f32_tflops, f16_tflops: Some(f16_tflops), gb_per_second }
}

/// A chip without matrix units, or with some whose shapes WGSL cannot name (Intel's).
const fn lanes(chip: &'static str, f32_tflops: f64, gb_per_second: f64) -> Peak {
    Peak { chip, f32_tflops, f16_tflops: None, gb_per_second }
}

/// Of Apple's chips, those with all of their cores: drivers do not say how many there are.
static PEAKS: &[Peak] = &[
    // NVIDIA's tables of the architectures Turing, Ampere, Ada, Hopper and Blackwell.
    chip("rtx 5090", 104.8, 209.5, 1792.0),
    chip("rtx 5080", 56.3, 112.6, 960.0),
    chip("rtx 5070 ti", 43.9, 87.9, 896.0),
    chip("rtx 5070", 30.9, 61.7, 672.0),
    chip("rtx 4090", 82.6, 165.2, 1008.0),
    chip("rtx 4080 super", 52.2, 104.4, 736.0),
    chip("rtx 4080", 48.7, 97.5, 717.0),
    chip("rtx 4070 ti", 40.1, 80.2, 504.0),
    chip("rtx 4070", 29.1, 58.3, 504.0),
    chip("rtx 4060 ti", 22.1, 44.1, 288.0),
    chip("rtx 4060", 15.1, 30.2, 272.0),
    chip("rtx 3090 ti", 40.0, 80.0, 1008.0),
    chip("rtx 3090", 35.6, 71.0, 936.0),
    chip("rtx 3080", 29.8, 59.5, 760.0),
    chip("rtx 3070", 20.3, 40.6, 448.0),
    chip("rtx 3060 ti", 16.2, 32.4, 448.0),
    chip("rtx 3060", 12.7, 25.5, 360.0),
    chip("rtx 2080 ti", 13.4, 53.8, 616.0),
    chip("rtx 6000 ada", 91.1, 364.2, 960.0),
    chip("rtx a6000", 38.7, 154.8, 768.0),
    chip("l40s", 91.6, 362.0, 864.0),
    chip("l4", 30.3, 121.0, 300.0),
    chip("t4", 8.1, 65.0, 320.0),
    chip("a100 sxm4 40gb", 19.5, 312.0, 1555.0),
    chip("a100 sxm4 80gb", 19.5, 312.0, 2039.0),
    chip("h100 80gb hbm3", 66.9, 989.4, 3350.0),
    chip("h200", 66.9, 989.4, 4800.0),
    // AMD's product pages; RDNA3 and RDNA4 issue two f32 operations at a time in some instructions, which these count.
    chip("rx 9070 xt", 48.7, 194.6, 640.0),
    chip("rx 9070", 36.1, 144.5, 640.0),
    chip("rx 7900 xtx", 61.4, 122.8, 960.0),
    chip("rx 7900 xt", 51.5, 103.0, 800.0),
    chip("rx 7800 xt", 37.3, 74.6, 624.0),
    chip("rx 7700 xt", 35.2, 70.3, 432.0),
    chip("rx 7600", 21.7, 43.5, 288.0),
    lanes("rx 6900 xt", 23.0, 512.0),
    lanes("rx 6800 xt", 20.7, 512.0),
    lanes("rx 6700 xt", 13.2, 384.0),
    lanes("rx 6600 xt", 10.6, 256.0),
    lanes("arc b580", 13.7, 456.0),
    lanes("arc a770", 19.7, 560.0),
    lanes("arc a750", 17.2, 512.0),
    // Their matrix operations run on the lanes for f32, at the same rate.
    chip("apple m1", 2.6, 2.6, 68.0),
    chip("apple m1 pro", 5.2, 5.2, 200.0),
    chip("apple m1 max", 10.4, 10.4, 400.0),
    chip("apple m2", 3.6, 3.6, 100.0),
    chip("apple m2 max", 13.6, 13.6, 400.0),
    chip("apple m3 max", 14.2, 14.2, 400.0),
];

/// Words after a chip's name, or anywhere in an adapter's, that make it another one.
const OTHER_AFTER: [&str; 13] =
    ["ti", "super", "xt", "xtx", "gre", "d", "m", "s", "pro", "max", "ultra", "ada", "generation"];
const OTHER_ANYWHERE: [&str; 4] = ["laptop", "mobile", "q", "notebook"];

/// The peak of the adapter that its driver calls `name`; `None` if it is unknown.
pub fn peak(name: &str) -> Option<Peak> {
    let name = name.to_lowercase();
    // `Arc(TM) B580`.
    let is_word = |word: &&str| !["", "r", "tm"].contains(word);
    let words: Vec<&str> =
        name.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_word).collect();
    if words.iter().any(|word| OTHER_ANYWHERE.contains(word)) {
        return None;
    }
    let is = |peak: &&Peak| {
        let chip: Vec<&str> = peak.chip.split(' ').collect();
        let at = words.windows(chip.len()).position(|part| part == chip);
        let after = at.and_then(|at| words.get(at + chip.len()));
        at.is_some() && after.is_none_or(|word| !OTHER_AFTER.contains(word))
    };
    PEAKS.iter().find(is).copied()
}

impl Peak {
    /// The share of its arithmetic that a kernel on `shader` reaches with so many GFLOP/s. What chips do by bytes is not listed.
    pub fn share(&self, shader: &str, gflops_per_second: f64) -> Option<f64> {
        if is_in_int8(shader) {
            return None;
        }
        let tflops = if is_on_matrices(shader) { self.f16_tflops? } else { self.f32_tflops };
        Some(gflops_per_second / 1e3 / tflops)
    }

    /// The share that a kernel reaches of the peak that it is nearer to, that of arithmetic or that of memory (Williams et
    /// al., "Roofline", 2009).
    pub fn share_of_nearer(&self, shader: &str, gflops_per_second: f64, gb_per_second: f64) -> f64 {
        let memory = gb_per_second / self.gb_per_second;
        self.share(shader, gflops_per_second).map_or(memory, |share| share.max(memory))
    }
}

impl fmt::Display for Peak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Peak { chip, f32_tflops, f16_tflops, gb_per_second } = self;
        write!(f, "{chip}: at most {f32_tflops} TFLOP/s in f32, ")?;
        if let Some(tflops) = f16_tflops {
            write!(f, "{tflops} with f16 products, ")?;
        }
        write!(f, "{gb_per_second} GB/s")
    }
}

/// A line about an adapter's peak.
pub fn about(peak: Option<&Peak>) -> String {
    match peak {
        Some(peak) => peak.to_string(),
        None => "what this adapter can do at most is unknown: no shares of its peak".to_owned(),
    }
}

/// A share as a column of a table has it: `54 %`, or `-`.
pub fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.0} %", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_drivers_are_found() {
        for (name, chip) in [
            ("NVIDIA GeForce RTX 4090", "rtx 4090"),
            ("NVIDIA GeForce RTX 3060 Ti", "rtx 3060 ti"),
            ("NVIDIA GeForce RTX 4080 SUPER", "rtx 4080 super"),
            ("AMD Radeon RX 7900 XTX (RADV NAVI31)", "rx 7900 xtx"),
            ("AMD Radeon RX 7900 XT", "rx 7900 xt"),
            ("Intel(R) Arc(TM) B580 Graphics", "arc b580"),
            ("Apple M3 Max", "apple m3 max"),
            ("Apple M1", "apple m1"),
            ("NVIDIA H200", "h200"),
            ("NVIDIA A100-SXM4-40GB", "a100 sxm4 40gb"),
            ("NVIDIA L4", "l4"),
        ] {
            assert_eq!(peak(name).map(|peak| peak.chip), Some(chip), "{name}");
        }
    }

    #[test]
    fn versions_with_other_clocks_are_unknown() {
        for name in [
            "llvmpipe (LLVM 19.1.7, 256 bits)",
            "NVIDIA GeForce RTX 4090 Laptop GPU",
            "NVIDIA GeForce RTX 4090 D",
            "NVIDIA GeForce RTX 4070 SUPER",
            "NVIDIA GeForce RTX 3070 Ti",
            "NVIDIA GeForce RTX 2080 with Max-Q Design",
            "AMD Radeon RX 7900 GRE",
            "AMD Radeon RX 7600 XT",
            "AMD Radeon RX 7600S",
            "Apple M2 Ultra",
            "",
        ] {
            assert_eq!(peak(name), None, "{name}");
        }
    }

    #[test]
    fn each_chip_is_found_by_its_own_name() {
        for one in PEAKS {
            assert_eq!(peak(one.chip).as_ref(), Some(one));
            assert!(one.f16_tflops.is_none_or(|f16| f16 >= one.f32_tflops), "{one}");
        }
    }

    #[test]
    fn shares_are_of_the_units_that_a_kernel_runs_on() {
        let peak = peak("RTX 4090").unwrap();
        assert_eq!(peak.share("matmul_tiled", 41_300.0), Some(0.5));
        assert_eq!(peak.share("matmul_cooperative", 82_600.0), Some(0.5));
        assert_eq!(peak.share_of_nearer("norm", 1.0, 504.0), 0.5);
        let peak = super::peak("Intel(R) Arc(TM) B580 Graphics").unwrap();
        assert_eq!(peak.share("matmul_cooperative", 1.0), None);
    }
}
