//! Which adapters there are, and which of them to use.

use super::int8::has_int8_dot;
use super::matrices::{COOPERATIVE_MATRIX, cooperative_matrix, has_f16_units, subgroup_sizes};
use super::{Error, pipeline_cache, profile};
use crate::tensor::Caps;

/// How far to trust an adapter's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitsPolicy {
    /// Use what the adapter offers.
    #[default]
    Adapter,
    /// Use no more than WebGPU guarantees everywhere, as a browser might.
    WebGpuDefaults,
}

/// Which of the adapter's optional features to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeaturesPolicy {
    /// Those that kernels have a use for: the stable ones, and cooperative matrices, which wgpu calls experimental, where
    /// the chip has units for them ([`AdapterReport::has_f16_units`]).
    #[default]
    Adapter,
    /// Cooperative matrices on any adapter that lists them. They are of use with `Caps::f16` alone.
    Experimental,
    /// None, as on an adapter that offers none.
    None,
    /// As `Experimental` but for these, and what needs them, as on an adapter that lacks them.
    Without(wgpu::Features),
}

/// Which adapter is the best one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdapterPreference {
    /// The fastest.
    #[default]
    Fast,
    /// One that saves power.
    LowPower,
    /// One that computes on the processor. Browsers cannot be asked for that through wgpu.
    Software,
}

impl AdapterPreference {
    /// Whether adapters of this kind are to be tried before others.
    fn is_for(self, kind: wgpu::DeviceType) -> bool {
        match self {
            AdapterPreference::Fast => true,
            AdapterPreference::LowPower => kind == wgpu::DeviceType::IntegratedGpu,
            AdapterPreference::Software => kind == wgpu::DeviceType::Cpu,
        }
    }
}

/// Which adapter to open.
#[derive(Clone, Debug, Default)]
pub struct AdapterChoice {
    /// Which is the best. A browser has its own opinion, and this is a hint to it.
    pub preference: AdapterPreference,
    /// A number from [`list_adapters`], or a part of a name; the best adapter if absent.
    pub adapter: Option<String>,
    /// Only this backend: `vulkan`, `metal`, `dx12`, `gl` or `webgpu`.
    pub backend: Option<String>,
    /// How far to trust its limits.
    pub limits: LimitsPolicy,
    /// Which of its optional features to use.
    pub features: FeaturesPolicy,
}

/// What sort of device an adapter is, best suited first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AdapterKind {
    /// A graphics card with memory of its own.
    DiscreteGpu,
    /// A part of the processor, with which it shares memory.
    IntegratedGpu,
    /// A GPU that a host lends to a virtual machine.
    VirtualGpu,
    /// What the driver does not tell.
    Other,
    /// A driver that computes on the processor.
    Cpu,
}

impl AdapterKind {
    /// Its name in reports: `discrete GPU`, `integrated GPU`, `virtual GPU`, `other` or `CPU`.
    pub fn name(self) -> &'static str {
        match self {
            AdapterKind::DiscreteGpu => "discrete GPU",
            AdapterKind::IntegratedGpu => "integrated GPU",
            AdapterKind::VirtualGpu => "virtual GPU",
            AdapterKind::Other => "other",
            AdapterKind::Cpu => "CPU",
        }
    }
}

impl std::fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What is known about an adapter before it is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AdapterReport {
    /// Its number, for [`AdapterChoice::adapter`].
    pub index: usize,
    /// Name as the driver gives it.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, `gl`, `webgpu`.
    pub backend: &'static str,
    /// Driver and its version.
    pub driver: String,
    /// What sort of device it is.
    pub kind: AdapterKind,
    /// Optional features that we can use.
    pub features: Vec<&'static str>,
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// Largest storage binding, in bytes.
    pub max_binding_bytes: u64,
    /// Workgroup memory, in bytes.
    pub max_workgroup_storage_bytes: u32,
    /// Invocations in a workgroup.
    pub max_workgroup_invocations: u32,
    /// Storage buffers that a kernel may use.
    pub max_storage_buffers: u32,
    /// Smallest and largest number of lanes in a subgroup, if kernels can use subgroup operations.
    pub subgroup_sizes: Option<(u32, u32)>,
    /// The side of the cooperative matrices (f16 factors, f32 sums) that kernels can use, if any.
    pub cooperative_matrix: Option<u32>,
    /// Whether the chip has units for them, so that products in f16 are the usual ones on it.
    pub has_f16_units: bool,
    /// Whether the chip has an instruction for dot products of four signed bytes. Known with Vulkan alone; pages are told by their
    /// device.
    pub has_int8_dot: bool,
    /// Why it cannot be used, if so.
    pub unusable: Option<String>,
}

