//! Compiles kernels with the Vulkan driver at hand and asks it what it made of them
//! (`VK_KHR_pipeline_executable_properties`). Nothing is run, so the GPU need not be there.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr::null_mut;

use ash::vk;

use crate::Result;
use crate::spirv::Module;

/// What a driver says about a kernel.
#[derive(Default)]
pub struct Compiled {
    /// Lanes of a subgroup.
    pub subgroup: u32,
    /// By the driver's own names.
    pub statistics: BTreeMap<String, f64>,
    /// Texts that the compiler gives, by its own names.
    pub texts: Vec<(String, String)>,
}

/// An open device. It is never closed: the program ends with it, and shims do not survive that.
pub struct Driver {
    device: ash::Device,
    executables: ash::khr::pipeline_executable_properties::Device,
    pub name: String,
    pub version: String,
}

/// The extensions that kernels need, where a device has them.
const WANTED: [&CStr; 3] = [
    ash::khr::pipeline_executable_properties::NAME,
    ash::khr::cooperative_matrix::NAME,
    ash::ext::robustness2::NAME,
];

/// What a device can do, as far as kernels have to do with it.
#[derive(Default)]
struct Features {
    core: vk::PhysicalDeviceFeatures,
    v11: vk::PhysicalDeviceVulkan11Features<'static>,
    v12: vk::PhysicalDeviceVulkan12Features<'static>,
    v13: vk::PhysicalDeviceVulkan13Features<'static>,
    statistics: vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR<'static>,
    matrices: vk::PhysicalDeviceCooperativeMatrixFeaturesKHR<'static>,
    robustness: vk::PhysicalDeviceRobustness2FeaturesEXT<'static>,
}

impl Features {
    /// All of them as Vulkan's list, without those of extensions that are not among `names`.
    fn chain(&mut self, names: &[&CStr]) -> vk::PhysicalDeviceFeatures2<'_> {
        self.v11.p_next = null_mut();
        self.v12.p_next = null_mut();
        self.v13.p_next = null_mut();
        self.statistics.p_next = null_mut();
        self.matrices.p_next = null_mut();
        self.robustness.p_next = null_mut();
        let mut chain = vk::PhysicalDeviceFeatures2::default()
            .features(self.core)
            .push_next(&mut self.v11)
            .push_next(&mut self.v12)
            .push_next(&mut self.v13)
            .push_next(&mut self.statistics);
        if names.contains(&ash::khr::cooperative_matrix::NAME) {
            chain = chain.push_next(&mut self.matrices);
        }
        if names.contains(&ash::ext::robustness2::NAME) {
            chain = chain.push_next(&mut self.robustness);
        }
        chain
    }

    /// Switches off what wgpu does.
    fn leave_out(&mut self, robust: bool) {
        if !robust {
            self.core.robust_buffer_access = vk::FALSE;
            self.robustness.robust_buffer_access2 = vk::FALSE;
        }
        self.robustness.null_descriptor = vk::FALSE;
        self.matrices.cooperative_matrix_robust_buffer_access = vk::FALSE;
    }
}

