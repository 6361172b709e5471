//! What was found, as it is kept.

use serde::{Deserialize, Serialize};

use super::MatrixTest;
use crate::gpu::AdapterReport;
use crate::tensor::{Caps, Tuning};

/// Changes when the meaning of a kept record does.
const FORMAT: u32 = 3;

/// What a choice of kernels depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuningKey {
    format: u32,
    /// Version of this program: kernels change.
    ralu: String,
    driver: String,
    #[serde(flatten)]
    place: Place,
}

/// What a file is named after. New versions of drivers and of this program replace the files of old ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Place {
    adapter: String,
    backend: String,
    kind: String,
    /// What kernels may use there.
    limits: Limits,
    /// What is measured.
    shapes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Limits {
    max_binding_bytes: u64,
    max_workgroup_bytes: u32,
    max_workgroup_invocations: u32,
    subgroup_sizes: Option<(u32, u32)>,
    cooperative_matrix: Option<u32>,
    f16: bool,
    int8: bool,
}

impl TuningKey {
    pub(super) fn new(report: &AdapterReport, caps: &Caps, shapes: Vec<String>) -> Self {
        TuningKey {
            format: FORMAT,
            ralu: env!("CARGO_PKG_VERSION").to_owned(),
            driver: report.driver.clone(),
            place: Place {
                adapter: report.name.clone(),
                backend: report.backend.to_owned(),
                kind: report.kind.to_string(),
                limits: Limits {
                    max_binding_bytes: caps.max_binding_bytes,
                    max_workgroup_bytes: caps.max_workgroup_bytes,
                    max_workgroup_invocations: caps.max_workgroup_invocations,
                    subgroup_sizes: caps.subgroup_sizes,
                    cooperative_matrix: caps.cooperative_matrix,
                    f16: caps.f16,
                    int8: caps.int8,
                },
                shapes,
            },
        }
    }

    /// Where such a record is kept: `tuning-0123456789abcdef.json`.
    pub fn file_name(&self) -> String {
        // FNV-1a: a name, not a proof; what is read is compared in full.
        let hash = format!("{:?}", self.place).bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("tuning-{hash:016x}.json")
    }
}

/// Which kernels an adapter should run, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TuningRecord {
    /// What it holds for.
    #[serde(flatten)]
    pub key: TuningKey,
    /// The choice, for [`Caps::tuning`].
    pub tuning: Tuning,
    /// What a test of cooperative matrices gave, where kernels could use them.
    #[serde(default)]
    pub matrices: Option<MatrixTest>,
    /// What it was made from.
    pub measured: Vec<Measured>,
    /// What measuring took.
    pub seconds: f64,
}

/// The kernels of one op.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Measured {
    /// `matmul`, `attention`, `conv2d`.
    pub op: String,
    /// Of its shapes, if they are chosen for apart: `few`, `some` and `many` rows.
    pub class: Option<String>,
    /// What was measured.
    pub shapes: Vec<String>,
    /// Operations of that.
    #[serde(default)]
    pub flops: f64,
    /// The kernels; the first is the one that runs without tuning.
    pub kernels: Vec<KernelSeconds>,
}

/// What a kernel took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KernelSeconds {
    /// Its name; `default` is what runs without tuning.
    pub kernel: String,
    /// The shaders that run: `matmul_panel`.
    pub shaders: String,
    /// The least seconds of all runs of the sample; absent if time was up or it failed.
    pub seconds: Option<f64>,
    /// Why it failed.
    pub failure: Option<String>,
    /// It is the one to run.
    pub chosen: bool,
}

impl TuningRecord {
    /// Reads what [`TuningRecord::to_json`] wrote. Fails, with a reason, if it is damaged or is about something else
    /// than `key`.
    pub fn read(bytes: &[u8], key: &TuningKey) -> Result<Self, String> {
        let record: TuningRecord = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if record.key != *key {
            return Err("made for another adapter, driver, version or model".to_owned());
        }
        Ok(record)
    }

    /// Operations a second of the chosen kernels, over all that was measured; `None` if nothing was.
    pub fn flops_per_second(&self) -> Option<f64> {
        let (mut flops, mut seconds) = (0.0, 0.0);
        for measured in &self.measured {
            let chosen = measured.kernels.iter().find(|kernel| kernel.chosen);
            if let Some(took) = chosen.and_then(|kernel| kernel.seconds) {
                flops += measured.flops;
                seconds += took;
            }
        }
        (flops > 0.0 && seconds > 0.0).then(|| flops / seconds)
    }

    /// As it is kept.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}
