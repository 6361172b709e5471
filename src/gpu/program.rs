//! Compiled recordings: bind groups and pipelines made once, replayed every step.

use std::collections::HashMap;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use super::feed::{Feed, NothingToFeed, Pauses};
use super::profile::{Kernel, Timing};
use super::spill::Spill;
use super::{Buffer, Error, Gpu, PARAMS_BYTES, Store, Ticket};
use crate::sync::{Locked, MaybeSync};
use crate::tensor::{
    Access, BufferRef, Command, Dispatch, MemoryPlan, Recording, ResidentId, plan_memory,
};
use crate::turns::Turns;

/// Buffers that programs share for their temporaries, largest first.
///
/// Programs that run one after the other (the stages of a run) overlay each other here: the i-th largest slot
/// of each lives in the i-th largest buffer. [`SlotPool::reserve`] with all plans of a run makes every
/// buffer as large as the largest stage needs, so that later stages allocate nothing.
#[derive(Default)]
pub struct SlotPool {
    /// `None` only after an allocation failed.
    slots: Locked<Vec<Option<Arc<Buffer>>>>,
}

impl SlotPool {
    /// Makes the pool large enough for each of `plans`. Returns the bytes that were newly allocated.
    pub async fn reserve(&self, gpu: &Gpu, plans: &[&MemoryPlan]) -> Result<u64, Error> {
        let mut allocated = 0;
        for i in 0..plans.iter().map(|plan| plan.slots.len()).max().unwrap_or(0) {
            let need = plans.iter().filter_map(|plan| plan.slots.get(i)).max().copied();
            let need = need.unwrap_or(0);
            let have = self.slots.lock().get(i).and_then(|slot| Some(slot.as_ref()?.bytes));
            if have.is_some_and(|have| have >= need) {
                continue;
            }
            // Free the smaller one first: memory may not suffice for both.
            if let Some(slot) = self.slots.lock().get_mut(i) {
                *slot = None;
            }
            let buffer = gpu.buffer(&format!("slot {i}"), need).await?;
            allocated += buffer.bytes;
            let mut slots = self.slots.lock();
            match slots.get_mut(i) {
                Some(slot) => *slot = Some(Arc::new(buffer)),
                None => slots.push(Some(Arc::new(buffer))),
            }
        }
        Ok(allocated)
    }

    /// Bytes of all buffers in the pool.
    pub fn bytes(&self) -> u64 {
        self.slots.lock().iter().flatten().map(|buffer| buffer.bytes).sum()
    }

    /// Frees everything. Programs compiled before keep their bind groups but must not run again.
    pub fn clear(&self) {
        self.slots.lock().clear();
    }
}

enum Step {
    Dispatch {
        /// Index among the program's pipelines.
        pipeline: u32,
        /// Index among its bind groups.
        bind_group: u32,
        params_offset: u32,
        groups: [u32; 3],
        flops: f64,
    },
    Copy {
        src: wgpu::Buffer,
        src_offset: u64,
        dst: wgpu::Buffer,
        dst_offset: u64,
        bytes: u64,
    },
    Save {
        src: wgpu::Buffer,
        bytes: u64,
        copy: u32,
    },
    Restore {
        copy: u32,
        dst: wgpu::Buffer,
        is_last: bool,
    },
}

impl Step {
    /// Whether the host takes part in it.
    fn is_transfer(&self) -> bool {
        matches!(self, Step::Save { .. } | Step::Restore { .. })
    }

    /// Estimated FLOPs.
    fn flops(&self) -> f64 {
        match self {
            Step::Dispatch { flops, .. } => *flops,
            Step::Copy { .. } | Step::Save { .. } | Step::Restore { .. } => 0.0,
        }
    }
}

/// A run of a program, as far as it is submitted.
struct Started {
    ticket: Ticket,
    timing: Option<Timing>,
    spill: Spill,
}

