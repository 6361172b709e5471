//! What memory a device could still take.

use super::{AdapterKind, Counters, Gpu};

/// A heap of an adapter's own memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")),
    allow(dead_code, reason = "there is no Vulkan, and nothing else tells")
)]
struct Heap {
    bytes: u64,
    /// What this process could take of it besides what it has.
    free: u64,
}

impl Gpu {
    /// Bytes that this device could take besides what it holds: as the driver says now, or as [`Gpu::assume_memory`] has said.
    /// Other programs take and give memory all the time, so it promises nothing.
    ///
    /// `None` where nothing tells. Vulkan's drivers of graphics chips do; Metal, DX12, GL and browsers are not asked, and what
    /// an adapter that computes on the processor takes is the machine's memory, of which the host program may know.
    pub fn free_memory(&self) -> Option<u64> {
        match self.assumed_memory.get() {
            Some(bytes) => Some(bytes.saturating_sub(self.held_memory())),
            None if self.report().kind == AdapterKind::Cpu => None,
            None => self.driver_free_memory(),
        }
    }

    /// What the driver says of it, whatever that is the memory of.
    pub fn driver_free_memory(&self) -> Option<u64> {
        free_bytes(&local_heaps(&self.device), self.report().kind)
    }

    /// Says how many bytes this device can hold, those that it holds now among them, to a library that cannot find out.
    pub fn assume_memory(&self, bytes: u64) {
        self.assumed_memory.set(Some(bytes));
    }

    /// Bytes that this device holds, staging memory of uploads included.
    pub fn held_memory(&self) -> u64 {
        let Counters { bytes_alive, staging_bytes, .. } = self.counters();
        bytes_alive + staging_bytes
    }
}

/// What is free on an adapter with these heaps. A graphics card's second heap of its own memory, if it has one, is a window
/// for the host into the first.
fn free_bytes(heaps: &[Heap], kind: AdapterKind) -> Option<u64> {
    match kind {
        AdapterKind::IntegratedGpu => {
            heaps.iter().map(|heap| heap.free).reduce(u64::saturating_add)
        }
        _ => heaps.iter().max_by_key(|heap| heap.bytes).map(|heap| heap.free),
    }
}

/// The heaps of a device's own memory, where it is one of Vulkan's and its driver counts (VK_EXT_memory_budget).
#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn local_heaps(device: &wgpu::Device) -> Vec<Heap> {
    use ash::{ext, vk};
    // SAFETY: wgpu's device is asked for two handles, and outlives their use here; nothing is destroyed.
    let Some(device) = (unsafe { device.as_hal::<wgpu::hal::api::Vulkan>() }) else {
        return vec![];
    };
    // wgpu switches the extension on wherever it is offered; what asks for the figures is of Vulkan 1.1.
    let instance = device.shared_instance();
    let is_offered = device.enabled_device_extensions().contains(&ext::memory_budget::NAME);
    if !is_offered || instance.instance_api_version() < vk::API_VERSION_1_1 {
        return vec![];
    }
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
    let (instance, physical_device) = (instance.raw_instance(), device.raw_physical_device());
    // SAFETY: the physical device is one of this instance, and offers the extension that the second structure belongs to; both
    // structures live until the call returns.
    unsafe { instance.get_physical_device_memory_properties2(physical_device, &mut properties) };
    let memory = properties.memory_properties;
    let free = budget.heap_budget.iter().zip(&budget.heap_usage);
    memory
        .memory_heaps_as_slice()
        .iter()
        .zip(free)
        .filter(|(heap, _)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL))
        .map(|(heap, (budget, used))| Heap { bytes: heap.size, free: budget.saturating_sub(*used) })
        .collect()
}

/// As above: elsewhere there is no Vulkan.
#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn local_heaps(_: &wgpu::Device) -> Vec<Heap> {
    vec![]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_heap_of_a_card_counts() {
        let window = Heap { bytes: 256 << 20, free: 250 << 20 };
        let own = Heap { bytes: 8 << 30, free: 6 << 30 };
        assert_eq!(free_bytes(&[window, own], AdapterKind::DiscreteGpu), Some(own.free));
        let both = own.free + window.free;
        assert_eq!(free_bytes(&[window, own], AdapterKind::IntegratedGpu), Some(both));
        assert_eq!(free_bytes(&[], AdapterKind::DiscreteGpu), None);
        assert_eq!(free_bytes(&[], AdapterKind::IntegratedGpu), None);
    }
}
