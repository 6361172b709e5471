//! The order of tokens and their positions in mixed stages; packing of latents.

use ralu::sampling::layout::{table_crop, table_positions};
use ralu::sampling::{
    Entry, Error, Grid, TokenLayout, Transition, Upsample, low_noise, pack, pack_planes, unpack,
    unpack_planes,
};

#[test]
fn sequence_bookkeeping_on_two_by_two() {
    let grid = Grid { rows: 2, cols: 2 };
    let mixed = TokenLayout::mixed(grid, &[3]).unwrap();
    let want = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.5], [1.5, 1.0], [1.5, 1.5]];
    assert_eq!(mixed.positions(), want);
    let fine: Vec<bool> = mixed.tokens.iter().map(|t| t.fine).collect();
    assert_eq!(fine, [false, false, false, true, true, true, true]);

    let to_mixed = Transition::to_mixed(grid, &[3]).unwrap();
    let from: Vec<_> = to_mixed.entries.iter().map(|e| (e.src, e.child)).collect();
    let children = |src| [0, 1, 2, 3].map(|c| (src, Some(c)));
    assert_eq!(from[..3], [0, 1, 2].map(|i| (i, None)));
    assert_eq!(from[3..], children(3));

    let to_full = Transition::mixed_to_full(grid, &[3]).unwrap();
    let at: Vec<_> = to_full.entries.iter().map(|e| (e.full_row, e.full_col)).collect();
    #[rustfmt::skip]
    let want = [
        (0, 0), (0, 1), (1, 0), (1, 1),
        (0, 2), (0, 3), (1, 2), (1, 3),
        (2, 0), (2, 1), (3, 0), (3, 1),
        (2, 2), (2, 3), (3, 2), (3, 3),
    ];
    assert_eq!(at, want);
    let from: Vec<_> = to_full.entries.iter().map(|e| (e.src, e.child)).collect();
    assert_eq!(from[4..8], children(1));
    assert_eq!(from[12..], [3, 4, 5, 6].map(|i| (i, None)));

    #[rustfmt::skip]
    let order = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];
    assert_eq!(to_full.sort_permutation(), order);
    let raster: Vec<[f32; 2]> =
        to_full.raster().entries.iter().map(|e| [e.full_row as f32, e.full_col as f32]).collect();
    let full = TokenLayout::full(grid).unwrap();
    assert_eq!(raster, full.positions());
    assert_eq!(full.positions()[5], [1.0, 1.0]);
    assert_eq!(full.n_tokens(), 16);
}

#[test]
fn layouts_of_other_shapes() {
    let grid = Grid { rows: 3, cols: 5 };
    let low = TokenLayout::low(grid).unwrap();
    assert_eq!(low.n_tokens(), 15);
    assert_eq!(low.positions()[7], [1.0, 2.0]);
    for selected in [&[][..], &[0], &[2, 7, 14], &(0..15).collect::<Vec<_>>()] {
        let mixed = TokenLayout::mixed(grid, selected).unwrap();
        assert_eq!(mixed.n_tokens(), 15 + 3 * selected.len());
        let raster = Transition::mixed_to_full(grid, selected).unwrap().raster();
        let full = TokenLayout::full(grid).unwrap();
        let found: Vec<_> = raster.entries.iter().map(|e| (e.full_row, e.full_col)).collect();
        let want: Vec<_> = full.tokens.iter().map(|t| (t.full_row, t.full_col)).collect();
        assert_eq!(found, want, "{selected:?}");
        // Every fine token comes from the mixed token that covers it.
        for entry in &raster.entries {
            let from = mixed.tokens[entry.src as usize];
            let unit = if from.fine { 1 } else { 2 };
            assert_eq!(from.fine, entry.child.is_none());
            assert_eq!(entry.full_row / unit, from.full_row / unit);
            assert_eq!(entry.full_col / unit, from.full_col / unit);
        }
    }
    let direct = Transition::low_to_full(grid).unwrap();
    assert_eq!(direct.n_tokens(), 60);
    assert_eq!(direct.entries[13], Entry { src: 1, child: Some(3), full_row: 1, full_col: 3 });
}

