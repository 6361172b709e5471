//! Rules about `shaders/`, checked without a GPU: every kernel with every part and every set of constants
//! that an op asks for goes through naga to every backend, and its parameters are those of the op.
//!
//! `RALU_TEST_TRANSLATIONS=FOLDER` keeps what naga makes of every pipeline, in a folder for each language:
//! `scripts/portability` gives it to compilers that are no part of cargo's build.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::common::recordings::every_op;
use ralu::gpu::{Dialect, LIBRARY_FILES, SHADER_FILES, ShaderError, resolve_shader};
use ralu::ops::choice;
use ralu::tensor::{Access, Command, Dispatch, PipelineKey, Storage};
use ralu_testkit::naga::back::pipeline_constants::process_overrides;
use ralu_testkit::naga::back::{PipelineConstants, glsl, hlsl, msl, spv};
use ralu_testkit::naga::proc::BoundsCheckPolicies;
use ralu_testkit::naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use ralu_testkit::naga::{
    self, AddressSpace, Module, ScalarKind, ShaderStage, StorageAccess, TypeInner,
};

/// What an `#import` may stand for, where there is a choice. The first is what a bare file is checked with.
fn roles() -> Vec<(&'static str, Vec<&'static str>)> {
    let storages = Storage::PLAIN.into_iter().chain(Storage::PACKED);
    vec![
        ("held", vec!["held_4", "held_8"]),
        ("block", vec!["block_16x8", "block_16x4", "block_32x4", "block_64x4"]),
        ("coop", vec!["coop_8", "coop_16"]),
        ("rows", vec!["rows_4", "rows_8"]),
        ("linear_output", vec!["linear_output", "linear_output_split"]),
        ("linear_scale", vec!["linear_scale", "linear_low_rank"]),
        ("linear_x", vec!["linear_x", "linear_x_f16"]),
        // Kernels import these by way of the parts above: pipelines have them all.
        ("linear_y", vec!["linear_y", "linear_y_f16"]),
        ("linear_rest", vec!["linear_rest", "linear_rest_f16"]),
        ("attention_y", vec!["attention_y", "attention_y_f16"]),
        ("norm_y", vec!["norm_y", "norm_y_f16"]),
        ("weight", storages.map(Storage::accessor).collect()),
        ("fill_numbers", vec!["fill_numbers", "fill_blocks"]),
        ("head", vec!["head_64", "head_16", "head_32", "head_128", "head_256", "head_512"]),
    ]
}

/// Whether an op gives these together: a weight in blocks has no single numbers, and is none of a convolution.
fn go_together(kernel: &str, roles: &[(&str, &str)]) -> bool {
    let packed = Storage::PACKED.map(Storage::accessor);
    let is_packed = roles.iter().any(|(_, file)| packed.contains(file));
    let has = |part| roles.contains(&("fill_numbers", part));
    let is_linear = kernel.starts_with("mat");
    if kernel == "matmul_int8" {
        let storages = Storage::PACKED.into_iter().filter(|storage| storage.code_order().is_some());
        let accessors: Vec<&str> = storages.map(Storage::accessor).collect();
        return roles.iter().any(|(_, file)| accessors.contains(file));
    }
    // A norm that makes a narrow product writes f32.
    if kernel == "norm_narrow" && roles.contains(&("norm_y", "norm_y_f16")) {
        return false;
    }
    if is_packed { is_linear && !has("fill_numbers") } else { !has("fill_blocks") }
}

/// WebGPU's default limits.
const STORAGE_BUFFERS: usize = 8;
const INVOCATIONS: u32 = 256;
const WORKGROUP_BYTES: u32 = 16 << 10;
/// What kernels on cooperative matrices may take, which browsers do not have: GPUs with matrices have that much.
const WORKGROUP_BYTES_ON_MATRICES: u32 = 32 << 10;

/// What WebGPU's core has beyond naga's: `unpack2x16float`, which takes no f16 arithmetic.
const CORE: Capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;

