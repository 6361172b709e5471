//! Cooperative matrices: which adapters have some that kernels can use, and on which they are the usual way to multiply.

/// Cooperative matrices, and what kernels with them use besides.
pub(super) const COOPERATIVE_MATRIX: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
        .union(wgpu::Features::SHADER_F16)
        .union(wgpu::Features::SUBGROUP);

/// What opens an adapter that refused the experimental features of `descriptor`.
pub(super) fn without_experiments(
    mut descriptor: wgpu::DeviceDescriptor<'static>,
) -> wgpu::DeviceDescriptor<'static> {
    descriptor.required_features.remove(wgpu::Features::all_experimental_mask());
    descriptor.experimental_features = wgpu::ExperimentalFeatures::disabled();
    descriptor
}

/// The side of the largest square cooperative matrices with f16 factors and f32 sums.
pub(super) fn cooperative_matrix(adapter: &wgpu::Adapter) -> Option<u32> {
    if !adapter.features().contains(COOPERATIVE_MATRIX) {
        return None;
    }
    // Mesa's software driver (26.1) lists them for all widths of its vectors, but refuses a device that asks for them at
    // 128 bits, where wgpu 30 panics, and crashes at 512. Its subgroups are vectors of f32.
    let info = adapter.get_info();
    if info.device_type == wgpu::DeviceType::Cpu && info.subgroup_max_size != 8 {
        return None;
    }
    largest_square(&adapter.cooperative_matrix_properties())
}

/// The side of the largest square matrices with f16 factors and f32 sums in a driver's list.
fn largest_square(listed: &[wgpu::CooperativeMatrixProperties]) -> Option<u32> {
    let square = |side: u32| {
        listed.iter().any(|p| {
            [p.m_size, p.n_size, p.k_size] == [side; 3]
                && p.ab_type == wgpu::CooperativeScalarType::F16
                && p.cr_type == wgpu::CooperativeScalarType::F32
        })
    };
    [16, 8].into_iter().find(|side| square(*side))
}

/// PCI's numbers of vendors.
const AMD: u32 = 0x1002;
const NVIDIA: u32 = 0x10de;

/// Whether it is one of Apple's own chips. Metal tells no vendor, but all their names begin so, and its other adapters are
/// the graphics cards of older Macs.
fn is_apple(info: &wgpu::AdapterInfo) -> bool {
    info.backend == wgpu::Backend::Metal && info.name.starts_with("Apple")
}

/// The smallest and the largest number of lanes in a subgroup. wgpu says 4 to 64 of any Metal device, as it cannot ask;
/// SIMD groups of Apple's chips have 32 lanes.
pub(super) fn subgroup_sizes(info: &wgpu::AdapterInfo) -> (u32, u32) {
    match is_apple(info) {
        true => (32, 32),
        false => (info.subgroup_min_size, info.subgroup_max_size),
    }
}

