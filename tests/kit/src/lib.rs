//! What tests and benches want of wgpu and naga, and programs do not: naga with all of its writers, and wgpu's backend
//! that computes nothing.
#![cfg(not(target_arch = "wasm32"))]

pub use naga;

/// An instance whose one adapter takes all work and does none of it.
pub fn noop_instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::NOOP,
        backend_options: wgpu::BackendOptions {
            noop: wgpu::NoopBackendOptions::enabled(),
            ..Default::default()
        },
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}