/// What the `enable` directives of a kernel and its parts name: optional features, asked of the adapter before the kernel is chosen.
fn enabled(kernel: &str, roles: &[(&str, &str)]) -> Vec<String> {
    let (_, text) = SHADER_FILES.iter().find(|(name, _)| *name == kernel).unwrap();
    // naga's dialect leaves out what naga does not know, browsers' refuses what only naga knows.
    let source = resolve_shader(kernel, roles, Dialect::Naga).unwrap();
    let lines = text.lines().chain(source.lines());
    let features = lines.filter_map(|line| line.strip_prefix("enable ")?.strip_suffix(';'));
    let features: BTreeSet<&str> = features.collect();
    features.into_iter().map(str::to_owned).collect()
}

/// Parses and validates with nothing beyond WebGPU's core and what the kernel enables.
fn validate(what: &str, key: (&str, &[(&str, &str)]), source: &str) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{what}: {}", error.emit_to_string(source)));
    let optional = enabled(key.0, key.1).into_iter().map(|feature| match &*feature {
        "f16" => Capabilities::SHADER_FLOAT16,
        "subgroups" => Capabilities::SUBGROUP,
        // It brings `subgroup_id` along.
        "wgpu_cooperative_matrix" => Capabilities::COOPERATIVE_MATRIX | Capabilities::SUBGROUP,
        other => panic!("{what}: no capability is known for {other:?}"),
    });
    let capabilities = optional.fold(CORE, |all, one| all | one);
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{what}: {}", error.emit_to_string(source)));
    (module, info)
}

/// Resolves and validates the kernel that a pipeline is made of.
pub(super) fn module_of(what: &str, key: &PipelineKey) -> (Module, ModuleInfo) {
    let source = resolve_shader(key.shader, &key.roles, Dialect::Naga).unwrap();
    validate(what, (key.shader, &key.roles), &source)
}

/// Every pipeline that an op asks for, once, with one dispatch that asks for it and the op's file. What an op has another
/// op do is left to that op.
fn every_pipeline() -> Vec<(&'static str, Dispatch)> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    let mut sources = BTreeMap::new();
    for (op, recording) in every_op() {
        let source = sources
            .entry(op)
            .or_insert_with(|| fs::read_to_string(format!("src/ops/{op}.rs")).unwrap());
        for command in recording.commands {
            if let Command::Dispatch(dispatch) = command
                && source.contains(&format!("{:?}", dispatch.pipeline.shader))
                && seen.insert(format!("{:?}", dispatch.pipeline))
            {
                all.push((op, dispatch));
            }
        }
    }
    all
}

fn names_in(folder: &str, extension: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder}: {error}")) {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == extension) {
            names.insert(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    names
}

#[test]
fn every_file_is_embedded() {
    for (folder, files) in [("shaders", SHADER_FILES), ("shaders/lib", LIBRARY_FILES)] {
        let embedded: BTreeSet<String> = files.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(
            names_in(folder, "wgsl"),
            embedded,
            "{folder} and its list in src/gpu/shader.rs"
        );
        for (name, text) in files {
            let path = format!("{folder}/{name}.wgsl");
            let file = fs::read_to_string(&path).unwrap();
            assert!(!file.contains("/*"), "{path} has a comment that is not left out");
            let code = file.lines().map(|line| line.split("//").next().unwrap().trim());
            assert!(code.eq(text.lines()), "{path} is not what is embedded under {name:?}");
        }
    }
}

#[test]
fn every_kernel_is_valid_with_every_part() {
    let roles = roles();
    for (kernel, text) in SHADER_FILES {
        let imports: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("#import ")).collect();
        let mut choices: Vec<Vec<(&str, &str)>> = vec![vec![]];
        for (role, files) in roles.iter().filter(|(role, _)| imports.contains(role)) {
            choices = files
                .iter()
                .flat_map(|file| {
                    choices.iter().map(|chosen| [&chosen[..], &[(*role, *file)]].concat())
                })
                .collect();
        }
        for roles in choices.into_iter().filter(|roles| go_together(kernel, roles)) {
            let what = format!("shaders/{kernel}.wgsl with {roles:?}");
            let source = resolve_shader(kernel, &roles, Dialect::Naga)
                .unwrap_or_else(|error| panic!("{error}"));
            validate(&what, (kernel, &roles), &source);
        }
    }
    // Every part that is a choice is in the table above, and the others are imported by name.
    let chosen: BTreeSet<&str> = roles.iter().flat_map(|(_, files)| files).copied().collect();
    for (part, _) in LIBRARY_FILES {
        let line = format!("#import {part}");
        let mut files = SHADER_FILES.iter().chain(LIBRARY_FILES);
        let imported = files.any(|(_, text)| text.lines().any(|l| l == line));
        assert!(imported || chosen.contains(part), "shaders/lib/{part}.wgsl is never imported");
    }
}