#[test]
fn positions_in_units_of_the_full_grid() {
    let grid = Grid { rows: 2, cols: 2 };
    let found = TokenLayout::mixed(grid, &[3]).unwrap().positions_in_full_units();
    let want = [[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0], [2.0, 3.0], [3.0, 2.0], [3.0, 3.0]];
    assert_eq!(found, want);
    let grid = Grid { rows: 3, cols: 5 };
    for (layout, scale) in [
        (TokenLayout::low(grid).unwrap(), 2.0),
        (TokenLayout::mixed(grid, &[0, 7, 8, 14]).unwrap(), 2.0),
        (TokenLayout::full(grid).unwrap(), 1.0),
    ] {
        let scaled: Vec<[f32; 2]> =
            layout.positions().iter().map(|p| p.map(|x| scale * x)).collect();
        assert_eq!(layout.positions_in_full_units(), scaled);
    }
}

#[test]
fn positions_in_a_table() {
    // SD3's table of 192: 64 x 64 tokens have entries 64 to 127, 32 x 32 have 80 to 111.
    assert_eq!(table_crop(64, 64, 192), Ok([64.0, 64.0]));
    assert_eq!(table_crop(32, 32, 192), Ok([80.0, 80.0]));
    // Odd sides, each axis for itself, as diffusers divides.
    assert_eq!(table_crop(45, 80, 192), Ok([73.0, 56.0]));
    assert_eq!(table_crop(192, 191, 192), Ok([0.0, 0.0]));

    let grid = Grid { rows: 32, cols: 32 };
    let ends = |layout: &TokenLayout| {
        let positions = table_positions(layout, 192).unwrap();
        assert_eq!(positions.len(), layout.n_tokens());
        (positions[0], positions[positions.len() - 1])
    };
    assert_eq!(ends(&TokenLayout::low(grid).unwrap()), ([80.0; 2], [111.0; 2]));
    assert_eq!(ends(&TokenLayout::full(grid).unwrap()), ([64.0; 2], [127.0; 2]));
    assert_eq!(ends(&TokenLayout::mixed(grid, &[1023]).unwrap()), ([80.0; 2], [111.5; 2]));

    // Section 9.6's tokens in a table of 8.
    let mixed = TokenLayout::mixed(Grid { rows: 2, cols: 2 }, &[3]).unwrap();
    let want = [[3.0, 3.0], [3.0, 4.0], [4.0, 3.0], [4.0, 4.0], [4.0, 4.5], [4.5, 4.0], [4.5, 4.5]];
    assert_eq!(table_positions(&mixed, 8).unwrap(), want);
}

/// Stage 3 lies where a plain run does, and where doubling about the table's middle puts it: one
/// entry off where the coarse crop was rounded.
#[test]
fn table_positions_of_all_stages_agree() {
    for side in [20, 21, 192] {
        for rows in 1..=10 {
            for cols in [1, 2, 7, 10] {
                let label = format!("{rows} x {cols} of {side}");
                let grid = Grid { rows, cols };
                let everything: Vec<u32> = (0..grid.n_tokens() as u32).collect();
                let mixed = TokenLayout::mixed(grid, &everything).unwrap();
                let full = TokenLayout::full(grid).unwrap();
                let [top, left] = table_crop(2 * rows, 2 * cols, side).unwrap();
                let native: Vec<[f32; 2]> =
                    full.positions().iter().map(|[r, c]| [top + r, left + c]).collect();
                let found = table_positions(&full, side).unwrap();
                assert_eq!(found, native, "{label}");
                if side % 2 == 1 {
                    continue;
                }
                let middle = side as f32 / 2.0;
                let late = |n: usize| ((side - n) % 2) as f32;
                let off = [late(rows), late(cols)];
                let coarse = table_positions(&mixed, side).unwrap();
                let doubled = mixed.tokens.iter().zip(&coarse).map(|(token, p)| {
                    let at = token.full_row as usize * 2 * cols + token.full_col as usize;
                    let place = [0, 1].map(|axis| middle + 2.0 * (p[axis] - middle) + off[axis]);
                    (at, place)
                });
                for (at, place) in doubled {
                    assert_eq!(found[at], place, "{label}, token {at}");
                }
            }
        }
    }
}

#[test]
fn tables_reject_grids_that_do_not_fit() {
    assert_eq!(table_crop(5, 9, 8), Err(Error::TableSize { rows: 5, cols: 9, side: 8 }));
    assert!(table_crop(9, 5, 8).is_err());
    // The coarse grid fits, the full one does not.
    let grid = Grid { rows: 5, cols: 4 };
    assert!(table_positions(&TokenLayout::low(grid).unwrap(), 8).is_ok());
    let message = table_positions(&TokenLayout::full(grid).unwrap(), 8).unwrap_err().to_string();
    assert_eq!(
        message,
        "the picture has 10 x 8 tokens, expected at most 8 x 8, the size of the model's table of \
         positions: choose a smaller picture (a token is 16 x 16 pixels)"
    );
}

