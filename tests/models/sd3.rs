//! SD3's weights by name and shape, and its table of positions.

use ralu::checkpoint::source::{Memory, Source};
use ralu::checkpoint::weights::*;
use ralu::models::config::*;
use ralu::models::layers::{LoadContext, Loader, Precision};
use ralu::models::position_table::Interpolation;
use ralu::pipeline::check_model;
use ralu::sampling::layout::table_positions;
use ralu::sampling::{Grid, TokenLayout};
use ralu::tensor::ResidentIds;

use crate::folders::{assert_mentions, edit, fixture, safetensors, sd3, text_files};

const SD3_WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";

/// All files of `sd3-calm`.
fn sd3_calm_files() -> Memory {
    let folder = fixture("sd3-calm");
    let mut memory = text_files(&folder);
    for dir in folder.list("").unwrap() {
        for name in folder.list(&dir).unwrap().iter().filter(|name| name.ends_with("safetensors")) {
            let path = format!("{dir}/{name}");
            let blob = folder.blob(&path).unwrap();
            memory.insert(path, blob.bytes(0..blob.len()).unwrap());
        }
    }
    memory
}

/// Changes the header of a safetensors file; its numbers stay.
fn edit_header(
    memory: &mut Memory,
    path: &str,
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) {
    let blob = memory.blob(path).unwrap();
    let bytes = blob.bytes(0..blob.len()).unwrap().into_owned();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut json = serde_json::from_slice(&bytes[8..header]).unwrap();
    change(&mut json);
    let json = serde_json::to_string(&json).unwrap();
    memory.insert(path, safetensors(&json, &bytes[header..]));
}

#[test]
fn sd3_weights_are_checked_by_name_and_shape() {
    use serde_json::json;
    for name in ["sd3-a", "sd35m-b"] {
        check_model(&fixture(name)).unwrap();
    }
    check_model(&sd3_calm_files()).unwrap();

    // The last block drops the text after attention, so that it needs less of it than others.
    for (path, name) in [
        (SD3_WEIGHTS, "pos_embed.pos_embed"),
        (SD3_WEIGHTS, "pos_embed.proj.bias"),
        (SD3_WEIGHTS, "context_embedder.weight"),
        (SD3_WEIGHTS, "time_text_embed.text_embedder.linear_2.weight"),
        (SD3_WEIGHTS, "transformer_blocks.1.attn.to_add_out.weight"),
        (SD3_WEIGHTS, "transformer_blocks.1.ff_context.net.2.bias"),
        (SD3_WEIGHTS, "transformer_blocks.2.attn.add_k_proj.weight"),
        (SD3_WEIGHTS, "transformer_blocks.2.attn.add_q_proj.weight"),
        (SD3_WEIGHTS, "norm_out.linear.weight"),
        ("text_encoder_2/model.safetensors", "text_projection.weight"),
        ("text_encoder_3/model.safetensors", "shared.weight"),
    ] {
        let mut files = sd3_calm_files();
        edit_header(&mut files, path, |header| drop(header.remove(name)));
        let message = check_model(&files).expect_err(name).to_string();
        assert_mentions(&message, &[name, "missing", path.split('/').next().unwrap()]);
    }

    for (name, shape, expected) in [
        ("pos_embed.pos_embed", json!([1, 1152, 128]), "[1, 2304, 64]"),
        ("pos_embed.proj.weight", json!([64, 64]), "[64, 16, 2, 2]"),
        ("proj_out.weight", json!([128, 32]), "[64, 64]"),
        ("transformer_blocks.0.norm1.linear.weight", json!([768, 32]), "[384, 64]"),
        // Of the last block: shift and scale only.
        ("transformer_blocks.2.norm1_context.linear.weight", json!([64, 128]), "[128, 64]"),
    ] {
        let mut files = sd3_calm_files();
        edit_header(&mut files, SD3_WEIGHTS, |header| header[name]["shape"] = shape.clone());
        let message = check_model(&files).expect_err(name).to_string();
        assert_mentions(&message.replace(", ", ","), &[name, &shape.to_string()]);
        assert_mentions(&message, &[expected]);
    }

    // A configuration that promises more than the weights keep.
    for (field, value, parts) in [
        (
            "qk_norm",
            json!("rms_norm"),
            ["transformer_blocks.0.attn.norm_q.weight is missing", "norm_added_k"],
        ),
        (
            "dual_attention_layers",
            json!([1]),
            ["transformer_blocks.1.attn2.to_q.weight", "[576, 64]"],
        ),
        ("num_layers", json!(4), ["transformer_blocks.3.", "transformer_blocks.2.attn.to_add_out"]),
    ] {
        let mut files = sd3_calm_files();
        edit(&mut files, "transformer/config.json", field, Some(value));
        assert_mentions(&check_model(&files).expect_err(field).to_string(), &parts);
    }
}

