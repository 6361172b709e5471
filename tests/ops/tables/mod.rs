//! The tables, one file per op, and what they are run with.

pub mod activation;
pub mod attention;
pub mod change;
pub mod combine;
pub mod conv2d;
pub mod euler;
pub mod fold_taps;
pub mod group_norm;
pub mod in_f16;
pub mod linear;
pub mod norm;
pub mod qk_norm_rope;
pub mod quantise_rows;
pub mod renoise;
pub mod strided_rows;
pub mod unpack;

use crate::common::{EPSILON, Lab, Tolerance, say};
use ralu::ops::Activation;
use ralu::tensor::{AttentionKernel, Caps, Conv2dKernel, MatmulKernel};

/// Hands every test of the tables to `$each`, which makes a `#[test]` of it, or an entry by name.
macro_rules! every_test {
    ($each:ident) => {
        $each! {
            linear::linear,
            linear::linear_keeps_poison_in_its_row,
            linear::int8_keeps_poison_in_its_row,
            linear::a_low_rank_change_is_added_before_the_activation,
            linear::a_low_rank_change_of_a_weight_in_blocks,
            linear::a_norm_makes_the_narrow_product,
            linear::a_quantised_weight_gets_the_whole_change,
            linear::a_split_gives_the_bits_of_two_layers,
            linear::linear_flags_weights_beyond_f16,
            conv2d::conv2d_flags_numbers_beyond_f16,
            linear::linear_falls_back,
            in_f16::what_only_products_read_is_written_in_f16,
            linear::every_f8_code_is_its_number,
            linear::every_block_is_its_numbers,
            attention::attention,
            attention::attention_masked,
            attention::attention_grouped,
            attention::attention_keeps_poison_in_its_row,
            attention::attention_flags_numbers_beyond_f16,
            attention::attention_falls_back,
            attention::attention_gives_a_row_the_same_bits_in_any_workgroup,
            attention::attention_over,
            attention::softmax_is_good_to_some_roundings,
            conv2d::conv2d,
            group_norm::group_norm,
            norm::norm,
            norm::norm_keeps_poison_in_its_row,
            activation::activation,
            activation::activation_into,
            qk_norm_rope::qk_norm_rope,
            quantise_rows::quantise_rows,
            quantise_rows::poison_stays_in_its_block,
            euler::euler,
            fold_taps::fold_taps,
            combine::combine,
            combine::combine_gives_the_bits_of_a_layer_that_adds,
            change::change,
            change::relative_change_of_zeros,
            strided_rows::every_nth_row_lies_where_its_base_has_it,
            strided_rows::ops_work_on_every_fourth_row,
            renoise::renoise,
            unpack::unpack,
        }
    };
}
pub(crate) use every_test;

/// Capabilities that tables of cases are run with.
pub struct Variant {
    pub name: &'static str,
    pub change: fn(&mut Caps),
    /// What an adapter may lack for it.
    needs: &'static str,
    offered: fn(&Caps) -> bool,
    /// The case types of the tables that it concerns; all tables, if none.
    only: &'static [&'static str],
    /// It is about how the host cuts work, with kernels that other variants run: not in browsers, where that is slow.
    natively: bool,
}

impl Variant {
    const EVERYWHERE: Variant = Variant {
        name: "",
        change: |_| {},
        needs: "",
        offered: |_| true,
        only: &[],
        natively: false,
    };

    /// One of the kernels of a matrix product, for any number of rows.
    const fn matmul(name: &'static str, change: fn(&mut Caps)) -> Variant {
        Variant { name, change, only: &["LinearCase"], ..Variant::EVERYWHERE }
    }
}

/// Kernels on matrices, where there are some.
const ON_MATRICES: Variant = Variant {
    needs: "cooperative matrices",
    offered: |caps| caps.cooperative_matrix.is_some(),
    ..Variant::EVERYWHERE
};