#[test]
fn layouts_reject_what_is_no_selection() {
    let grid = Grid { rows: 2, cols: 2 };
    for (selected, place, found) in [(&[1, 1][..], 1, 1), (&[2, 0], 1, 0), (&[4], 0, 4)] {
        let want = Err(Error::Selection { place, found, n_tokens: 4 });
        assert_eq!(Transition::to_mixed(grid, selected), want);
        assert_eq!(Transition::mixed_to_full(grid, selected), want);
    }
    let none = Grid { rows: 0, cols: 4 };
    assert!(TokenLayout::low(none).is_err());
    let huge = Grid { rows: usize::MAX, cols: 2 };
    assert!(TokenLayout::full(huge).is_err());
    assert_eq!(
        Grid::of_image(1000, 520).unwrap_err().to_string(),
        "the picture is 1000 x 520 pixels, expected sides that are multiples of 32 and above 0: \
         use 992 x 512 instead"
    );
    assert!(Grid::of_image(0, 32).is_err());
    assert!(Grid::of_image(usize::MAX - 31, 32).is_err());
    let grid = Grid::of_image(224, 288).unwrap();
    assert_eq!((grid.rows, grid.cols), (9, 7));
    let to_mixed = Transition::to_mixed(grid, &[3]).unwrap();
    assert!(to_mixed.gather(&[0.0; 64], Upsample::Token).is_err());
    assert!(to_mixed.sort_rows(&[0.0; 64]).is_err());
}

#[test]
fn the_two_upsampling_rules() {
    // One coarse token whose channel 0 patch is [1 2; 3 4], channel 1 [5 6; 7 8], ...
    let grid = Grid { rows: 1, cols: 1 };
    let token: Vec<f32> = (1..=64).map(|v| v as f32).collect();
    let up = Transition::low_to_full(grid).unwrap();

    let tiled = up.gather(&token, Upsample::Token).unwrap();
    assert_eq!(tiled, [&token[..]; 4].concat());
    // As latent pixels: the tile repeats.
    let latent = unpack(&tiled, 4, 4).unwrap();
    assert_eq!(latent[..8], [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);

    let latent = unpack(&up.gather(&token, Upsample::Latent).unwrap(), 4, 4).unwrap();
    #[rustfmt::skip]
    let want = [
        1.0, 1.0, 2.0, 2.0,
        1.0, 1.0, 2.0, 2.0,
        3.0, 3.0, 4.0, 4.0,
        3.0, 3.0, 4.0, 4.0,
    ];
    assert_eq!(latent[..16], want);
    assert_eq!(latent[16..20], [5.0, 5.0, 6.0, 6.0]);
}

#[test]
fn packing() {
    let (h, w) = (4, 6);
    let latent: Vec<f32> = (0..16 * h * w).map(|v| v as f32).collect();
    let tokens = pack(&latent, h, w).unwrap();
    // Token (1, 2), channel 3, patch place (1, 0) is latent pixel (3, 4).
    assert_eq!(tokens[5 * 64 + 3 * 4 + 2], (3 * h * w + 3 * w + 4) as f32);
    assert_eq!(unpack(&tokens, h, w).unwrap(), latent);
    let low = low_noise(&latent, h, w).unwrap();
    assert_eq!(low.len(), 16 * 2 * 3);
    assert_eq!(low[..6], [0.0, 2.0, 4.0, 12.0, 14.0, 16.0]);
    assert!(pack(&latent, 3, 8).is_err());
    // 384 numbers would be 12 channels of 4 x 8; of 4 x 10 they are no whole number.
    assert!(low_noise(&latent, h, w + 4).is_err());
    assert!(unpack(&[], 0, 0).is_err());
}

/// Noise that is drawn as a token's numbers at a pixel is the same tokens.
#[test]
fn planes_of_tokens_are_the_same_tokens() {
    let (h, w, channels) = (4, 6, 8);
    let tokens: Vec<f32> = (0..h * w * channels).map(|i| i as f32).collect();
    let n = h / 2 * (w / 2);
    let planes: Vec<f32> = (0..4 * channels)
        .flat_map(|channel| (0..n).map(move |token| (token * 4 * channels + channel) as f32))
        .collect();
    let latents = unpack_planes(&planes, h, w).unwrap();
    assert_eq!(pack(&latents, h, w).unwrap(), tokens);
    assert_eq!(pack_planes(&latents, h, w).unwrap(), planes);
    assert!(unpack_planes(&planes[1..], h, w).is_err());
    assert!(pack_planes(&latents, 3, w).is_err());
}
