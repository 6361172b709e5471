//! What the user asks for, as the controls have it.

use ralu::models::quantise::QuantiseChoice;
use ralu::pipeline::{Mask, RaluChoice, Request, Rng};
use ralu::sampling::{CacheSpec, MaskMode, Preset, RuleOverrides, Variant, ZPolicy};
use serde::{Deserialize, Serialize};

use crate::engine::Model;

/// Accelerations that can be chosen, as the command line calls them.
pub const RALU: [&str; 9] = ["auto", "off", "2x", "3x", "4x", "5x", "7x", "distilled", "as loaded"];
/// Temporal caches that can be chosen.
pub const CACHES: [&str; 6] = ["off", "first-block", "teacache", "taylorseer", "fora", "magcache"];
/// What weights can be quantised to while the model is loaded.
pub const QUANTIZE: [&str; 12] =
    ["off", "auto", "q8_0", "q6_k", "q5_k", "q5_0", "q4_k", "q4_0", "q3_k", "q2_k", "fp8", "nf4"];
/// Sides that the keys go through, in pixels.
pub const SIDES: [usize; 8] = [64, 128, 192, 256, 384, 512, 768, 1024];

/// The controls' values. `None` is the model's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Form {
    pub prompt: String,
    pub negative_prompt: String,
    pub seed: u64,
    pub width: usize,
    pub height: usize,
    pub ralu: String,
    pub steps: usize,
    pub guidance: Option<f64>,
    pub true_cfg: Option<f64>,
    pub max_sequence_length: Option<usize>,
    pub rng: Rng,
    pub variant: Variant,
    pub rules: RuleOverrides,
    pub z_policy: Option<ZPolicy>,
    pub cache: String,
    /// Of the model, and no part of a request.
    pub quantize: String,
    /// Painted regions instead of the found ones, rather than added to them.
    pub replace_regions: bool,
    /// The request of a picture that was opened: what the controls do not show of it.
    #[serde(skip)]
    pub loaded: Option<Box<Loaded>>,
}

/// See [`Form::loaded`].
#[derive(Clone, Debug)]
pub struct Loaded(Request);

impl PartialEq for Loaded {
    /// Only ever replaced as a whole.
    fn eq(&self, other: &Self) -> bool {
        self.0.prompt == other.0.prompt && self.0.seed == other.0.seed
    }
}

impl Default for Form {
    fn default() -> Self {
        Form {
            prompt: "a fox on a purple background".into(),
            negative_prompt: String::new(),
            seed: 5,
            width: 256,
            height: 256,
            ralu: "4x".into(),
            steps: 50,
            guidance: None,
            true_cfg: None,
            max_sequence_length: None,
            rng: Rng::default(),
            variant: Variant::default(),
            rules: RuleOverrides::default(),
            z_policy: None,
            cache: "off".into(),
            quantize: QUANTIZE[0].into(),
            replace_regions: true,
            loaded: None,
        }
    }
}

/// Coarse tokens that the user painted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Painted {
    pub rows: usize,
    pub cols: usize,
    pub cells: Vec<bool>,
}

impl Painted {
    pub fn is_empty(&self) -> bool {
        !self.cells.iter().any(|cell| *cell)
    }

    /// Makes it fit a grid; another grid's painting is dropped.
    pub fn fit(&mut self, rows: usize, cols: usize) {
        if (self.rows, self.cols) != (rows, cols) {
            *self = Painted { rows, cols, cells: vec![false; rows * cols] };
        }
    }

    /// Paints or clears the cells whose middles lie within `radius` of a place, all in cells.
    pub fn brush(&mut self, x: f32, y: f32, radius: f32, paint: bool) {
        for row in 0..self.rows {
            for col in 0..self.cols {
                let (dx, dy) = (col as f32 + 0.5 - x, row as f32 + 0.5 - y);
                let here = x.floor() == col as f32 && y.floor() == row as f32;
                if here || dx * dx + dy * dy <= radius * radius {
                    self.cells[row * self.cols + col] = paint;
                }
            }
        }
    }

    fn mask(&self, replace: bool) -> Option<Mask> {
        (!self.is_empty()).then(|| Mask {
            luma: self.cells.iter().map(|cell| if *cell { 255 } else { 0 }).collect(),
            width: self.cols,
            height: self.rows,
            mode: if replace { MaskMode::Replace } else { MaskMode::Add },
        })
    }
}

