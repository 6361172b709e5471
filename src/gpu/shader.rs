//! Puts a kernel's text together: `shaders/*.wgsl` and the parts they import.
//!
//! `#import name` on a line of its own stands for `shaders/lib/name.wgsl`, or, if the dispatch gives a file
//! for the role `name`, for that file. Parts may import parts. Text, once each, no conditions: that is the
//! whole language. The rest is WGSL, but for directives that not every [`Dialect`] takes.

use super::shader_text::wgsl;

/// The kernels: file stem, and text without comments and indentation.
pub const SHADER_FILES: &[(&str, &str)] = &[
    ("activation", wgsl!("../../shaders/activation.wgsl")),
    ("attention", wgsl!("../../shaders/attention.wgsl")),
    ("attention_matrices", wgsl!("../../shaders/attention_matrices.wgsl")),
    ("attention_panel", wgsl!("../../shaders/attention_panel.wgsl")),
    ("attention_tiled", wgsl!("../../shaders/attention_tiled.wgsl")),
    ("change", wgsl!("../../shaders/change.wgsl")),
    ("combine", wgsl!("../../shaders/combine.wgsl")),
    ("conv2d", wgsl!("../../shaders/conv2d.wgsl")),
    ("conv2d_matrices", wgsl!("../../shaders/conv2d_matrices.wgsl")),
    ("conv2d_panel", wgsl!("../../shaders/conv2d_panel.wgsl")),
    ("conv2d_subgroup", wgsl!("../../shaders/conv2d_subgroup.wgsl")),
    ("conv2d_tiled", wgsl!("../../shaders/conv2d_tiled.wgsl")),
    ("euler", wgsl!("../../shaders/euler.wgsl")),
    ("fold_taps", wgsl!("../../shaders/fold_taps.wgsl")),
    ("group_norm", wgsl!("../../shaders/group_norm.wgsl")),
    ("matmul", wgsl!("../../shaders/matmul.wgsl")),
    ("matmul_cooperative", wgsl!("../../shaders/matmul_cooperative.wgsl")),
    ("matmul_int8", wgsl!("../../shaders/matmul_int8.wgsl")),
    ("matmul_panel", wgsl!("../../shaders/matmul_panel.wgsl")),
    ("matmul_subgroup", wgsl!("../../shaders/matmul_subgroup.wgsl")),
    ("matmul_tiled", wgsl!("../../shaders/matmul_tiled.wgsl")),
    ("matvec", wgsl!("../../shaders/matvec.wgsl")),
    ("norm", wgsl!("../../shaders/norm.wgsl")),
    ("norm_narrow", wgsl!("../../shaders/norm_narrow.wgsl")),
    ("qk_norm_rope", wgsl!("../../shaders/qk_norm_rope.wgsl")),
    ("quantise_rows", wgsl!("../../shaders/quantise_rows.wgsl")),
    ("renoise", wgsl!("../../shaders/renoise.wgsl")),
    ("unpack", wgsl!("../../shaders/unpack.wgsl")),
];