/// Whether an adapter whose largest cooperative matrices have this side has units for them, so that products in f16 are
/// faster than in f32: NVIDIA's chips from Turing on, AMD's from RDNA3 on, Apple's from the M1's family on. Older ones list
/// no matrices.
pub(super) fn has_f16_units(info: &wgpu::AdapterInfo, side: Option<u32>) -> bool {
    match (info.backend, info.device_type, info.vendor, side) {
        // A processor gains nothing from f16.
        (_, wgpu::DeviceType::Cpu, ..) => false,
        (wgpu::Backend::Vulkan, _, AMD | NVIDIA, Some(16)) => true,
        (wgpu::Backend::Metal, _, _, Some(8)) => is_apple(info),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(
        backend: wgpu::Backend,
        vendor: u32,
        kind: wgpu::DeviceType,
        name: &str,
    ) -> wgpu::AdapterInfo {
        wgpu::AdapterInfo { vendor, name: name.into(), ..wgpu::AdapterInfo::new(kind, backend) }
    }

    #[test]
    fn products_in_f16_are_usual_where_there_are_units_for_them() {
        use wgpu::Backend::{Dx12, Metal, Vulkan};
        use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu};
        const INTEL: u32 = 0x8086;
        const APPLE: u32 = 0x106b;
        const MESA: u32 = 0x10005;
        let name = |backend, vendor| match (backend, vendor) {
            (Metal, APPLE) => "Apple M3 Max",
            (Metal, _) => "AMD Radeon Pro 5500M",
            _ => "Any",
        };
        for (backend, vendor, kind, side, usual) in [
            (Vulkan, NVIDIA, DiscreteGpu, Some(16), true),
            // Pascal has no matrices, and RDNA2 none.
            (Vulkan, NVIDIA, DiscreteGpu, None, false),
            (Vulkan, AMD, DiscreteGpu, Some(16), true),
            (Vulkan, AMD, IntegratedGpu, Some(16), true),
            (Vulkan, AMD, DiscreteGpu, None, false),
            (Metal, APPLE, IntegratedGpu, Some(8), true),
            (Metal, APPLE, IntegratedGpu, None, false),
            // wgpu takes older Macs' graphics cards for chips with matrices.
            (Metal, AMD, DiscreteGpu, Some(8), false),
            // Intel's are not square; what another driver may list nobody has looked at.
            (Vulkan, INTEL, DiscreteGpu, None, false),
            (Vulkan, INTEL, DiscreteGpu, Some(16), false),
            (Vulkan, APPLE, IntegratedGpu, Some(8), false),
            (Vulkan, NVIDIA, DiscreteGpu, Some(8), false),
            (Dx12, NVIDIA, DiscreteGpu, Some(16), false),
            // Software drivers, whatever they call themselves.
            (Vulkan, MESA, Cpu, Some(8), false),
            (Vulkan, AMD, Cpu, Some(16), false),
        ] {
            let info = info(backend, vendor, kind, name(backend, vendor));
            assert_eq!(has_f16_units(&info, side), usual, "{info:?}, {side:?}");
        }
    }

    #[test]
    fn a_device_without_experiments_keeps_the_rest() {
        let all = COOPERATIVE_MATRIX | wgpu::Features::TIMESTAMP_QUERY;
        let asked = wgpu::DeviceDescriptor { required_features: all, ..Default::default() };
        let plain = without_experiments(asked);
        let kept = all - wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        assert_eq!(plain.required_features, kept);
        assert!(!plain.experimental_features.is_enabled());
    }

    #[test]
    fn simd_groups_of_apple_have_32_lanes() {
        use wgpu::{Backend::Metal, Backend::Vulkan, DeviceType::IntegratedGpu};
        for (backend, name, sizes) in [
            (Metal, "Apple M1", (32, 32)),
            (Metal, "Intel(R) Iris(TM) Plus Graphics", (4, 64)),
            (Vulkan, "Apple M1 (G13G B1)", (8, 16)),
        ] {
            let mut info = info(backend, 0, IntegratedGpu, name);
            (info.subgroup_min_size, info.subgroup_max_size) =
                if backend == Metal { (4, 64) } else { (8, 16) };
            assert_eq!(subgroup_sizes(&info), sizes, "{name}");
        }
    }

    #[test]
    fn only_square_matrices_of_f16_with_sums_of_f32_are_taken() {
        use wgpu::CooperativeScalarType::{F16, F32};
        let shape = |[m_size, n_size, k_size]: [u32; 3], ab_type, cr_type| {
            wgpu::CooperativeMatrixProperties {
                m_size,
                n_size,
                k_size,
                ab_type,
                cr_type,
                saturating_accumulation: false,
            }
        };
        // As Intel's driver lists them, for Windows and for Linux.
        assert_eq!(largest_square(&[shape([8, 8, 16], F16, F32)]), None);
        assert_eq!(largest_square(&[shape([8, 16, 16], F16, F32)]), None);
        assert_eq!(largest_square(&[shape([16, 16, 16], F16, F16)]), None);
        let both = [shape([8; 3], F16, F32), shape([16; 3], F16, F32)];
        assert_eq!(largest_square(&both), Some(16));
        assert_eq!(largest_square(&both[..1]), Some(8));
    }
}
