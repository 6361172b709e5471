//! The kernels that published models run on the adapter at hand, as its compiler gets them from wgpu.
//!
//! `RALU_TEST_KERNELS=FOLDER` writes them there as SPIR-V, with a list: the lanes `kernel-isa` of `scripts/portability`
//! set up drivers of chips that are not there, which compile these files and run nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use strum::VariantArray;

use super::shaders::module_of;
use crate::common::block_on;
use ralu::checkpoint::dtype::{DType, StoredDType};
use ralu::gpu::{AdapterChoice, FeaturesPolicy, caps_of, describe, device_descriptor};
use ralu::models::builtin;
use ralu::pipeline::rehearsal::Rehearsal;
use ralu::pipeline::{RaluChoice, Request, Settings};
use ralu::sampling::Preset;
use ralu::tensor::{
    AttentionKernel, Caps, Command, Conv2dKernel, MatmulKernel, PipelineKey, Recording, Tuning,
};
use ralu::wgpu;
use ralu_testkit::naga::ShaderStage;
use ralu_testkit::naga::back::pipeline_constants::process_overrides;
use ralu_testkit::naga::back::{PipelineConstants, spv};
use ralu_testkit::naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};

/// Models, what their checkpoints are stored in, and the fastest of their presets.
const MODELS: [(&str, &str, Preset); 6] = [
    ("flux.1-dev", "BF16", Preset::X7),
    ("flux.1-dev", "Q8_0", Preset::X7),
    ("flux.1-dev", "Q4_K", Preset::X7),
    ("sd3.5-large", "BF16", Preset::X3),
    ("sd3.5-medium", "BF16", Preset::X3),
    ("sd3-medium", "F16", Preset::X3),
];

/// A pipeline and what recordings do with it.
#[derive(serde::Serialize)]
struct Kernel {
    /// The shader, its parts and its constants, in words.
    name: String,
    /// `FILE.spv` has no checks, as for wgpu's Vulkan; `FILE.checked.spv` those that a browser keeps.
    file: String,
    /// Whether it runs without tuning.
    chosen: bool,
    /// The program in which it does most, and the label of its largest dispatch there.
    place: String,
    /// Its operations there.
    operations: f64,
    /// Their part of all of the program's.
    share: f64,
    /// Its dispatches there.
    dispatches: usize,
    #[serde(skip)]
    key: PipelineKey,
}

/// The kernels of an adapter: those that run without tuning on `chosen`, and those that tuning may choose on `possible`.
fn kernels(chosen: Caps, possible: Caps) -> Vec<Kernel> {
    let mut all = Vec::new();
    for (model, dtype, preset) in MODELS {
        // The second is what runs with `--precision f32`, the third with `int8`.
        let int8 = Caps { f16: false, int8: chosen.int8_dot, ..chosen };
        for (chosen, caps) in [chosen, Caps { f16: false, ..chosen }, int8]
            .map(|caps| (true, caps))
            .into_iter()
            .chain(every_tuning().into_iter().map(|tuning| (false, Caps { tuning, ..possible })))
        {
            for recording in recordings(model, dtype, preset, caps) {
                add(&mut all, model, &recording, chosen);
            }
        }
    }
    all
}

/// Each kernel that tuning can name, alone.
fn every_tuning() -> Vec<Tuning> {
    // A new choice wants a line below. Without matrices there is no kernel that is not among these.
    let Tuning { matmul: _, attention: _, conv2d: _, without_matrices: _ } = Tuning::default();
    let matmul = MatmulKernel::VARIANTS
        .iter()
        .map(|kernel| Tuning { matmul: [Some(*kernel); 3], ..Tuning::default() });
    let attention = AttentionKernel::VARIANTS
        .iter()
        .map(|kernel| Tuning { attention: Some(*kernel), ..Tuning::default() });
    let conv2d = Conv2dKernel::VARIANTS
        .iter()
        .map(|kernel| Tuning { conv2d: Some(*kernel), ..Tuning::default() });
    matmul.chain(attention).chain(conv2d).collect()
}

/// All programs of a run at 1024 x 1024: text encoders, a step of each of RALU's three stages, jumps, decoding.
fn recordings(model: &str, dtype: &str, preset: Preset, caps: Caps) -> Vec<Recording> {
    let config = builtin::get(model).unwrap();
    let mut request = Request::new("");
    request.ralu = RaluChoice::Preset(preset);
    let settings = Settings::resolve(&request, &config).unwrap();
    let dtype = StoredDType::Known(DType::named(dtype).unwrap());
    let rehearsal = Rehearsal::stored_as(&dtype, &config, &settings, caps).unwrap();
    let Rehearsal { encoders, steps, others, .. } = rehearsal;
    encoders.into_iter().chain(steps).chain(others).collect()
}

/// Adds the pipelines of a program of `model`.
fn add(all: &mut Vec<Kernel>, model: &str, recording: &Recording, chosen: bool) {
    let flops = recording.flops().max(f64::MIN_POSITIVE);
    // Dispatches, operations, and the label of the largest dispatch with its operations.
    let mut uses = BTreeMap::<String, (usize, f64, &str, f64, &PipelineKey)>::new();
    for command in &recording.commands {
        let Command::Dispatch(dispatch) = command else { continue };
        let (n, sum, label, most, _) = uses.entry(name(&dispatch.pipeline)).or_insert((
            0,
            0.0,
            &dispatch.label,
            0.0,
            &dispatch.pipeline,
        ));
        *n += 1;
        *sum += dispatch.flops;
        if dispatch.flops > *most {
            (*label, *most) = (&dispatch.label, dispatch.flops);
        }
    }
    for (name, (dispatches, sum, label, _, key)) in uses {
        let (share, place) = (sum / flops, format!("{model} {}: {label}", recording.label));
        match all.iter_mut().find(|kernel| kernel.name == name) {
            None => all.push(Kernel {
                file: format!("{:03}-{}", all.len(), key.shader),
                name,
                chosen,
                place,
                operations: sum,
                share,
                dispatches,
                key: key.clone(),
            }),
            // Tuning chooses for an op at a time; what it does not choose for runs as it does anyway.
            Some(kernel) if kernel.chosen && !chosen => {}
            Some(kernel) => {
                kernel.chosen |= chosen;
                if sum > kernel.operations {
                    (kernel.place, kernel.operations) = (place, sum);
                    (kernel.share, kernel.dispatches) = (share, dispatches);
                }
            }
        }
    }
}