#[test]
fn every_pipeline_translates_to_every_backend() {
    let pipelines = every_pipeline();
    let mut modules = BTreeMap::new();
    for (number, (_, dispatch)) in pipelines.iter().enumerate() {
        let key = &dispatch.pipeline;
        let what = format!("{key:?}");
        let name = format!("{number:03}-{}.{}", key.shader, key.entry);
        let (module, info) =
            modules.entry((key.shader, key.roles.clone())).or_insert_with(|| module_of(&what, key));
        let constants: PipelineConstants =
            key.overrides.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        let entry = Some((ShaderStage::Compute, key.entry));
        let (module, info) = process_overrides(module, info, entry, &constants)
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
        translate(&what, &name, key, &module, &info);
        // Attention takes what workgroup memory there is; recordings of kernels on matrices are for GPUs that have more. That
        // its shapes fit what WebGPU guarantees is tested where there is no more (RALU_TEST_LIMITS=webgpu).
        let takes_what_there_is = key.shader.starts_with("attention_");
        let bytes = match choice::is_on_matrices(key.shader) || takes_what_there_is {
            true => WORKGROUP_BYTES_ON_MATRICES,
            false => WORKGROUP_BYTES,
        };
        check_limits(&what, key.entry, &module, bytes);
    }
    println!("{} pipelines", pipelines.len());
}

/// To every backend that has what the kernel enables: SPIR-V has subgroups from 1.3 on and HLSL from shader model 6.0,
/// f16 is in HLSL from 6.2 and in no GLSL that naga writes; cooperative matrices are not in HLSL nor GLSL at all, and in MSL from 2.3 on those of 8 x 8.
fn translate(what: &str, name: &str, key: &PipelineKey, module: &Module, info: &ModuleInfo) {
    let owned = (ShaderStage::Compute, key.entry.to_owned());
    let features = enabled(key.shader, &key.roles);
    let has = |feature: &str| features.iter().any(|own| own == feature);
    let (subgroups, f16) = (has("subgroups"), has("f16"));
    let cooperative = has("wgpu_cooperative_matrix");

    let options = spv::PipelineOptions { shader_stage: owned.0, entry_point: owned.1.clone() };
    let lang_version =
        if subgroups || cooperative { (1, 3) } else { spv::Options::default().lang_version };
    let spirv = spv::Options { lang_version, ..Default::default() };
    let words = spv::write_vec(module, info, &spirv, Some(&options))
        .unwrap_or_else(|error| panic!("{what}: SPIR-V: {error}"));
    assert!(!words.is_empty(), "{what}: no SPIR-V");
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    keep("spirv", &format!("{name}.spv"), &bytes);

    if !key.roles.contains(&("coop", "coop_16")) {
        let lang_version = if cooperative { (2, 3) } else { (2, 0) };
        let options = msl::Options { lang_version, ..Default::default() };
        let pipeline =
            msl::PipelineOptions { entry_point: Some(owned.clone()), ..Default::default() };
        let (text, written) = msl::write_string(module, info, &options, &pipeline)
            .unwrap_or_else(|error| panic!("{what}: MSL: {error}"));
        for name in &written.entry_point_names {
            assert!(name.is_ok(), "{what}: MSL: {name:?}");
        }
        keep("msl", &format!("{name}.metal"), text.as_bytes());
    }

    if !cooperative && !f16 {
        let options = glsl::Options::default();
        let pipeline = glsl::PipelineOptions {
            shader_stage: owned.0,
            entry_point: owned.1.clone(),
            multiview: None,
        };
        let mut text = String::new();
        let policies = BoundsCheckPolicies::default();
        glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies)
            .and_then(|mut writer| writer.write())
            .unwrap_or_else(|error| panic!("{what}: GLSL: {error}"));
        keep("glsl", &format!("{name}.glsl"), text.as_bytes());
    }

    let shader_models: &[_] = match (cooperative, f16, subgroups) {
        (true, ..) => &[],
        (false, true, _) => &[hlsl::ShaderModel::V6_2],
        (false, false, true) => &[hlsl::ShaderModel::V6_0],
        (false, false, false) => &[hlsl::ShaderModel::V5_1, hlsl::ShaderModel::V6_0],
    };
    for &shader_model in shader_models {
        // As wgpu writes it for the engine (`Gpu::pipeline`): how long FXC takes depends on that.
        let options = hlsl::Options {
            shader_model,
            zero_initialize_workgroup_memory: false,
            restrict_indexing: false,
            force_loop_bounding: false,
            ..Default::default()
        };
        let pipeline = hlsl::PipelineOptions { entry_point: Some(owned.clone()) };
        let mut text = String::new();
        let written = hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(module, info, None)
            .unwrap_or_else(|error| panic!("{what}: HLSL {shader_model:?}: {error}"));
        for name in &written.entry_point_names {
            assert!(name.is_ok(), "{what}: HLSL {shader_model:?}: {name:?}");
        }
        // Compilers have to be told which function to start from.
        let [Ok(entry)] = &written.entry_point_names[..] else { panic!("{what}: HLSL: one entry") };
        let model = match shader_model {
            hlsl::ShaderModel::V6_2 => "cs_6_2",
            hlsl::ShaderModel::V6_0 => "cs_6_0",
            _ => "cs_5_1",
        };
        keep(
            &format!("hlsl-{model}"),
            &format!("{name}.hlsl"),
            format!("// {entry}\n{text}").as_bytes(),
        );
    }
}

