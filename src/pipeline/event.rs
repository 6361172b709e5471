//! What a run tells while it happens.

use std::sync::Arc;

use super::{FirstStage, NamedTensors, Picture};
use crate::gpu::ProgramTimes;
use crate::sampling::Grid;

/// A part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The text encoders.
    TextEncoders,
    /// The denoiser and the VAE's decoder.
    Denoiser,
}

/// What a picture of a stage shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureKind {
    /// The clean estimate at the end of the stage.
    Estimate,
    /// The edges that regions are chosen by.
    Edges,
    /// The chosen regions, drawn over the estimate.
    Regions,
}

/// A stage begins.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StageStart {
    /// Number of the picture, from 0.
    pub image: usize,
    /// Number of the stage, from 1.
    pub stage: usize,
    /// Number of stages.
    pub of: usize,
    /// Image tokens.
    pub n_tokens: usize,
    /// Evaluations of the network.
    pub n_steps: usize,
    /// Bytes of temporaries that the stage uses.
    pub bytes: u64,
    /// Of those, bytes in buffers that an earlier stage used too.
    pub reused_bytes: u64,
    /// Bytes that had to be newly allocated for this stage.
    pub allocated_bytes: u64,
}

/// A step is done.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ImageReport {
    /// For each stage and step, whether the network was evaluated. A step that was not reused the temporal cache.
    pub computed: Vec<Vec<bool>>,
    /// Operations of the GPU's programs, by estimate: steps, jumps and decoding, without the text encoders.
    pub flops: f64,
    /// Seconds of all steps.
    pub step_seconds: f64,
    /// Blocks that were to round to f16 and met numbers beyond it: they were done again, and kept, in f32.
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

/// A stage is over.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Something odd that does not stop the run.
    Warning(String),
    /// Weights are on their way to the GPU.
    Loading {
        /// Which.
        part: Part,
        /// Bytes uploaded so far.
        bytes: u64,
        /// Bytes in all.
        of: u64,
    },
    /// The prompt is encoded, and the text encoders' memory is free again.
    Encoded {
        /// Text tokens, padding included.
        n_tokens: usize,
        /// Seconds, loading included.
        seconds: f64,
    },
    /// A stage begins.
    Stage(StageStart),
    /// The kernels of a program that has run, if the request asked for their times. Comes before what the program
    /// was run for.
    Profile(ProgramTimes),
    /// A step is done.
    Step(StepDone),
    /// What the run has in mind after a step, if [`super::Request::estimates`] asks for it: the clean estimate in the
    /// colours of [`super::LatentColors`], at an eighth of the size. Comes after the step.
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
    FirstStage(Arc<FirstStage>),
    /// Regions are chosen.
    Regions {
        /// Number of the picture, from 0.
        image: usize,
        /// The coarse grid.
        grid: Grid,
        /// Raster indices of the chosen coarse tokens, ascending.
        selected: Vec<u32>,
        /// The score of each coarse token: edge pixels, or what else [`crate::sampling::RegionScore`] says.
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
        picture: Picture,
    },
    /// A picture is finished.
    Image {
        /// Its number, from 0.
        image: usize,
        /// Its seed.
        seed: u64,
        /// The picture.
        picture: Picture,
        /// What the run made, if the request asked for it.
        tensors: Option<NamedTensors>,
        /// Seconds for this picture, from the first step to the decoded pixels.
        seconds: f64,
        /// What it took.
        report: ImageReport,
    },
}
