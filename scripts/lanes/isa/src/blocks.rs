//! The hottest block of a kernel, read from its disassembly.
//!
//! A block is what stands between two labels or branches. The hottest one is that with the most products. A *product* is a
//! multiplication and an addition for one lane: a fused multiply-add is one, a packed one of two 16-bit numbers two, a dot
//! product of four bytes four, and a matrix instruction all products of its matrices by the lanes of the subgroup that share
//! them (16 x 16 x 16 in a subgroup of 64: 64). Instructions count one each, whatever they are and however wide.

use serde::{Deserialize, Serialize};

use crate::stats::Vendor;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Block {
    pub products: f64,
    pub instructions: u32,
    /// Matrix instructions among them.
    pub matrices: u32,
    /// Reads of workgroup memory among them.
    pub reads: u32,
}

impl Block {
    /// Products an instruction.
    pub fn density(&self) -> f64 {
        self.products / f64::from(self.instructions.max(1))
    }
}

/// The block with the most products in a disassembly, the last of several; empty if there are no products.
pub fn hottest(code: &str, vendor: Vendor, subgroup: u32) -> Block {
    let mut best = Block::default();
    let mut block = Block::default();
    let mut end = |block: &mut Block| {
        let ended = std::mem::take(block);
        if ended.products > 0.0 && ended.products >= best.products {
            best = ended;
        }
    };
    for line in code.lines() {
        match Line::of(line, vendor) {
            // Intel's messages are described in a line of their own.
            Line::Other => block.reads += u32::from(line.contains("slm MsgDesc: ( load")),
            Line::Label => end(&mut block),
            Line::Instruction { operation, text, times } => {
                let products = products(operation, text, vendor);
                let of_lane = products.of_lane + products.of_subgroup / f64::from(subgroup.max(1));
                block.instructions += times;
                block.products += f64::from(times) * of_lane;
                block.matrices += u32::from(products.of_subgroup > 0.0);
                block.reads += u32::from(reads_workgroup_memory(operation, vendor));
                if is_branch(operation, vendor) {
                    end(&mut block);
                }
            }
        }
    }
    end(&mut block);
    best
}

enum Line<'l> {
    Label,
    Instruction {
        operation: &'l str,
        text: &'l str,
        /// How often it is done: Adreno's have a number of repetitions.
        times: u32,
    },
    Other,
}