/// A recording that is ready to run, any number of times.
pub struct Program {
    label: Arc<str>,
    steps: Vec<Step>,
    /// Streamed blocks in the order in which they are needed, each with the first step that reads it.
    streamed: Vec<(usize, u32)>,
    /// Of each dispatch, what a profiler wants to know.
    kernels: Vec<Kernel>,
    pipelines: Vec<Arc<wgpu::ComputePipeline>>,
    bind_groups: Vec<wgpu::BindGroup>,
    // Bind groups refer to these; dropping a buffer destroys it.
    _buffers: Vec<Arc<Buffer>>,
    params: Option<wgpu::Buffer>,
    flops: f64,
    slot_bytes: u64,
}

/// A buffer that a program uses, after the memory plan.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Slot(usize),
    Resident(ResidentId, u32),
}

/// The parameters of all dispatches, which share a buffer.
fn all_params(recording: &Recording) -> Vec<u8> {
    let mut params = Vec::new();
    for command in &recording.commands {
        if let Command::Dispatch(dispatch) = command {
            params.extend_from_slice(&dispatch.params);
            params.resize(params.len().next_multiple_of(PARAMS_BYTES as usize), 0);
        }
    }
    params
}

/// Whether two commands run the same kernel on the same buffers, whatever its parameters.
fn differ_only_in_params(a: &Command, b: &Command) -> bool {
    match (a, b) {
        (Command::Dispatch(a), Command::Dispatch(b)) => {
            let bound = |dispatch: &Dispatch| -> Vec<_> {
                dispatch.bindings.iter().map(|b| (b.buffer, b.access)).collect()
            };
            a.pipeline == b.pipeline && a.groups == b.groups && bound(a) == bound(b)
        }
        (
            Command::Copy { src, src_offset, dst, dst_offset, bytes },
            Command::Copy { src: s, src_offset: so, dst: d, dst_offset: d_o, bytes: n },
        ) => (src, src_offset, dst, dst_offset, bytes) == (s, so, d, d_o, n),
        (Command::Save { src, copy, .. }, Command::Save { src: s, copy: c, .. }) => {
            (src, copy) == (s, c)
        }
        (Command::Restore { copy, dst, .. }, Command::Restore { copy: c, dst: d, .. }) => {
            (copy, dst) == (c, d)
        }
        _ => false,
    }
}

/// Binds parameters (at an offset that each dispatch gives) and storage buffers.
fn bind(
    gpu: &Gpu,
    label: &str,
    layout: &wgpu::BindGroupLayout,
    params: &wgpu::Buffer,
    buffers: &[wgpu::Buffer],
) -> wgpu::BindGroup {
    let params = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
        buffer: params,
        offset: 0,
        size: std::num::NonZero::new(PARAMS_BYTES),
    });
    let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: params }];
    for (i, buffer) in buffers.iter().enumerate() {
        let resource = buffer.as_entire_binding();
        entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
    }
    let descriptor = wgpu::BindGroupDescriptor { label: Some(label), layout, entries: &entries };
    gpu.ledger().update(|c| c.bind_groups += 1);
    gpu.device.create_bind_group(&descriptor)
}