impl Form {
    /// The request that the controls mean, with estimates after every step. Of a model that is known, without what it has no
    /// control for.
    pub fn request(&self, painted: &Painted, model: Option<&Model>) -> Result<Request, String> {
        let mut request = self.loaded.as_ref().map_or_else(Request::default, |l| l.0.clone());
        request.prompt = self.prompt.clone();
        let is_guided = model.is_none_or(|model| self.true_guidance(model) > 1.0);
        request.negative_prompt =
            (is_guided && !self.negative_prompt.is_empty()).then(|| self.negative_prompt.clone());
        request.seed = self.seed;
        (request.width, request.height) = (Some(self.width), Some(self.height));
        request.guidance = self.guidance;
        request.true_cfg = self.true_cfg;
        request.max_sequence_length = self.max_sequence_length;
        request.rng = self.rng;
        request.variant = self.variant;
        match self.ralu.as_str() {
            "auto" => request.ralu = RaluChoice::Auto,
            "off" => request.ralu = RaluChoice::Off,
            "as loaded" => {}
            name => {
                let preset: Preset =
                    name.parse().map_err(|error| format!("the acceleration: {error}"))?;
                request.ralu = RaluChoice::Preset(preset);
            }
        }
        // Without RALU they mean nothing, and would be warned of.
        let is_plain = request.ralu == RaluChoice::Off;
        request.rules = if is_plain { RuleOverrides::default() } else { self.rules };
        request.z_policy = self.z_policy.filter(|_| !is_plain);
        request.steps = (request.ralu == RaluChoice::Off).then_some(self.steps);
        request.cache =
            CacheSpec::parse_option(&self.cache).map_err(|error| format!("the cache: {error}"))?;
        request.mask = match request.ralu {
            RaluChoice::Off => None,
            _ => painted.mask(self.replace_regions),
        };
        request.count = Some(1);
        request.estimates = true;
        request.keep_first_stage = true;
        Ok(request)
    }

    /// Whether a run has RALU's stages.
    pub fn uses_ralu(&self) -> bool {
        self.ralu != "off"
    }

    /// The scale of true guidance that a run has; 1 is none. A model's own one is for those that have no other guidance, and
    /// for those that come with a negative prompt.
    pub fn true_guidance(&self, model: &Model) -> f64 {
        let has_own = model.guidance.is_none()
            || model.negative_prompt.is_some()
            || !self.negative_prompt.is_empty();
        self.true_cfg.unwrap_or(if has_own { model.true_cfg } else { 1.0 })
    }

    /// Whether stage 1 of a run is that of `other`, whose regions may differ.
    pub fn has_stage_1_of(&self, other: &Form) -> bool {
        let first = |form: &Form| {
            let mut form = form.clone();
            // Plain sampling's, and the regions' mode.
            (form.steps, form.replace_regions) = (0, true);
            form
        };
        first(self) == first(other)
    }

    /// What is quantised while the model is loaded; nothing if that cannot be read.
    pub fn quantise(&self) -> QuantiseChoice {
        self.quantize.parse().unwrap_or_default()
    }

    /// The same picture without RALU.
    pub fn plain(&self) -> Form {
        Form { ralu: "off".into(), ..self.clone() }
    }

    /// Takes over the request of a picture.
    pub fn load(&mut self, request: Request) -> Painted {
        self.prompt = request.prompt.clone();
        self.negative_prompt = request.negative_prompt.clone().unwrap_or_default();
        self.seed = request.seed;
        self.width = request.width.unwrap_or(self.width);
        self.height = request.height.unwrap_or(self.height);
        self.steps = request.steps.unwrap_or(self.steps);
        self.guidance = request.guidance;
        self.true_cfg = request.true_cfg;
        self.max_sequence_length = request.max_sequence_length;
        self.rng = request.rng;
        self.variant = request.variant;
        self.rules = request.rules;
        self.z_policy = request.z_policy;
        self.ralu = match &request.ralu {
            RaluChoice::Auto => "auto".into(),
            RaluChoice::Off => "off".into(),
            RaluChoice::Preset(preset) => preset.to_string(),
            RaluChoice::Custom { .. } => "as loaded".into(),
        };
        self.cache = request.cache.as_ref().map_or_else(|| "off".into(), ToString::to_string);
        let painted = match &request.mask {
            None => Painted::default(),
            Some(mask) => {
                self.replace_regions = mask.mode == MaskMode::Replace;
                let cells = mask.luma.iter().map(|luma| *luma > 127).collect();
                Painted { rows: mask.height, cols: mask.width, cells }
            }
        };
        self.loaded = Some(Box::new(Loaded(request)));
        painted
    }

    /// What a newly opened model likes best, for what the last one's values would not suit.
    pub fn suit(&mut self, model: &Model) {
        (self.guidance, self.true_cfg, self.max_sequence_length) = (None, None, None);
        (self.width, self.height) = (model.width, model.height);
        self.negative_prompt.clear();
        self.loaded = None;
    }
}

/// The neighbour of `value` in `list`, forwards or backwards.
pub fn neighbour<'a>(list: &[&'a str], value: &str, forwards: bool) -> &'a str {
    let at = list.iter().position(|known| *known == value).unwrap_or(0);
    let step = if forwards { 1 } else { list.len() - 1 };
    list[(at + step) % list.len()]
}

/// The next larger or smaller side.
pub fn next_side(side: usize, larger: bool) -> usize {
    let found = match larger {
        true => SIDES.iter().find(|known| **known > side),
        false => SIDES.iter().rev().find(|known| **known < side),
    };
    found.copied().unwrap_or(side)
}
