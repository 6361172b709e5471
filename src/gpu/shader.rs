//! Puts a kernel's text together: `shaders/*.wgsl` and the parts they import.
//!
//! `#import name` on a line of its own stands for `shaders/lib/name.wgsl`, or, if the dispatch gives a file
//! for the role `name`, for that file. Text, once each, no conditions: that is the whole language.

/// The kernels: file stem and text.
pub const SHADER_FILES: &[(&str, &str)] = &[
    ("activation", include_str!("../../shaders/activation.wgsl")),
    ("attention", include_str!("../../shaders/attention.wgsl")),
    ("attention_tiled", include_str!("../../shaders/attention_tiled.wgsl")),
    ("change", include_str!("../../shaders/change.wgsl")),
    ("combine", include_str!("../../shaders/combine.wgsl")),
    ("conv2d", include_str!("../../shaders/conv2d.wgsl")),
    ("conv2d_tiled", include_str!("../../shaders/conv2d_tiled.wgsl")),
    ("euler", include_str!("../../shaders/euler.wgsl")),
    ("group_norm", include_str!("../../shaders/group_norm.wgsl")),
    ("matmul", include_str!("../../shaders/matmul.wgsl")),
    ("matmul_panel", include_str!("../../shaders/matmul_panel.wgsl")),
    ("matvec", include_str!("../../shaders/matvec.wgsl")),
    ("norm", include_str!("../../shaders/norm.wgsl")),
    ("qk_norm_rope", include_str!("../../shaders/qk_norm_rope.wgsl")),
    ("renoise", include_str!("../../shaders/renoise.wgsl")),
    ("unpack", include_str!("../../shaders/unpack.wgsl")),
];

/// The parts: file stem and text.
pub const LIBRARY_FILES: &[(&str, &str)] = &[
    ("activation", include_str!("../../shaders/lib/activation.wgsl")),
    ("attention_interface", include_str!("../../shaders/lib/attention_interface.wgsl")),
    ("conv2d_interface", include_str!("../../shaders/lib/conv2d_interface.wgsl")),
    ("exp", include_str!("../../shaders/lib/exp.wgsl")),
    ("head_16", include_str!("../../shaders/lib/head_16.wgsl")),
    ("head_32", include_str!("../../shaders/lib/head_32.wgsl")),
    ("head_64", include_str!("../../shaders/lib/head_64.wgsl")),
    ("head_128", include_str!("../../shaders/lib/head_128.wgsl")),
    ("head_256", include_str!("../../shaders/lib/head_256.wgsl")),
    ("head_512", include_str!("../../shaders/lib/head_512.wgsl")),
    ("linear_layer", include_str!("../../shaders/lib/linear_layer.wgsl")),
    ("place", include_str!("../../shaders/lib/place.wgsl")),
    ("weight_bf16", include_str!("../../shaders/lib/weight_bf16.wgsl")),
    ("weight_f16", include_str!("../../shaders/lib/weight_f16.wgsl")),
    ("weight_f32", include_str!("../../shaders/lib/weight_f32.wgsl")),
];

/// A kernel that names something that does not exist.
#[derive(Debug, thiserror::Error)]
pub enum ShaderError {
    /// No such kernel.
    #[error("there is no shaders/{0}.wgsl")]
    NoKernel(String),
    /// No such part.
    #[error(
        "shaders/{kernel}.wgsl imports {name:?}: no role of that name was given and there is no shaders/lib/{name}.wgsl"
    )]
    NoPart {
        /// The kernel.
        kernel: String,
        /// What it imports.
        name: String,
    },
}

/// Directives that WebGPU demands of a kernel and that naga 30 refuses, although it takes what they allow.
const ONLY_IN_BROWSERS: &[&str] = &["enable subgroups;"];

/// The whole text of a kernel, with `roles` filled in, for the compiler that will read it: natively naga, in a page the
/// browser's. Lines keep their numbers up to the first import.
pub fn resolve(kernel: &str, roles: &[(&str, &str)]) -> Result<String, ShaderError> {
    let find = |files: &[(&str, &'static str)], name: &str| {
        files.iter().find(|(stem, _)| *stem == name).map(|(_, text)| *text)
    };
    let text =
        find(SHADER_FILES, kernel).ok_or_else(|| ShaderError::NoKernel(kernel.to_owned()))?;
    let mut resolved = String::with_capacity(text.len() * 2);
    for line in text.lines() {
        match line.strip_prefix("#import ") {
            Some(name) => {
                let name = name.trim();
                let file =
                    roles.iter().find(|(role, _)| *role == name).map_or(name, |(_, file)| file);
                let part = find(LIBRARY_FILES, file).ok_or_else(|| ShaderError::NoPart {
                    kernel: kernel.to_owned(),
                    name: file.to_owned(),
                })?;
                resolved.push_str(part);
            }
            None if cfg!(not(target_arch = "wasm32"))
                && ONLY_IN_BROWSERS.contains(&line.trim_end()) => {}
            None => resolved.push_str(line),
        }
        resolved.push('\n');
    }
    Ok(resolved)
}