/// As if the adapter's subgroups had such sizes, in sides of a matrix. How kernels on matrices divide their work depends on
/// that; results must not.
fn subgroups_of(caps: &mut Caps, min: u32, max: u32) {
    let side = caps.cooperative_matrix.unwrap_or(8);
    caps.subgroup_sizes = Some((min * side, max * side));
}

fn product_on_matrices(caps: &mut Caps) {
    caps.f16 = true;
    caps.tuning.matmul = [Some(MatmulKernel::Cooperative); 3];
}

fn product_of_bytes(caps: &mut Caps) {
    caps.int8 = true;
    caps.tuning.matmul = [Some(MatmulKernel::Int8); 3];
}

fn attention_on_matrices(caps: &mut Caps) {
    caps.f16 = true;
    caps.tuning.attention = Some(AttentionKernel::Matrices);
}

fn convolution_on_matrices(caps: &mut Caps) {
    caps.f16 = true;
    caps.tuning.conv2d = Some(Conv2dKernel::Matrices);
}

const ATTENTION: &[&str] = &["AttentionCase", "RangesCase"];

pub static VARIANTS: [Variant; 24] = [
    Variant { name: "graphics kernels", change: |caps| caps.is_cpu = false, ..Variant::EVERYWHERE },
    Variant { name: "processor kernels", change: |caps| caps.is_cpu = true, ..Variant::EVERYWHERE },
    Variant::matmul("direct matmul", |caps| {
        caps.tuning.matmul = [Some(MatmulKernel::Direct); 3];
    }),
    Variant::matmul("matmul panels", |caps| {
        caps.is_cpu = true;
        caps.tuning.matmul = [Some(MatmulKernel::Panel); 3];
    }),
    Variant::matmul("matmul tiles", |caps| {
        caps.tuning.matmul = [Some(MatmulKernel::Tiled); 3];
    }),
    Variant::matmul("large matmul tiles", |caps| {
        (caps.is_cpu, caps.subgroup_sizes) = (false, None);
        caps.tuning.matmul = [Some(MatmulKernel::TiledLarge); 3];
    }),
    Variant {
        needs: "subgroups",
        offered: |caps| caps.subgroup_sizes.is_some(),
        ..Variant::matmul("subgroup matmul", |caps| {
            caps.is_cpu = true;
            caps.tuning.matmul = [Some(MatmulKernel::Subgroup); 3];
        })
    },
    Variant::matmul("matmul of bytes", product_of_bytes),
    Variant {
        natively: true,
        ..Variant::matmul("matmul of bytes with 4 KiB bindings", |caps| {
            product_of_bytes(caps);
            caps.max_binding_bytes = 4096;
        })
    },
    Variant {
        name: "matmul on matrices",
        change: product_on_matrices,
        only: &["LinearCase"],
        ..ON_MATRICES
    },
    Variant {
        name: "matmul on matrices in four parts",
        change: |caps| {
            product_on_matrices(caps);
            subgroups_of(caps, 4, 4);
        },
        only: &["LinearCase"],
        ..ON_MATRICES
    },
    Variant {
        name: "matmul on matrices in four or eight parts",
        change: |caps| {
            product_on_matrices(caps);
            subgroups_of(caps, 2, 4);
        },
        only: &["LinearCase"],
        ..ON_MATRICES
    },
    Variant {
        name: "attention on matrices",
        change: attention_on_matrices,
        only: ATTENTION,
        ..ON_MATRICES
    },
    Variant {
        name: "attention on matrices in four parts",
        change: |caps| {
            attention_on_matrices(caps);
            subgroups_of(caps, 4, 4);
        },
        only: ATTENTION,
        ..ON_MATRICES
    },
    Variant {
        name: "attention on matrices with 20 KiB bindings",
        change: |caps| {
            attention_on_matrices(caps);
            caps.max_binding_bytes = 20 << 10;
        },
        only: ATTENTION,
        ..ON_MATRICES
    },
    Variant {
        name: "attention by rows",
        change: |caps| caps.tuning.attention = Some(AttentionKernel::Rows),
        only: ATTENTION,
        ..Variant::EVERYWHERE
    },
    Variant {
        name: "attention in 16 KiB",
        change: |caps| (caps.is_cpu, caps.max_workgroup_bytes) = (false, 16 << 10),
        only: &["AttentionCase", "RangesCase"],
        ..Variant::EVERYWHERE
    },
    Variant {
        name: "direct convolution",
        change: |caps| caps.tuning.conv2d = Some(Conv2dKernel::Direct),
        only: &["ConvCase"],
        ..Variant::EVERYWHERE
    },
    Variant {
        name: "subgroup convolution",
        change: |caps| (caps.is_cpu, caps.tuning.conv2d) = (true, Some(Conv2dKernel::Subgroup)),
        only: &["ConvCase"],
        needs: "subgroups",
        offered: |caps| caps.subgroup_sizes.is_some(),
        ..Variant::EVERYWHERE
    },
    Variant {
        name: "convolution on matrices",
        change: convolution_on_matrices,
        only: &["ConvCase"],
        ..ON_MATRICES
    },
    Variant {
        name: "convolution on matrices in four parts",
        change: |caps| {
            convolution_on_matrices(caps);
            subgroups_of(caps, 4, 4);
        },
        only: &["ConvCase"],
        ..ON_MATRICES
    },
    Variant {
        name: "4 KiB bindings",
        change: |caps| (caps.is_cpu, caps.max_binding_bytes) = (false, 4096),
        natively: true,
        ..Variant::EVERYWHERE
    },
    Variant {
        name: "20 KiB bindings",
        change: |caps| (caps.is_cpu, caps.max_binding_bytes) = (true, 20 << 10),
        natively: true,
        ..Variant::EVERYWHERE
    },
    Variant {
        name: "small dispatches",
        change: |caps| (caps.is_cpu, caps.max_dispatch_flops) = (true, 1e4),
        natively: true,
        ..Variant::EVERYWHERE
    },
];