impl Program {
    /// Compiles a recording. Residents must exist in `store`; temporaries live in `pool`, which grows if it
    /// is too small.
    pub async fn compile(
        gpu: &Gpu,
        store: &Store,
        pool: &SlotPool,
        recording: &Recording,
    ) -> Result<Program, Error> {
        let plan = plan_memory(recording);
        pool.reserve(gpu, &[&plan]).await?;

        let buffer_of = |place: Place| match place {
            Place::Slot(slot) => match pool.slots.lock().get(slot) {
                Some(Some(buffer)) => buffer.clone(),
                _ => unreachable!("the pool was reserved for this plan"),
            },
            Place::Resident(id, index) => store.buffer(id, index as usize),
        };
        let place_of = |reference: BufferRef| match reference {
            BufferRef::Temp(id) => Place::Slot(plan.slot_of[id.0 as usize].unwrap_or(0)),
            BufferRef::Resident(id, index) => Place::Resident(id, index),
        };

        let params = all_params(recording);
        let params_buffer = if params.is_empty() {
            None
        } else {
            let label = format!("{} params", recording.label);
            let descriptor = wgpu::BufferDescriptor {
                label: Some(&label),
                size: params.len() as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            };
            let buffer = gpu.allocate(&label, &descriptor).await?;
            gpu.queue.write_buffer(&buffer, 0, &params);
            gpu.ledger().update(|c| c.buffers += 1);
            Some(buffer)
        };

        let mut steps = Vec::with_capacity(recording.commands.len());
        let mut streamed: Vec<(usize, u32)> = Vec::new();
        let mut kernels = Vec::new();
        let mut held: HashMap<Place, Arc<Buffer>> = HashMap::new();
        let mut hold =
            |place: Place| held.entry(place).or_insert_with(|| buffer_of(place)).raw.clone();
        let mut pipelines: Vec<Arc<wgpu::ComputePipeline>> = Vec::new();
        let mut bind_groups = Vec::new();
        let mut bind_group_of: HashMap<(Vec<Access>, Vec<Place>), u32> = HashMap::new();
        // Looked at in the end: in a browser the answer to each takes a round trip.
        let mut unjudged = Vec::new();
        let mut offset = 0;
        let turns = Turns::new();
        for command in &recording.commands {
            turns.yield_if_due().await;
            match command {
                Command::Dispatch(dispatch) => {
                    let (accesses, places): (Vec<_>, Vec<_>) = dispatch
                        .bindings
                        .iter()
                        .map(|binding| (binding.access, place_of(binding.buffer)))
                        .unzip();
                    for place in &places {
                        if let Place::Resident(id, _) = place
                            && let Some(block) = store.streamed_block(*id)
                            && streamed.last().is_none_or(|(_, last)| *last != block)
                        {
                            streamed.push((steps.len(), block));
                        }
                    }
                    let pipeline = gpu.pipeline(&dispatch.pipeline, &accesses).await?;
                    let known = pipelines.iter().position(|known| Arc::ptr_eq(known, &pipeline));
                    let pipeline = known.unwrap_or_else(|| {
                        pipelines.push(pipeline);
                        pipelines.len() - 1
                    });
                    let buffers: Vec<_> = places.iter().map(|place| hold(*place)).collect();
                    kernels.push(Kernel::new(recording, dispatch, &buffers));
                    let key = (accesses, places);
                    let bind_group = match (bind_group_of.get(&key), &params_buffer) {
                        (Some(bind_group), _) => *bind_group,
                        (None, None) => unreachable!("a dispatch has parameters"),
                        (None, Some(params)) => {
                            let layout = gpu.layout(&key.0).await?;
                            let (label, layout) = (&dispatch.label, &layout.bind_group);
                            let create = || bind(gpu, label, layout, params, &buffers);
                            let (group, caught) = gpu.scoped_later(create);
                            bind_groups.push(group);
                            unjudged.push((label, caught));
                            let index = bind_groups.len() as u32 - 1;
                            bind_group_of.insert(key, index);
                            index
                        }
                    };
                    steps.push(Step::Dispatch {
                        pipeline: pipeline as u32,
                        bind_group,
                        params_offset: offset,
                        groups: dispatch.groups,
                        flops: dispatch.flops,
                    });
                    offset += PARAMS_BYTES as u32;
                }
                Command::Copy { src, src_offset, dst, dst_offset, bytes } => {
                    steps.push(Step::Copy {
                        src: hold(place_of(*src)),
                        src_offset: *src_offset,
                        dst: hold(place_of(*dst)),
                        dst_offset: *dst_offset,
                        bytes: *bytes,
                    });
                }
                Command::Save { src, bytes, copy } => {
                    let src = hold(place_of(*src));
                    steps.push(Step::Save { src, bytes: *bytes, copy: *copy });
                }
                Command::Restore { copy, dst, is_last, .. } => {
                    let dst = hold(place_of(*dst));
                    steps.push(Step::Restore { copy: *copy, dst, is_last: *is_last });
                }
            }
        }
        for (label, caught) in unjudged {
            gpu.judge(label, caught.await).await?;
        }
        Ok(Program {
            label: recording.label.as_str().into(),
            steps,
            streamed,
            kernels,
            pipelines,
            bind_groups,
            _buffers: held.into_values().collect(),
            params: params_buffer,
            flops: recording.flops(),
            slot_bytes: plan.total_bytes(),
        })
    }

