//! How runs are looked at.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct View {
    /// From the picture alone, 0, to the map alone, 1.
    pub map: f32,
    /// Whether scores are shown as heat.
    pub heat: bool,
    /// Whether the figures at the right are shown.
    pub figures: bool,
    /// Whether frames are drawn all the time, and measured.
    #[serde(skip)]
    pub frames: bool,
    /// Where the wipe between plain and RALU stands, from 0 to 1.
    pub wipe: f32,
    /// Radius of the brush, in coarse tokens.
    pub brush: f32,
    /// Whether a picture is drawn again when the weight of a LoRA changes.
    pub live: bool,
    /// Whether the two runs are compared.
    #[serde(skip)]
    pub compare: bool,
    /// Whether the pointer paints regions.
    #[serde(skip)]
    pub paint: Option<Paint>,
    /// Whether the list of keys is shown.
    #[serde(skip)]
    pub help: bool,
    /// The moment to show; the latest if `None`.
    #[serde(skip)]
    pub moment: Option<usize>,
}

/// What the pointer does to regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Add,
    Erase,
}

impl Default for View {
    fn default() -> Self {
        View {
            map: 0.0,
            heat: false,
            figures: true,
            frames: false,
            wipe: 0.5,
            brush: 1.0,
            live: true,
            compare: false,
            paint: None,
            help: false,
            moment: None,
        }
    }
}