/// Writes a translation for other compilers, if somebody wants that.
fn keep(language: &str, name: &str, bytes: &[u8]) {
    let Some(folder) = std::env::var_os("RALU_TEST_TRANSLATIONS") else { return };
    let folder = Path::new(&folder).join(language);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

/// After specialisation, as constants size workgroups.
fn check_limits(what: &str, entry: &str, module: &Module, bytes: u32) {
    let entry = module.entry_points.iter().find(|e| e.name == entry).unwrap();
    let invocations: u32 = entry.workgroup_size.iter().product();
    assert!((1..=INVOCATIONS).contains(&invocations), "{what}: {invocations} invocations");
    let shared: u32 = module
        .global_variables
        .iter()
        .filter(|(_, variable)| variable.space == AddressSpace::WorkGroup)
        .map(|(_, variable)| module.types[variable.ty].inner.size(module.to_ctx()))
        .sum();
    assert!(shared <= bytes, "{what}: {shared} bytes of workgroup memory");
}

/// The buffers that an op binds are those that the kernel declares, with the same access, and all that it uses are bound.
/// Parts that kernels share may declare one that only some of them use.
#[test]
fn bindings_are_those_of_the_kernel() {
    for (op, dispatch) in every_pipeline() {
        let key = &dispatch.pipeline;
        let what = format!("src/ops/{op}.rs, {}.{}", key.shader, key.entry);
        let (module, info) = module_of(&what, key);
        let index = module.entry_points.iter().position(|e| e.name == key.entry).unwrap();
        let uses = info.get_entry_point(index);
        let (mut declared, mut used) = (BTreeSet::new(), BTreeMap::new());
        for (handle, variable) in module.global_variables.iter() {
            let Some(binding) = &variable.binding else { continue };
            assert_eq!(binding.group, 0, "{what}: only group 0 is used");
            let access = match variable.space {
                AddressSpace::Uniform => None,
                AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
                    Some(Access::ReadWrite)
                }
                _ => Some(Access::Read),
            };
            declared.insert(format!("{} {access:?}", binding.binding));
            if !uses[handle].is_empty() {
                assert!(used.insert(binding.binding, access).is_none(), "{what}: a binding twice");
            }
        }
        let bound: BTreeMap<u32, Option<Access>> = std::iter::once(None)
            .chain(dispatch.bindings.iter().map(|binding| Some(binding.access)))
            .enumerate()
            .map(|(i, access)| (i as u32, access))
            .collect();
        for (binding, access) in &used {
            assert_eq!(bound.get(binding), Some(access), "{what}: binding {binding} is used");
        }
        for (binding, access) in &bound {
            let known = declared.contains(&format!("{binding} {access:?}"));
            assert!(known, "{what}: binding {binding}, {access:?}, is bound but not declared");
        }
        assert!(dispatch.bindings.len() <= STORAGE_BUFFERS, "{what}: too many storage buffers");
        for constant in &key.overrides {
            let known = |o: &naga::Override| o.name.as_deref() == Some(constant.0);
            assert!(module.overrides.iter().any(|(_, o)| known(o)), "{what}: no {constant:?}");
        }
    }
}