impl<'l> Line<'l> {
    fn of(line: &'l str, vendor: Vendor) -> Line<'l> {
        let comment = match vendor {
            Vendor::Amd => ";",
            _ => "//",
        };
        let text = line.split(comment).next().unwrap_or("").trim();
        let first = text.split_whitespace().next().unwrap_or("");
        let label = match vendor {
            Vendor::Amd | Vendor::Adreno => first.ends_with(':'),
            Vendor::Nvidia | Vendor::Apple => first.starts_with("block") || first.starts_with('}'),
            Vendor::Intel => first.starts_with("LABEL") || matches!(first, "START" | "END"),
        };
        if label {
            return Line::Label;
        }
        let mut times = 1;
        let mut code = text;
        match vendor {
            // `r0 = ffma r1 r2 r3`, `@p0 bra L1`
            Vendor::Nvidia | Vendor::Apple => {
                code = code.split_once(" = ").map_or(code, |(_, code)| code).trim();
                if code.starts_with('@') {
                    code = code.split_once(' ').map_or("", |(_, code)| code).trim();
                }
            }
            // `(+f0.0) while(16) ...`, `(sy)(rpt3)mad.f32 ...`
            Vendor::Intel | Vendor::Adreno => {
                while let Some((flag, rest)) =
                    code.strip_prefix('(').and_then(|code| code.split_once(')'))
                {
                    times = flag.strip_prefix("rpt").map_or(times, |n| 1 + n.parse().unwrap_or(0));
                    code = rest.trim();
                }
            }
            Vendor::Amd => {}
        }
        let operation = code.split([' ', '\t', '(']).next().unwrap_or("");
        if !operation.starts_with(|c: char| c.is_ascii_lowercase()) || text.contains("MsgDesc:") {
            return Line::Other;
        }
        Line::Instruction { operation, text, times }
    }
}

/// The products of an instruction.
#[derive(Default)]
struct Products {
    of_lane: f64,
    /// Of matrices, which a subgroup shares.
    of_subgroup: f64,
}

fn products(operation: &str, text: &str, vendor: Vendor) -> Products {
    let starts = |names: &[&str]| names.iter().any(|name| operation.starts_with(name));
    let lane = |of_lane: f64| Products { of_lane, ..Products::default() };
    let subgroup = |of_subgroup: f64| Products { of_subgroup, ..Products::default() };
    match vendor {
        // Two operations in one instruction.
        Vendor::Amd if starts(&["v_dual_"]) => {
            let fused = ["v_dual_fmac", "v_dual_fmaak", "v_dual_fmamk"];
            lane(fused.iter().map(|name| text.matches(name).count() as f64).sum())
        }
        Vendor::Amd if starts(&["v_wmma_"]) => subgroup(shape(operation, '_')),
        Vendor::Amd if starts(&["v_pk_fma", "v_dot2"]) => lane(2.0),
        Vendor::Amd if starts(&["v_dot4"]) => lane(4.0),
        Vendor::Amd if starts(&["v_fma_", "v_fmac_", "v_fmaak_", "v_fmamk_", "v_mad_f"]) => {
            lane(1.0)
        }
        Vendor::Nvidia if starts(&["hmma", "imma"]) => subgroup(shape(operation, '.')),
        Vendor::Nvidia if starts(&["hfma2"]) => lane(2.0),
        Vendor::Nvidia if starts(&["idp4"]) => lane(4.0),
        Vendor::Nvidia | Vendor::Apple if starts(&["ffma", "hfma"]) => lane(1.0),
        Vendor::Intel if starts(&["dp4a"]) => lane(4.0),
        Vendor::Intel if starts(&["mad"]) => lane(1.0),
        Vendor::Adreno if starts(&["mad.f"]) => lane(1.0),
        _ => Products::default(),
    }
}

/// M x N x K of a matrix instruction's name: `v_wmma_f32_16x16x16_f16`, `hmma.m16n8k16.f32`.
fn shape(operation: &str, between: char) -> f64 {
    let sides = |part: &str| -> Option<f64> {
        let sides: Vec<&str> =
            part.split(['x', 'm', 'n', 'k']).filter(|side| !side.is_empty()).collect();
        let numbers = sides.iter().map(|side| side.parse::<f64>());
        let numbers = numbers.collect::<std::result::Result<Vec<_>, _>>().ok()?;
        (numbers.len() == 3).then(|| numbers.iter().product())
    };
    operation.split(between).find_map(sides).unwrap_or(0.0)
}

fn reads_workgroup_memory(operation: &str, vendor: Vendor) -> bool {
    match vendor {
        Vendor::Amd => operation.starts_with("ds_load") || operation.starts_with("ds_read"),
        Vendor::Nvidia => {
            operation.starts_with("ldsm")
                || operation.starts_with("ld") && operation.contains("shared")
        }
        Vendor::Intel => false,
        Vendor::Apple => operation.starts_with("local_load"),
        Vendor::Adreno => operation.starts_with("ldl"),
    }
}

fn is_branch(operation: &str, vendor: Vendor) -> bool {
    let starts = |names: &[&str]| names.iter().any(|name| operation.starts_with(name));
    match vendor {
        Vendor::Amd => starts(&["s_cbranch", "s_branch", "s_endpgm"]),
        Vendor::Nvidia => starts(&["bra", "brk", "exit"]),
        Vendor::Intel => {
            let names = ["if", "else", "endif", "while", "break", "cont", "halt", "jmpi", "goto"];
            names.contains(&operation)
        }
        Vendor::Apple => starts(&["jmp", "stop"]),
        Vendor::Adreno => starts(&["br", "jump", "end"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(products: f64, instructions: u32, matrices: u32, reads: u32) -> Block {
        Block { products, instructions, matrices, reads }
    }

    #[test]
    fn the_block_with_the_most_products_is_the_hottest() {
        let code = "BB0:\n\tv_fmac_f32_e32 v1, v2, v3 ; 1\nBB1:\n\ts_waitcnt lgkmcnt(0) ; bf89\n\tds_load_b128 v[0:3], v4 ; d8\n\tv_dual_fmac_f32 v1, v2, v3 :: v_dual_fmac_f32 v4, v5, v6 ; c8\n\ts_cbranch_scc0 BB1 ; bfa1\n\tv_mov_b32_e32 v0, v1 ; 7e\n";
        assert_eq!(hottest(code, Vendor::Amd, 64), block(2.0, 4, 0, 1));
        assert_eq!(hottest("BB0:\n\ts_endpgm ; bfb0\n", Vendor::Amd, 64), Block::default());
    }

    #[test]
    fn matrices_are_shared_by_the_lanes_of_a_subgroup() {
        let code = "BB0:\n\tv_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7] ; cc\n";
        assert_eq!(hottest(code, Vendor::Amd, 64), block(64.0, 1, 1, 0));
        assert_eq!(hottest(code, Vendor::Amd, 32), block(128.0, 1, 1, 0));
        let code = "block 0 L0 [] -> {\n r0..r4 = hmma.m16n8k16.f32 r4..r8 r8..r10 r0..r4 // delay=1\n} -> []\n";
        assert_eq!(hottest(code, Vendor::Nvidia, 32), block(64.0, 1, 1, 0));
    }

    #[test]
    fn every_vendor_has_its_own_words() {
        let nak = "block.u 0 L2 [] -> {\n      r48       = ffma.ftz r101 r72 r48 // delay=1\n@!p0              bra pT L160 // delay=1\n} -> [1]\n";
        assert_eq!(hottest(nak, Vendor::Nvidia, 32), block(1.0, 2, 0, 0));
        let gen_assembly = "LABEL0:\nsend(8) g1UD g2UD nullUD a0.2 0x0 { align1 1Q };\n      slm MsgDesc: ( load, a32, d32 ) base_offset 0 { align1 1Q $3 };\nmad(8) g97<1>F g123<8,8,1>F g4<8,8,1>F g18<1,1,1>F { align1 1Q };\n(+f0.0) while(8) JIP: LABEL0 { align1 1Q };\nmov(8) g1<1>F g2<8,8,1>F { align1 1Q };\n";
        assert_eq!(hottest(gen_assembly, Vendor::Intel, 8), block(1.0, 3, 0, 1));
        let agx = "block0 {\n   r0 = local_load r1, r2\n   r5 = ffma r0, r1, r5\n   r6 = ffma r0, r1, r6\n} -> block1\n";
        assert_eq!(hottest(agx, Vendor::Apple, 32), block(2.0, 3, 0, 1));
        let ir3 = "l19:\n(sy)(rpt3)mad.f32 r0.x, (r)r1.x, r2.x, (r)r0.x\nldl.u32 r18.y, l[r47.x], 4\nbr p0.y, #l19\n";
        assert_eq!(hottest(ir3, Vendor::Adreno, 64), block(4.0, 6, 0, 1));
    }
}
