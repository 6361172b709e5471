//! Compiled recordings: bind groups and pipelines made once, replayed every step.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::profile::{Kernel, Timing};
use super::{Buffer, Error, Gpu, Store, signal};
use crate::tensor::{Access, BufferRef, Command, MemoryPlan, Recording, ResidentId, plan_memory};

/// Buffers that programs share for their temporaries, largest first.
///
/// Programs that run one after the other (the stages of a run) overlay each other here: the i-th largest slot
/// of each lives in the i-th largest buffer. [`SlotPool::reserve`] with all plans of a run makes every
/// buffer as large as the largest stage needs, so that later stages allocate nothing.
#[derive(Default)]
pub struct SlotPool {
    /// `None` only after an allocation failed.
    slots: RefCell<Vec<Option<Rc<Buffer>>>>,
}

impl SlotPool {
    /// Makes the pool large enough for each of `plans`. Returns the bytes that were newly allocated.
    pub async fn reserve(&self, gpu: &Gpu, plans: &[&MemoryPlan]) -> Result<u64, Error> {
        let mut allocated = 0;
        for i in 0..plans.iter().map(|plan| plan.slots.len()).max().unwrap_or(0) {
            let need = plans.iter().filter_map(|plan| plan.slots.get(i)).max().copied();
            let need = need.unwrap_or(0);
            let have = self.slots.borrow().get(i).and_then(|slot| Some(slot.as_ref()?.bytes));
            if have.is_some_and(|have| have >= need) {
                continue;
            }
            // Free the smaller one first: memory may not suffice for both.
            if let Some(slot) = self.slots.borrow_mut().get_mut(i) {
                *slot = None;
            }
            let buffer = gpu.buffer(&format!("slot {i}"), need).await?;
            allocated += buffer.bytes;
            let mut slots = self.slots.borrow_mut();
            match slots.get_mut(i) {
                Some(slot) => *slot = Some(Rc::new(buffer)),
                None => slots.push(Some(Rc::new(buffer))),
            }
        }
        Ok(allocated)
    }

    /// Bytes of all buffers in the pool.
    pub fn bytes(&self) -> u64 {
        self.slots.borrow().iter().flatten().map(|buffer| buffer.bytes).sum()
    }

    /// Frees everything. Programs compiled before keep their bind groups but must not run again.
    pub fn clear(&self) {
        self.slots.borrow_mut().clear();
    }
}

enum Step {
    Dispatch {
        pipeline: Arc<wgpu::ComputePipeline>,
        bind_group: wgpu::BindGroup,
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
}

/// A recording that is ready to run, any number of times.
pub struct Program {
    label: String,
    steps: Vec<Step>,
    /// Of each dispatch, what a profiler wants to know.
    kernels: Vec<Kernel>,
    // Bind groups refer to these; dropping a buffer destroys it.
    _buffers: Vec<Rc<Buffer>>,
    _params: Option<wgpu::Buffer>,
    flops: f64,
    slot_bytes: u64,
}

/// Bytes of a dispatch's parameters in the program's buffer: WebGPU's alignment of uniform offsets, and more than
/// any kernel has.
const PARAMS_BYTES: u64 = 256;

/// A buffer that a program uses, after the memory plan.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Slot(usize),
    Resident(ResidentId, u32),
}

