//! Compiled recordings: bind groups and pipelines made once, replayed every step.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::{Buffer, Error, Gpu, Store};
use crate::tensor::{BufferRef, Command, MemoryPlan, Recording, plan_memory};

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
    // Bind groups refer to these; dropping a buffer destroys it.
    _buffers: Vec<Rc<Buffer>>,
    _params: Option<wgpu::Buffer>,
    flops: f64,
    slot_bytes: u64,
}

/// WebGPU's alignment of uniform bindings.
const PARAMS_ALIGNMENT: u64 = 256;

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

        let mut held: Vec<Rc<Buffer>> = Vec::new();
        let mut buffer_of = |reference: BufferRef| -> wgpu::Buffer {
            let buffer = match reference {
                BufferRef::Temp(id) => {
                    let slot = plan.slot_of[id.0 as usize].unwrap_or(0);
                    match pool.slots.borrow().get(slot) {
                        Some(Some(buffer)) => buffer.clone(),
                        _ => unreachable!("the pool was reserved for this plan"),
                    }
                }
                BufferRef::Resident(id, index) => store.buffer(id, index as usize),
            };
            let raw = buffer.raw.clone();
            held.push(buffer);
            raw
        };

        // All parameters in one buffer, written once.
        let mut params = Vec::new();
        for command in &recording.commands {
            if let Command::Dispatch(dispatch) = command {
                params.extend_from_slice(&dispatch.params);
                params.resize(params.len().next_multiple_of(PARAMS_ALIGNMENT as usize), 0);
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
        let mut offset = 0;
        for command in &recording.commands {
            match command {
                Command::Dispatch(dispatch) => {
                    let pipeline = gpu.pipeline(&dispatch.pipeline).await?;
                    let bound: Vec<wgpu::Buffer> =
                        dispatch.bindings.iter().map(|b| buffer_of(b.buffer)).collect();
                    let uniform = params_buffer.as_ref().map(|buffer| wgpu::BufferBinding {
                        buffer,
                        offset,
                        size: std::num::NonZero::new(
                            (dispatch.params.len() as u64).next_multiple_of(16),
                        ),
                    });
                    offset += (dispatch.params.len() as u64).next_multiple_of(PARAMS_ALIGNMENT);
                    let bind_group = gpu
                        .scoped(&dispatch.label, || {
                            let mut entries = Vec::with_capacity(bound.len() + 1);
                            if let Some(uniform) = uniform {
                                entries.push(wgpu::BindGroupEntry {
                                    binding: 0,
                                    resource: wgpu::BindingResource::Buffer(uniform),
                                });
                            }
                            for (i, buffer) in bound.iter().enumerate() {
                                entries.push(wgpu::BindGroupEntry {
                                    binding: i as u32 + 1,
                                    resource: buffer.as_entire_binding(),
                                });
                            }
                            gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                                label: Some(&dispatch.label),
                                layout: &pipeline.get_bind_group_layout(0),
                                entries: &entries,
                            })
                        })
                        .await?;
                    gpu.ledger().update(|c| c.bind_groups += 1);
                    steps.push(Step::Dispatch {
                        pipeline,
                        bind_group,
                        groups: dispatch.groups,
                        flops: dispatch.flops,
                    });
                }
                Command::Copy { src, src_offset, dst, dst_offset, bytes } => {
                    steps.push(Step::Copy {
                        src: buffer_of(*src),
                        src_offset: *src_offset,
                        dst: buffer_of(*dst),
                        dst_offset: *dst_offset,
                        bytes: *bytes,
                    });
                }
            }
        }
        Ok(Program {
            label: recording.label.clone(),
            steps,
            _buffers: held,
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
        let mut queued = std::collections::VecDeque::new();
        let mut from = 0;
        while from < self.steps.len() {
            let mut flops = 0.0;
            let mut to = from;
            while to < self.steps.len() && (to == from || flops < gpu.submit_flops()) {
                if let Step::Dispatch { flops: more, .. } = &self.steps[to] {
                    flops += more;
                }
                to += 1;
            }
            gpu.scoped(&self.label, || self.submit(gpu, &self.steps[from..to])).await?;
            queued.push_back(gpu.submitted());
            if queued.len() > 2
                && let Some(oldest) = queued.pop_front()
            {
                oldest.await?;
            }
            from = to;
        }
        for slice in queued {
            slice.await?;
        }
        Ok(())
    }

    fn submit(&self, gpu: &Gpu, steps: &[Step]) {
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
                timestamp_writes: None,
            });
            while let Some(Step::Dispatch { pipeline, bind_group, groups, .. }) = steps.get(at) {
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, bind_group, &[]);
                pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
                at += 1;
            }
        }
        gpu.queue.submit([encoder.finish()]);
        gpu.ledger().update(|c| c.submissions += 1);
    }
}
