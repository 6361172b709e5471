//! A checkpoint as bytes: what a program hands to the one that takes its place after the device was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use web_time::Instant;

use super::checkpoint::{Checkpoint, State};
use crate::models::config::ModelConfig;
use crate::models::layers::Precision;
use crate::pipeline::saved::Maker;
use crate::pipeline::{Error, NamedTensors, Products, RunSchedule, Saved, Settings};
use crate::tensor::Fallbacks;

/// Version of the layout.
const FORMAT: u32 = 2;
/// Where the metadata of a safetensors file has [`Numbers`].
const KEY: &str = "ralu.checkpoint";
const LATENTS: &str = "latents";
const VELOCITY: &str = "velocity";

/// All of a checkpoint but its tensors.
#[derive(Serialize, Deserialize)]
struct Numbers {
    format: u32,
    settings: Saved,
    count: usize,
    image: usize,
    stage: usize,
    steps: usize,
    selected: Vec<u32>,
    computed: Vec<Vec<bool>>,
    step_seconds: f64,
    flops_done: f64,
    /// Since the picture was begun; absent before its first step.
    seconds: Option<f64>,
    fallbacks: Fallbacks,
}

/// What has to be the same in both runs: all that the picture depends on.
fn identity(settings: &Settings) -> Result<Saved, Error> {
    let maker = Maker {
        model: "",
        model_hash: None,
        model_parts: None,
        adapter: "",
        has_guidance: true,
        precision: Precision::Auto,
        quantise: None,
        given: vec![],
    };
    Ok(Saved::new(settings, settings.seed, &maker, Products::default())?)
}

fn damaged(what: impl std::fmt::Display) -> Error {
    let expected = "what `Checkpoint::to_bytes` gave; leave it out to run from the start";
    Error::setting("the checkpoint", format!("damaged ({what})"), expected)
}

