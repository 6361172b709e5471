//! Whether a chip has an instruction for dot products of four signed bytes. Without one, WGSL's `dot4I8Packed` is written as shifts and
//! multiplications, which is slower than products in f32.

/// On native adapters Vulkan says whether such products are accelerated. DX12 has the instruction from shader model 6.4 on, but wgpu
/// does not tell which one there is, and Metal has none: there, and with GL, the answer is no.
#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(super) fn has_int8_dot(adapter: &wgpu::Adapter) -> bool {
    use ash::vk;
    // SAFETY: wgpu's adapter is asked for two handles, and outlives their use here; nothing is destroyed.
    let Some(adapter) = (unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }) else {
        return false;
    };
    let instance = adapter.shared_instance();
    let physical_device = adapter.raw_physical_device();
    let (api_version, instance) = (instance.instance_api_version(), instance.raw_instance());
    // SAFETY: the physical device is one of this instance.
    let device = unsafe { instance.get_physical_device_properties(physical_device) };
    // Drivers of chips with such instructions have 1.3, where products of bytes are no extension any more.
    if api_version.min(device.api_version) < vk::API_VERSION_1_3 {
        return false;
    }
    let mut products = vk::PhysicalDeviceShaderIntegerDotProductProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut products);
    // SAFETY: as above; both structures live until the call returns, and a device with Vulkan 1.3 knows the second.
    unsafe { instance.get_physical_device_properties2(physical_device, &mut properties) };
    products.integer_dot_product4x8_bit_packed_signed_accelerated == vk::TRUE
}

/// As above: elsewhere there is no Vulkan, and pages ask by [`of_page`].
#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(super) fn has_int8_dot(_: &wgpu::Adapter) -> bool {
    false
}

/// Vendors whose chips of the last ten years nearly all have the instruction. Apple's have none, and software has none.
#[cfg(target_arch = "wasm32")]
const VENDORS: [&str; 3] = ["amd", "intel", "nvidia"];

/// Whether a page's device is a chip with the instruction, and its browser's language has the function. A browser does not tell
/// whether it is emulated, so who made the chip has to do.
#[cfg(target_arch = "wasm32")]
pub(super) fn of_page(device: &wgpu::Device) -> bool {
    let wanted = wgpu::WgslLanguageFeatures::Packed4x8IntegerDotProduct;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let is_known = |device: &wgpu::webgpu::GpuDevice| {
        let info = device.adapter_info();
        VENDORS.contains(&info.vendor().as_str()) && !info.is_fallback_adapter()
    };
    instance.wgsl_language_features().contains(wanted) && device.as_webgpu().is_some_and(is_known)
}

#[cfg(not(target_arch = "wasm32"))]
pub(super) fn of_page(_: &wgpu::Device) -> bool {
    false
}
