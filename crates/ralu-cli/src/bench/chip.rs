//! What is known of the chip that is measured: its peak, and what its kernels should reach.

use ralu::gpu::Gpu;
use ralu::models::cost::Flops;
use serde::Serialize;

use super::estimates::{self, Estimate};
use crate::chips::{self, Peak};

/// The chip under a measurement.
#[derive(Default, Serialize)]
pub struct Chip {
    /// What factors of products are rounded to: `f32`, `f16`, or `int8` where they are x and weights in blocks.
    products: &'static str,
    /// `null` if it is unknown.
    pub peak: Option<Peak>,
    /// Arithmetic, not a measurement: TFLOP/s of FLUX.1's shapes. `null` for most chips.
    estimate: Option<&'static Estimate>,
}

/// What a step should take, by the estimate's rates of linear layers and of attention.
#[derive(Clone, Copy, Default, Serialize)]
pub struct EstimatedSeconds {
    /// With the kernels that there were before those of graphics chips.
    pub before: f64,
    /// With the kernels of this version.
    pub built: f64,
    /// With all that is designed.
    pub goal: f64,
}

impl Chip {
    /// That of an open device.
    pub fn of(gpu: &Gpu) -> Self {
        let peak = chips::peak(&gpu.report().name);
        let caps = gpu.caps();
        let products = match caps.int8 {
            true => "int8",
            false if caps.rounds_to_f16() => "f16",
            false => "f32",
        };
        Chip { products, peak, estimate: peak.and_then(|peak| estimates::of(peak.chip)) }
    }

    /// The share that a step reaches of the peak of the units that its products run on.
    pub fn share(&self, gflops_per_second: f64) -> Option<f64> {
        let peak = self.peak?;
        let tflops = match self.products {
            "f16" => peak.f16_tflops?,
            // Nobody has listed what a chip does by bytes.
            "int8" => return None,
            _ => peak.f32_tflops,
        };
        Some(gflops_per_second / 1e3 / tflops)
    }

    /// What such operations should take.
    pub fn estimated(&self, flops: Flops) -> Option<EstimatedSeconds> {
        let Estimate { linear, attention, .. } = self.estimate?;
        let seconds = |i: usize| {
            (flops.linear / linear.column(i) + flops.attention / attention.column(i)) / 1e12
        };
        Some(EstimatedSeconds { before: seconds(0), built: seconds(1), goal: seconds(2) })
    }

    /// The line about it in a table.
    pub fn about(&self) -> String {
        format!("{}; products in {}", chips::about(self.peak.as_ref()), self.products)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_flux_is_estimated_from_its_two_rates() {
        let peak = chips::peak("NVIDIA GeForce RTX 4090");
        let chip = Chip {
            products: "f16",
            peak,
            estimate: peak.and_then(|peak| estimates::of(peak.chip)),
        };
        let step = Flops { linear: 59.5e12, attention: 14.9e12 };
        let EstimatedSeconds { before, built, goal } = chip.estimated(step).expect("an estimate");
        assert!((before - (59.5 / 45.0 + 14.9 / 20.0)).abs() < 1e-9);
        assert!((goal - (59.5 / 95.0 + 14.9 / 75.0)).abs() < 1e-9);
        assert!(goal <= built && built <= before);
        assert_eq!(chip.share(82_600.0), Some(0.5));
        let in_f32 = Chip { products: "f32", ..chip };
        assert_eq!(in_f32.share(82_600.0), Some(1.0));
    }

    #[test]
    fn nothing_is_said_of_an_unknown_chip() {
        let chip = Chip { products: "f32", peak: None, estimate: None };
        assert_eq!(chip.share(1.0), None);
        assert!(chip.estimated(Flops::default()).is_none());
        assert!(chip.about().contains("unknown"));
    }
}