    /// Makes this program, compiled from `old`, one of `new`: if they differ in nothing but parameters, which are then
    /// written again. False, and unchanged, if they differ in more.
    pub fn update(&self, gpu: &Gpu, old: &Recording, new: &Recording) -> bool {
        let same = old.temp_bytes == new.temp_bytes
            && old.commands.len() == new.commands.len()
            && old.commands.iter().zip(&new.commands).all(|(a, b)| differ_only_in_params(a, b));
        if same && let Some(params) = &self.params {
            gpu.queue.write_buffer(params, 0, &all_params(new));
        }
        same
    }

    /// Estimated floating-point operations of one run.
    pub fn flops(&self) -> f64 {
        self.flops
    }

    /// Bytes of temporaries that it uses.
    pub fn slot_bytes(&self) -> u64 {
        self.slot_bytes
    }

    /// Runs the program once and waits for its end. All weights are on the GPU.
    pub async fn run(&self, gpu: &Gpu) -> Result<(), Error> {
        self.run_fed(gpu, &NothingToFeed).await
    }

    /// Runs the program once and waits for its end. `feed` brings the weights that are streamed.
    pub async fn run_fed<F: Feed + MaybeSync>(&self, gpu: &Gpu, feed: &F) -> Result<(), F::Error> {
        let ticket = self.start_fed(gpu, Ticket::default(), feed).await?;
        Ok(gpu.finish(&ticket).await?)
    }

    /// Submits one run, and adds its submissions to `ticket`. Whatever is submitted or written to the queue later comes
    /// after it; [`Gpu::finish`] waits for its end.
    ///
    /// Work is submitted in slices of bounded estimated FLOPs, with at most two of them queued: a slow GPU
    /// meets no driver time-out, and a dropped run leaves little work queued.
    ///
    /// While somebody profiles, it waits for the end itself.
    ///
    /// `feed` brings the weights that are streamed: each block between pieces of the work in front of it, where both fit.
    pub async fn start_fed<F: Feed + MaybeSync>(
        &self,
        gpu: &Gpu,
        ticket: Ticket,
        feed: &F,
    ) -> Result<Ticket, F::Error> {
        let timing = Timing::begin(gpu, self.kernels.len()).await?;
        let mut started = Started { ticket, timing, spill: Spill::new(self.largest_saved()) };
        let mut from = 0;
        let mut here = None;
        let mut blocks = self.streamed.iter().copied().peekable();
        while from < self.steps.len() {
            if let Some((_, block)) = blocks.next_if(|(first, _)| *first <= from) {
                feed.bring(block, &Pauses::none()).await?;
                here = Some(block);
                // Another block may begin with the same step.
                if blocks.peek().is_some_and(|(first, _)| *first <= from) {
                    continue;
                }
            }
            let next = blocks.peek().copied();
            let end = next.map_or(self.steps.len(), |(first, _)| first);
            // What was there before is no longer needed: its work is submitted.
            let fits = |next: &u32| here.is_none_or(|here| feed.fit_together(here, *next));
            let coming = next.map(|(_, block)| block).filter(fits);
            self.submit(gpu, &mut started, from..end, coming, feed).await?;
            from = end;
        }
        let Started { ticket, timing, .. } = started;
        if let Some(timing) = timing {
            gpu.finish(&ticket).await?;
            timing.finish(gpu, &self.label, &self.kernels).await?;
        }
        Ok(ticket)
    }

