//! `scheduler/scheduler_config.json`: the noise levels of plain sampling.

use serde::Serialize;

use super::Result;
use super::fields::{Fields, quoted};
use crate::checkpoint::source::Source;

/// The form of the time shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeShiftType {
    /// `e^mu / (e^mu + 1/u - 1)`.
    Exponential,
    /// `mu / (mu + 1/u - 1)`.
    Linear,
}

/// The least time shift `h`. The smaller it is, the more digits cancel in `1 + (h - 1) u` at `u = 1`: at 1e-17 it is 0, and
/// noise levels are not finite.
pub(super) const LEAST_SHIFT: f64 = 1e-6;

/// `FlowMatchEulerDiscreteScheduler`. Absent fields have diffusers' defaults.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SchedulerConfig {
    /// `timestep` = this x sigma (1000).
    pub num_train_timesteps: usize,
    /// Static time shift; what RALU calls `h_ori`. Not used by plain sampling if `use_dynamic_shifting`.
    pub shift: f64,
    /// Whether the time shift depends on the number of image tokens.
    pub use_dynamic_shifting: bool,
    /// `mu` at `base_image_seq_len` tokens.
    pub base_shift: f64,
    /// `mu` at `max_image_seq_len` tokens.
    pub max_shift: f64,
    /// Image tokens at which `mu` is `base_shift` (256).
    pub base_image_seq_len: usize,
    /// Image tokens at which `mu` is `max_shift` (4096).
    pub max_image_seq_len: usize,
    /// If given, sigmas are stretched so that the last one before 0 has this value.
    pub shift_terminal: Option<f64>,
    /// What `mu` means.
    pub time_shift_type: TimeShiftType,
    /// Whether FLUX takes its even grid from the scheduler, as SD3 does.
    pub use_flow_sigmas: bool,
}

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`.
    pub fn load(source: &dyn Source, path: &str) -> Result<Self> {
        let fields = Fields::open(source, path)?;
        fields.class("_class_name", "FlowMatchEulerDiscreteScheduler")?;
        for flag in [
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "stochastic_sampling",
            "invert_sigmas",
        ] {
            if fields.flag_or(flag, false)? {
                return Err(fields.unsupported(flag, true, "false (plain flow-matching Euler)"));
            }
        }
        let kind = fields.string_or("time_shift_type", "exponential")?;
        let config = Self {
            num_train_timesteps: fields.count_or("num_train_timesteps", 1000)?,
            shift: fields.number_or("shift", 1.0)?,
            use_dynamic_shifting: fields.flag_or("use_dynamic_shifting", false)?,
            base_shift: fields.number_or("base_shift", 0.5)?,
            max_shift: fields.number_or("max_shift", 1.15)?,
            base_image_seq_len: fields.count_or("base_image_seq_len", 256)?,
            max_image_seq_len: fields.count_or("max_image_seq_len", 4096)?,
            shift_terminal: fields.optional_number("shift_terminal")?,
            time_shift_type: match kind.as_str() {
                "exponential" => TimeShiftType::Exponential,
                "linear" => TimeShiftType::Linear,
                _ => {
                    return Err(fields.unsupported(
                        "time_shift_type",
                        quoted(&kind),
                        "exponential, linear",
                    ));
                }
            },
            use_flow_sigmas: fields.flag_or("use_flow_sigmas", false)?,
        };
        if config.shift < LEAST_SHIFT {
            let expected = format!("a number of at least {LEAST_SHIFT:e}");
            return Err(fields.wrong("shift", config.shift, &expected));
        }
        if config.use_dynamic_shifting && config.base_image_seq_len >= config.max_image_seq_len {
            let expected = format!("more than base_image_seq_len = {}", config.base_image_seq_len);
            return Err(fields.wrong("max_image_seq_len", config.max_image_seq_len, &expected));
        }
        if config.shift_terminal.is_some_and(|terminal| !(terminal > 0.0 && terminal < 1.0)) {
            let found = config.shift_terminal.unwrap_or_default();
            return Err(fields.wrong("shift_terminal", found, "null or a number between 0 and 1"));
        }
        config.check_shift(&fields)?;
        Ok(config)
    }
}