impl Checkpoint {
    /// The bytes of a safetensors file, from which [`Checkpoint::read`] makes it again in another process. `None` if a
    /// part of it cannot leave this one: under a temporal cache, and where tensors are collected or were given.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let State { started, selected, estimates, computed, step_seconds, .. } = &self.state;
        if self.settings.cache.is_some() || self.state.tensors != NamedTensors::default() {
            return None;
        }
        let numbers = Numbers {
            format: FORMAT,
            settings: identity(&self.settings).ok()?,
            count: self.settings.count,
            image: self.image,
            stage: self.stage,
            steps: self.steps,
            selected: selected.clone(),
            computed: computed.clone(),
            step_seconds: *step_seconds,
            flops_done: self.state.flops_done,
            seconds: started.map(|started| started.elapsed().as_secs_f64()),
            fallbacks: self.state.fallbacks.clone(),
        };
        let bytes = |data: &[f32]| data.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let mut tensors = BTreeMap::from([(LATENTS.to_owned(), bytes(&self.x))]);
        tensors.extend(self.velocity.as_deref().map(|v| (VELOCITY.to_owned(), bytes(v))));
        tensors.extend((0..).map(estimate).zip(estimates.iter().map(|e| bytes(e))));
        let views = tensors.iter().map(|(name, bytes)| {
            Some((name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).ok()?))
        });
        let metadata = [(KEY.to_owned(), serde_json::to_string(&numbers).ok()?)];
        let views = views.collect::<Option<Vec<_>>>()?;
        safetensors::serialize(views, Some(metadata.into())).ok()
    }

    /// Makes a checkpoint of what [`Checkpoint::to_bytes`] gave, for a run of the same model with `settings`. An error
    /// if it is damaged, or of other settings.
    pub fn read(
        bytes: &[u8],
        settings: &Settings,
        config: &ModelConfig,
    ) -> Result<Checkpoint, Error> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let text = metadata.metadata().as_ref().and_then(|all| all.get(KEY));
        let text = text.ok_or_else(|| damaged(format!("it has no {KEY}")))?;
        let numbers: Numbers = serde_json::from_str(text).map_err(damaged)?;
        if numbers.format != FORMAT {
            return Err(damaged(format!("format {}, expected {FORMAT}", numbers.format)));
        }
        if numbers.settings != identity(settings)? || numbers.count != settings.count {
            let expected = "one of a run of the same request; leave it out to run from the start";
            return Err(Error::setting("the checkpoint", "of other settings", expected));
        }
        let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let read = |name: &str| match file.tensor(name) {
            Err(_) => Ok(None),
            Ok(tensor) if tensor.dtype() == Dtype::F32 => {
                let four = tensor.data().chunks_exact(4);
                Ok(Some(four.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()))
            }
            Ok(tensor) => Err(damaged(format!("{name} is {:?}", tensor.dtype()))),
        };
        let x: Vec<f32> = read(LATENTS)?.ok_or_else(|| damaged("it has no latents"))?;
        let mut estimates = Vec::new();
        while let Some(data) = read(&estimate(estimates.len()))? {
            estimates.push(data);
        }
        let Numbers { image, stage, steps, seconds, .. } = numbers;
        let started = seconds.map(|seconds| {
            let ago = Duration::try_from_secs_f64(seconds).ok();
            ago.and_then(|ago| Instant::now().checked_sub(ago)).unwrap_or_else(Instant::now)
        });
        let checkpoint = Checkpoint {
            settings: settings.clone(),
            image,
            stage,
            steps,
            x,
            velocity: read(VELOCITY)?,
            state: State {
                started,
                selected: numbers.selected,
                estimates,
                computed: numbers.computed,
                step_seconds: numbers.step_seconds,
                flops_done: numbers.flops_done,
                cache: None,
                tensors: NamedTensors::default(),
                fallbacks: numbers.fallbacks,
            },
        };
        let channels = config.transformer.token_channels();
        checkpoint.check(RunSchedule::new(settings, config)?, channels)?;
        Ok(checkpoint)
    }

    /// Checks what a run takes for granted of its own checkpoints.
    fn check(&self, mut schedule: RunSchedule, token_channels: usize) -> Result<(), Error> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(damaged(what)) };
        let State { selected, estimates, computed, .. } = &self.state;
        require(self.image < self.settings.count, "no such picture")?;
        require(self.settings.cache.is_none(), "a temporal cache is not in it")?;
        let places = schedule.grid().n_tokens();
        let distinct: BTreeSet<&u32> = selected.iter().collect();
        let are_regions = distinct.len() == selected.len()
            && distinct.last().is_none_or(|last| (**last as usize) < places);
        require(are_regions, "regions outside of the picture")?;
        if !selected.is_empty() {
            require(schedule.has_regions(), "regions of a run that has none")?;
            schedule.set_regions(selected.len());
        }
        let stage = schedule.stages.get(self.stage).ok_or_else(|| damaged("no such stage"))?;
        if self.x.is_empty() {
            return require(self.stage == 0 && self.steps == 0, "no latents");
        }
        require((1..=stage.steps()).contains(&self.steps), "no such step")?;
        let has_regions = schedule.has_regions() && self.stage > 0;
        require(selected.is_empty() != has_regions, "regions of another stage")?;
        let length = stage.n_tokens * token_channels;
        require(self.x.len() == length, "latents of another size")?;
        let is_last = self.stage + 1 == schedule.stages.len();
        let needs_velocity = self.steps == stage.steps() && !is_last;
        require(self.velocity.is_some() == needs_velocity, "the velocity of another step")?;
        let fits = |data: &Vec<f32>| data.len() == length;
        require(self.velocity.as_ref().is_none_or(fits), "a velocity of another size")?;
        let fits = |data: &Vec<f32>| data.len() == places * token_channels;
        require(estimates.iter().all(fits), "estimates of another size")?;
        let done = schedule.stages.iter().map(|stage| stage.steps()).take(self.stage);
        let expected: Vec<usize> = done.chain([self.steps]).collect();
        let found: Vec<usize> = computed.iter().map(Vec::len).collect();
        require(found == expected, "steps that do not fit its place")
    }
}

fn estimate(number: usize) -> String {
    format!("estimate.{number}")
}