/// The variants that a table of `Case`s is run with on an adapter. Those that it cannot run are said.
pub fn variants<Case>(caps: &Caps) -> Vec<&'static Variant> {
    let table = std::any::type_name::<Case>().rsplit("::").next().unwrap_or_default();
    let concerns = |variant: &&Variant| {
        (variant.only.is_empty() || variant.only.contains(&table))
            && !(variant.natively && cfg!(target_arch = "wasm32"))
    };
    let (run, left): (Vec<_>, Vec<_>) =
        VARIANTS.iter().filter(concerns).partition(|variant| (variant.offered)(caps));
    for Variant { name, needs, .. } in left {
        say(&format!("{table} with {name}: NOT RUN, the adapter has no {needs}"));
    }
    run
}

/// Cases whose largest matrix would fall into more pieces than this are left to the other variants.
const MANY_PIECES: u64 = 100;

/// Runs `check` for every case in every variant, or for those that `RALU_TEST_CASE` names ([`Chosen`]).
pub async fn check_all<Case>(
    cases: &[Case],
    bytes_and_flops: impl Fn(&Case) -> (u64, f64),
    check: impl AsyncFn(&Lab, &str, &Case),
) where
    Case: std::fmt::Debug,
{
    let chosen = Chosen::from_environment();
    let table = std::any::type_name::<Case>().rsplit("::").next().unwrap_or_default();
    let mut lab = Lab::new().await;
    let base = lab.caps();
    let mut total = 0;
    for variant in variants::<Case>(&base) {
        lab = lab.with_caps(|caps| {
            *caps = base;
            (variant.change)(caps);
        });
        let mut ran = 0;
        for case in cases {
            let (bytes, flops) = bytes_and_flops(case);
            let caps = lab.caps();
            let name = format!("{case:?} with {}", variant.name);
            if bytes / caps.max_binding_bytes > MANY_PIECES
                || flops / caps.max_dispatch_flops > 20.0 * MANY_PIECES as f64
                || !chosen.has(&name)
            {
                continue;
            }
            check(&lab, &name, case).await;
            lab.clear();
            ran += 1;
        }
        let all = chosen.words.is_empty();
        assert!(!all || ran * 2 > cases.len(), "{}: {ran} of {} cases", variant.name, cases.len());
        if all || ran > 0 {
            say(&format!("{table} with {}: {ran} of {} cases", variant.name, cases.len()));
        }
        total += ran;
    }
    assert!(
        total > 0,
        "RALU_TEST_CASE={:?} names no case of {table}. A case is called for example `{:?} with {}`",
        chosen.words.join(","),
        cases[0],
        VARIANTS[0].name
    );
}