/// Storage buffers that our largest kernel binds.
const STORAGE_BUFFERS: u32 = 7;
/// Invocations in our largest workgroup, but for kernels that `ops::choice` leaves out where theirs do not fit.
const INVOCATIONS: u32 = 128;

/// What [`super::Gpu::open`] opens an adapter with; a host program that opens a device of its own for
/// [`super::Gpu::adopt`] starts from it. Of `choice`, limits and features count.
pub fn device_descriptor(
    adapter: &wgpu::Adapter,
    choice: &AdapterChoice,
) -> wgpu::DeviceDescriptor<'static> {
    let adapter_limits = adapter.limits();
    let mut limits = wgpu::Limits::defaults().or_worse_values_from(&adapter_limits);
    if choice.limits == LimitsPolicy::Adapter {
        limits.max_buffer_size = adapter_limits.max_buffer_size;
        limits.max_storage_buffer_binding_size = adapter_limits.max_storage_buffer_binding_size;
        limits.max_compute_workgroup_storage_size =
            adapter_limits.max_compute_workgroup_storage_size;
    }
    // No kernel that we cannot do without needs an optional feature. Timestamps cost nothing until a profiler writes
    // them; a browser has none inside passes.
    let offered = adapter.features();
    let mut features = profile::features(offered) | pipeline_cache::features(offered);
    if choice.limits == LimitsPolicy::WebGpuDefaults {
        features &= wgpu::Features::TIMESTAMP_QUERY;
    }
    if choice.limits == LimitsPolicy::Adapter {
        features |= kernel_features(adapter, choice.features);
    }
    if let FeaturesPolicy::Without(masked) = choice.features {
        features.remove(masked);
    }
    let experimental_features = if features.intersects(wgpu::Features::all_experimental_mask()) {
        // SAFETY: the only experimental feature asked for is cooperative matrices, and wgpu's promise for such a feature
        // is that it may have bugs that break the rules of memory. Three kernels use it, `matmul_cooperative.wgsl`,
        // `attention_matrices.wgsl` and `conv2d_matrices.wgsl`: their matrices lie wholly inside arrays of workgroup memory,
        // they use them in uniform control flow, and the op tests check their results. By default it is asked for on chips
        // with units for matrices alone, and a run has the kernels compute what it knows the result of before it uses them
        // (`pipeline::tune::test_matrices`).
        unsafe { wgpu::ExperimentalFeatures::enabled() }
    } else {
        wgpu::ExperimentalFeatures::disabled()
    };
    wgpu::DeviceDescriptor {
        label: Some("ralu"),
        required_features: features,
        required_limits: limits,
        experimental_features,
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    }
}

/// The optional features that kernels have a use for, as far as an adapter offers them.
fn kernel_features(adapter: &wgpu::Adapter, policy: FeaturesPolicy) -> wgpu::Features {
    let stable = adapter.features() & (wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16);
    let side = cooperative_matrix(adapter);
    let (masked, wants_matrices) = match policy {
        FeaturesPolicy::None => return wgpu::Features::empty(),
        FeaturesPolicy::Adapter => {
            (wgpu::Features::empty(), has_f16_units(&adapter.get_info(), side))
        }
        FeaturesPolicy::Experimental => (wgpu::Features::empty(), side.is_some()),
        FeaturesPolicy::Without(masked) => (masked, side.is_some()),
    };
    match wants_matrices && !masked.intersects(COOPERATIVE_MATRIX) {
        true => stable | COOPERATIVE_MATRIX,
        false => stable - masked,
    }
}

