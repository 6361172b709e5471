//! What a run tells while it happens.
//!
//! As JSON, an [`Event`] is an object with its name in the field `event`, and what it tells under the names below. Faces
//! add what they know besides, such as files. Pictures and tensors are not in it, and kernels' times, estimates and kept
//! stages have no JSON.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::{FirstStage, NamedTensors, Picture, Products};
use crate::gpu::ProgramTimes;
use crate::names::by_serde;
use crate::sampling::Grid;

/// A part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The text encoders.
    TextEncoders,
    /// The layers of the denoiser that make its modulations, which depend on no token: needed before the first step alone.
    Modulation,
    /// The rest of the denoiser, and the VAE's decoder.
    Denoiser,
}

impl Part {
    /// All parts, in the order in which a run needs them.
    pub const ALL: [Part; 3] = [Part::TextEncoders, Part::Modulation, Part::Denoiser];
}

/// What a picture of a stage shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PictureKind {
    /// The clean estimate at the end of the stage.
    Estimate,
    /// The edges that regions are chosen by.
    Edges,
    /// The chosen regions, drawn over the estimate.
    Regions,
}

by_serde!(Part, "part of a model");
by_serde!(PictureKind, "picture of a stage");

/// A stage begins.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct StageStart {
    /// Number of the picture, from 0.
    pub image: usize,
    /// Number of the stage, from 1.
    pub stage: usize,
    /// Number of stages.
    pub of: usize,
    /// Image tokens.
    #[serde(rename = "tokens")]
    pub n_tokens: usize,
    /// Evaluations of the network.
    #[serde(rename = "steps")]
    pub n_steps: usize,
    /// Bytes of temporaries that the stage uses.
    pub bytes: u64,
    /// Of those, bytes in buffers that an earlier stage used too.
    pub reused_bytes: u64,
    /// Bytes that had to be newly allocated for this stage.
    pub allocated_bytes: u64,
}

/// A step is done.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct StepDone {
    /// Number of the picture, from 0.
    pub image: usize,
    /// Number of the stage, from 1.
    pub stage: usize,
    /// Number of the step in the stage, from 1.
    pub step: usize,
    /// Steps in the stage.
    pub of: usize,
    /// Noise level at which the network was evaluated: 1 is pure noise, 0 a clean picture.
    pub sigma: f64,
    /// Seconds this step took.
    pub seconds: f64,
    /// Share of this picture's work that is done, by estimated operations.
    pub done: f64,
    /// Whether a temporal cache stood in for the network, or for most of it.
    pub reused: bool,
}

/// What a picture took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(into = "ReportJson")]
#[non_exhaustive]
pub struct ImageReport {
    /// For each stage and step, whether the network was evaluated. A step that was not reused the temporal cache.
    pub computed: Vec<Vec<bool>>,
    /// Operations of the GPU's programs, by estimate: steps, jumps and decoding, without the text encoders.
    pub flops: f64,
    /// Seconds of all steps.
    pub step_seconds: f64,
    /// What products rounded to, but for those of the text encoders.
    pub products: Products,
    /// Blocks that were to round to f16 and met numbers beyond it: they were done again, with activations that are divided
    /// by 256 before they are rounded, and multiplied by it afterwards.
    pub scaled: Vec<String>,
    /// Blocks that met numbers beyond f16 even so: they were done again in f32.
    pub in_f32: Vec<String>,
}

impl ImageReport {
    /// Steps in which the network was evaluated.
    pub fn n_computed(&self) -> usize {
        self.computed.iter().flatten().filter(|computed| **computed).count()
    }

    /// Steps in which the temporal cache stood in.
    pub fn n_reused(&self) -> usize {
        self.computed.iter().flatten().filter(|computed| !**computed).count()
    }
}

/// What of [`ImageReport`] is told as JSON.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ReportJson {
    /// Steps in which the network was evaluated.
    steps_computed: usize,
    /// Steps in which the temporal cache stood in.
    steps_reused: usize,
    /// For each stage and step, whether the network was evaluated.
    computed: Vec<Vec<bool>>,
    /// Operations of the GPU's programs in units of 10^12, by estimate: steps, jumps and decoding.
    tflops: f64,
    /// What products rounded to: `f16` where kernels on matrices ran, `int8` where those on bytes did, else `f32`.
    products: Products,
    /// Blocks that met numbers beyond f16's range, and were done again with activations divided by 256.
    scaled: Vec<String>,
    /// Blocks that met numbers beyond f16's range even so, and were done again in f32.
    in_f32: Vec<String>,
}

impl From<ImageReport> for ReportJson {
    fn from(report: ImageReport) -> Self {
        ReportJson {
            steps_computed: report.n_computed(),
            steps_reused: report.n_reused(),
            tflops: report.flops / 1e12,
            computed: report.computed,
            products: report.products,
            scaled: report.scaled,
            in_f32: report.in_f32,
        }
    }
}

