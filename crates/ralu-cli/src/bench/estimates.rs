//! What products should reach on some chips, by arithmetic: no figure here was measured. docs/speed says how each was made.

use serde::Serialize;

/// Rates of a chip in TFLOP/s on the shapes of FLUX.1 at 1024 x 1024.
#[derive(Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// As [`crate::chips`] calls it.
    pub chip: &'static str,
    /// Of linear layers.
    pub linear: Rates,
    /// Of attention.
    pub attention: Rates,
}

/// TFLOP/s.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// With the kernels that there were before those of graphics chips.
    pub before: f64,
    /// With the kernels of this version.
    pub built: f64,
    /// With all that is designed.
    pub goal: f64,
}

impl Rates {
    const fn new(before: f64, built: f64, goal: f64) -> Self {
        Rates { before, built, goal }
    }

    /// The columns of a table, from the left.
    pub fn column(&self, i: usize) -> f64 {
        [self.before, self.built, self.goal][i]
    }
}

/// The chips of the table in docs/speed, in its order.
pub static ESTIMATES: [Estimate; 5] = [
    Estimate {
        chip: "rtx 4090",
        linear: Rates::new(45.0, 95.0, 95.0),
        attention: Rates::new(20.0, 70.0, 75.0),
    },
    Estimate {
        chip: "rtx 3060",
        linear: Rates::new(7.0, 15.0, 15.0),
        attention: Rates::new(3.0, 10.0, 11.0),
    },
    Estimate {
        chip: "rx 7900 xtx",
        linear: Rates::new(22.0, 65.0, 65.0),
        attention: Rates::new(5.0, 45.0, 45.0),
    },
    Estimate {
        chip: "apple m3 max",
        linear: Rates::new(6.0, 10.0, 11.0),
        attention: Rates::new(2.2, 5.0, 9.0),
    },
    Estimate {
        chip: "arc b580",
        linear: Rates::new(6.0, 8.0, 14.0),
        attention: Rates::new(1.2, 4.0, 5.0),
    },
];

/// That of a chip.
pub fn of(chip: &str) -> Option<&'static Estimate> {
    ESTIMATES.iter().find(|estimate| estimate.chip == chip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chips;

    #[test]
    fn the_table_in_the_documents_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/speed/README.md");
        let text = std::fs::read_to_string(path).expect("the document");
        for Estimate { chip, linear, attention } in &ESTIMATES {
            let row = format!(
                "| {chip} | {} | {} | {} | {} | {} | {} |",
                linear.before,
                linear.built,
                linear.goal,
                attention.before,
                attention.built,
                attention.goal
            );
            assert!(text.to_lowercase().contains(&row), "{path} lacks the row {row}");
        }
    }

    #[test]
    fn no_estimate_is_beyond_its_chip() {
        for Estimate { chip, linear, attention } in &ESTIMATES {
            let peak = chips::peak(chip).expect(chip);
            let most = peak.f16_tflops.unwrap_or(peak.f32_tflops);
            // Intel's goal is in products of bytes, of which lanes do four in an instruction.
            let most = if peak.f16_tflops.is_none() { 4.0 * most } else { most };
            for rates in [linear, attention] {
                assert!(rates.before <= rates.built && rates.built <= rates.goal, "{chip}");
                assert!(rates.goal < most, "{chip}");
            }
        }
    }
}