/// The sizes of subgroups on a page's device that was opened with them.
///
/// wgpu 30 has no name for that feature in a browser: it never asks for it and does not see it either. A page that adds it
/// to `GPUAdapter.requestDevice` itself gets it, and then the device says so. (tests/dawn does, so that a browser's compiler
/// reads those kernels; on GPUs, where they are chosen by measurement alone, they would be of no use to a page.)
pub(super) fn subgroups_of_page(device: &wgpu::Device) -> Option<(u32, u32)> {
    #[cfg(target_arch = "wasm32")]
    {
        let device = device.as_webgpu()?;
        let info = device.features().has("subgroups").then(|| device.adapter_info())?;
        Some((info.subgroup_min_size(), info.subgroup_max_size()))
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        let _ = device;
        None
    }
}

/// What recordings for a device may rely on that was opened on the adapter of `report` with these limits and features.
pub fn caps_of(report: &AdapterReport, limits: &wgpu::Limits, features: wgpu::Features) -> Caps {
    let is_cpu = report.kind == AdapterKind::Cpu;
    Caps {
        max_binding_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        // What kind of GPU it is says nothing about its speed; a browser does not even say what kind it is.
        max_dispatch_flops: if is_cpu { 10e9 } else { 40e9 },
        is_cpu,
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        subgroup_sizes: report
            .subgroup_sizes
            .filter(|_| features.contains(wgpu::Features::SUBGROUP)),
        cooperative_matrix: report
            .cooperative_matrix
            .filter(|_| features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)),
        f16: report.has_f16_units
            && features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
        int8_dot: report.has_int8_dot,
        ..Caps::default()
    }
}

pub(super) struct Candidate {
    pub(super) adapter: wgpu::Adapter,
    pub(super) report: AdapterReport,
}

fn instance(backends: wgpu::Backends) -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        // No indirect dispatches here, so wgpu need not build its validation pipelines for them.
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

/// All adapters of all backends, the best one first.
pub async fn list_adapters() -> Vec<AdapterReport> {
    let preference = AdapterPreference::default();
    candidates(wgpu::Backends::all(), preference).await.into_iter().map(|c| c.report).collect()
}

async fn candidates(backends: wgpu::Backends, preference: AdapterPreference) -> Vec<Candidate> {
    let instance = instance(backends);
    // Browsers have no list, only a request. (wgpu's list there is a request without a preference.)
    let mut adapters = match cfg!(target_arch = "wasm32") {
        true => vec![],
        false => instance.enumerate_adapters(backends).await,
    };
    if adapters.is_empty() {
        let request = instance.request_adapter(&wgpu::RequestAdapterOptions {
            power_preference: match preference {
                AdapterPreference::LowPower => wgpu::PowerPreference::LowPower,
                _ => wgpu::PowerPreference::HighPerformance,
            },
            force_fallback_adapter: preference == AdapterPreference::Software,
            ..Default::default()
        });
        adapters.extend(request.await.ok());
        // The request knows no backends.
        adapters.retain(|adapter| backends.contains(adapter.get_info().backend.into()));
    }
    adapters.sort_by_key(|adapter| {
        let info = adapter.get_info();
        (!preference.is_for(info.device_type), rank(&info))
    });
    adapters
        .into_iter()
        .enumerate()
        .map(|(index, adapter)| Candidate { report: describe(index, &adapter), adapter })
        .collect()
}