impl Driver {
    /// Opens the first device. With `robust`, accesses to buffers are checked by the hardware, as wgpu has it on Vulkan.
    pub fn open(robust: bool) -> Result<Driver> {
        // SAFETY: the loader is the system's or the driver's own; all structures below live until the calls return.
        unsafe {
            let entry = ash::Entry::load()?;
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let description = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&description, None)?;
            let devices = instance.enumerate_physical_devices()?;
            let physical = *devices.first().ok_or("the driver has no device")?;
            let has = instance.enumerate_device_extension_properties(physical)?;
            let has: Vec<&CStr> =
                has.iter().filter_map(|e| e.extension_name_as_c_str().ok()).collect();
            let names: Vec<&CStr> = WANTED.into_iter().filter(|name| has.contains(name)).collect();
            if !names.contains(&WANTED[0]) {
                return Err("the driver has no VK_KHR_pipeline_executable_properties".into());
            }
            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            let mut about = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
            instance.get_physical_device_properties2(physical, &mut about);
            let name = text(&about.properties.device_name);
            let version = text(&driver.driver_info);

            let mut features = Features::default();
            let mut asked = features.chain(&names);
            instance.get_physical_device_features2(physical, &mut asked);
            features.core = asked.features;
            features.leave_out(robust);
            let families = instance.get_physical_device_queue_family_properties(physical);
            let family = families
                .iter()
                .position(|family| family.queue_flags.contains(vk::QueueFlags::COMPUTE))
                .ok_or("the device has no queue that computes")?;
            let queue = [vk::DeviceQueueCreateInfo::default()
                .queue_family_index(family as u32)
                .queue_priorities(&[1.0])];
            let pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
            let mut description = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queue)
                .enabled_extension_names(&pointers);
            let mut chain = features.chain(&names);
            description.p_next = std::ptr::from_mut(&mut chain).cast();
            let device = instance.create_device(physical, &description, None)?;
            let executables =
                ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
            Ok(Driver { device, executables, name, version })
        }
    }

    /// Compiles a kernel as wgpu does: the subgroup's size is the driver's choice, params are a dynamic uniform buffer.
    pub fn compile(&self, words: &[u32]) -> Result<Compiled> {
        let module = Module::read(words)?;
        let entry = CString::new(module.entry.as_str())?;
        // SAFETY: the SPIR-V is naga's, the layout is read from it; all structures live until the calls return.
        unsafe {
            let description = vk::ShaderModuleCreateInfo::default().code(words);
            let shader = self.device.create_shader_module(&description, None)?;
            let bindings: Vec<_> = (module.bindings.iter())
                .map(|binding| {
                    vk::DescriptorSetLayoutBinding::default()
                        .binding(binding.number)
                        .descriptor_count(1)
                        .stage_flags(vk::ShaderStageFlags::COMPUTE)
                        .descriptor_type(match binding.uniform {
                            true => vk::DescriptorType::UNIFORM_BUFFER_DYNAMIC,
                            false => vk::DescriptorType::STORAGE_BUFFER,
                        })
                })
                .collect();
            let description = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let set = [self.device.create_descriptor_set_layout(&description, None)?];
            let description = vk::PipelineLayoutCreateInfo::default().set_layouts(&set);
            let layout = self.device.create_pipeline_layout(&description, None)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(shader)
                .name(&entry);
            let description = [vk::ComputePipelineCreateInfo::default()
                .flags(
                    vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                        | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR,
                )
                .stage(stage)
                .layout(layout)];
            let made =
                self.device.create_compute_pipelines(vk::PipelineCache::null(), &description, None);
            let pipeline = made.map_err(|(_, error)| error)?[0];
            let compiled = self.about(pipeline);
            self.device.destroy_pipeline(pipeline, None);
            self.device.destroy_pipeline_layout(layout, None);
            self.device.destroy_descriptor_set_layout(set[0], None);
            self.device.destroy_shader_module(shader, None);
            compiled
        }
    }

    /// Of several executables, which are the same code for several subgroup sizes, the last: the largest.
    ///
    /// # Safety
    /// `pipeline` is alive.
    unsafe fn about(&self, pipeline: vk::Pipeline) -> Result<Compiled> {
        let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
        // SAFETY: the caller's, and structures live until the calls return.
        unsafe {
            let found = self.executables.get_pipeline_executable_properties(&info)?;
            let last = found.len().checked_sub(1).ok_or("the driver shows no executable")?;
            let info = vk::PipelineExecutableInfoKHR::default()
                .pipeline(pipeline)
                .executable_index(last as u32);
            let statistics = self.executables.get_pipeline_executable_statistics(&info)?;
            let statistics = statistics
                .iter()
                .map(|statistic| {
                    let value = statistic.value;
                    type Format = vk::PipelineExecutableStatisticFormatKHR;
                    let value = match statistic.format {
                        Format::BOOL32 => f64::from(value.b32),
                        Format::INT64 => value.i64 as f64,
                        Format::FLOAT64 => value.f64,
                        _ => value.u64 as f64,
                    };
                    (text(&statistic.name), value)
                })
                .collect();
            Ok(Compiled {
                subgroup: found[last].subgroup_size,
                statistics,
                texts: self.texts(&info)?,
            })
        }
    }

    /// # Safety
    /// The pipeline of `info` is alive.
    unsafe fn texts(
        &self,
        info: &vk::PipelineExecutableInfoKHR<'_>,
    ) -> Result<Vec<(String, String)>> {
        let ask = self.executables.fp().get_pipeline_executable_internal_representations_khr;
        // SAFETY: first the number, then the sizes, then the bytes, into memory of that size.
        unsafe {
            let device = self.device.handle();
            let mut n = 0;
            ask(device, info, &mut n, std::ptr::null_mut()).result()?;
            let mut all =
                vec![vk::PipelineExecutableInternalRepresentationKHR::default(); n as usize];
            ask(device, info, &mut n, all.as_mut_ptr()).result()?;
            let mut bytes: Vec<Vec<u8>> = all.iter().map(|one| vec![0; one.data_size]).collect();
            for (one, bytes) in all.iter_mut().zip(&mut bytes) {
                one.p_data = bytes.as_mut_ptr().cast();
            }
            ask(device, info, &mut n, all.as_mut_ptr()).result()?;
            let name_and_text = all.iter().zip(&bytes).map(|(one, bytes)| {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                (text(&one.name), String::from_utf8_lossy(&bytes[..end]).into_owned())
            });
            Ok(name_and_text.collect())
        }
    }
}

/// A string of Vulkan's, which ends with a zero or with the array.
fn text(characters: &[c_char]) -> String {
    let bytes: Vec<u8> =
        characters.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