/// `matmul_tiled weight_bf16 LANES=16 ...`
fn name(key: &PipelineKey) -> String {
    let mut words = vec![key.shader.to_owned()];
    words.extend((key.entry != "main").then(|| key.entry.to_owned()));
    words.extend(key.roles.iter().map(|(_, file)| file.to_string()));
    words.extend(key.overrides.iter().map(|(constant, value)| format!("{constant}={value}")));
    words.join(" ")
}

/// As wgpu's Vulkan backend writes it on a driver with Vulkan 1.3: without checks, as ralu asks, or with those that
/// browsers keep.
fn spirv(key: &PipelineKey, checked: bool) -> Vec<u8> {
    let what = name(key);
    let (module, info) = module_of(&what, key);
    let constants: PipelineConstants =
        key.overrides.iter().map(|(name, value)| (name.to_string(), *value)).collect();
    let entry = Some((ShaderStage::Compute, key.entry));
    let (module, info) = process_overrides(&module, &info, entry, &constants)
        .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        bounds_check_policies: BoundsCheckPolicies {
            index: policy,
            buffer: policy,
            image_load: policy,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        force_loop_bounding: checked,
        emit_int_div_checks: checked,
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: key.entry.to_owned(),
    };
    let words = spv::write_vec(&module, &info, &options, Some(&pipeline))
        .unwrap_or_else(|error| panic!("{what}: SPIR-V: {error}"));
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// On a GPU that has everything: nothing that recordings name is missing from the list, every kernel becomes SPIR-V with
/// and without checks, and each is told apart from the others by its name.
#[test]
fn kernels_of_published_models_are_listed() {
    let chosen = Caps {
        max_workgroup_bytes: 64 << 10,
        max_workgroup_invocations: 1024,
        subgroup_sizes: Some((32, 64)),
        int8_dot: true,
        ..Caps::default()
    };
    let possible = Caps { cooperative_matrix: Some(16), f16: true, ..chosen };
    let all = kernels(chosen, possible);
    let has = |shader: &str, chosen: bool| {
        all.iter().any(|kernel| kernel.key.shader == shader && kernel.chosen == chosen)
    };
    let chosen = [
        "matmul_tiled",
        "matmul_int8",
        "quantise_rows",
        "attention_tiled",
        "conv2d_tiled",
        "matvec",
        "norm",
    ];
    for shader in chosen {
        assert!(has(shader, true), "{shader} runs without tuning");
    }
    for shader in [
        "matmul",
        "matmul_cooperative",
        "attention",
        "attention_matrices",
        "conv2d",
        "conv2d_matrices",
    ] {
        assert!(has(shader, false), "{shader} can be chosen");
    }
    // They are for processors.
    for shader in ["matmul_subgroup", "conv2d_subgroup", "attention_panel", "conv2d_panel"] {
        assert!(!has(shader, true) && !has(shader, false), "{shader} is for processors");
    }
    // Products of encoders, steps and decoding are most of their work.
    for program in [" t5: ", " stage3: ", " modulations: ", " decode"] {
        let found = all.iter().filter(|kernel| kernel.chosen && kernel.place.contains(program));
        let most = found.map(|kernel| kernel.share).fold(0.0, f64::max);
        assert!(most > 0.1, "the kernel that does most of {program} does {most}");
    }
    for kernel in &all {
        assert!(!spirv(&kernel.key, false).is_empty());
    }
}

/// Writes the list for the adapter that a driver pretends to be.
#[test]
fn kernels_of_this_adapter() {
    let Some(folder) = std::env::var_os("RALU_TEST_KERNELS") else { return };
    let folder = Path::new(&folder);
    // Not opened: these devices do no work, and wgpu gives some when it opens one.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        // A driver without its GPU cannot be certified for it.
        flags: wgpu::InstanceFlags::ALLOW_UNDERLYING_NONCOMPLIANT_ADAPTER,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let adapter = adapters.first().expect("the driver's one adapter");
    let report = describe(0, adapter);
    let caps = |features| {
        let choice = AdapterChoice { features, ..Default::default() };
        let descriptor = device_descriptor(adapter, &choice);
        caps_of(&report, &descriptor.required_limits, descriptor.required_features)
    };
    let possible = caps(FeaturesPolicy::Experimental);
    let possible = Caps { f16: possible.cooperative_matrix.is_some(), ..possible };
    let all = kernels(caps(FeaturesPolicy::Adapter), possible);
    fs::create_dir_all(folder).unwrap();
    for kernel in &all {
        for (extension, checked) in [("spv", false), ("checked.spv", true)] {
            let path = folder.join(format!("{}.{extension}", kernel.file));
            fs::write(path, spirv(&kernel.key, checked)).unwrap();
        }
    }
    let list = serde_json::json!({
        "adapter": report.name,
        "driver": report.driver,
        "kernels": all,
    });
    fs::write(folder.join("kernels.json"), serde_json::to_vec_pretty(&list).unwrap()).unwrap();
    println!("note: {} kernels of {} ({:?})", all.len(), report.name, possible);
}