/// The parts: file stem, and text as that of kernels.
pub const LIBRARY_FILES: &[(&str, &str)] = &[
    ("activation", wgsl!("../../shaders/lib/activation.wgsl")),
    ("attention_interface", wgsl!("../../shaders/lib/attention_interface.wgsl")),
    ("attention_y", wgsl!("../../shaders/lib/attention_y.wgsl")),
    ("attention_y_f16", wgsl!("../../shaders/lib/attention_y_f16.wgsl")),
    ("block_16x4", wgsl!("../../shaders/lib/block_16x4.wgsl")),
    ("block_16x8", wgsl!("../../shaders/lib/block_16x8.wgsl")),
    ("block_32x4", wgsl!("../../shaders/lib/block_32x4.wgsl")),
    ("block_64x4", wgsl!("../../shaders/lib/block_64x4.wgsl")),
    ("conv2d_interface", wgsl!("../../shaders/lib/conv2d_interface.wgsl")),
    ("conv2d_fill", wgsl!("../../shaders/lib/conv2d_fill.wgsl")),
    ("conv2d_patch", wgsl!("../../shaders/lib/conv2d_patch.wgsl")),
    ("coop_8", wgsl!("../../shaders/lib/coop_8.wgsl")),
    ("coop_16", wgsl!("../../shaders/lib/coop_16.wgsl")),
    ("exp", wgsl!("../../shaders/lib/exp.wgsl")),
    ("f8", wgsl!("../../shaders/lib/f8.wgsl")),
    ("fill_blocks", wgsl!("../../shaders/lib/fill_blocks.wgsl")),
    ("fill_numbers", wgsl!("../../shaders/lib/fill_numbers.wgsl")),
    ("head_16", wgsl!("../../shaders/lib/head_16.wgsl")),
    ("head_32", wgsl!("../../shaders/lib/head_32.wgsl")),
    ("head_64", wgsl!("../../shaders/lib/head_64.wgsl")),
    ("head_128", wgsl!("../../shaders/lib/head_128.wgsl")),
    ("head_256", wgsl!("../../shaders/lib/head_256.wgsl")),
    ("head_512", wgsl!("../../shaders/lib/head_512.wgsl")),
    ("held_4", wgsl!("../../shaders/lib/held_4.wgsl")),
    ("held_8", wgsl!("../../shaders/lib/held_8.wgsl")),
    ("held_rows", wgsl!("../../shaders/lib/held_rows.wgsl")),
    ("iq4_levels", wgsl!("../../shaders/lib/iq4_levels.wgsl")),
    ("linear_layer", wgsl!("../../shaders/lib/linear_layer.wgsl")),
    ("linear_low_rank", wgsl!("../../shaders/lib/linear_low_rank.wgsl")),
    ("linear_output", wgsl!("../../shaders/lib/linear_output.wgsl")),
    ("linear_output_split", wgsl!("../../shaders/lib/linear_output_split.wgsl")),
    ("linear_parameters", wgsl!("../../shaders/lib/linear_parameters.wgsl")),
    ("linear_rest", wgsl!("../../shaders/lib/linear_rest.wgsl")),
    ("linear_rest_f16", wgsl!("../../shaders/lib/linear_rest_f16.wgsl")),
    ("linear_scale", wgsl!("../../shaders/lib/linear_scale.wgsl")),
    ("linear_x", wgsl!("../../shaders/lib/linear_x.wgsl")),
    ("linear_x_f16", wgsl!("../../shaders/lib/linear_x_f16.wgsl")),
    ("linear_y", wgsl!("../../shaders/lib/linear_y.wgsl")),
    ("linear_y_f16", wgsl!("../../shaders/lib/linear_y_f16.wgsl")),
    ("nf4_levels", wgsl!("../../shaders/lib/nf4_levels.wgsl")),
    ("norm_interface", wgsl!("../../shaders/lib/norm_interface.wgsl")),
    ("norm_y", wgsl!("../../shaders/lib/norm_y.wgsl")),
    ("norm_y_f16", wgsl!("../../shaders/lib/norm_y_f16.wgsl")),
    ("numbers_8x4", wgsl!("../../shaders/lib/numbers_8x4.wgsl")),
    ("packed_block", wgsl!("../../shaders/lib/packed_block.wgsl")),
    ("packed_bytes", wgsl!("../../shaders/lib/packed_bytes.wgsl")),
    ("packed_k_scales", wgsl!("../../shaders/lib/packed_k_scales.wgsl")),
    ("packed_levels", wgsl!("../../shaders/lib/packed_levels.wgsl")),
    ("packed_linear", wgsl!("../../shaders/lib/packed_linear.wgsl")),
    ("packed_load", wgsl!("../../shaders/lib/packed_load.wgsl")),
    ("pixels_16", wgsl!("../../shaders/lib/pixels_16.wgsl")),
    ("pixels_32", wgsl!("../../shaders/lib/pixels_32.wgsl")),
    ("place", wgsl!("../../shaders/lib/place.wgsl")),
    ("plain_4x4", wgsl!("../../shaders/lib/plain_4x4.wgsl")),
    ("rows_4", wgsl!("../../shaders/lib/rows_4.wgsl")),
    ("rows_8", wgsl!("../../shaders/lib/rows_8.wgsl")),
    ("weight_bf16", wgsl!("../../shaders/lib/weight_bf16.wgsl")),
    ("weight_f16", wgsl!("../../shaders/lib/weight_f16.wgsl")),
    ("weight_f8_e4m3", wgsl!("../../shaders/lib/weight_f8_e4m3.wgsl")),
    ("weight_f8_e5m2", wgsl!("../../shaders/lib/weight_f8_e5m2.wgsl")),
    ("weight_f32", wgsl!("../../shaders/lib/weight_f32.wgsl")),
    ("weight_iq4_nl", wgsl!("../../shaders/lib/weight_iq4_nl.wgsl")),
    ("weight_iq4_xs", wgsl!("../../shaders/lib/weight_iq4_xs.wgsl")),
    ("weight_nf4", wgsl!("../../shaders/lib/weight_nf4.wgsl")),
    ("weight_nf4_double", wgsl!("../../shaders/lib/weight_nf4_double.wgsl")),
    ("weight_q2_k", wgsl!("../../shaders/lib/weight_q2_k.wgsl")),
    ("weight_q3_k", wgsl!("../../shaders/lib/weight_q3_k.wgsl")),
    ("weight_q4_0", wgsl!("../../shaders/lib/weight_q4_0.wgsl")),
    ("weight_q4_1", wgsl!("../../shaders/lib/weight_q4_1.wgsl")),
    ("weight_q4_k", wgsl!("../../shaders/lib/weight_q4_k.wgsl")),
    ("weight_q5_0", wgsl!("../../shaders/lib/weight_q5_0.wgsl")),
    ("weight_q5_1", wgsl!("../../shaders/lib/weight_q5_1.wgsl")),
    ("weight_q5_k", wgsl!("../../shaders/lib/weight_q5_k.wgsl")),
    ("weight_q6_k", wgsl!("../../shaders/lib/weight_q6_k.wgsl")),
    ("weight_q8_0", wgsl!("../../shaders/lib/weight_q8_0.wgsl")),
];