/// Binds parameters (at an offset that each dispatch gives) and storage buffers.
async fn bind(
    gpu: &Gpu,
    label: &str,
    layout: &wgpu::BindGroupLayout,
    params: &wgpu::Buffer,
    buffers: &[wgpu::Buffer],
) -> Result<wgpu::BindGroup, Error> {
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
    let group = gpu.scoped(label, || gpu.device.create_bind_group(&descriptor)).await?;
    gpu.ledger().update(|c| c.bind_groups += 1);
    Ok(group)
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
            Place::Slot(slot) => match pool.slots.borrow().get(slot) {
                Some(Some(buffer)) => buffer.clone(),
                _ => unreachable!("the pool was reserved for this plan"),
            },
            Place::Resident(id, index) => store.buffer(id, index as usize),
        };
        let place_of = |reference: BufferRef| match reference {
            BufferRef::Temp(id) => Place::Slot(plan.slot_of[id.0 as usize].unwrap_or(0)),
            BufferRef::Resident(id, index) => Place::Resident(id, index),
        };

        // All parameters in one buffer, written once.
        let mut params = Vec::new();
        for command in &recording.commands {
            if let Command::Dispatch(dispatch) = command {
                params.extend_from_slice(&dispatch.params);
                params.resize(params.len().next_multiple_of(PARAMS_BYTES as usize), 0);
            }
        }
        let params_buffer = if params.is_empty() {
            None
        } else {
            let label = format!("{} params", recording.label);
            let buffer = gpu
                .scoped(&label, || {
                    gpu.device.create_buffer(&wgpu::BufferDescriptor {
                        label: Some(&label),
                        size: params.len() as u64,
                        usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                        mapped_at_creation: false,
                    })
                })
                .await?;
            gpu.queue.write_buffer(&buffer, 0, &params);
            gpu.ledger().update(|c| c.buffers += 1);
            Some(buffer)
        };

        let mut steps = Vec::with_capacity(recording.commands.len());
        let mut kernels = Vec::new();
        let mut held: HashMap<Place, Rc<Buffer>> = HashMap::new();
        let mut hold =
            |place: Place| held.entry(place).or_insert_with(|| buffer_of(place)).raw.clone();
        let mut bind_groups: HashMap<(Vec<Access>, Vec<Place>), wgpu::BindGroup> = HashMap::new();
        let mut offset = 0;
        for command in &recording.commands {
            match command {
                Command::Dispatch(dispatch) => {
                    let (accesses, places): (Vec<_>, Vec<_>) = dispatch
                        .bindings
                        .iter()
                        .map(|binding| (binding.access, place_of(binding.buffer)))
                        .unzip();
                    let pipeline = gpu.pipeline(&dispatch.pipeline, &accesses).await?;
                    let buffers: Vec<_> = places.iter().map(|place| hold(*place)).collect();
                    kernels.push(Kernel::new(recording, dispatch, &buffers));
                    let key = (accesses, places);
                    let bind_group = match (bind_groups.get(&key), &params_buffer) {
                        (Some(bind_group), _) => bind_group.clone(),
                        (None, None) => unreachable!("a dispatch has parameters"),
                        (None, Some(params)) => {
                            let layout = gpu.layout(&key.0).await?;
                            let group =
                                bind(gpu, &dispatch.label, &layout, params, &buffers).await?;
                            bind_groups.insert(key, group.clone());
                            group
                        }
                    };
                    steps.push(Step::Dispatch {
                        pipeline,
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
            }
        }
        Ok(Program {
            label: recording.label.clone(),
            steps,
            kernels,
            _buffers: held.into_values().collect(),
            _params: params_buffer,
            flops: recording.flops(),
            slot_bytes: plan.total_bytes(),
        })
    }

    /// Estimated floating-point operations of one run.
    pub fn flops(&self) -> f64 {
        self.flops
    }

    /// Bytes of temporaries that it uses.
    pub fn slot_bytes(&self) -> u64 {
        self.slot_bytes
    }

    /// Runs the program once and waits for its end.
    ///
    /// Work is submitted in slices of bounded estimated FLOPs, with at most two of them queued: a slow GPU
    /// meets no driver time-out, and a dropped run leaves little behind.
    pub async fn run(&self, gpu: &Gpu) -> Result<(), Error> {
        let timing = Timing::begin(gpu, self.kernels.len()).await?;
        let max_commands = timing.as_ref().map_or(usize::MAX, |_| Timing::MAX_COMMANDS);
        let mut queued = std::collections::VecDeque::new();
        let mut from = 0;
        while from < self.steps.len() {
            let mut flops = 0.0;
            let mut to = from;
            while to < self.steps.len().min(from.saturating_add(max_commands))
                && (to == from || flops < gpu.submit_flops())
            {
                if let Step::Dispatch { flops: more, .. } = &self.steps[to] {
                    flops += more;
                }
                to += 1;
            }
            let steps = &self.steps[from..to];
            gpu.scoped(&self.label, || self.submit(gpu, steps, timing.as_ref())).await?;
            queued.push_back(gpu.submitted());
            if queued.len() > 2
                && let Some(oldest) = queued.pop_front()
            {
                oldest.await?;
            }
            signal::yield_now().await;
            from = to;
        }
        for slice in queued {
            slice.await?;
        }
        if let Some(timing) = timing {
            timing.finish(gpu, &self.label, &self.kernels).await?;
        }
        Ok(())
    }

    fn submit(&self, gpu: &Gpu, steps: &[Step], timing: Option<&Timing>) {
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
            while let Some(Step::Dispatch { pipeline, bind_group, params_offset, groups, .. }) =
                steps.get(at)
            {
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, bind_group, &[*params_offset]);
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
        gpu.queue.submit([encoder.finish()]);
        gpu.ledger().update(|c| c.submissions += 1);
    }
}