    /// Submits the commands `range`, for which all weights are there, while block `coming` is brought. Temporaries go to the host
    /// and come back between submissions.
    async fn submit<F: Feed + MaybeSync>(
        &self,
        gpu: &Gpu,
        started: &mut Started,
        range: Range<usize>,
        coming: Option<u32>,
        feed: &F,
    ) -> Result<(), F::Error> {
        let Started { ticket, timing, spill } = started;
        let timing = timing.as_ref();
        let max_commands = timing.map_or(usize::MAX, |_| Timing::MAX_COMMANDS);
        let pauses = Pauses::none();
        let pieces = coming.map(|block| feed.pieces(block));
        let mut block = pin!(async {
            match coming {
                Some(block) => feed.bring(block, &pauses).await,
                None => Ok(()),
            }
        });
        let all: f64 = self.steps[range.clone()].iter().map(Step::flops).sum();
        let mut rest = pieces;
        let mut from = range.start;
        while from < range.end {
            match &self.steps[from] {
                Step::Save { src, bytes, copy } => {
                    spill.save(gpu, *copy, src, *bytes).await?;
                    from += 1;
                    continue;
                }
                Step::Restore { copy, dst, is_last } => {
                    spill.restore(gpu, *copy, dst, *is_last).await?;
                    from += 1;
                    continue;
                }
                Step::Dispatch { .. } | Step::Copy { .. } => {}
            }
            let mut limit = gpu.slice_flops();
            if let Some(pieces) = rest {
                match pauses.next(pieces.bytes, block.as_mut()).await {
                    Some(outcome) => {
                        outcome?;
                        rest = None;
                    }
                    None => limit = limit.min(gpu.least_slice_flops(all / pieces.count as f64)),
                }
            }
            let (mut flops, mut largest) = (0.0, 0.0f64);
            let mut to = from;
            while to < range.end.min(from.saturating_add(max_commands))
                && (to == from || flops < limit)
                && !self.steps[to].is_transfer()
            {
                flops += self.steps[to].flops();
                largest = largest.max(self.steps[to].flops());
                to += 1;
            }
            let steps = &self.steps[from..to];
            let encode = || self.encode(gpu, steps, timing);
            gpu.enqueue(ticket, &self.label, flops, largest, encode).await?;
            from = to;
        }
        if rest.is_some() {
            pauses.next(u64::MAX, block).await.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// Bytes of the largest temporary that waits on the host in between.
    fn largest_saved(&self) -> u64 {
        let saved = self.steps.iter().map(|step| match step {
            Step::Save { bytes, .. } => *bytes,
            _ => 0,
        });
        saved.max().unwrap_or(0)
    }

    fn encode(&self, gpu: &Gpu, steps: &[Step], timing: Option<&Timing>) -> wgpu::CommandBuffer {
        let mut encoder = gpu
            .device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(&self.label) });
        let mut at = 0;
        while at < steps.len() {
            if let Step::Copy { src, src_offset, dst, dst_offset, bytes } = &steps[at] {
                encoder.copy_buffer_to_buffer(src, *src_offset, dst, *dst_offset, *bytes);
                at += 1;
                continue;
            }
            // Dispatches share a pass: opening one costs as much as ten dispatches.
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some(&self.label),
                timestamp_writes: timing.and_then(Timing::pass),
            });
            let mut current = None;
            while let Some(Step::Dispatch { pipeline, bind_group, params_offset, groups, .. }) =
                steps.get(at)
            {
                if current != Some(*pipeline) {
                    pass.set_pipeline(&self.pipelines[*pipeline as usize]);
                    current = Some(*pipeline);
                }
                pass.set_bind_group(0, &self.bind_groups[*bind_group as usize], &[*params_offset]);
                at += 1;
                let Some(timing) = timing else {
                    pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
                    continue;
                };
                if !timing.dispatch(&mut pass, *groups) {
                    break;
                }
            }
        }
        if let Some(timing) = timing {
            timing.resolve(&mut encoder);
        }
        encoder.finish()
    }
}