/// What an adapter is asked for before it is opened is what the largest kernel needs, of those that every adapter runs.
#[test]
fn adapters_are_asked_for_what_kernels_need() {
    let source = fs::read_to_string("src/gpu/adapters.rs").unwrap();
    let asked = |name: &str| -> u32 {
        let (_, rest) = source.split_once(&format!("const {name}: u32 = ")).unwrap();
        rest.split(';').next().unwrap().parse().unwrap()
    };
    let (mut buffers, mut invocations) = (0, 0);
    for (_, dispatch) in every_pipeline() {
        let key = &dispatch.pipeline;
        // Attention with the widest heads has another kernel where workgroups are smaller.
        let is_left_out = key.roles.contains(&("block", "block_64x4"));
        if !enabled(key.shader, &key.roles).is_empty() || is_left_out {
            continue;
        }
        let what = format!("{key:?}");
        buffers = buffers.max(dispatch.bindings.len() as u32);
        let (module, info) = module_of(&what, key);
        let constants: PipelineConstants =
            key.overrides.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        let entry = Some((ShaderStage::Compute, key.entry));
        let (module, _) = process_overrides(&module, &info, entry, &constants).unwrap();
        let entry = module.entry_points.iter().find(|e| e.name == key.entry).unwrap();
        invocations = invocations.max(entry.workgroup_size.iter().product());
    }
    assert_eq!(asked("STORAGE_BUFFERS"), buffers, "storage buffers of the largest kernel");
    assert_eq!(asked("INVOCATIONS"), invocations, "invocations of the largest workgroup");
}

/// `struct Params` stands twice, in the op and in its kernel: the same names, types and offsets.
#[test]
fn params_are_those_of_the_kernel() {
    let mut checked = BTreeSet::new();
    for (op, dispatch) in every_pipeline() {
        let key = &dispatch.pipeline;
        let what = format!("src/ops/{op}.rs and shaders/{}.wgsl", key.shader);
        let (module, _) = module_of(&what, key);
        let params = module
            .global_variables
            .iter()
            .find(|(_, v)| v.space == AddressSpace::Uniform)
            .map(|(_, v)| &module.types[v.ty].inner);
        let Some(TypeInner::Struct { members, span }) = params else {
            panic!("{what}: no uniform struct");
        };
        assert_eq!(*span as usize, dispatch.params.len(), "{what}: size of Params");
        if !checked.insert(key.shader) {
            continue;
        }
        let source = fs::read_to_string(format!("src/ops/{op}.rs")).unwrap();
        let (_, body) = source.split_once("struct Params {").unwrap();
        let (body, _) = body.split_once('}').unwrap();
        let in_rust: Vec<(&str, &str, u32)> = body
            .split(',')
            .filter_map(|field| field.trim().split_once(": "))
            .enumerate()
            .map(|(i, (name, kind))| (name, kind, 4 * i as u32))
            .collect();
        let in_wgsl: Vec<(&str, &str, u32)> = members
            .iter()
            .map(|member| {
                let kind = match module.types[member.ty].inner {
                    TypeInner::Scalar(scalar) if scalar.width == 4 => match scalar.kind {
                        ScalarKind::Uint => "u32",
                        ScalarKind::Sint => "i32",
                        ScalarKind::Float => "f32",
                        other => panic!("{what}: a param of type {other:?}"),
                    },
                    ref other => panic!("{what}: a param of type {other:?}"),
                };
                (member.name.as_deref().unwrap_or(""), kind, member.offset)
            })
            .collect();
        assert_eq!(in_rust, in_wgsl, "{what}: Params");
    }
}