/// The cases that a person wants to see: `RALU_TEST_CASE="m=16,n=64,processor"` are those whose name has all of these
/// words in it. The name is a case as Debug writes it, with its variant; `=` stands for `: `. Without the variable,
/// which only `scripts/portability --matrices` sets, it is all of them.
struct Chosen {
    words: Vec<String>,
}

impl Chosen {
    fn from_environment() -> Chosen {
        // In a browser there are none.
        let text = std::env::var("RALU_TEST_CASE").unwrap_or_default();
        let words = text.split(',').map(|word| word.trim().to_owned());
        Chosen { words: words.filter(|word| !word.is_empty()).collect() }
    }

    /// Whether all words are in it, whole ones: `m=1` is not in `m: 16`.
    fn has(&self, name: &str) -> bool {
        let inner =
            |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.');
        self.words.iter().all(|word| {
            let word = word.replace('=', ": ");
            name.match_indices(word.as_str()).any(|(at, _)| {
                !inner(name[..at].chars().next_back())
                    && !inner(name[at + word.len()..].chars().next())
            })
        })
    }
}

/// Largest magnitude.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |max, v| max.max(v.abs()))
}

/// What exp adds, as a relative error. The two last additions of `shaders/lib/exp.wgsl` are a rounding each (where r is
/// small, and the driver adds 1 to r first); beyond that r has 0.25 and the polynomial's products 0.3 of a rounding,
/// where the additions have less. Its truncation is 0.05. lavapipe's largest error is 1.98 roundings.
pub const EXP: f64 = 3.0 * EPSILON;

/// `x / (1 + 2^t)`: 2^t (1.7 roundings where drivers round every product), an addition and a division (2.5 ulp, or 5
/// roundings, are allowed).
const GATED: f64 = 8.0 * EPSILON;

/// What the activation adds for arguments up to `magnitude`.
pub fn activation_tolerance(activation: Activation, magnitude: f64) -> Tolerance {
    // Where t is held at 116, x * 1.2e-35 is left.
    let held = 2e-35 * magnitude;
    // An argument u = c x that is off by n roundings moves x sigmoid(u) by n u^2 sigmoid'(u) / c, and
    // u^2 sigmoid'(u) is at most 0.44.
    let argument = |n: f64, c: f64| 0.44 / c * n * EPSILON;
    match activation {
        Activation::Identity => Tolerance::default(),
        // 1 / ln 2 and the product.
        Activation::Silu => {
            Tolerance { relative: GATED, absolute: held + argument(2.0, 1.0), scale: 0.0 }
        }
        // 1.702 / ln 2 and the product.
        Activation::QuickGelu => {
            Tolerance { relative: GATED, absolute: held + argument(2.0, 1.702), scale: 0.0 }
        }
        // Both constants, four products and a sum of equal signs. u is 1.6 x or more.
        Activation::GeluTanh => {
            Tolerance { relative: GATED, absolute: held + argument(7.0, 1.596), scale: 0.0 }
        }
        // The polynomial is good to 1.5e-7, and its terms (up to 1.45, of both signs) are rounded twice each; the
        // division is t's. From 6 on the error function is 1.
        Activation::GeluErf => Tolerance {
            relative: 4.0 * EPSILON,
            absolute: 0.5 * magnitude.min(6.0) * (1.5e-7 + 16.0 * EPSILON),
            scale: 0.0,
        },
    }
}