/// The vector of a place in SD3's table, by the formula of RALU's specification: the table's `side` entries stand for
/// `base` units.
fn position_vector([row, col]: [f64; 2], hidden: usize, base: f64, side: usize) -> Vec<f64> {
    let quarter = hidden / 4;
    let mut vector = Vec::new();
    for x in [col, row].map(|index| index * base / side as f64) {
        let angle = |j: usize| x * 10_000f64.powf(-(j as f64) / quarter as f64);
        vector.extend((0..quarter).map(|j| angle(j).sin()));
        vector.extend((0..quarter).map(|j| angle(j).cos()));
    }
    vector
}

/// Plain runs and RALU's last stage have diffusers' `cropped_pos_embed`, number for number; what lies between two
/// entries is the formula's, or the entries' mean where they do not follow it.
#[test]
fn sd3_positions_are_diffusers_and_lie_between_its_entries() {
    let check = |source: &dyn Source, grid: Grid, expected: Interpolation| {
        let config = ModelConfig::load(source).unwrap();
        let config = sd3(&config);
        let (side, hidden) = (config.pos_embed_max_size, config.hidden());
        let weights = Weights::open(source, "transformer", stem::DIFFUSERS).unwrap();
        let manifest = Manifest::new(&weights);
        let ids = ResidentIds::default();
        let context = LoadContext::new(&ids, Precision::Auto, u64::MAX);
        let network = config.load(&Loader::new(manifest.root(), &context));
        let table = network.position_table().unwrap();
        assert_eq!(table.side(), side);
        let between = table.check(&weights).unwrap();
        assert_eq!(between, expected);

        // [1, P * P, hidden]
        let info = weights.info("pos_embed.pos_embed").unwrap();
        let all = weights.tensor_f32(info).unwrap();
        let stored = |row: usize, col: usize| &all[(row * side + col) * hidden..][..hidden];
        let full = TokenLayout::full(grid).unwrap();
        let positions = table_positions(&full, side).unwrap();
        let (rows, cols) = (2 * grid.rows, 2 * grid.cols);
        let (top, left) = ((side - rows) / 2, (side - cols) / 2);
        let cropped: Vec<f32> = (top..top + rows)
            .flat_map(|row| (left..left + cols).flat_map(move |col| stored(row, col)))
            .copied()
            .collect();
        assert!(table.rows(&weights, &positions, between).unwrap() == cropped);

        let mixed = TokenLayout::mixed(grid, &[1, 4]).unwrap();
        let positions = table_positions(&mixed, side).unwrap();
        let found = table.rows(&weights, &positions, between).unwrap();
        let base = config.sample_size as f64 / 2.0;
        let mut fractions = 0;
        for (position, found) in positions.iter().zip(found.chunks_exact(hidden)) {
            let [row, col] = position.map(f64::from);
            if row.fract() == 0.0 && col.fract() == 0.0 {
                assert_eq!(found, stored(row as usize, col as usize), "{position:?}");
                continue;
            }
            fractions += 1;
            let expected = match between {
                Interpolation::Formula => position_vector([row, col], hidden, base, side),
                Interpolation::Linear => {
                    let corners = [[row.floor(), row.ceil()], [col.floor(), col.ceil()]];
                    let [rows, cols] = corners.map(|ends| ends.map(|end| end as usize));
                    let at = |i: usize| rows.map(|r| cols.map(|c| f64::from(stored(r, c)[i])));
                    (0..hidden).map(|i| at(i).iter().flatten().sum::<f64>() / 4.0).collect()
                }
            };
            for (a, b) in found.iter().zip(expected) {
                // Numbers up to 1, rounded to f32 once (the formula) or at four additions.
                assert!((f64::from(*a) - b).abs() < 3e-7, "{position:?}: {a}, expected {b}");
            }
        }
        // Three children of each selected token.
        assert_eq!(fractions, 6);
    };
    // Grids that lie in the table's middle, and half an entry off it.
    for (rows, cols) in [(2, 4), (3, 5), (24, 24)] {
        check(&fixture("sd3-calm"), Grid { rows, cols }, Interpolation::Formula);
        check(&fixture("sd35m-b"), Grid { rows, cols }, Interpolation::Formula);
    }
    // A table for pictures of another size.
    let mut files = sd3_calm_files();
    edit(&mut files, "transformer/config.json", "sample_size", Some(64.into()));
    check(&files, Grid { rows: 3, cols: 5 }, Interpolation::Linear);
}