#[test]
fn every_kernel_belongs_to_an_op_and_every_op_has_a_reference() {
    let used: BTreeSet<&str> = every_pipeline().iter().map(|(_, d)| d.pipeline.shader).collect();
    let kernels: BTreeSet<&str> = SHADER_FILES.iter().map(|(name, _)| *name).collect();
    assert_eq!(used, kernels, "kernels that ops record (tests/common/recordings.rs), and kernels");

    let recorded: BTreeSet<String> = every_op().iter().map(|(op, _)| op.to_string()).collect();
    let mut ops = names_in("src/ops", "rs");
    // Not ops: the list of them, the choice of kernels, an operand, and what operands are kept in.
    ops.retain(|op| !["mod", "choice", "low_rank", "in_f16"].contains(&op.as_str()));
    assert_eq!(recorded, ops, "ops of tests/common/recordings.rs, and files of src/ops");
    let list = fs::read_to_string("src/ops/mod.rs").unwrap();
    for op in ops {
        let source = fs::read_to_string(format!("src/ops/{op}.rs")).unwrap();
        assert!(source.contains("\npub fn reference("), "src/ops/{op}.rs has no reference");
        assert!(list.contains(&format!("pub use super::{op}::reference as")), "{op} is not listed");
        // A large one is a folder.
        let table = format!("tests/ops/tables/{op}");
        let cases = fs::read_to_string(format!("{table}.rs"))
            .or_else(|_| fs::read_to_string(format!("{table}/mod.rs")))
            .unwrap_or_else(|error| panic!("{table}: {error}"));
        assert!(cases.contains(&format!("fn check_{op}(")), "{table} has no cases of {op}");
    }
}

/// Directives stand before all declarations, each dialect gets those that it wants, and nothing else differs. Cooperative
/// matrices are naga's alone.
#[test]
fn dialects_differ_in_directives_alone() {
    let mut with_subgroups = 0;
    for (kernel, _) in SHADER_FILES {
        let roles: Vec<_> = roles().iter().map(|(role, files)| (*role, files[0])).collect();
        let naga = resolve_shader(kernel, &roles, Dialect::Naga).unwrap();
        let left = naga.lines().find(|line| line.starts_with('#'));
        assert_eq!(left, None, "shaders/{kernel}.wgsl");
        let features = enabled(kernel, &roles);
        let has = |feature: &str| features.iter().any(|own| own == feature);
        let browser = match resolve_shader(kernel, &roles, Dialect::Browser) {
            Err(ShaderError::NotInBrowsers { directive, .. }) => {
                assert_eq!(directive, "enable wgpu_cooperative_matrix;", "shaders/{kernel}.wgsl");
                continue;
            }
            other => other.unwrap(),
        };
        assert!(!has("wgpu_cooperative_matrix"), "shaders/{kernel}.wgsl");
        for feature in &features {
            let directive = format!("enable {feature};");
            let before = browser.split_once(&directive).unwrap().0;
            let declared = before
                .lines()
                .find(|l| !l.is_empty() && !l.starts_with("//") && !l.starts_with("enable "));
            assert_eq!(declared, None, "shaders/{kernel}.wgsl: {directive} stands after it");
        }
        with_subgroups += usize::from(has("subgroups"));
        assert_eq!(browser.replace("enable subgroups;", ""), naga, "shaders/{kernel}.wgsl");
    }
    assert!(with_subgroups > 0, "no kernel uses subgroups: this tests nothing");
}

/// Roles and names that do not exist are errors that say where.
#[test]
fn unknown_names_are_errors() {
    let error = resolve_shader("no_such_kernel", &[], Dialect::Naga).unwrap_err().to_string();
    assert!(error.contains("shaders/no_such_kernel.wgsl"), "{error}");
    let error = resolve_shader("matmul", &[], Dialect::Naga).unwrap_err().to_string();
    assert!(error.contains("weight"), "{error}");
    let error = resolve_shader("matmul", &[("weight", "weight_f8")], Dialect::Naga)
        .unwrap_err()
        .to_string();
    assert!(error.contains("weight_f8"), "{error}");
}