/// A stage is over.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct StageEnd {
    /// Number of the picture, from 0.
    pub image: usize,
    /// Number of the stage, from 1.
    pub stage: usize,
    /// Seconds of all its steps.
    pub seconds: f64,
    /// Buffers created after its first step. Always 0.
    pub buffers_created: u64,
    /// Bind groups created after its first step. Always 0.
    pub bind_groups_created: u64,
}

/// Something happened in a run.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// Something odd that does not stop the run.
    #[serde(serialize_with = "message")]
    Warning(#[cfg_attr(feature = "schema", schemars(with = "Message<'static>"))] String),
    /// Weights are on their way to the GPU.
    Loading {
        /// Which part of the model.
        part: Part,
        /// Bytes uploaded so far.
        bytes: u64,
        /// Bytes in all.
        #[serde(rename = "total_bytes")]
        of: u64,
    },
    /// The prompt is encoded, and the text encoders' memory is free again.
    Encoded {
        /// Text tokens, padding included.
        #[serde(rename = "tokens")]
        n_tokens: usize,
        /// Seconds, loading included.
        seconds: f64,
    },
    /// A stage begins.
    Stage(StageStart),
    /// The kernels of a program that has run, if the request asked for their times. Comes before what the program
    /// was run for.
    #[serde(skip)]
    Profile(ProgramTimes),
    /// A step is done.
    Step(StepDone),
    /// What the run has in mind after a step, if [`super::Request::estimates`] asks for it: the clean estimate in the
    /// colours of [`super::LatentColors`], at an eighth of the size. Comes after the step.
    #[serde(skip)]
    Estimate {
        /// Number of the picture, from 0.
        image: usize,
        /// Number of the stage, from 1.
        stage: usize,
        /// Number of the step in the stage, from 1.
        step: usize,
        /// The picture: half as large in a stage that is.
        picture: Picture,
    },
    /// A stage is over. Of a kept first stage too, then with no seconds.
    StageEnd(StageEnd),
    /// The end of RALU's first stage, if [`super::Request::keep_first_stage`] asks for it.
    #[serde(skip)]
    FirstStage(Arc<FirstStage>),
    /// Regions are chosen.
    Regions {
        /// Number of the picture, from 0.
        image: usize,
        /// The coarse grid: `rows` x `columns` tokens.
        #[serde(flatten, with = "GridSize")]
        #[cfg_attr(feature = "schema", schemars(with = "GridSize"))]
        grid: Grid,
        /// Raster indices of the chosen coarse tokens, ascending.
        selected: Vec<u32>,
        /// The score of each coarse token: edge pixels, or what else [`crate::sampling::RegionScore`] says.
        #[serde(rename = "density")]
        score: Vec<f32>,
        /// Seconds for scores and choice, and decoding if that was needed.
        seconds: f64,
    },
    /// A picture of a stage.
    StagePicture {
        /// Number of the picture, from 0.
        image: usize,
        /// Number of the stage, from 1.
        stage: usize,
        /// What it shows.
        kind: PictureKind,
        /// The picture.
        #[serde(flatten)]
        picture: Picture,
    },
    /// A picture is finished.
    Image {
        /// Its number, from 0.
        image: usize,
        /// Its seed.
        seed: u64,
        /// The picture.
        #[serde(flatten)]
        picture: Picture,
        /// What the run made, if the request asked for it.
        #[serde(skip)]
        tensors: Option<NamedTensors>,
        /// Seconds for this picture, from the first step to the decoded pixels.
        seconds: f64,
        /// What it took.
        #[serde(flatten)]
        #[cfg_attr(feature = "schema", schemars(with = "ReportJson"))]
        report: ImageReport,
    },
}

impl Event {
    /// The number of the picture that it is about: a host that makes one series of several runs counts on in it.
    pub fn image_mut(&mut self) -> Option<&mut usize> {
        match self {
            Event::Stage(StageStart { image, .. })
            | Event::Step(StepDone { image, .. })
            | Event::StageEnd(StageEnd { image, .. })
            | Event::Estimate { image, .. }
            | Event::Regions { image, .. }
            | Event::StagePicture { image, .. }
            | Event::Image { image, .. } => Some(image),
            Event::Warning(_)
            | Event::Loading { .. }
            | Event::Encoded { .. }
            | Event::Profile(_)
            | Event::FirstStage(_) => None,
        }
    }
}

/// The text of a warning.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Message<'a> {
    message: &'a str,
}

fn message<S: Serializer>(message: &str, serializer: S) -> Result<S::Ok, S::Error> {
    Message { message }.serialize(serializer)
}

/// [`Grid`] as events tell it.
#[derive(Serialize)]
#[serde(remote = "Grid")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct GridSize {
    /// Rows of coarse tokens.
    rows: usize,
    /// Columns of coarse tokens.
    #[serde(rename = "columns")]
    cols: usize,
}