/// Chooses among the candidates as `choice` says.
pub(super) async fn choose(choice: &AdapterChoice) -> Result<Candidate, Error> {
    let (backends, backend_names) = match choice.backend.as_deref() {
        None => (wgpu::Backends::all(), "Vulkan, Metal, DX12, GL".to_owned()),
        Some(name) => (
            match name {
                "vulkan" => wgpu::Backends::VULKAN,
                "metal" => wgpu::Backends::METAL,
                "dx12" => wgpu::Backends::DX12,
                "gl" => wgpu::Backends::GL,
                _ => wgpu::Backends::BROWSER_WEBGPU,
            },
            name.to_owned(),
        ),
    };
    // GL only if it is asked for or nothing else will do: it is the last resort, and merely loading it makes
    // some drivers write to stderr. It ranks last, so the numbers of the others are the same without it.
    let mut found = candidates(backends - wgpu::Backends::GL, choice.preference).await;
    let chosen = |found: &[Candidate]| match &choice.adapter {
        None => found.iter().position(|c| c.report.unusable.is_none()),
        Some(wanted) => position(found, wanted),
    };
    if backends.contains(wgpu::Backends::GL) && chosen(&found).is_none() {
        found = candidates(backends, choice.preference).await;
    }
    if found.is_empty() {
        return Err(Error::NoAdapter { backends: backend_names });
    }
    let position = match (chosen(&found), &choice.adapter) {
        (Some(position), _) => position,
        (None, None) => 0,
        (None, Some(wanted)) => {
            return Err(Error::NoSuchAdapter {
                wanted: wanted.clone(),
                found: found
                    .iter()
                    .map(|c| format!("{} {} ({})", c.report.index, c.report.name, c.report.backend))
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
    };
    let candidate = found.swap_remove(position);
    match &candidate.report.unusable {
        Some(reason) => {
            Err(Error::Unusable { adapter: candidate.report.name.clone(), reason: reason.clone() })
        }
        None => Ok(candidate),
    }
}

/// The adapter of that number, or else the first with that in its name.
fn position(found: &[Candidate], wanted: &str) -> Option<usize> {
    let number = wanted.parse::<usize>().ok();
    let part = wanted.to_lowercase();
    found
        .iter()
        .position(|c| number == Some(c.report.index))
        .or_else(|| found.iter().position(|c| c.report.name.to_lowercase().contains(&part)))
}

/// Real GPUs before software, modern backends before GL.
fn rank(info: &wgpu::AdapterInfo) -> (u8, u8) {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    let backend = match info.backend {
        wgpu::Backend::Vulkan | wgpu::Backend::Metal | wgpu::Backend::BrowserWebGpu => 0,
        wgpu::Backend::Dx12 => 1,
        wgpu::Backend::Gl => 2,
        wgpu::Backend::Noop => 3,
    };
    // A GL adapter often calls itself "Other" where Vulkan says what it is: trust Vulkan first.
    if info.backend == wgpu::Backend::Gl { (5, kind) } else { (kind, backend) }
}

/// Describes an adapter; `index` is the number to call it by.
pub fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterReport {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = adapter.features();
    let side = cooperative_matrix(adapter);
    let known = [
        (wgpu::Features::SHADER_F16, "shader-f16"),
        (wgpu::Features::SUBGROUP, "subgroups"),
        (wgpu::Features::TIMESTAMP_QUERY, "timestamp-query"),
        (wgpu::Features::PIPELINE_CACHE, "pipeline-cache"),
        (wgpu::Features::MAPPABLE_PRIMARY_BUFFERS, "mappable-primary-buffers"),
    ];
    let compute =
        adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS);
    let unusable = if !compute {
        Some("it has no compute shaders".to_owned())
    } else if limits.max_storage_buffers_per_shader_stage < STORAGE_BUFFERS {
        Some(format!(
            "it allows {} storage buffers in a kernel, {STORAGE_BUFFERS} are needed",
            limits.max_storage_buffers_per_shader_stage
        ))
    } else if limits.max_compute_invocations_per_workgroup < INVOCATIONS {
        Some(format!(
            "it allows {} invocations in a workgroup, {INVOCATIONS} are needed",
            limits.max_compute_invocations_per_workgroup
        ))
    } else {
        None
    };
    AdapterReport {
        index,
        name: info.name.clone(),
        backend: info.backend.to_str(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::DiscreteGpu,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::IntegratedGpu,
            wgpu::DeviceType::VirtualGpu => AdapterKind::VirtualGpu,
            wgpu::DeviceType::Cpu => AdapterKind::Cpu,
            wgpu::DeviceType::Other => AdapterKind::Other,
        },
        features: known
            .iter()
            .filter(|(feature, _)| features.contains(*feature))
            .map(|(_, name)| *name)
            .chain(side.map(|_| "cooperative-matrix"))
            .collect(),
        max_buffer_bytes: limits.max_buffer_size,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_workgroup_storage_bytes: limits.max_compute_workgroup_storage_size,
        max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        subgroup_sizes: features.contains(wgpu::Features::SUBGROUP).then(|| subgroup_sizes(&info)),
        cooperative_matrix: side,
        has_f16_units: has_f16_units(&info, side),
        has_int8_dot: has_int8_dot(adapter),
        unusable,
    }
}