/// Whose WGSL it is: compilers differ in how optional features are switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// naga's: native adapters.
    Naga,
    /// The standard's: browsers.
    Browser,
}

impl Dialect {
    /// The one that this build's adapters compile.
    pub const HERE: Dialect =
        if cfg!(target_arch = "wasm32") { Dialect::Browser } else { Dialect::Naga };
}

/// Directives that the standard demands of a kernel and that naga 30 refuses, although it takes what they allow.
const NOT_FOR_NAGA: &[&str] = &["enable subgroups;"];
/// Directives of naga's own.
const NOT_FOR_BROWSERS: &[&str] = &["enable wgpu_cooperative_matrix;"];

/// A kernel that names something that does not exist.
#[derive(Debug, thiserror::Error)]
pub enum ShaderError {
    /// No such kernel.
    #[error("there is no shaders/{0}.wgsl")]
    NoKernel(String),
    /// No such part.
    #[error(
        "shaders/{kernel}.wgsl or a part of it imports {name:?}: no role of that name was given and there is no \
         shaders/lib/{name}.wgsl"
    )]
    NoPart {
        /// The kernel.
        kernel: String,
        /// What it imports.
        name: String,
    },
    /// A feature of native adapters, in a browser.
    #[error("shaders/{kernel}.wgsl says {directive:?}, which browsers do not have")]
    NotInBrowsers {
        /// The kernel.
        kernel: String,
        /// What it enables.
        directive: String,
    },
}

/// The whole text of a kernel, with `roles` filled in, for the compiler that will read it. Lines keep their numbers up
/// to the first import.
pub fn resolve(
    kernel: &str,
    roles: &[(&str, &str)],
    dialect: Dialect,
) -> Result<String, ShaderError> {
    let text =
        find(SHADER_FILES, kernel).ok_or_else(|| ShaderError::NoKernel(kernel.to_owned()))?;
    let mut resolver = Resolver {
        kernel,
        roles,
        dialect,
        imported: Vec::new(),
        text: String::with_capacity(text.len() * 2),
    };
    resolver.push(text)?;
    Ok(resolver.text)
}

fn find(files: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    files.iter().find(|(stem, _)| *stem == name).map(|(_, text)| *text)
}

struct Resolver<'a> {
    kernel: &'a str,
    roles: &'a [(&'a str, &'a str)],
    dialect: Dialect,
    /// Files of `shaders/lib` that are in the text.
    imported: Vec<&'a str>,
    text: String,
}

impl<'a> Resolver<'a> {
    /// Appends a file, and what it imports in the place of each import.
    fn push(&mut self, file: &'static str) -> Result<(), ShaderError> {
        for line in file.lines() {
            if let Some(name) = line.strip_prefix("#import ").map(str::trim) {
                let role = self.roles.iter().find(|(role, _)| *role == name);
                self.import(role.map_or(name, |(_, file)| file))?;
            } else if self.dialect == Dialect::Naga && NOT_FOR_NAGA.contains(&line) {
                // An empty line, so that numbers in messages stay right up to the first import.
            } else if self.dialect == Dialect::Browser && NOT_FOR_BROWSERS.contains(&line) {
                return Err(ShaderError::NotInBrowsers {
                    kernel: self.kernel.to_owned(),
                    directive: line.to_owned(),
                });
            } else {
                self.text.push_str(line);
            }
            self.text.push('\n');
        }
        Ok(())
    }

    fn import(&mut self, name: &'a str) -> Result<(), ShaderError> {
        if self.imported.contains(&name) {
            return Ok(());
        }
        self.imported.push(name);
        let part = find(LIBRARY_FILES, name).ok_or_else(|| ShaderError::NoPart {
            kernel: self.kernel.to_owned(),
            name: name.to_owned(),
        })?;
        self.push(part)
    }
}
